"""The server on a socket: beside other work in the background, or as the program itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from attrs import frozen

from face_async.images.threads import Workers
from face_async.server.bounds.connections import ConnectionLimits, Connections, raise_file_limit
from face_async.server.bounds.handshakes import SecureListener
from face_async.server.bounds.protocol import BoundedConfig, BoundedProtocol
from face_async.server.faults import AnswerLostError

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable
    from types import FrameType

    from starlette.types import ASGIApp, Receive, Scope, Send

_BACKLOG = 2_048
# Longer than clients keep idle connections: uvicorn's 5 would close pooled ones that clients are about to use.
_KEEP_ALIVE_SECONDS = 75
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is compared with
_GRACE_SECONDS = 5  # for requests under way when the server is told to stop
_HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
_servers = Workers("server.background", 40)


_CERTIFICATE_REASONS: dict[object, str] = {
    "KEY_TYPE_MISMATCH": "the key belongs to another certificate",
    "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
    None: "one of them is not what it should be, as PEM",
}


@frozen
class Certificate:
    """What a server proves with, over https, that it is who it says.

    Attributes:
        chain: A PEM file of the certificate, followed by those between it and a root that clients know.
        key: A PEM file of its private key, without a passphrase.
    """

    chain: str | os.PathLike[str]
    key: str | os.PathLike[str]

    def check(self) -> None:
        """Check that the files are there, and belong together.

        Raises:
            OSError: The files cannot be used together; the message names both.
        """
        try:
            for path in (self.chain, self.key):
                Path(path).open("rb").close()  # ssl does not say which one is missing
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key, _no_passphrase)
        except (OSError, ValueError) as error:
            reason = _CERTIFICATE_REASONS.get(getattr(error, "reason", ""), error)
            raise OSError(f"the certificate {self.chain} with the key {self.key} cannot be used: {reason}") from None


@frozen
class RunningServer:
    """A server that accepts requests.

    Attributes:
        base_url: Where this machine reaches it, such as ``"http://127.0.0.1:8600"``.
        port: The port that it listens on.
    """

    base_url: str
    port: int


@contextlib.asynccontextmanager
async def serve_in_background(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: ConnectionLimits = ConnectionLimits(),
    certificate: Certificate | None = None,
) -> AsyncGenerator[RunningServer]:
    """Serve ``app`` in a thread of its own for as long as the block runs; on asyncio and trio alike.

    Args:
        app: What :func:`create_app` returned.
        host: Where to listen; loopback unless told otherwise.
        port: The port; 0 takes a free one.
        limits: What connections may take.
        certificate: What to speak https with; None for http.

    Raises:
        OSError: The address cannot be listened on, or the certificate or its key cannot be used.
    """
    with listen(host, port) as listener:
        running = describe(listener, certificate)
        started: Future[None] = Future()
        server = _Server(app, limits, lambda: started.set_result(None), certificate)
        thread = threading.Thread(target=_run, args=(server, listener, started), name="face_async server", daemon=True)
        thread.start()
        try:
            await _servers.run(started.result)
            yield running
        finally:
            server.should_exit = True
            with anyio.CancelScope(shield=True):
                await _servers.run(thread.join)


def serve(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8600,
    limits: ConnectionLimits = ConnectionLimits(),
    certificate: Certificate | None = None,
    on_ready: Callable[[str], object] | None = None,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM, then return; to be called in the main thread.

    SIGHUP, as of a terminal that is closed, counts as SIGTERM, unless it is handled or ignored.

    Requests under way are finished first, if that takes no more than five seconds; a second SIGINT does not wait for
    them.

    Args:
        app: What :func:`create_app` returned.
        host: Where to listen; loopback unless told otherwise.
        port: The port; 0 takes a free one.
        limits: What connections may take. This process is let open more files if they may be more than it has.
        certificate: What to speak https with; None for http.
        on_ready: Called once requests are accepted, with the base URL at which this machine reaches the server.

    Raises:
        OSError: The address cannot be listened on, or the certificate or its key cannot be used.
    """
    raise_file_limit()
    with listen(host, port) as listener:
        base_url = describe(listener, certificate).base_url
        serve_on(app, listener, limits, certificate, lambda: on_ready(base_url) if on_ready else None)


