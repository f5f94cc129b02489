"""Which connections a session makes, keeps and closes, and what it sends on them."""

from __future__ import annotations

import threading
from operator import attrgetter

import anyio
import anyio.to_thread
import httpx
import pytest
from doubles import CREDENTIALS, envelope
from faults import LARGE, SET
from raw_server import RawServer, answer, http, say
from stacks import loop_of_stack, on_httpx, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE
from transportkit import ADDED, INFO, every_open_connection_closed

from face_async import Throttle, __version__
from face_async._transports import lanes
from face_async.signature import parse, verify_signature

pytestmark = pytest.mark.anyio

# Connections


async def test_calls_one_after_another_share_one_connection(session_at, stack):
    """Keep-alive works: three calls, one connection."""
    with RawServer([answer(INFO)] * 3) as server:
        async with session_at(server) as session:
            for _ in range(3):
                await session.get_info("p")
            assert session.stats.connections == 1
    assert [request.connection for request in server.requests] == [0, 0, 0]


def meeting(parties, content):
    """Return a behavior that answers only when so many requests are there at once."""
    barrier = threading.Barrier(parties)

    def behave(connection):
        connection.read_request()
        barrier.wait(PATIENCE)
        connection.send(http(content))

    return behave


async def test_calls_at_once_have_a_connection_each(session_at):
    """Five calls at once are five requests at once, on five connections."""
    with RawServer([meeting(5, INFO)] * 5) as server:
        async with session_at(server) as session, anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(session.get_info, "p")
    assert server.accepted == 5


async def test_the_throttle_bounds_calls_and_connections(session_at, stack):
    """However many calls there are, max_concurrency of them, copies' included, are under way on as many connections."""
    with RawServer([meeting(4, INFO)] * 20) as server:
        async with session_at(server, throttle=Throttle(max_concurrency=4)) as session:
            other = session.with_options(deadline=PATIENCE)
            async with anyio.create_task_group() as tasks:
                for caller in [session, other] * 10:
                    tasks.start_soon(caller.get_info, "p")
            assert session.stats.connections == 4
            assert session.stats.seconds_queued > 0
    assert server.accepted == 4


async def test_connections_that_are_no_longer_needed_are_closed(session_at, monkeypatch):
    """After a crowd of calls, those who come one by one end the connections that have been idle for too long."""
    with RawServer([meeting(5, INFO)] * 5 + [answer(INFO)] * 5) as server:
        async with every_open_connection_closed(server), session_at(server) as session:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(session.get_info, "p")
            monkeypatch.setattr("face_async._transports.idle.KEEPALIVE_SECONDS", -1.0)
            left = [session.stats.connections]
            for _ in range(5):
                await session.get_info("p")
                left.append(session.stats.connections)
    assert (5, 1) == (left[0], left[-1])
    assert left == sorted(left, reverse=True)


async def test_a_connection_that_the_server_has_closed_is_not_used_again(session_at):
    """A stale keep-alive connection costs an effect neither an attempt nor its certainty."""
    closed = threading.Event()

    def answer_and_leave(connection):
        answer(SET)(connection)
        connection.close()
        closed.set()

    with RawServer([answer_and_leave, answer(SET)]) as server:
        async with session_at(server) as session:
            await session.set_info("p", tag="a")
            assert await anyio.to_thread.run_sync(closed.wait, PATIENCE)
            result = await session.set_info("p", tag="b")
    assert result.meta.attempts == 1
    assert server.accepted == 2


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_an_upload_on_a_stale_connection_is_whole_and_certain(session_at, way, large):
    """A large body, too, finds out that its connection is gone before anything of it is lost."""
    closed = threading.Event()

    def answer_and_leave(connection):
        answer(SET)(connection)
        connection.close() if way == "FIN" else connection.reset()
        closed.set()

    with RawServer([answer_and_leave, answer(ADDED)]) as server:
        async with session_at(server) as session:
            await session.set_info("p", tag="a")
            assert await anyio.to_thread.run_sync(closed.wait, PATIENCE)
            result = await session.add_face("p", [large])
    assert result.added == 1
    assert LARGE in server.requests[1].body


