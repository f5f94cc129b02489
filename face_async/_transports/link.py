"""A socket on asyncio: what the connections of this room have in common, whoever speaks HTTP on them."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, TypeVar, cast

from face_async._transports.names import addresses_of, first_connected, is_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from face_async._transports.names import SocketAddress

L = TypeVar("L", bound="Link")


class Link(asyncio.Protocol):
    """A connection without a word of HTTP.

    Attributes:
        is_open: Whether it is open in both directions.
        paused: Whether something written is not yet on its way.
    """

    is_open = False
    paused = False
    _transport: asyncio.Transport | None = None
    _timer: asyncio.TimerHandle | None = None
    _due = 0.0
    _poll: Callable[[float], object]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._poll = _poll(transport.get_extra_info("socket"))
        self.is_open = True
        self._stand_on(cast("asyncio.Transport", transport))

    def _stand_on(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(1, 0)

    def has_news(self) -> bool:
        """Return whether there is anything to read, or an error, at this moment, known to the event loop or not."""
        return bool(self._poll(0))

    def send(self, data: bytes | memoryview) -> None:
        """Begin to send; :attr:`paused` says whether it goes on."""
        transport = cast("asyncio.Transport", self._transport)
        transport.write(data)
        if transport.is_closing():
            self.is_open = False  # an error has come to light; asyncio says which a little later

    def abort(self) -> None:
        """Close the connection at once, without another word."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                self._transport.abort()

    def wake_by(self, due: float) -> None:
        """See to it that :meth:`on_time` is called at a moment of the monotonic clock, or before.

        A timer that is set already and rings earlier will do, so that most waits need none of their own.
        """
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_later(due - time.monotonic(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.on_time()

    def on_time(self) -> None:
        """End what has taken too long, or call :meth:`wake_by` again."""

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False


def on_asyncio() -> bool:
    """Return whether this is a task of asyncio, even if trio runs beside it in the same loop."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def connect(link: Link, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
    """Connect a link to a host: to the first of its addresses that answers.

    Raises:
        OSError: There is no connection.
        UnicodeError: The host cannot be looked up.
    """
    loop = asyncio.get_running_loop()
    if is_address(host):
        await loop.create_connection(lambda: link, host, port, ssl=tls)
    else:
        sock = await first_connected(await addresses_of(host, port), _connected, socket.socket.close)
        await loop.create_connection(lambda: link, sock=sock, ssl=tls, server_hostname=host if tls else None)


async def _connected(address: SocketAddress) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address.value)
    except BaseException:
        sock.close()
        raise
    return sock


def _poll(sock: socket.socket) -> Callable[[float], object]:
    if not hasattr(select, "poll"):  # Windows
        return lambda timeout: select.select([sock], [], [], timeout)[0]
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return poll.poll
