"""``http="httpx"`` or ``"httpx2"``: a stack of connections of the library's own lower half. The pool of a session."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, cast

import anyio

from face_async._transports import target
from face_async._transports.answers import explain, merged, read_answer
from face_async._transports.base import (
    KEEPALIVE_SECONDS,
    Answer,
    BadResponse,
    Reason,
    Timeouts,
    Transport,
    TransportFailure,
    cut_short,
)
from face_async._transports.given import HttpxTransport
from face_async._transports.idle import IdleStack
from face_async._transports.libraries import MODULES, httpcore_of, httpx_named
from face_async._transports.link import on_asyncio
from face_async._transports.network import AsyncioNetwork, SocketStream, TrioNetwork
from face_async.errors import FaceError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, Mapping

    import httpcore

    from face_async._transports.base import RequestBody
    from face_async._transports.libraries import Httpcore, Httpx, HttpxName

_trailing_data = attrgetter("_h11_state.trailing_data")


class HttpxLanes(Transport):
    """A stack of single connections, the last used on top.

    httpcore's own pool walks all its connections for every request and loses places when requests are cancelled while
    it queues. A lane never queues: it is handed out and taken back in constant time, and one whose request failed or
    was cancelled is closed and forgotten in the same step. The session's throttle bounds their number.

    Args:
        library: Whose connections they are.
        tls: What decides whether a server's certificate is good; None is what does for all who name nothing else.
    """

    def __init__(self, library: HttpxName, tls: ssl.SSLContext | None = None) -> None:
        self._library: HttpxName = library
        self._core = httpcore_of(library)
        self._httpx = httpx_named(library)
        self._tls = tls
        self._idle: IdleStack[_Lane] = IdleStack()
        self._busy: dict[_Lane, anyio.CancelScope | SocketStream] = {}
        self._mock: _Mock | None = None
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        if self._closed:
            raise TransportFailure(Reason.CLOSED, unsent=True)
        if _is_mocked(self._core, self._httpx):
            self._mock = self._mock or _Mock(self._httpx, self._tls or target.trusted_authorities())
            return await self._mock.send(url, headers, body, timeouts)
        where, origin = _url(self._library, url)
        lane = await self._take(origin)
        reusable = False
        with lane.until(timeouts.whole, body) as scope:
            self._busy[lane] = scope
            try:
                answer = await _exchange(lane, where, headers, body, timeouts.step)
                reusable = lane.is_clean() and not self._closed
            finally:
                del self._busy[lane]
                over = self._idle.push(lane) if reusable else lane
                if over is not None:
                    await over.aclose()
            return answer
        raise cut_short(closed=self._closed)

    async def aclose(self) -> None:
        self._closed = True
        for scope in self._busy.values():
            scope.cancel()  # whoever is busy on a lane closes it, even one that is only connecting
        while self._idle:
            await self._idle.pop()[0].aclose()
        if self._mock is not None:
            await self._mock.aclose()

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._busy)

    async def _take(self, origin: httpcore.Origin) -> _Lane:
        """Return an idle lane that is fit for use, or one that is not yet open."""
        while self._idle:
            lane = self._idle.pop()[0]
            if lane.serves(origin):
                return lane
            await lane.aclose()
        return _Lane(self._core, origin, self._tls)


class _Lane:
    """A connection of httpcore's or httpcore2's, before and after it is open; on asyncio over a stream of ours.

    Attributes:
        core: The library.
        http: The connection, None before it is open.
    """

    def __init__(self, core: Httpcore, origin: httpcore.Origin, tls: ssl.SSLContext | None) -> None:
        self.core = core
        self._origin = origin
        self._tls = tls
        self._stream = SocketStream(core) if on_asyncio() else None
        self.http: httpcore.AsyncHTTP11Connection | None = None

    async def open(self, timeout: float) -> httpcore.AsyncHTTP11Connection:
        """Connect, and return the connection."""
        stream = await self._connect(self._origin.host.decode("ascii"), timeout)
        self.http = self.core.AsyncHTTP11Connection(self._origin, stream, KEEPALIVE_SECONDS)
        return self.http

    async def _connect(self, host: str, timeout: float) -> httpcore.AsyncNetworkStream:
        if self._stream is not None:
            network: httpcore.AsyncNetworkBackend = AsyncioNetwork(self._stream)
        else:
            network = TrioNetwork(self.core)
        stream = await network.connect_tcp(host, self._origin.port, timeout)
        if self._origin.scheme != b"https":
            return stream
        return await stream.start_tls(self._tls or target.trusted_authorities(), host, timeout)

    def until(self, seconds: float, body: RequestBody) -> anyio.CancelScope | SocketStream:
        """Return what bounds a call on it: the stream by itself if nothing else has to be waited for."""
        if self._stream is not None and self._stream.is_open and body.in_memory:
            return self._stream.until(seconds)
        return anyio.move_on_after(seconds)

    def serves(self, origin: httpcore.Origin) -> bool:
        """Return whether it is open, idle and leads there."""
        http = self.http
        return http is not None and http.is_available() and not http.has_expired() and http.can_handle_request(origin)

    def is_clean(self) -> bool:
        """Return whether the connection is open, and nothing has come on it after the answer.

        httpcore would take what has come, say a second answer, for the answer to the next request. It has no public
        name for that; should the private ones change, connections are not reused, and the log says so once.
        """
        try:
            return self.http is not None and self.http.is_available() and not _trailing_data(self.http)[0]
        except (AttributeError, LookupError, TypeError):
            _warn_of_other_httpcore()
            return False

    async def aclose(self) -> None:
        """Close it, if it is open."""
        if self.http is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await self.http.aclose()


async def _exchange(
    lane: _Lane, url: httpcore.URL, headers: Mapping[str, str], body: RequestBody, timeout: float
) -> Answer:
    try:
        request = lane.core.Request("POST", url, headers=[*headers.items()], content=body, extensions=_steps(timeout))
        response = await (lane.http or await lane.open(timeout)).handle_async_request(request)
        stream = cast("AsyncIterable[bytes]", response.stream)
        return await read_answer(response.status, merged(response.headers), stream, response.aclose)
    except (FaceError, BadResponse):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises must leave as a typed error
        reason, unsent = explain(error)
    # Raised out here, so that no foreign exception, which may quote a header, hangs on it as its context.
    raise TransportFailure(reason, unsent=unsent)


@cache
def _warn_of_other_httpcore() -> None:
    logging.getLogger("face_async").warning(
        "this version of httpcore does not tell whether a connection can be used again: every request opens a new one, "
        "which is slow; install a version that face_async was tested with, or use http='asyncio'"
    )


@lru_cache(maxsize=256)
def _url(library: HttpxName, url: str) -> tuple[httpcore.URL, httpcore.Origin]:
    where = target.target_of(url)
    scheme = b"https" if where.secure else b"http"
    found = httpcore_of(library).URL(
        scheme=scheme, host=where.host.encode(), port=where.port, target=where.path.encode()
    )
    return found, found.origin


@lru_cache(maxsize=64)
def _steps(timeout: float) -> dict[str, dict[str, float]]:
    return {"timeout": {"connect": timeout, "read": timeout, "write": timeout}}


class _Mock(HttpxTransport):
    """What a session sends with while something else, such as respx, stands in the place of the library's network."""

    def __init__(self, library: Httpx, tls: ssl.SSLContext) -> None:
        limits = library.Limits(max_connections=None)
        self._pool = library.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)
        super().__init__(self._pool)

    async def aclose(self) -> None:
        await super().aclose()
        await self._pool.aclose()


def _is_mocked(core: Httpcore, httpx: Httpx) -> bool:
    entrances = (
        *(core.AsyncHTTP11Connection, core.AsyncHTTPConnection, core.AsyncConnectionPool),
        httpx.AsyncHTTPTransport,
    )
    modules = {kind.handle_async_request.__module__.partition(".")[0] for kind in entrances}
    return not modules <= MODULES
