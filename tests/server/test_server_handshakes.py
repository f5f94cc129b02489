"""What connections to a server with a certificate may take of it before their TLS handshake is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time

import pytest
from serverkit import Connection, on_a_socket, whole
from timing import PATIENCE

from face_async.server import ConnectionLimits
from face_async.server.bounds import connections, handshakes

pytestmark = pytest.mark.usefixtures("each_loop")


@contextlib.contextmanager
def serving(certificate, **limits):
    """Serve https; yields functions that connect without a handshake, and with one."""
    context = ssl.create_default_context(cafile=certificate.chain)
    with on_a_socket(ConnectionLimits(**limits), certificate) as where, contextlib.ExitStack() as opened:
        port = int(where.rpartition(":")[2])

        def connect(data: bytes = b"", *, secure: bool = False) -> Connection:
            connection = Connection(port, context if secure else None)
            opened.callback(connection.socket.close)
            connection.send(data)
            return connection

        yield connect


def is_answered(connection: Connection) -> bool:
    connection.send(whole())
    return b'"code":0' in connection.answer()


def test_connections_that_stay_silent_lock_nobody_out(certificate):
    """They make room, the oldest first; whoever has finished a request stays."""
    with serving(certificate, max_connections=10) as connect:
        idle = connect(secure=True)
        assert is_answered(idle)
        silent = [connect(data) for data in (b"", b"\x16\x03\x01") * 15]
        for _ in range(3):
            assert is_answered(connect(secure=True))
        assert [each.answer() for each in silent[:23]] == [b""] * 23
        assert is_answered(idle)
        assert silent[-1].is_open()


def test_one_address_may_have_a_bound_of_its_own(certificate):
    """Its own silent connection makes room."""
    with serving(certificate, max_per_address=2) as connect:
        first, _second = connect(), connect()
        assert is_answered(connect(secure=True))
        assert first.answer() == b""


def test_a_connection_counts_once_from_its_beginning_to_its_end(certificate):
    """Two that are allowed are both there after their handshakes, also when others have gone."""
    with serving(certificate, max_connections=2) as connect:
        kept = connect(secure=True)
        for _ in range(3):
            other = connect(secure=True)
            assert is_answered(kept)
            assert is_answered(other)
            other.socket.close()


def test_a_handshake_that_does_not_come_in_time_is_given_up(certificate):
    """Whether it has begun or not; nor may a client stay silent after it."""
    with serving(certificate, header_seconds=1) as connect:
        kept = connect(secure=True)
        assert is_answered(kept)
        for each in (connect(), connect(b"\x16\x03\x01"), connect(secure=True)):
            assert each.answer() == b""
        assert is_answered(kept)


def test_what_is_no_handshake_is_cut_off_without_a_word(certificate, caplog):
    """Such as http, or a client that trusts another authority."""
    with serving(certificate) as connect:
        assert connect(whole()).answer() == b""
        port = connect().socket.getpeername()[1]
        with pytest.raises(ssl.SSLError, match="certificate"):
            Connection(port, ssl.create_default_context())
        assert is_answered(connect(secure=True))
    assert not caplog.records


def test_a_server_that_stops_waits_for_no_handshake(certificate, caplog):
    with contextlib.ExitStack() as clients:
        with serving(certificate) as connect:
            silent = connect()
            clients.enter_context(contextlib.closing(silent.socket.dup()))
            assert is_answered(connect(secure=True))
            started = time.monotonic()
        assert time.monotonic() - started < PATIENCE
    assert not caplog.records


def test_a_socket_that_cannot_accept_is_told_of_and_tried_again(monkeypatch, caplog):
    """As when too many files are open."""
    monkeypatch.setattr(handshakes, "_PAUSE_SECONDS", 0.01)
    crowd = connections.Connections(ConnectionLimits())

    async def listen_too_late():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secure = handshakes.SecureListener(listener, context, crowd, lambda: pytest.fail("a handshake"))
            while len(caplog.records) < 2:  # noqa: ASYNC110 - logging has no event to tell
                await asyncio.sleep(0.001)
            await secure.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(listen_too_late())
    assert "no connection can be accepted" in caplog.records[1].message
