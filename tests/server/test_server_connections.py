"""What connections may take of the server: how many there are, how slow they may be, and how they end."""

from __future__ import annotations

import contextlib
import socket
import time

import anyio
import anyio.lowlevel
import pytest
from serverkit import (
    BOUNDARY,
    CREDENTIALS,
    GET_GROUPS,
    Connection,
    SlowRecognizer,
    ToyRecognizer,
    compare,
    head,
    multipart,
    part,
    program,
    whole,
)
from timing import PATIENCE

from face_async.server import ConnectionLimits, create_app, serve_in_background
from face_async.server.bounds import connections as bounds

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(store):
    return create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer())


@contextlib.asynccontextmanager
async def serving(app, **limits):
    """Yield a function that connects to the server; its connections are closed at the end."""
    opened = []
    async with serve_in_background(app, limits=ConnectionLimits(**limits)) as server:

        def connect(data: bytes = b"") -> Connection:
            opened.append(Connection(server.port))
            opened[-1].send(data)
            return opened[-1]

        try:
            yield connect
        finally:
            for connection in opened:
                connection.socket.close()


async def answer(connection: Connection) -> bytes:
    return await anyio.to_thread.run_sync(connection.answer)


async def test_headers_that_do_not_come_in_time_are_given_up(app):
    """408 to whoever had begun, silence to whoever had not; and others are answered meanwhile."""
    async with serving(app, header_seconds=1) as connect:
        half, silent, kept = (
            connect(b"POST /face/getinfo HTTP/1.1\r\nHost: x\r\nContent-Le"),
            connect(),
            connect(whole()),
        )
        assert b'"code":0' in await answer(kept)
        assert (await answer(half)).startswith(b"HTTP/1.1 408 ")
        assert await answer(silent) == b""
        kept.send(whole())  # an idle connection may be so for longer
        assert b'"code":0' in await answer(kept)


async def test_a_body_that_comes_too_slowly_is_given_up(app):
    """Whatever its beginning was like; one that comes fast enough may take as long as it does."""
    async with serving(app, body_seconds=1, min_body_rate=50) as connect:
        stalled = connect(head("Content-Length: 2000") + b"x" * 1_900)
        steady = connect(head("Content-Length: 2000"))
        waiting = anyio.Event()

        async def send():
            while not waiting.is_set():
                with contextlib.suppress(OSError):
                    steady.send(b" " * 20)
                await anyio.sleep(0.1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            assert (await answer(stalled)).startswith(b"HTTP/1.1 408 ")
            assert steady.is_open()
            waiting.set()


async def test_the_request_unfinished_for_longest_makes_room(app, full):
    """So half requests lock out nobody, and neither do idle connections; whoever is being answered stays."""
    count = 400 if full else 20
    async with serving(app, max_connections=10) as connect:
        idle = connect(whole())
        assert b'"code":0' in await answer(idle)
        halves = [connect(b"POST /") for _ in range(count)]
        with anyio.fail_after(PATIENCE):
            for _ in range(3):
                assert b'"code":0' in await answer(connect(whole()))
        assert [each.is_open() for each in halves[: count - 9]] == [False] * (count - 9)
        assert idle.is_open()


async def test_one_address_may_have_a_bound_of_its_own(app):
    """Its own slowest request makes room."""
    async with serving(app, max_per_address=2) as connect:
        first, _second = connect(b"POST /"), connect(b"POST /")
        assert b'"code":0' in await answer(connect(whole()))
        assert await answer(first) == b""


async def test_while_all_are_being_answered_a_new_connection_is_told_to_come_again(store):
    """Code 15 at once, which clients wait for."""
    recognizer = SlowRecognizer()
    app = create_app(store, credentials=CREDENTIALS, recognizer=recognizer)
    async with serving(app, max_connections=1) as connect:
        busy = connect(compare(b"1", b"2"))
        while not recognizer.seen:  # noqa: ASYNC110 - threads have no event to tell
            await anyio.sleep(0.001)
        refused = await answer(connect())
        assert b'"code":15' in refused
        assert b"Retry-After: 1\r\n" in refused
        recognizer.go.set()
        assert b'"code":0' in await answer(busy)


@pytest.mark.parametrize("further", [[], ["Connection: close"]], ids=["kept", "closing"])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_refused_body_without_end_is_not_read_for_ever(app, sized, further):
    """It has its answer, and then no more than a bounded time."""
    framing = "Content-Length: 99999999999" if sized else "Transfer-Encoding: chunked"
    chunk = b"x" * 65_536 if sized else b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    async with serving(app) as connect:
        endless, sent = connect(head(framing, *further, signature="none")), 0

        def flood():
            nonlocal sent
            with contextlib.suppress(OSError):
                while sent < 400_000_000:
                    endless.send(chunk)
                    sent += len(chunk)

        await anyio.to_thread.run_sync(flood)
        assert sent < 100_000_000
        with contextlib.suppress(OSError):
            assert b'"code":5' in await answer(endless)


async def test_a_refused_body_that_ends_soon_leaves_the_connection_usable(app):
    """A client that sends all before it reads learns the code, and goes on."""
    async with serving(app) as connect:
        connection = connect(head("Content-Length: 200000", signature="none"))
        assert b'"code":5' in await answer(connection)
        connection.send(b"x" * 200_000 + whole())
        assert b'"code":0' in await answer(connection)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head("Content-Length: 3", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 400),
        (head("X: " + "x" * 40_000), 431),
        (head(*["a:b"] * 200), 431),
        (head("X: " + "x" * 300_000)[:200_000], 431),
    ],
    ids=["both framings", "long", "many", "endless"],
)
async def test_a_bad_head_is_answered_and_closed(app, request_, status):
    """Also behind a good request on the same connection; nothing after it is answered."""
    async with serving(app) as connect:
        for before in (b"", whole()):
            connection = connect(before + request_ + whole())
            if before:
                assert b'"code":0' in await answer(connection)
            assert f"HTTP/1.1 {status} ".encode() in await answer(connection)
            assert await answer(connection) == b""


