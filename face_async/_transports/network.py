"""The network under httpcore: on asyncio a protocol of asyncio's own, without anyio's layers around every read."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Self, TypeVar, cast

import anyio
import httpcore

from face_async._transports.base import TransportFailure
from face_async._transports.link import Link, connect
from face_async._transports.names import addresses_of, first_connected, is_address
from face_async.errors import innermost

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Iterable

    from face_async._transports.libraries import Httpcore

T = TypeVar("T")

_SMALL_BYTES = 4 * 1024
_SLICE_BYTES = 32 * 1024
_READ_AHEAD_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024
"""Read at once: as informational answers, which are the dearest, they take httpcore some 30 ms."""
_NAMES_IN_ASYNCIO = {"client_addr": "sockname", "server_addr": "peername"}


class AsyncioNetwork(httpcore.AsyncNetworkBackend):
    """Opens one connection for httpcore, or for httpcore2."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - nobody asks for one
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> SocketStream:
        await self._stream.make(connect(self._stream, host, port), timeout)
        return self._stream


class TrioNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections on trio as httpcore does, or httpcore2, but for the look-up of names."""

    def __init__(self, core: Httpcore) -> None:
        self._core = core
        # A stub where trio is missing.
        self._backend = cast("httpcore.AsyncNetworkBackend", core.TrioBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - nobody asks for one
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        if is_address(host):
            return await self._backend.connect_tcp(host, port, timeout)
        try:
            with anyio.fail_after(timeout):
                addresses = await addresses_of(host, port)
                return await first_connected(
                    addresses, lambda address: self._backend.connect_tcp(address.host, port, timeout), _close
                )
        except TimeoutError:
            kind, said = self._core.ConnectTimeout, ""
        except (OSError, UnicodeError) as error:
            kind, said = self._core.ConnectError, innermost(error)
        raise kind(said)


def _close(stream: httpcore.AsyncNetworkStream) -> None:
    stream.get_extra_info("socket").close()


class SocketStream(Link, httpcore.AsyncNetworkStream):
    """One connection; one task at a time reads or writes on it.

    As a context manager it bounds a call whose only waits are on the connection, once it is open, as
    ``anyio.move_on_after`` does: for less than a cancel scope costs, and without what one leaves to the garbage
    collector.
    """

    def __init__(self, core: Httpcore) -> None:
        self._core = core
        self._kept_back = self._unread = b""
        self._held = False
        self._error: Exception | None = None
        self._woken: asyncio.Future[bool] | None = None
        self._late_at = 0.0
        self._over_at = math.inf

    def until(self, seconds: float) -> Self:
        """Bound the next call, and return the context manager for it."""
        self._over_at = time.monotonic() + seconds
        return self

    def cancel(self) -> None:
        """End the call."""
        self._over_at = -math.inf
        self.abort()
        self._wake(late=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        is_over = isinstance(error, TransportFailure) and time.monotonic() >= self._over_at
        self._over_at = math.inf
        return is_over

    async def make(self, connecting: Awaitable[T], timeout: float | None) -> T:
        """Take a step of making the connection."""
        try:
            with anyio.fail_after(timeout):
                return await connecting
        except TimeoutError:
            kind: type[Exception] = self._core.ConnectTimeout
            said = ""
        except (OSError, UnicodeError) as error:
            kind, said = self._core.ConnectError, innermost(error)
        except BaseException:
            self.abort()
            raise
        self.abort()
        raise kind(said)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> SocketStream:
        loop = asyncio.get_running_loop()
        plain = cast("asyncio.Transport", self._transport)
        transport = await self.make(loop.start_tls(plain, self, ssl_context, server_hostname=server_hostname), timeout)
        self._stand_on(cast("asyncio.Transport", transport))
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._kept_back:
            await self._send(b"", timeout)
        if self._unread:
            await asyncio.sleep(0)  # however much has come, the event loop has its turn between two reads
            if time.monotonic() >= self._over_at:
                raise self._core.ReadTimeout
        elif self.is_open and await self._news(timeout):
            raise self._core.ReadTimeout
        if not self._unread and self._error is not None:
            raise self._core.ReadError(str(self._error))
        size = min(max_bytes, _READ_BYTES)
        data, self._unread = self._unread[:size], self._unread[size:]
        if self._held and not self._unread:
            self._held = False
            cast("asyncio.Transport", self._transport).resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._kept_back or len(buffer) > _SMALL_BYTES:
            await self._send(buffer, timeout)
        else:
            self._kept_back = buffer  # a request's head: it leaves with what follows, or before an answer is read

    async def _send(self, buffer: bytes, timeout: float | None) -> None:
        first, self._kept_back = self._kept_back + buffer[:_SLICE_BYTES], b""
        for start in range(0, max(1, len(buffer)), _SLICE_BYTES):
            # asyncio copies what a slow server does not yet take, so it is given little at once.
            self.send(memoryview(buffer)[start : start + _SLICE_BYTES] if start else first)
            while self.paused and self.is_open:
                if await self._news(timeout):
                    raise self._core.WriteTimeout
            if not self.is_open:
                break
        if not self.is_open:
            raise self._core.WriteError

    async def aclose(self) -> None:
        self.abort()

    def get_extra_info(self, info: str) -> object:
        if info == "is_readable":
            return bool(self._unread) or not self.is_open or bool(self.has_news())
        return cast("asyncio.Transport", self._transport).get_extra_info(_NAMES_IN_ASYNCIO.get(info, info))

    def _news(self, timeout: float | None) -> asyncio.Future[bool]:
        """Return a future that is done when something has happened on the connection: whether time is over."""
        self._woken = asyncio.get_running_loop().create_future()
        self._late_at = min(self._over_at, time.monotonic() + (math.inf if timeout is None else timeout))
        if self._late_at < math.inf:
            self.wake_by(self._late_at)
        return self._woken

    def on_time(self) -> None:
        if self._woken is None or self._late_at == math.inf:
            return
        if time.monotonic() >= self._late_at:
            self._wake(late=True)
        else:
            self.wake_by(self._late_at)

    def _wake(self, *, late: bool = False) -> None:
        woken, self._woken = self._woken, None
        if woken is not None and not woken.done():
            woken.set_result(late)

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        if len(self._unread) > _READ_AHEAD_BYTES:
            self._held = True
            cast("asyncio.Transport", self._transport).pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.is_open = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._error = exc
        self._wake()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wake()
