"""Any httpx transport that a user gives: proxies, tests, other back ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from face_async._transports.base import Answer, Timeouts, Transport, cut_short
from face_async._transports.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from face_async._transports.base import RequestBody


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
                return await exchange(self._inner, url, headers, body, timeouts.step)
            finally:
                self._busy.discard(scope)
        raise cut_short(closed=self._closed)

    async def aclose(self) -> None:
        """End the calls under way; the user closes the transport itself."""
        self._closed = True
        for scope in self._busy:
            scope.cancel()

    @property
    def connections(self) -> int:
        return 0
