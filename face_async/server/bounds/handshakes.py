"""TLS handshakes, within the bounds of connections: an event loop's own server tells of a connection only after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from face_async.server.bounds.connections import ConnectionPhase
from face_async.server.bounds.protocol import LINGER_SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from face_async.server.bounds.connections import Connections
    from face_async.server.bounds.protocol import BoundedProtocol

logger = logging.getLogger("face_async.server")

_PAUSE_SECONDS = 1.0  # until a connection is accepted again after it could not be


class SecureListener:
    """A listening socket whose connections count from the moment at which they are accepted.

    Args:
        listener: The socket; whoever made it closes it.
        context: What the handshakes are made with.
        connections: What the connections count among.
        new_protocol: Makes what a connection is given to after its handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        new_protocol: Callable[[], BoundedProtocol],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._context = context
        self._connections = connections
        self._new_protocol = new_protocol
        self._handshakes: dict[asyncio.Task[None], _Handshake] = {}
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Accept no more connections, and break those whose handshake is not over."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        for handshake in self._handshakes.values():
            handshake.abort()
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=1)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, (host, *_) = await loop.sock_accept(self._listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                logger.error("no connection can be accepted: %s; trying again in %g s", error, _PAUSE_SECONDS)  # noqa: TRY400 - where it happened tells nothing
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            handshake = _Handshake(accepted, host)
            task = loop.create_task(self._shake_hands(handshake))
            self._handshakes[task] = handshake
            task.add_done_callback(self._handshakes.pop)
            await asyncio.sleep(0)  # others have their turn, however many connections come

    async def _shake_hands(self, handshake: _Handshake) -> None:
        connections = self._connections
        if connections.admit(handshake):
            connections.note(handshake, ConnectionPhase.HEAD)
        else:
            connections.turn_away(handshake)  # which needs TLS as well

        def made() -> BoundedProtocol:
            protocol = self._new_protocol()
            protocol.handshake = handshake
            return protocol

        try:
            with contextlib.suppress(OSError):  # such as no TLS, none that suits both, or a client that has gone
                await asyncio.get_running_loop().connect_accepted_socket(
                    made,
                    handshake.socket,
                    ssl=self._context,
                    ssl_handshake_timeout=connections.limits.header_seconds,
                    ssl_shutdown_timeout=LINGER_SECONDS,
                )
        finally:
            connections.remove(handshake)


class _Handshake:
    """A connection whose TLS handshake is not over."""

    def __init__(self, accepted: socket.socket, address: str) -> None:
        self.socket = accepted
        self.address = address

    def abort(self) -> None:
        """Break the connection."""
        # Its transport sees the end, and closes the socket.
        with contextlib.suppress(OSError):  # the client has done so
            self.socket.shutdown(socket.SHUT_RDWR)

    def check_pace(self, now: float) -> None:
        """Do nothing: the event loop gives up a handshake that takes too long."""
