"""``http="asyncio"``: connections of our own, without an HTTP library around them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from anyio.lowlevel import cancel_shielded_checkpoint

from face_async._transports.base import Answer, Reason, Timeouts, Transport, TransportFailure
from face_async._transports.connection import Connection
from face_async._transports.idle import IdleStack
from face_async._transports.link import on_asyncio
from face_async._transports.target import target_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from face_async._transports.base import RequestBody
    from face_async._transports.target import Target

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class AsyncioPool(Transport):
    """A stack of connections over asyncio alone; the session's throttle bounds their number.

    A connection whose call failed or was cancelled is closed and forgotten in the same step.

    Args:
        tls: What decides whether a server's certificate is good; None is what does for all who name nothing else.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: IdleStack[Connection] = IdleStack()
        self._busy: set[Connection] = set()
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        if self._closed:
            raise TransportFailure(Reason.CLOSED, unsent=True)
        target = target_of(url)
        head = request_head(target.path, headers)
        connection = self._take(target)
        self._busy.add(connection)
        complete = False
        try:
            connection.start(timeouts)
            if not connection.is_open:
                await connection.open()
            answer = await connection.exchange(head, body)
            complete = True
            return answer
        finally:
            self._busy.discard(connection)
            reusable = connection.stop()
            self._put(connection, reusable=reusable and complete and not self._closed)

    async def aclose(self) -> None:
        self._closed = True
        for connection in list(self._busy):
            connection.fail(Reason.CLOSED_MEANWHILE)
        while self._idle:
            self._idle.pop()[0].abort()
        await cancel_shielded_checkpoint()  # the event loop closes the sockets

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._busy)

    def _take(self, target: Target) -> Connection:
        """Return an idle connection that is fit for use, or one that is not yet open."""
        while self._idle:
            connection, stale = self._idle.pop()
            if not stale and connection.serves(target):
                return connection
            connection.abort()
        if not on_asyncio():
            raise RuntimeError("http='asyncio' runs on asyncio only; on trio use http='httpx'")
        return Connection(target, self._idle.discard, self._tls)

    def _put(self, connection: Connection, *, reusable: bool) -> None:
        over = self._idle.push(connection) if reusable else connection
        if over is not None:
            over.abort()


def request_head(path: str, headers: Mapping[str, str]) -> bytes:
    """Return a request's line and headers, in which no value can be taken for anything but a value.

    Raises:
        TransportFailure: A header cannot be sent. Which one is not told: it may be a secret.
    """
    lines = [f"POST {path} HTTP/1.1\r\n"]
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and _is_token(name)):
            raise TransportFailure("a header of the request cannot be sent", unsent=True)
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("ascii")


@lru_cache(maxsize=64)
def _is_token(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None
