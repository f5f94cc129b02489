"""What is the business of http="asyncio" alone; what it shares with httpx is in other files."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from doubles import envelope
from raw_server import CERTIFICATE, RawServer, answer, black_hole, http, never_read, say, silence
from stacks import loop_of_stack, on_asyncio, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE

from face_async import RequestTooLargeError, RetryPolicy, TransportError
from face_async._transports import target
from face_async._transports.base import Timeouts, TransportFailure
from face_async._transports.pool import AsyncioPool

pytestmark = [pytest.mark.anyio, on_asyncio]

INFO = envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""})
JPEG = b"\xff\xd8\xff\xe0"
LARGE = JPEG + bytes(1_400_000)
ONCE = RetryPolicy(max_attempts=1)


class Chunks:
    """A body of given chunks, and what happens before each is handed over."""

    def __init__(self, chunks, length=None, before=None):
        self.length = sum(map(len, chunks)) if length is None else length
        self.handed = 0
        self._chunks = iter(chunks)
        self._before = before

    def in_one_go(self):
        return None

    def __aiter__(self):
        return self

    async def __anext__(self):
        chunk = next(self._chunks, None)
        if chunk is None:
            raise StopAsyncIteration
        if self._before is not None:
            await self._before()
        self.handed += 1
        return chunk


@pytest.fixture
async def pool(stack):
    pool = AsyncioPool()
    yield pool
    await pool.aclose()


async def send(pool, server, body, *, step=PATIENCE, whole=PATIENCE):
    url = server if isinstance(server, str) else server.url
    headers = {"Host": "h", "Content-Length": str(body.length)}
    return await pool.send(f"{url}/face/x", headers, body, Timeouts(step, whole))


async def failure_of(sending) -> TransportFailure:
    with pytest.raises(TransportFailure) as caught:
        await sending
    return caught.value


# What was certainly not sent


async def test_what_fails_before_a_byte_was_written_is_unsent(pool):
    """Connecting, and reading the body's first chunk: nothing can have reached a server, and the failure says so."""
    with black_hole() as url:
        assert (await failure_of(send(pool, url, Chunks([b"x"]), step=0.1))).unsent
        assert (await failure_of(send(pool, url, Chunks([b"x"]), whole=0.1))).unsent
    with RawServer([]) as server:
        body = Chunks([b"x"], before=anyio.sleep_forever)
        started = time.monotonic()
        assert (await failure_of(send(pool, server, body, whole=0.1))).unsent
        assert time.monotonic() - started < PATIENCE / 2
        assert (await failure_of(pool.send(f"{server.url}/", {"A": "b\r\nc"}, body, Timeouts(1, 1)))).unsent
    assert pool.connections == 0


async def test_what_fails_later_may_have_been_sent(pool):
    """From the first byte on, the transport does not know any more what the server has seen."""
    with RawServer([never_read(), silence()], narrow=True) as server:
        assert not (await failure_of(send(pool, server, Chunks([bytes(80_000)] * 10), step=0.1))).unsent
        assert not (await failure_of(send(pool, server, Chunks([b"x"]), step=0.1))).unsent
    assert pool.connections == 0


async def test_a_session_that_closes_says_what_was_unsent(stack):
    """While a connection is made or the body's beginning is read, nothing is in doubt."""
    failures = []

    async def call(pool, url, body):
        failures.append(await failure_of(send(pool, url, body)))

    with black_hole() as hole, RawServer([silence()]) as server:
        pool = AsyncioPool()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, pool, hole, Chunks([b"x"]))
            tasks.start_soon(call, pool, server.url, Chunks([b"x"], before=anyio.sleep_forever))
            tasks.start_soon(call, pool, server.url, Chunks([b"x"]))
            await anyio.to_thread.run_sync(server.began.acquire, True, PATIENCE)
            await pool.aclose()
    assert sorted(failure.unsent for failure in failures) == [False, True, True]
    assert {str(failure) for failure in failures} == {"the session was closed meanwhile"}
    assert (pool.connections, (await failure_of(send(pool, "http://h", Chunks([])))).unsent) == (0, True)


async def test_an_answer_before_its_request_is_nobodys(pool):
    """What a server says on a connection before it was asked answers nothing; asking again is safe."""

    async def heard():
        await anyio.sleep(0.1)

    with RawServer([], greeting=http(b"early")) as server:
        failure = await failure_of(send(pool, server, Chunks([b"x"], before=heard)))
    assert failure.unsent


