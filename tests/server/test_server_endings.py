"""How answers end that come before their request does: no client loses one because it was still sending."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
import urllib.request
from unittest.mock import Mock

import pytest
from nginxkit import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from serverkit import Connection, SlowRecognizer, compare, head, on_a_socket
from timing import PATIENCE

from face_async.server import ConnectionLimits
from face_async.server.bounds import connections, protocol

LARGE = 1_400_000
CLOSING = pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
SECURE = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


@pytest.fixture
def serving(certificate, secure):
    """Return a context manager that serves, and yields a function that connects."""

    @contextlib.contextmanager
    def serve(limits=None, **options):
        context = ssl.create_default_context(cafile=certificate.chain) if secure else None
        with (
            on_a_socket(limits, certificate if secure else None, **options) as where,
            contextlib.ExitStack() as opened,
        ):

            def connect(data: bytes = b"") -> Connection:
                connection = Connection(int(where.rpartition(":")[2]), context)
                opened.callback(connection.socket.close)
                connection.send(data)
                return connection

            yield connect

    return serve


def closing(version: bytes, *further: str, signature: str = "") -> bytes:
    """A head whose connection is not to be used again; HTTP/1.0 does not have to say so."""
    if version == b"HTTP/1.1":
        further += ("Connection: close",)
    return head(*further, signature=signature).replace(b"HTTP/1.1", version)


def ended(connection: Connection) -> bool:
    """Whether the server has ended the connection in order, not by a reset."""
    return connection.socket.recv(1) == b""


@pytest.mark.usefixtures("each_loop")
@SECURE
@CLOSING
def test_a_refusal_before_the_body_breaks_no_client_that_goes_on_sending(serving, version):
    """All that it sends is taken, then the connection ends; whatever the reason of the refusal."""
    with serving() as connect:
        for size, signature, code in ((LARGE, "none", 5), (4 * LARGE, "", 23)):
            connection = connect(closing(version, f"Content-Length: {size}", signature=signature))
            assert f'"code":{code},'.encode() in connection.answer()
            connection.send(b"x" * size)
            assert ended(connection)


@SECURE
@CLOSING
def test_a_refused_request_that_comes_whole_ends_its_connection_at_once(serving, version, monkeypatch):
    """Nobody waits for the client to close."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 10 * PATIENCE)
    with serving() as connect:
        connection = connect(closing(version, "Content-Length: 100000", signature="none") + b"x" * 100_000)
        assert b'"code":5,' in connection.answer()
        assert ended(connection)


@pytest.mark.usefixtures("each_loop")
@SECURE
def test_a_refused_client_that_never_stops_sending_is_cut_off(serving, monkeypatch):
    """However slowly it sends."""
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.1)
    with serving() as connect:
        connection = connect(closing(b"HTTP/1.1", f"Content-Length: {LARGE}", signature="none"))
        assert b'"code":5,' in connection.answer()

        def trickle():
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                connection.send(b"x")
                time.sleep(0.01)

        with pytest.raises(OSError, match=r"(?i)pipe|reset|closed|eof|protocol"):
            trickle()


@pytest.mark.usefixtures("each_loop")
@SECURE
def test_a_client_for_whom_there_is_no_room_learns_so_although_it_goes_on_sending(serving):
    """Code 15, which it waits for; not a reset."""
    recognizer = SlowRecognizer()
    with serving(ConnectionLimits(max_connections=1), recognizer=recognizer) as connect:
        busy = connect(compare(b"1", b"2"))
        while not recognizer.seen:
            time.sleep(0.001)
        turned_away = connect(head(f"Content-Length: {LARGE}"))
        assert b'"code":15' in turned_away.answer()
        turned_away.send(b"x" * LARGE)
        recognizer.go.set()
        assert b'"code":0' in busy.answer()


@SECURE
def test_a_body_that_is_no_http_is_answered_although_more_of_it_comes(serving):
    with serving() as connect:
        connection = connect(head("Transfer-Encoding: chunked") + b"no size of a chunk\r\n")
        assert connection.answer().startswith(b"HTTP/1.1 400 ")
        connection.send(b"x" * LARGE)


@pytest.mark.usefixtures("each_loop")
def test_a_server_that_stops_lets_a_refused_client_go_on_sending():
    """As its answer has perhaps not reached it yet."""
    finished = []
    with on_a_socket() as where:
        connection = Connection(int(where.rpartition(":")[2]))
        connection.send(head("Content-Length: 100000", signature="none"))
        assert b'"code":5,' in connection.answer()

        def go_on():
            with connection.socket:
                for _ in range(100):
                    connection.send(b"x" * 1_000)
                    time.sleep(0.002)
                finished.append(ended(connection))

        sending = threading.Thread(target=go_on)
        sending.start()
    sending.join()
    assert finished == [True]


@pytest.mark.parametrize("most", [1, 16])
def test_those_for_whom_there_is_no_room_are_few_themselves(most):
    """An eighth of those that there is room for, and one at least: beyond that the oldest is broken."""
    crowd = connections.Connections(ConnectionLimits(max_connections=most))
    turned_away = [Mock() for _ in range(10)]
    for each in turned_away:
        crowd.turn_away(each)
    stay = max(1, most // 8)
    assert [each.abort.called for each in turned_away] == [True] * (10 - stay) + [False] * stay


@pytest.mark.usefixtures("each_loop")
def test_pythons_own_client_learns_why_it_was_refused():
    """It never keeps a connection, and sends all before it reads."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with on_a_socket() as where:
        for size, code in ((LARGE, 4), (4 * LARGE, 4)):
            request = urllib.request.Request(f"http://{where}/face/detect", bytes(size))
            with opener.open(request, timeout=PATIENCE) as answer:
                assert json.load(answer)["code"] == code


@pytest.mark.external("nginx")
def test_nginx_with_its_defaults_passes_a_refusal_on(start_nginx):
    """It speaks HTTP/1.0 to a server, and keeps no connection."""
    with on_a_socket() as where:
        nginx = start_nginx(f"http://{where}", "client_max_body_size 8m;")
        for size in (100_000, LARGE, 4 * LARGE):
            client = http.client.HTTPConnection(nginx.url.removeprefix("http://"), timeout=PATIENCE)
            client.request("POST", "/face/detect", bytes(size), {"Authorization": "none"})
            answer = client.getresponse()
            assert (answer.status, json.load(answer)["code"]) == (200, 5)
            client.close()
        assert "upstream" not in nginx.errors
