"""A stack of httpx connections: the pool of a session."""

from __future__ import annotations

import logging
import ssl
import time
from collections import deque
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING

import anyio
import httpx

from face_async._transports.base import KEEPALIVE_SECONDS, Answer, Timeouts, Transport, TransportFailure, cut_short
from face_async._transports.exchange import exchange, trusted_authorities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face_async._transports.base import RequestBody

_trailing_data = attrgetter("_connection._h11_state.trailing_data")


class HttpxLanes(Transport):
    """A stack of httpx transports of one connection each, the last used on top.

    httpx's own pool walks all its connections for every request and loses places when requests are cancelled while it
    queues. A lane never queues: it is handed out and taken back in constant time, and one whose request failed or was
    cancelled is closed and forgotten in the same step. So is the one at the bottom when it has been idle for too long:
    of those that fewer calls no longer need, each call ends one. The session's throttle bounds their number.
    """

    def __init__(self) -> None:
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()  # each since when
        self._busy: dict[httpx.AsyncHTTPTransport, anyio.CancelScope] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        if self._closed:
            raise TransportFailure("the session was closed", unsent=True)
        lane = self._idle.pop()[1] if self._idle else self._open(secure=url.startswith("https:"))
        reusable = False
        with anyio.move_on_after(timeouts.whole) as scope:
            self._busy[lane] = scope
            try:
                answer = await exchange(lane, url, headers, body, timeouts.step)
                reusable = _is_clean(lane) and not self._closed
            finally:
                del self._busy[lane]
                if reusable:
                    await self._take_back(lane)
                else:
                    await _close(lane)
            return answer
        raise cut_short(closed=self._closed)

    async def aclose(self) -> None:
        self._closed = True
        for scope in self._busy.values():
            scope.cancel()  # the task that uses a lane closes it, even while it connects
        while self._idle:
            await _close(self._idle.pop()[1])

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._busy)

    async def _take_back(self, lane: httpx.AsyncHTTPTransport) -> None:
        now = time.monotonic()
        self._idle.append((now, lane))
        if len(self._idle) > 1 and self._idle[0][0] < now - KEEPALIVE_SECONDS:
            await _close(self._idle.popleft()[1])

    def _open(self, *, secure: bool) -> httpx.AsyncHTTPTransport:
        if self._tls is None:
            # Loading certificates takes milliseconds: once for all lanes, and not at all for plain http.
            self._tls = trusted_authorities() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncHTTPTransport(
            verify=self._tls,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
        )


async def _close(lane: httpx.AsyncHTTPTransport) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
        await lane.aclose()


def _is_clean(lane: httpx.AsyncHTTPTransport) -> bool:
    """Return whether a lane's connection is open, and nothing has come on it after the answer.

    httpcore would take what has come, say a second answer, for the answer to the next request. It has no public name
    for that; should the private ones change, connections are not reused, and the log says so once.
    """
    try:
        connections = lane._pool.connections  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return all(not _trailing_data(connection)[0] for connection in connections) and len(connections) == 1
    except (AttributeError, LookupError, TypeError):
        _warn_of_other_httpcore()
        return False


@cache
def _warn_of_other_httpcore() -> None:
    logging.getLogger("face_async").warning(
        "this version of httpcore does not tell whether a connection can be used again: every request opens a new one, "
        "which is slow; install a version that face_async was tested with, or use http='reqwest'"
    )
