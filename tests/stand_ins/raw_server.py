"""A scripted server on plain sockets, for the faults that no HTTP library would commit.

It runs in threads of its own, so it serves clients of asyncio and trio alike. Its script has one behavior per
request, in the order in which requests begin, on whatever connection::

    with RawServer([answer(b"{}"), reset_after_request()]) as server:
        ...                                 # talk to server.url
        server.requests                     # what was read, whole requests only

Leaving the block closes everything, raises what a behavior raised, and asserts that the whole script was used. A
script that is no list, such as ``itertools.repeat(...)``, need not be used up. A request that the script does not
provide for gets its connection closed, and counts as unused script does: as a failure.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from timing import PATIENCE

CERTIFICATE = """
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3oHFbtM2YOVr23oY
OIjmTEZXNg8ZI4370156VYgCbgihRANCAAQJCvcKARci49XbEgkp++UxWQJIcROw
jDcpWGwdu6b7jPAdPVlSO4pATTLASVnHM4bmQNb6iIi4EBDdT/X9xxb0
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUGEfOqGv6A0GlFJEK6SxZHirPo9IwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzA1MjgxN1oYDzIxMjYxMDMw
MDUyODE3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQJCvcKARci49XbEgkp++UxWQJIcROwjDcpWGwdu6b7jPAdPVlSO4pA
TTLASVnHM4bmQNb6iIi4EBDdT/X9xxb0o2QwYjAdBgNVHQ4EFgQU7uLFaDTnc/8Z
/UnFHOaMmDd0Il4wHwYDVR0jBBgwFoAU7uLFaDTnc/8Z/UnFHOaMmDd0Il4wDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQC
IFPV5FkL7OOC1Zc6f8srjws17olm8yI7hru/e/C7GA4KAiB7XB7J5+SxsGiGfzp9
bXWi4YTd60z67i5ju+985hatMQ==
-----END CERTIFICATE-----
"""
"""For 127.0.0.1, signed by itself: nobody has a reason to trust it."""


class HungUpError(ConnectionError):
    """The client has closed the connection before its request was whole."""


@dataclass(frozen=True)
class Request:
    """A whole request, and the number of the connection it came on, from 0."""

    connection: int
    line: str
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """Return the value of a header that stands there exactly once."""
        [value] = [value for known, value in self.headers if known.lower() == name.lower()]
        return value


class Connection:
    """The server's end of one connection; what a behavior acts upon."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        self._sock = sock
        self._unread = b""

    def more(self) -> bool:
        """Wait for bytes, and return whether any came."""
        if not self._unread:
            with contextlib.suppress(OSError):
                self._unread = self._sock.recv(65_536)
        return bool(self._unread)

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        pieces = []
        while size:
            if not self.more():
                raise HungUpError
            pieces.append(self._unread[:size])
            self._unread = self._unread[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)

    def read_head(self) -> bytes:
        """Return the request line and the headers."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            piece = self._sock.recv(65_536)
            if not piece:
                raise HungUpError
            self._unread += piece
        self.server.began.release()
        return self.read(end + 4)

    def read_request(self) -> Request:
        """Return the whole request, which the server keeps in its ``requests``."""
        line, *lines = self.read_head().decode("ascii").split("\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        request = Request(self.number, line, headers, self.read(size))
        self.server.requests.append(request)
        return request

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Shake hands for TLS."""
        self._sock = context.wrap_socket(self._sock, server_side=True)

    def send(self, content: bytes) -> None:
        self._sock.sendall(content)

    def close(self) -> None:
        """Say goodbye: FIN when all was read, else RST."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes up a thread that reads
        self._sock.close()
        self._unread = b""

    def reset(self) -> None:
        """Drop the connection with a RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._unread = b""

    def hold(self) -> None:
        """Neither read nor answer until the test is over."""
        self.server.over.wait(PATIENCE)
        self.close()


Behavior = Callable[[Connection], None]