async def test_a_body_in_tiny_chunks_is_refused_after_a_few(app):
    """They cost far more than what they hold; a short body may be sent so."""
    async with serving(app) as connect:
        tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in GET_GROUPS) + b"0\r\n\r\n"
        assert b'"code":0' in await answer(connect(head("Transfer-Encoding: chunked") + tiny))
        flood = connect(head("Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            flood.send(b"1\r\nx\r\n" * 40_000)
        assert b"HTTP/1.1 400 " in await answer(flood)


async def test_an_authorization_too_long_to_be_one_is_not_read(app, monkeypatch):
    """Code 5."""
    monkeypatch.setattr("face_async.server.guard.parse", lambda _: pytest.fail("it was read"))
    async with serving(app) as connect:
        assert b'"code":5' in await answer(connect(head("Content-Length: 0", signature="A" * 20_000)))


async def test_a_request_of_many_parts_lets_others_have_their_turn(store, caller, monkeypatch):
    """Parsing is interrupted whenever it has taken long."""
    monkeypatch.setattr("face_async.server.request.forms._TURN_SECONDS", 0)
    body = multipart(*(part(f"group_ids[{index}]", "g") for index in range(2_000)))
    turns, done = 0, anyio.Event()

    async def count():
        nonlocal turns
        while not done.is_set():
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await caller.post("newperson", body, f"multipart/form-data; boundary={BOUNDARY}")
        done.set()
    assert turns > len(body) / 16_384


def test_a_server_with_requests_in_all_states_stops_in_time_and_quietly(tmp_path, full):
    """Half heads, half bodies, pictures being looked at, idle and refused ones: no traceback."""
    count = 500 if full else 25
    with program(tmp_path / "faces.db") as (process, base_url), contextlib.ExitStack() as opened:
        port = int(base_url.rpartition(":")[2])
        states = [b"", b"POST /", head("Content-Length: 100") + b"{", whole(), head("Content-Length: 9", signature="x")]
        for index in range(count):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            connection.sendall(states[index % len(states)])
        time.sleep(0.5)  # for all to have arrived
        started = time.monotonic()
        process.terminate()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "closed\n")
    assert "Traceback" not in err
    assert time.monotonic() - started < 20  # the time of grace is 5 seconds, and the machine may be busy


def test_there_are_as_many_connections_as_files_allow(monkeypatch):
    """Half of them, so that the database and bursts of new connections have theirs."""
    for files, most in ((64, 32), (1_024, 512), (1_000_000, 4_096), (8, 16)):
        monkeypatch.setattr(bounds, "_file_limits", lambda files=files: (files, files))
        assert bounds.most_connections() == most