def serve_on(
    app: ASGIApp,
    listener: socket.socket,
    limits: ConnectionLimits,
    certificate: Certificate | None,
    on_ready: Callable[[], object],
) -> None:
    """Serve ``app`` on a listening socket as :func:`serve` does."""
    server = _Server(app, limits, on_ready, certificate)
    # Once stopped, uvicorn raises again the signal that stopped it. SIGTERM would then end the process
    # before its callers have closed the store; so it becomes a KeyboardInterrupt, unless somebody handles it.
    handlers = {signal.SIGTERM: signal.default_int_handler, _HANG_UP: _terminate}
    unhandled = [number for number in handlers if number and signal.getsignal(number) == signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, handlers[number])
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)  # for which uvicorn listens


class _Server(uvicorn.Server):
    """Calls ``on_ready`` when it accepts requests, and takes no longer to stop than the time of grace."""

    def __init__(
        self,
        app: ASGIApp,
        limits: ConnectionLimits,
        on_ready: Callable[[], object],
        certificate: Certificate | None,
    ) -> None:
        self._connections = Connections(limits)
        self._on_ready = on_ready
        self._secure: list[SecureListener] = []
        super().__init__(_config(self._answering(app), self._connections, certificate))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        context = self.config.ssl
        await super().startup([] if context else sockets)
        if context:
            self._secure += [
                SecureListener(each, context, self._connections, self._new_protocol) for each in sockets or []
            ]

    def _new_protocol(self) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

    async def main_loop(self) -> None:
        # Here, not at the end of startup(): whoever is stopped by who was told has this to return from, and shuts down.
        try:
            self._on_ready()
        except BaseException:
            await self.shutdown()  # else uvloop would wait for ever for the listening socket
            raise
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever is left then has gone as far as the application can tell, and it ends by itself.
        breaking = asyncio.get_running_loop().call_later(_GRACE_SECONDS - 1, self._connections.abort)
        for listener in self._secure:
            await listener.close()
        await super().shutdown(sockets)
        breaking.cancel()

    def _answering(self, app: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except AnswerLostError:
                pass  # an answer that is left unfinished breaks the connection
            except asyncio.CancelledError:
                if not self.should_exit:
                    raise

        return answer


def _run(server: _Server, listener: socket.socket, started: Future[None]) -> None:
    try:
        server.run(sockets=[listener])
    except BaseException as error:  # noqa: BLE001 - a thread has no caller: the task that waits for the start gets it
        if not started.done():
            started.set_exception(error)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket; a shared one lets others share its port, and gets a part of the new connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=shared)
    # Accepted sockets inherit it. asyncio's own loop does not set it on them, and then every answer of two pieces waits
    # 40 ms for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def describe(listener: socket.socket, certificate: Certificate | None = None) -> RunningServer:
    """Return where this machine reaches a listening socket."""
    name: tuple[Any, ...] = listener.getsockname()
    # Who listens on all addresses has none of its own that a client could go to.
    host, port = _LOOPBACK_OF.get(str(name[0]), str(name[0])), int(name[1])
    scheme = "https" if certificate else "http"
    return RunningServer(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}", port)


def _no_passphrase() -> str:
    # Without it OpenSSL would ask for one on the terminal.
    raise ValueError("the key has a passphrase: write it without, such as by openssl pkey")


def _config(app: ASGIApp, connections: Connections, certificate: Certificate | None) -> BoundedConfig:
    if certificate:
        certificate.check()
    return BoundedConfig(
        app,
        connections,
        ssl_certfile=certificate and certificate.chain,
        ssl_keyfile=certificate and certificate.key,
        ws="none",
        lifespan="auto",
        log_config=None,  # logging belongs to the program around
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # the application dates its answers by its own clock
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