class RawServer:
    """A server on a loopback address that does as its script says.

    Args:
        script: One behavior per request.
        narrow: Keep the kernel's buffers so small that a client cannot send 200 KB which nobody reads.
        tls: A file with a certificate and its key, to speak https.
        resets: How many connections, the first ones, are reset as soon as they are accepted.
        address: The loopback address to listen on.
        greeting: What is said on every connection as soon as it is accepted.
        starts: Whether connections are accepted from the beginning; else they are refused until :meth:`start`.

    Attributes:
        url: Its base URL.
        requests: The whole requests that were read.
        accepted: How many connections there were.
        most_open: How many of them there were at once, at most.
        began: A semaphore that counts requests whose head was read.
    """

    def __init__(
        self,
        script: Iterable[Behavior],
        *,
        narrow: bool = False,
        tls: Path | None = None,
        resets: int = 0,
        address: str = "127.0.0.1",
        greeting: bytes = b"",
        starts: bool = True,
    ) -> None:
        self.requests: list[Request] = []
        self.accepted = 0
        self.most_open = 0
        self.began = threading.Semaphore(0)
        self.over = threading.Event()
        self._left = len(script) if isinstance(script, Sized) else 0
        self._script = iter(script)
        self._used_up = threading.Event()
        if not self._left:
            self._used_up.set()
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self._resets = resets
        self._greeting = greeting
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls)
        self._listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        if narrow:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1_400)
        self._listener.bind((address, 0))
        self._starts = starts
        self._empty = lambda: None
        port = self._listener.getsockname()[1]
        self.host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.host}"

    def __enter__(self) -> Self:
        if self._starts:
            self.start()
        return self

    def start(self) -> None:
        """Begin to accept connections."""
        self._listener.listen(128)
        self._start(self._accept)

    def swallow(self) -> Callable[[], None]:
        """Swallow connections instead of refusing them; returns what starts the server after all."""
        self._empty = swallow_connections(self._listener)

        def start() -> None:
            self._empty()
            self.start()

        return start

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._used_up.wait(5)  # a client may be gone before its request is looked at
        self.over.set()
        self._empty()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        if kind is None:
            self.assert_consumed()

    def assert_consumed(self) -> None:
        """Raise what went wrong in a behavior, and assert that the script was used up and sufficed."""
        if self._errors:
            raise self._errors[0]
        assert self._left <= 0, f"{self._left} behaviors of the script were not used"

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self, self._listener.accept()[0], self.accepted)
                with self._lock:
                    self.accepted += 1
                    self._open.add(connection)
                    self.most_open = max(self.most_open, len(self._open))
                if self.over.is_set():
                    connection.close()  # it came too late for __exit__, which closes the others
                elif connection.number < self._resets:
                    connection.reset()
                    self._open.discard(connection)
                else:
                    self._start(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            if self._tls:
                connection.encrypt(self._tls)
            connection.send(self._greeting)
            while connection.more() and not self.over.is_set():
                self._next()(connection)
        except OSError:
            pass  # the client has left, or the test is over
        except Exception as error:  # noqa: BLE001 - it is the test's to hear of
            self._errors.append(error)
        finally:
            connection.close()
            with self._lock:
                self._open.discard(connection)

    def _next(self) -> Behavior:
        with self._lock:
            behavior = next(self._script, None)
            if behavior is None:
                raise AssertionError("more requests than the script provides for")
            self._left -= 1
            if self._left == 0:
                self._used_up.set()
            return behavior


# Behaviors


def http(content: bytes, status: int = 200, *headers: tuple[str, str]) -> bytes:
    """Return an answer as it stands on the wire; headers that are given come first, and so replace the length."""
    given = "".join(f"{name}: {value}\r\n" for name, value in headers)
    if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in headers}:
        given += f"Content-Length: {len(content)}\r\n"
    return f"HTTP/1.1 {status} Reason\r\n{given}\r\n".encode() + content


def answer(content: bytes = b"{}", status: int = 200, *headers: tuple[str, str]) -> Behavior:
    """Answer a whole request."""
    return say(http(content, status, *headers))


def say(packet: bytes, *, then_close: bool = False) -> Behavior:
    """Answer a whole request with these very bytes."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(packet)
        if then_close:
            connection.close()

    return behave


def reset_after_request() -> Behavior:
    """Read a whole request, then reset."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.reset()

    return behave


def close_after_request() -> Behavior:
    """Read a whole request, then close in good order."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.close()

    return behave


def reset_mid_body(after: int = 65_536) -> Behavior:
    """Read some bytes of the body, then reset; only with ``narrow`` is the request sure not to be whole by then."""

    def behave(connection: Connection) -> None:
        connection.read_head()
        connection.read(after)
        connection.reset()

    return behave


def silence() -> Behavior:
    """Read a whole request and never answer."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.hold()

    return behave


def never_read() -> Behavior:
    """Read a request's head, and nothing more."""

    def behave(connection: Connection) -> None:
        connection.read_head()
        connection.hold()

    return behave


def swallow_connections(listener: socket.socket) -> Callable[[], None]:
    """Fill the queue of a socket that nobody accepts from, so that no further connection is ever made.

    Returns:
        What empties the queue.
    """
    queue = contextlib.ExitStack()
    listener.listen(0)
    for _ in range(64):
        sock = queue.enter_context(socket.socket())
        sock.settimeout(0.02)  # within this machine a connection is made at once or never
        try:
            sock.connect(listener.getsockname())
        except TimeoutError:
            return queue.close
    queue.close()
    pytest.skip("this system lets connections queue without end")


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield a base URL to which no connection is ever made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        empty = swallow_connections(listener)
        try:
            yield "http://127.0.0.1:{1}".format(*listener.getsockname())
        finally:
            empty()
