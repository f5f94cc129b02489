"""The client behind a real nginx, which ends connections when it likes and answers before it has read everything."""

from __future__ import annotations

import contextlib
import itertools

import anyio
import pytest
from doubles import envelope
from faults import FAULTS, LARGE, SET
from nginxkit import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from raw_server import RawServer, answer, say, silence
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures go by other names
from timing import PATIENCE, in_time

from face_async import FaceError, ResponseError, RetryPolicy, TransportError

pytestmark = [pytest.mark.anyio, pytest.mark.external("nginx")]

INFO = envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""})
ADDED = envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})
JPEG = b"\xff\xd8\xff" + bytes(100_000)
ROOMY = "client_max_body_size 2m;"
ONCE = RetryPolicy(max_attempts=1)


# Connections that nginx ends


async def test_a_connection_that_nginx_ends_after_some_requests_costs_no_try(session_at, start_nginx):
    """Its last answer says so: nine calls, three a connection, no retry."""
    with RawServer([answer(INFO)] * 9) as server:
        nginx = start_nginx(server.url, "keepalive_requests 3;")
        async with session_at(nginx.url) as session:
            for _ in range(9):
                await session.get_info("p")
            assert session.stats.retries == 0
    nginx.stop()
    connections = [request.connection for request in nginx.requests]
    assert [connections.count(connection) for connection in dict.fromkeys(connections)] == [3, 3, 3]


async def test_uploads_at_once_over_connections_that_end_are_each_there_once(session_at, start_nginx):
    """Sixty effects, a dozen at a time: none is lost, tried again or in doubt."""
    with RawServer([answer(ADDED)] * 60) as server:
        nginx = start_nginx(server.url, ROOMY, "keepalive_requests 3;")
        async with session_at(nginx.url) as session:
            pairs = ((f"person{index}", JPEG) for index in range(60))
            known = [session.ledger.learn(f"person{index}", []) for index in range(60)]
            async with session.add_faces(pairs, max_at_once=12) as outcomes:
                done = [outcome.unwrap() async for outcome in outcomes]
            assert (len(known), len(done), session.stats.retries) == (60, 60, 0)
    persons = {request.body.partition(b"person_id")[2].split(b"\r\n")[2] for request in server.requests}
    assert persons == {f"person{index}".encode() for index in range(60)}


async def test_a_connection_that_nginx_ends_while_it_is_idle_costs_no_try(session_at, start_nginx):
    """That it has ended is seen before the next request is sent."""
    with RawServer(itertools.repeat(answer(INFO))) as server:
        nginx = start_nginx(server.url, "keepalive_timeout 50ms;")

        async def act(seconds):
            async with session_at(nginx.url) as session:
                for _ in range(2):
                    await session.get_info("p")
                    await anyio.sleep(seconds)
                assert session.stats.retries == 0

        await in_time(act)
    nginx.stop()
    connections = [request.connection for request in nginx.requests]
    assert len(set(connections)) == len(connections)


async def test_calls_while_connections_end_all_come_to_their_results(session_at, start_nginx):
    """Nginx ends connections at the very moments at which they are used again."""
    with RawServer(itertools.repeat(answer(INFO))) as server:
        nginx = start_nginx(server.url, "keepalive_timeout 5ms;")
        async with session_at(nginx.url) as session:
            for step in range(100):
                assert (await session.get_info("p")).person_name == "Ada"
                await anyio.sleep(0.003 + step % 5 * 0.001)


# Answers that come early, or after others


async def test_a_body_that_nginx_refuses_is_refused_for_certain(session_at, start_nginx):
    """It answers as soon as it has read the head; nothing arrived, and the session goes on."""
    with RawServer([answer(INFO)]) as server:
        nginx = start_nginx(server.url, "client_max_body_size 1k;")
        async with session_at(nginx.url) as session:
            with pytest.raises(FaceError) as caught:
                await session.add_face("p", [LARGE])
            assert not getattr(caught.value, "maybe_applied", False)
            assert (await session.get_info("p")).person_name == "Ada"
    assert [request.line for request in server.requests] == ["POST /face/getinfo HTTP/1.0"]


@pytest.mark.parametrize("informational", [b"100 Continue", b"103 Early Hints"])
async def test_informational_answers_behind_nginx_lead_to_an_end(session_at, start_nginx, informational):
    """Whatever nginx makes of them, at the latest when the time is over: the result, or an error that says why not."""
    first = b"HTTP/1.1 " + informational + b"\r\n\r\n"
    with RawServer([say(first + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SET) + SET)]) as server:
        nginx = start_nginx(server.url)
        async with session_at(nginx.url, retry=ONCE, timeout=1) as session:
            ended = None
            with contextlib.suppress(TransportError, ResponseError):
                ended = await session.set_info("p", tag="t")
            assert ended is None or ended.person_id == "p"


async def test_a_call_that_waits_longer_than_its_timeout_leaves_its_effect_open(session_at, start_nginx):
    """Nginx would wait a minute."""
    with RawServer([silence()]) as server:
        nginx = start_nginx(server.url)
        async with session_at(nginx.url, retry=ONCE, timeout=0.5) as session:
            with pytest.raises(FaceError) as caught:
                await session.set_info("p", tag="t")
    assert caught.value.maybe_applied


# The table of faults


async def test_every_fault_behind_nginx_means_what_it_means_without(session_at, start_nginx):
    """What nginx cannot make an answer of becomes a 502: that leaves the effect open as the fault itself does."""
    with RawServer([fault.behavior() for fault in FAULTS]) as server:
        nginx = start_nginx(server.url, ROOMY)
        for fault in FAULTS:
            # What is no HTTP nginx passes on as it is, and leaves the connection open.
            timeout = 1 if fault.name == "no HTTP" else PATIENCE
            async with session_at(nginx.url, retry=ONCE, timeout=timeout) as session:
                with pytest.raises(FaceError) as caught:
                    await session.add_face("p", [LARGE if fault.large else JPEG])
            told = "A" if getattr(caught.value, "maybe_applied", False) else "N"
            assert (fault.name, told) == (fault.name, fault.phase)