async def test_a_body_is_sent_as_long_as_it_said_or_not_at_all(pool):
    """A chunk beyond the length would be read as the next request; one that is missing leaves a request half."""
    with RawServer(itertools.repeat(never_read())) as server:
        for chunks in ([b"12", b"345"], [b"12"]):
            failure = await failure_of(send(pool, server, Chunks(chunks, length=4)))
            assert ("not as long as it said" in str(failure), failure.unsent) == (True, False)
            assert pool.connections == 0
    with RawServer([answer()]) as server:
        await send(pool, server, Chunks([b"12", b"", b"34", b"56"], length=4))
    assert [b"1234"] == [request.body for request in server.requests]


# Early and informational answers


async def test_an_early_answer_ends_the_upload(pool):
    """Although the server reads nothing more, its refusal is heard, and the rest of the body is not even read."""

    def refuse(connection):
        connection.read_head()
        connection.send(http(envelope(code=23), 413))
        connection.hold()

    body = Chunks([bytes(80_000)] * 1_000)
    with RawServer([refuse], narrow=True) as server:
        assert (await send(pool, server, body)).status == 413
    assert body.handed < 100
    assert pool.connections == 0


async def test_an_early_answer_reaches_the_caller(session_at):
    """As the service's own refusal, for an upload from a session too."""

    def refuse(connection):
        connection.read_head()
        connection.send(http(envelope(code=23), 413))
        connection.hold()

    with RawServer([refuse], narrow=True) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            with pytest.raises(RequestTooLargeError):
                await session.add_face("p", [LARGE])
            assert session.stats.connections == 0


async def test_informational_answers_do_not_end_an_upload(pool):
    """100 and 103 may come while the body is sent."""

    def hint(connection):
        head = connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        connection.read(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
        connection.send(http(b"whole"))

    with RawServer([hint], narrow=True) as server:
        assert (await send(pool, server, Chunks([bytes(80_000)] * 10))).content == b"whole"
    assert pool.connections == 1


# Connections


async def test_closed_connections_and_those_that_close_are_not_kept(pool):
    """Connection: close, HTTP/1.0 and an answer that ends with the connection: the next request has a new one."""
    packets = [
        http(b"1", 200, ("Connection", "close")),
        http(b"2").replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\n\r\n3",
        http(b"4"),
    ]
    script = [say(packet, then_close=packet.endswith(b"3")) for packet in packets]
    with RawServer(script) as server:
        said = [(await send(pool, server, Chunks([b"x"]))).content for _ in packets]
    assert said == [b"1", b"2", b"3", b"4"]
    assert server.accepted == 4


async def test_a_connection_that_ends_while_it_is_idle_is_forgotten(pool):
    """Without a call that would notice it."""
    with RawServer([say(http(b"1"), then_close=True)]) as server:
        await send(pool, server, Chunks([b"x"]))
        with anyio.fail_after(PATIENCE):
            while pool.connections:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.01)


async def test_a_connection_leads_to_one_place_only(pool):
    """A kept connection to another host or port is not used."""
    with RawServer([answer(b"1")]) as one, RawServer([answer(b"2")]) as two:
        assert [(await send(pool, server, Chunks([b"x"]))).content for server in (one, two)] == [b"1", b"2"]


async def test_ipv6(session_at):
    """An address in brackets is connected to, and named so in Host."""
    with RawServer([answer(INFO)], address="::1") as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).person_name == "Ada"
    assert server.host == server.requests[0].header("Host")
    assert server.host.startswith("[::1]:")


async def test_a_name_with_several_addresses(session_at):
    """localhost is ::1 and 127.0.0.1, and a server listens on one of them."""
    with RawServer([answer(INFO)]) as server:
        async with session_at(server.url.replace("127.0.0.1", "localhost")) as session:
            assert (await session.get_info("p")).person_name == "Ada"


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    return path


async def test_tls(session_at, certificate, monkeypatch):
    """With a certificate that somebody vouches for: small calls and uploads, on one connection."""
    monkeypatch.setattr(target, "trusted_authorities", lambda: ssl.create_default_context(cafile=certificate))
    added = envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})
    with RawServer([answer(INFO), answer(added), answer(INFO)], tls=certificate) as server:
        async with session_at(server) as session:
            await session.get_info("p")
            await session.add_face("p", [LARGE])
            await session.get_info("p")
    assert [0, 0, 0] == [request.connection for request in server.requests]
    assert LARGE in server.requests[1].body


async def test_certificates_are_loaded_once_a_process(certificate, session_at, monkeypatch):
    """For all sessions and all connections together."""
    loaded = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: loaded.append(1) or create(**options))
    target._lasting_context.cache_clear()
    with RawServer([], tls=certificate) as server:
        for _ in range(2):
            async with session_at(server) as session:
                with pytest.raises(TransportError, match=r"(?i)certificate"):
                    await session.get_info("p")
    assert loaded == [1]