async def test_an_answer_sent_ahead_is_never_taken_for_that_of_the_next_call(session_at):
    """What follows a whole answer on its connection is thrown away with the connection."""
    ahead = INFO.replace(b"Ada", b"Eve")
    with RawServer([say(http(INFO) + http(ahead)), answer(INFO)]) as server:
        async with session_at(server) as session:
            names = [(await session.get_info("p")).person_name for _ in range(2)]
    assert names == ["Ada", "Ada"]


@on_httpx
async def test_a_library_that_hides_what_came_after_an_answer_is_said_once(session_at, monkeypatch, caplog):
    """Then connections are not used again, calls succeed all the same, and the log tells why they are slow."""
    monkeypatch.setattr(lanes, "_trailing_data", attrgetter("there_is_no_such_attribute"))
    lanes._warn_of_other_httpcore.cache_clear()
    with RawServer([answer(INFO)] * 3) as server:
        async with session_at(server) as session:
            for _ in range(3):
                await session.get_info("p")
    assert server.accepted == 3
    [record] = [record for record in caplog.records if record.name == "face_async"]
    assert (record.levelname, "httpcore" in record.getMessage()) == ("WARNING", True)


async def test_bytes_that_come_after_an_answer_are_never_taken_for_that_of_the_next_call(session_at):
    """An idle connection on which something came is not used again either."""
    said = threading.Event()

    def say_more(connection):
        answer(INFO)(connection)
        connection.send(http(INFO.replace(b"Ada", b"Eve")))
        said.set()

    with RawServer([say_more, answer(INFO)]) as server:
        async with session_at(server) as session:
            await session.get_info("p")
            assert await anyio.to_thread.run_sync(said.wait, PATIENCE)
            assert (await session.get_info("p")).person_name == "Ada"
    assert server.accepted == 2


@on_httpx
async def test_a_given_transport_is_used_and_not_closed(session_at):
    """Who opens a transport closes it; the session only sends with it."""

    class Owned(httpx.AsyncHTTPTransport):
        closed = False

        async def aclose(self):
            self.closed = True
            await super().aclose()

    transport = Owned()
    with RawServer([answer(INFO)]) as server:
        async with session_at(server, transport=transport) as session:
            assert (await session.get_info("p")).person_name == "Ada"
        assert not transport.closed
        await transport.aclose()


async def test_proxies_of_the_environment_are_ignored(session_at, monkeypatch):
    """Pictures go to base_url and nowhere else, whatever the environment says."""
    with RawServer([]) as proxy, RawServer([answer(INFO)]) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with session_at(server) as session:
            await session.get_info("p")
    assert proxy.accepted == 0


# Headers


async def test_the_headers_are_exactly_these(session_at, rng):
    """JSON and multipart requests carry the same eight headers, once each, and a true length."""
    with RawServer([answer(INFO), answer(ADDED)]) as server:
        async with session_at(server) as session:
            await session.get_info("p")
            await session.add_face("p", [rng.randbytes(300_000)])
    for request, kind in zip(server.requests, ("application/json", "multipart/form-data"), strict=True):
        names = [name.lower() for name, _ in request.headers]
        expected = {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "content-type",
            "content-length",
            "authorization",
        }
        assert expected == set(names)
        assert len(names) == len(set(names))
        assert server.host == request.header("Host")
        assert str(len(request.body)) == request.header("Content-Length")
        assert request.header("Accept-Encoding") == "identity"
        assert request.header("User-Agent") == f"face_async/{__version__}"
        assert request.header("Content-Type").partition(";")[0] == kind
    assert [request.line for request in server.requests] == [
        "POST /face/getinfo HTTP/1.1",
        "POST /face/addface HTTP/1.1",
    ]


async def test_every_attempt_is_signed_anew(session_at):
    """Two attempts of one call carry two true signatures, so that neither is a replay of the other."""
    with RawServer([answer(envelope(code=107)), answer(INFO)]) as server:
        async with session_at(server) as session:
            await session.get_info("p")
    values = [request.header("Authorization") for request in server.requests]
    assert all(verify_signature(parse(value), CREDENTIALS) for value in values)
    assert values[0] != values[1]
    assert server.requests[0].body == server.requests[1].body
