"""uvicorn's protocol of one connection, within bounds of how slow a request may be and what is read of a refused one.

uvicorn's own settings bound neither: it waits for ever for the rest of a request, and answers what is too much only
when it has all of it. Where it would close while a client still sends, which resets the connection and loses the
answer, this reads on for a while.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from face_async.errors import ReturnCode
from face_async.server.bounds.connections import ConnectionPhase
from face_async.server.envelope import envelope

if TYPE_CHECKING:
    import asyncio

    from starlette.types import ASGIApp
    from uvicorn.server import ServerState

    from face_async.server.bounds.connections import Bounded, Connections

MAX_HEADER_BYTES = 32_768
"""Bytes of a request's head: its first line and all headers."""

MAX_HEADERS = 128

LINGER_SECONDS = 2.0
"""How long the rest of a refused request is read; and then once more, until a client has read its answer."""

_SLICE = 2_048  # bytes of heads and chunks that are parsed before it is looked at what they were
_DRAIN_BYTES = 262_144  # that a refused request may still have in chunks, and keep its connection
_DRAIN_SIZED_BYTES = 16_777_216  # the same where its length is known: it is read at little cost
_LINGER_BYTES = 16_777_216  # that are read while it is waited until a client has read its answer

_FREE_CHUNK_BYTES = 4_096  # of the sizes of chunks and the like in a body
_CHUNK_PART = 16  # which part of the body they may be beyond that

_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:", re.IGNORECASE)
_ENCODING = re.compile(rb"\ntransfer-encoding[ \t]*:", re.IGNORECASE)


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
        self.handshake: Bounded | None = None  # what counted in its place so far

    @property
    def address(self) -> str:
        """The IP address at the other end."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn  # noqa: D102
        super().connection_made(transport)
        self._since = self.loop.time()
        self._answers = _AnswerTransport(self)
        if self.handshake:
            self._connections.remove(self.handshake)
        if self._connections.admit(self):
            self._connections.note(self, ConnectionPhase.HEAD)
        else:
            self._connections.turn_away(self)
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
            if self.cycle:
                self.cycle.transport = cast("asyncio.Transport", self._answers)

    def send_400_response(self, msg: str) -> None:  # noqa: D102 - of the base
        self._refuse(400, msg)

    def end_answer(self) -> None:
        """Close the connection, unless a request that is answered has not come to its end: then read on first."""
        if self.conn.their_state is not h11.SEND_BODY or (self.cycle and not self.cycle.response_complete):
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def shutdown(self) -> None:  # noqa: D102 - of the base
        if self._phase is ConnectionPhase.REFUSED:
            self._close()
        elif self._phase is not ConnectionPhase.CLOSING:
            super().shutdown()

    def _drain(self) -> None:
        """Read on after the answer, so that the client sees it, and can use the connection again."""
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
        if self.conn.our_state is h11.DONE:
            self.conn.start_next_cycle()
            self.handle_events()
        else:  # it was not to be used again
            self.transport.close()

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
            case ConnectionPhase.REFUSED if waited > LINGER_SECONDS:
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
        self._close()

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
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._closing = self.loop.call_later(LINGER_SECONDS, self._end)

    def _end(self) -> None:
        if self.transport.can_write_eof():
            self.abort()
        else:
            self.transport.close()  # TLS has an end of its own


class _AnswerTransport:
    """A connection as uvicorn uses it for the answer to one request."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        transport = protocol.transport
        self.write, self.is_closing = transport.write, transport.is_closing
        self.close = protocol.end_answer


def _problem_of(received: bytes) -> tuple[int, str] | None:
    """Return what is wrong with a request's head, as far as it has been received."""
    end = _HEAD_END.search(received)
    head = received[: end.end()] if end else received
    if len(head) > MAX_HEADER_BYTES or head.count(b"\n") > MAX_HEADERS:
        return 431, f"the headers are more than {MAX_HEADERS}, or have more than {MAX_HEADER_BYTES:,} bytes"
    if end and _LENGTH.search(head) and _ENCODING.search(head):
        return 400, "a request has either Content-Length or Transfer-Encoding, not both"  # RFC 9112, 6.1
    return None