async def test_a_connection_lost_in_the_handshake_is_unsent(pool, certificate, monkeypatch):
    """The server hangs up, or says something else than TLS: no byte of the request was sent."""
    monkeypatch.setattr(target, "trusted_authorities", lambda: ssl.create_default_context(cafile=certificate))
    with RawServer([], resets=1) as server:
        failure = await failure_of(send(pool, server.url.replace("http:", "https:"), Chunks([b"x"])))
        assert (failure.unsent, str(failure)[:14]) == (True, "cannot connect")

    def babble(connection):
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()

    with RawServer([babble]) as server:
        assert (await failure_of(send(pool, server.url.replace("http:", "https:"), Chunks([b"x"])))).unsent


# Cancelling


@pytest.mark.parametrize("patience", [0.0, 0.001, 0.05])
async def test_a_scope_of_anyio_knows_its_own_cancellation(session_at, patience):
    """Nothing leaves a scope that has cancelled a call, and the task is as it was."""
    with RawServer(itertools.repeat(silence())) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            with anyio.move_on_after(patience) as scope:
                await session.get_info("p")
            assert scope.cancelled_caught
            assert session.stats.connections == 0
            assert asyncio.current_task().cancelling() == 0
            await anyio.lowlevel.checkpoint()


async def test_a_call_in_a_task_that_was_cancelled_before_ends_in_time(session_at):
    """Cleaning up after a cancellation, a call's timeout is its own error and no cancellation."""

    async def clean_up():
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            with black_hole() as url:
                async with session_at(url, timeout=0.1, retry=ONCE) as session:
                    with pytest.raises(TransportError, match="too long"):
                        await session.get_info("p")
            return True
        return False

    task = asyncio.ensure_future(clean_up())
    await anyio.lowlevel.checkpoint()
    task.cancel()
    await asyncio.wait([task])
    assert task.result()


def open_copies_of(path):
    return [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(path)]


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
async def test_a_cancelled_upload_closes_its_file(session_at, native, tmp_path):
    """Whoever cancels, file and connection are closed when the call has ended."""
    path = (tmp_path / "picture.jpg").resolve()
    path.write_bytes(LARGE)
    with RawServer(itertools.repeat(never_read()), narrow=True) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            call = asyncio.ensure_future(session.identify("g", path)) if native else None
            async with anyio.create_task_group() as tasks:
                if not native:
                    tasks.start_soon(session.identify, "g", path)
                with anyio.fail_after(PATIENCE):
                    while not open_copies_of(path):  # noqa: ASYNC110 - a worker thread opens it
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            if call:
                call.cancel()
                await asyncio.wait([call])
                assert call.cancelled()
            assert session.stats.connections == 0
            with anyio.move_on_after(PATIENCE):
                while open_copies_of(path):  # noqa: ASYNC110 - a worker thread may still be reading
                    await anyio.sleep(0.001)
            assert open_copies_of(path) == []


# Processes


PROGRAM = """
import asyncio, sys
from face_async import Credentials, FaceSession

session = FaceSession("1", "b", Credentials("i", "k"), base_url=sys.argv[1], http="asyncio")

async def well_behaved():
    async with session:
        await asyncio.gather(*[session.get_info("p") for _ in range(8)])

async def left_in_the_middle():
    async with session:
        tasks = [asyncio.create_task(session.set_info("p", tag="t")) for _ in range(8)]
        await asyncio.sleep(0.1)
    await asyncio.wait(tasks)
    assert all(task.exception() for task in tasks)

async def cancelled_upload():
    try:
        async with asyncio.timeout(0.1), session:
            await session.identify("g", b"\\xff\\xd8\\xff" + bytes(1_400_000))
    except TimeoutError:
        pass

asyncio.run(globals()[sys.argv[2]]())
print("done")
"""


@pytest.mark.parametrize("way", ["well_behaved", "left_in_the_middle", "cancelled_upload"])
def test_a_process_that_used_it_ends_without_a_word(stack, way, tmp_path):
    """No warning, however the program leaves its session's block."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    over = threading.Event()

    def behave(connection):
        head = connection.read_head()
        if b"/face/getinfo " not in head:
            over.wait(PATIENCE)
            return
        connection.read(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
        connection.send(http(INFO))

    with RawServer(iter([behave] * 100)) as server:
        command = [sys.executable, "-W", "error", str(script), server.url, way]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        over.set()
    assert (0, "done\n", "") == (ran.returncode, ran.stdout, ran.stderr)
