"""Answers that never come: what is certain, what is in doubt, and what is asked for again."""

from __future__ import annotations

import re

import pytest
from doubles import envelope
from faults import LARGE, SET
from raw_server import (
    CERTIFICATE,
    RawServer,
    answer,
    black_hole,
    close_after_request,
    http,
    never_read,
    reset_after_request,
    reset_mid_body,
    silence,
)
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import in_time
from transportkit import ADDED, INFO, ONCE, free_port

from face_async import DeadlineError, RequestTooLargeError, TransportError

pytestmark = pytest.mark.anyio


async def test_a_refused_connection_names_the_host_and_is_certain(session_at):
    """Nothing can have happened where nobody listens; all attempts are made, even for an effect."""
    host = f"127.0.0.1:{free_port()}"
    async with session_at(f"http://{host}") as session:
        with pytest.raises(TransportError, match=re.escape(host)) as caught:
            await session.set_info("p", tag="t")
        assert session.stats.connections == 0
    assert (caught.value.maybe_applied, caught.value.attempts, caught.value.endpoint) == (False, 3, "setinfo")


async def test_connections_reset_on_arrival(session_at, large):
    """A read is tried again; an upload was not executed, so it is tried again too; an effect is at most in doubt."""
    with RawServer([answer(INFO)], resets=2) as server:
        async with session_at(server) as session:
            assert (await session.get_info("p")).meta.attempts == 3
    with RawServer([answer(ADDED)], resets=2, narrow=True) as server:
        async with session_at(server) as session:
            assert (await session.add_face("p", [large])).meta.attempts == 3
    with RawServer([], resets=1) as server:
        async with session_at(server, retry=ONCE) as session:
            with pytest.raises(TransportError):
                await session.set_info("p", tag="t")
    # Whether a reset is noticed while connecting, and so is certain, or while reading, is a matter of moments.
    assert server.requests == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(session_at, tmp_path):
    """Not even the head of a request is sent, and all attempts are made, since nothing can have happened."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    with RawServer([], tls=path) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match=r"cannot connect: .*(?i:certificate)") as caught:
                await session.set_info("p", tag="t")
    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)
    assert server.accepted == 3
    assert server.requests == []


async def test_a_host_that_never_answers_to_a_connection_is_certain(session_at):
    """Connecting takes ``timeout`` seconds, and since nothing was sent, an effect is tried again."""
    with black_hole() as url:
        async with session_at(url, timeout=0.1) as session:
            with pytest.raises(TransportError, match="connecting took too long") as caught:
                await session.set_info("p", tag="t")
            assert session.stats.connections == 0
    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)


GONE = [pytest.param(reset_after_request(), id="RST"), pytest.param(close_after_request(), id="FIN")]


@pytest.mark.parametrize("gone", GONE)
async def test_a_lost_answer_leaves_an_effect_in_doubt(session_at, gone):
    """A connection lost after the whole request says nothing of its effect, and the error says so."""
    with RawServer([gone]) as server:
        async with session_at(server, retry=ONCE) as session:
            with pytest.raises(TransportError, match="look before repeating") as caught:
                await session.set_info("p", tag="t")
    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("gone", GONE)
async def test_a_lost_answer_on_a_kept_connection_leaves_an_effect_in_doubt(session_at, gone):
    """No library may send a request again on its own: whole requests are counted."""
    with RawServer([answer(SET), gone]) as server:
        async with session_at(server, retry=ONCE) as session:
            await session.set_info("p", tag="a")
            with pytest.raises(TransportError, match="look before repeating") as caught:
                await session.set_info("p", tag="b")
    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 1)
    assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize("gone", GONE)
async def test_a_lost_answer_is_asked_for_again_when_nothing_changes(session_at, gone):
    """A read whose answer was lost is tried again, and counts its attempts."""
    with RawServer([gone, answer(INFO), gone, gone, answer(INFO)]) as server:
        async with session_at(server) as session:
            attempts = [(await session.get_info("p")).meta.attempts for _ in range(2)]
            stats = session.stats
    assert attempts == [2, 3]
    assert (stats.requests, stats.retries) == (5, 3)


@pytest.mark.parametrize("gone", GONE)
async def test_a_read_is_given_up_after_max_attempts(session_at, gone):
    """Three lost answers are an error, of which nothing can have come."""
    with RawServer([gone] * 3) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError) as caught:
                await session.get_info("p")
            assert session.stats.connections == 0
    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)


@pytest.mark.parametrize("in_file", [True, False], ids=["path", "bytes"])
async def test_an_upload_cut_short_was_not_executed(session_at, in_file, tmp_path):
    """A reset before the last chunk leaves no doubt: even add_face is tried again, and is whole at last."""
    path = tmp_path / "large.jpg"
    path.write_bytes(LARGE)
    with RawServer([reset_mid_body(), reset_mid_body(after=1), answer(ADDED)], narrow=True) as server:
        async with session_at(server) as session:
            result = await session.add_face("p", [path if in_file else LARGE])
    assert result.meta.attempts == 3
    assert len(server.requests) == 1
    assert LARGE in server.requests[0].body


async def test_an_upload_cut_short_three_times_is_certain_to_be_undone(session_at):
    """The error of an upload that never got through says that nothing happened."""
    with RawServer([reset_mid_body()] * 3, narrow=True) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError) as caught:
                await session.add_face("p", [LARGE])
    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)
    assert server.requests == []


async def test_a_refusal_that_comes_before_the_whole_upload_is_heard(session_at):
    """A server may answer early, as long as it reads on: its code is raised."""

    def refuse(connection):
        head = connection.read_head()
        connection.send(http(envelope(code=23), 413))
        connection.read(int(re.search(rb"Content-Length: (\d+)", head)[1]))

    with RawServer([refuse], narrow=True) as server:
        async with session_at(server) as session:
            with pytest.raises(RequestTooLargeError) as caught:
                await session.add_face("p", [LARGE])
    assert caught.value.code == 23


async def test_a_refusal_followed_by_a_reset_leaves_no_doubt(session_at):
    """Whether the early answer gets through or not, an upload cut short was not executed."""

    def refuse(connection):
        connection.read_head()
        connection.send(http(envelope(code=23), 413))
        connection.reset()

    with RawServer([refuse], narrow=True) as server:
        async with session_at(server, retry=ONCE) as session:
            with pytest.raises((RequestTooLargeError, TransportError)) as caught:
                await session.add_face("p", [LARGE])
    assert getattr(caught.value, "maybe_applied", False) is False


async def test_no_answer_within_the_timeout_is_an_error(session_at):
    """A silent server costs ``timeout`` seconds an attempt, and leaves an effect in doubt."""

    async def act(timeout):
        with RawServer([silence()] * 4) as server:
            async with session_at(server, timeout=timeout) as session:
                with pytest.raises(TransportError, match="too long") as read:
                    await session.get_info("p")
                with pytest.raises(TransportError, match="too long") as effect:
                    await session.with_options(retry=ONCE).set_info("p", tag="t")
        assert not isinstance(read.value, DeadlineError)
        assert (read.value.maybe_applied, read.value.attempts) == (False, 3)
        assert (effect.value.maybe_applied, effect.value.attempts) == (True, 1)

    await in_time(act)


async def test_a_server_that_does_not_read_times_out_without_doubt(session_at):
    """An upload that the server never takes cannot have been executed."""

    async def act(timeout):
        with RawServer([never_read()] * 3, narrow=True) as server:
            async with session_at(server, timeout=timeout) as session:
                with pytest.raises(TransportError, match="too long") as caught:
                    await session.add_face("p", [LARGE])
        assert (caught.value.maybe_applied, caught.value.attempts) == (False, 3)

    await in_time(act)
