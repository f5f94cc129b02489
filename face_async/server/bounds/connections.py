"""Bounds of connections: how many there are, how slow a request may be, and how much is read of a refused one.

uvicorn's own settings bound neither: it waits for ever for the rest of a request, and answers what is too much only
when it has all of it.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from attrs import field, frozen
from attrs.validators import ge, gt, optional
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from face_async.errors import ReturnCode
from face_async.server.envelope import envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp
    from uvicorn.server import ServerState

MAX_HEADER_BYTES = 32_768
"""Bytes of a request's head: its first line and all headers."""

MAX_HEADERS = 128

_MOST_CONNECTIONS = 4_096

_SWEEP_SECONDS = 1.0
_SLICE = 2_048  # bytes of heads and chunks that are parsed before it is looked at what they were
_DRAIN_BYTES = 262_144  # that a refused request may still have in chunks, and keep its connection
_DRAIN_SIZED_BYTES = 16_777_216  # the same where its length is known: it is read at little cost
_DRAIN_SECONDS = 2.0  # for that; and then once more, until a client has read its answer
_LINGER_BYTES = 16_777_216  # and at most so many

_FREE_CHUNK_BYTES = 4_096  # of the sizes of chunks and the like in a body
_CHUNK_PART = 16  # which part of the body they may be beyond that

_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:", re.IGNORECASE)
_ENCODING = re.compile(rb"\ntransfer-encoding[ \t]*:", re.IGNORECASE)


def most_connections() -> int:
    """Return how many connections a process should have: half as many as files that it may open, at most 4,096."""
    soft, _ = _file_limits()
    return min(_MOST_CONNECTIONS, max(16, soft // 2))


def raise_file_limit() -> None:
    """Let this process open so many files that :func:`most_connections` has its maximum, as far as it is allowed to."""
    soft, hard = _file_limits()
    if soft < min(hard, 2 * _MOST_CONNECTIONS):
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * _MOST_CONNECTIONS), hard))


