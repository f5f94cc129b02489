"""Any transport of httpx or httpx2 that a user gives: proxies, tests, other back ends."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

import anyio

from face_async._transports.answers import explain, read_answer
from face_async._transports.base import Answer, BadResponse, Timeouts, Transport, TransportFailure, cut_short
from face_async._transports.libraries import httpx_behind, httpx_named
from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from face_async._transports.base import RequestBody
    from face_async._transports.libraries import AsyncTransport, HttpxName


class HttpxTransport(Transport):
    """A transport of httpx or httpx2 that the user has opened, and closes.

    Raises:
        TypeError: It is no such transport.
    """

    def __init__(self, inner: AsyncTransport) -> None:
        self._library = httpx_behind(inner)
        self._inner = cast("httpx.AsyncBaseTransport", inner)
        self._busy: set[anyio.CancelScope] = set()
        self._closed = False

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:
        with anyio.move_on_after(timeouts.whole) as scope:
            self._busy.add(scope)
            try:
                return await self._exchange(url, headers, body, timeouts.step)
            finally:
                self._busy.discard(scope)
        raise cut_short(closed=self._closed)

    async def _exchange(self, url: str, headers: Mapping[str, str], body: RequestBody, timeout: float) -> Answer:
        steps = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        library = self._library
        request = httpx_named(library).Request(
            "POST",
            _url(library, url),
            headers=headers,
            stream=_stream_class(library)(body),  # type: ignore[call-arg]
            extensions={"timeout": steps},
        )
        try:
            response = await self._inner.handle_async_request(request)
            stream = cast("httpx.AsyncByteStream", response.stream)
            return await read_answer(response.status_code, response.headers, stream, response.aclose)
        except (FaceError, BadResponse):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a transport raises must leave as a typed error
            reason, unsent = explain(error)
        # Raised out here, so that no foreign exception, which may quote a header, hangs on it as its context.
        raise TransportFailure(reason, unsent=unsent)

    async def aclose(self) -> None:
        """End the calls under way; the user closes the transport itself."""
        self._closed = True
        for scope in self._busy:
            scope.cancel()

    @property
    def connections(self) -> int:
        return 0


@lru_cache(maxsize=256)  # parsing one costs more than signing the request
def _url(library: HttpxName, url: str) -> httpx.URL:
    return httpx_named(library).URL(url)


class _BodyStream:
    """A body in the form that both libraries take, but for the base class that each of them asks for."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)


@cache
def _stream_class(library: HttpxName) -> type[httpx.AsyncByteStream]:
    return type("Stream", (_BodyStream, httpx_named(library).AsyncByteStream), {})
