"""Any httpx transport that a user gives: proxies, tests, other back ends."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

import anyio
import httpx

from face_async._transports.answers import explain, read_answer
from face_async._transports.base import Answer, BadResponse, Timeouts, Transport, TransportFailure, cut_short
from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from face_async._transports.base import RequestBody

_url = lru_cache(maxsize=256)(httpx.URL)  # parsing one costs more than signing the request


class HttpxTransport(Transport):
    """An httpx transport that the user has opened, and closes."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
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
        request = httpx.Request(
            "POST", _url(url), headers=headers, stream=_BodyStream(body), extensions={"timeout": steps}
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


class _BodyStream(httpx.AsyncByteStream):
    """A body in the form that httpx takes."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)