def _file_limits() -> tuple[int, int]:
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows has no such limits
        return 2 * _MOST_CONNECTIONS, 2 * _MOST_CONNECTIONS
    soft, hard = (
        sys.maxsize if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


@frozen
class ConnectionLimits:
    """What the connections to one server may take.

    When a further one would be too many, the one makes room whose request has been unfinished for the longest time,
    else the one that has been idle the longest; while all others are being answered, the new one gets code 15.

    Attributes:
        max_connections: Connections open at once, 1 or more; None: :func:`most_connections`.
        max_per_address: The same from one IP address; None for no bound of its own, as a proxy is one address.
        header_seconds: How long the headers of a request may take.
        body_seconds: How long a body may take however slow it is, and for how long it may then be slow.
        min_body_rate: Bytes of a body that must come in a second, on average over ``body_seconds``.
    """

    max_connections: int | None = field(default=None, validator=optional(ge(1)))
    max_per_address: int | None = field(default=None, validator=optional(ge(1)))
    header_seconds: float = field(default=30.0, validator=gt(0))
    body_seconds: float = field(default=10.0, validator=gt(0))
    min_body_rate: float = field(default=1_000.0, validator=ge(0))


class ConnectionPhase(enum.Enum):
    """What a connection waits for."""

    HEAD = "the first request, or the rest of a request's head"
    BODY = "the rest of a request's body"
    ANSWER = "the answer to a request that is complete"
    REFUSED = "the rest of a request that is answered already"
    IDLE = "another request"
    CLOSING = "the client to close it"


_UNFINISHED = {ConnectionPhase.HEAD, ConnectionPhase.BODY, ConnectionPhase.REFUSED, ConnectionPhase.CLOSING}


class Connections:
    """The connections of one server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._most = limits.max_connections or most_connections()
        self._all: set[BoundedProtocol] = set()
        # Both in the order in which they came to be so.
        self._unfinished: dict[BoundedProtocol, None] = {}
        self._idle: dict[BoundedProtocol, None] = {}
        self._sweeping = False

    def admit(self, new: BoundedProtocol) -> bool:
        """Add a connection if there is room for it, or if another one can make room."""
        limits, address = self.limits, new.address
        while len(self._all) >= self._most:
            if not self._make_room(lambda _: True):
                return False
        while limits.max_per_address and sum(each.address == address for each in self._all) >= limits.max_per_address:
            if not self._make_room(lambda each: each.address == address):
                return False
        self._all.add(new)
        return True

    def _make_room(self, may_go: Callable[[BoundedProtocol], bool]) -> bool:
        for group in (self._unfinished, self._idle):
            for each in group:
                if may_go(each):
                    self.remove(each)
                    each.abort()
                    return True
        return False

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self._unfinished.pop(connection, None)
        self._idle.pop(connection, None)

    def note(self, connection: BoundedProtocol, phase: ConnectionPhase) -> None:
        """Note what a connection waits for from now on."""
        if connection not in self._all:
            return
        if phase in _UNFINISHED:
            self._unfinished.setdefault(connection)
        else:
            self._unfinished.pop(connection, None)
        if phase is ConnectionPhase.IDLE:
            self._idle[connection] = None
        else:
            self._idle.pop(connection, None)
        if self._unfinished and not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def abort(self) -> None:
        """Break all connections."""
        for connection in list(self._all):
            connection.abort()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._unfinished):
            connection.check_pace(now)
        self._sweeping = bool(self._unfinished)
        if self._sweeping:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration, with the connections of its one server."""

    def __init__(self, app: ASGIApp, connections: Connections, **options: Any) -> None:
        super().__init__(app, http=BoundedProtocol, h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES, **options)
        self.connections = connections


class BoundedProtocol(H11Protocol):
    """One connection: uvicorn's, within bounds."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = cast("BoundedConfig", config).connections
        self._phase: ConnectionPhase = ConnectionPhase.HEAD
        self.cycle: RequestResponseCycle | None = None  # type: ignore[assignment] # as it is before a request
        self._since = 0.0
        self._received = 0  # bytes since then
        self._payload = self._overhead = 0  # bytes of the present body
        self._has_length = False  # whether that is not in chunks
        self._closing: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The IP address at the other end."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn  # noqa: D102
        super().connection_made(transport)
        self._since = self.loop.time()
        if self._connections.admit(self):
            self._connections.note(self, ConnectionPhase.HEAD)
        else:
            self._refuse_connection()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 - of the base
        self._connections.remove(self)
        if self._closing is not None:
            self._closing.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102 - of the base
        self._received += len(data)
        if self._phase is ConnectionPhase.CLOSING:
            if self._received > _LINGER_BYTES:
                self.abort()
            return
        start = 0
        while start < len(data) and not self._is_closing():
            end = len(data) if self._in_sized_body() else start + _SLICE
            self._parse(data[start:end])
            start = end
        self._note_phase()
        most = _DRAIN_SIZED_BYTES if self._has_length else _DRAIN_BYTES
        if self._phase is ConnectionPhase.REFUSED and self._received > most:
            self._close()

    def _in_sized_body(self) -> bool:
        return self._has_length and self.conn.their_state is h11.SEND_BODY

    def _is_closing(self) -> bool:
        return self._phase is ConnectionPhase.CLOSING or self.transport.is_closing()

    def _parse(self, data: bytes) -> None:
        cycle, payload = self.cycle, self._payload
        before = len(cycle.body) if cycle else 0
        super().data_received(data)
        if self.cycle is not cycle:
            self._payload = self._overhead = 0
            self._has_length = all(name != b"transfer-encoding" for name, _ in self.headers)
        elif cycle and self.conn.their_state is h11.SEND_BODY:
            self._payload += len(cycle.body) - before
            self._overhead += len(data) - (self._payload - payload)
            if self._overhead > _FREE_CHUNK_BYTES + self._payload // _CHUNK_PART:
                self._refuse(400, "the chunks of the body are too small")

    def handle_events(self) -> None:  # noqa: D102 - of the base
        if self.conn.their_state is h11.IDLE:
            problem = _problem_of(self.conn.trailing_data[0])
            if problem is not None:
                self._refuse(*problem)
                return
        if self.conn.their_state is h11.SEND_BODY and self.cycle and self.cycle.response_complete:
            self._drain()
        else:
            super().handle_events()

    def _drain(self) -> None:
        """Read on after the answer, so that the connection can be used again if the request ends soon."""
        while True:
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError:
                self._close()
                return
            if isinstance(event, h11.EndOfMessage):
                break
            if not isinstance(event, h11.Data):
                return
            self._payload += len(event.data)
        self.conn.start_next_cycle()
        self.handle_events()

    def on_response_complete(self) -> None:  # noqa: D102 - of the base
        super().on_response_complete()
        self._note_phase()

    def check_pace(self, now: float) -> None:
        """Give up a request that is too slow."""
        limits, waited = self._connections.limits, now - self._since
        match self._phase:
            case ConnectionPhase.HEAD if waited > limits.header_seconds:
                if self._received:
                    self._refuse(408, f"the headers took longer than {limits.header_seconds:g} seconds")
                else:
                    self.transport.close()
            case ConnectionPhase.BODY if self.flow.read_paused:
                self._begin(now)  # it is the application that does not read
            case ConnectionPhase.BODY if waited > limits.body_seconds:
                if self._received < limits.min_body_rate * waited:
                    self._refuse(408, f"the body came slower than {limits.min_body_rate:g} bytes a second")
                self._begin(now)
            case ConnectionPhase.REFUSED if waited > _DRAIN_SECONDS:
                self._close()
            case _:
                pass

    def abort(self) -> None:
        """Break the connection."""
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: offers to speak something else (RFC 9110, 7.8) come with every request of Java's and curl's."""

    def _note_phase(self) -> None:
        phase = self._present_phase()
        if phase is not self._phase and not self._is_closing():
            self._phase = phase
            self._begin(self.loop.time())
            self._connections.note(self, phase)

    def _begin(self, now: float) -> None:
        self._since, self._received = now, 0

    def _present_phase(self) -> ConnectionPhase:
        sending = self.conn.their_state is h11.SEND_BODY
        if self.cycle and not self.cycle.response_complete:
            return ConnectionPhase.BODY if sending else ConnectionPhase.ANSWER
        if sending:
            return ConnectionPhase.REFUSED
        return ConnectionPhase.IDLE if self.cycle and not self.conn.trailing_data[0] else ConnectionPhase.HEAD

    def _refuse_connection(self) -> None:
        answer = envelope(ReturnCode.RATE_LIMITED, {})
        self._write(429, "application/json", bytes(answer.body), b"Retry-After: 1\r\n")
        self.transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer a request that will not be read to its end, unless it is answered already, and close."""
        if not self.cycle or self.cycle.response_complete or not self.cycle.response_started:
            self._write(status, "text/plain; charset=utf-8", reason.encode() + b"\n")
        self._close()

    def _write(self, status: int, media_type: str, content: bytes, further: bytes = b"") -> None:
        phrase = HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n" + further + b"\r\n" + content)

    def _close(self) -> None:
        """Close without a reset, which could overtake the answer: read on for a while, until the client closes."""
        self._phase = ConnectionPhase.CLOSING
        self._received = 0
        self._connections.note(self, ConnectionPhase.CLOSING)
        self._unset_keepalive_if_required()
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._closing = self.loop.call_later(_DRAIN_SECONDS, self.abort)
        else:
            self.transport.close()


def _problem_of(received: bytes) -> tuple[int, str] | None:
    """Return what is wrong with a request's head, as far as it has been received."""
    end = _HEAD_END.search(received)
    head = received[: end.end()] if end else received
    if len(head) > MAX_HEADER_BYTES or head.count(b"\n") > MAX_HEADERS:
        return 431, f"the headers are more than {MAX_HEADERS}, or have more than {MAX_HEADER_BYTES:,} bytes"
    if end and _LENGTH.search(head) and _ENCODING.search(head):
        return 400, "a request has either Content-Length or Transfer-Encoding, not both"  # RFC 9112, 6.1
    return None
