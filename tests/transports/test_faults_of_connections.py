"""Every endpoint on connections that are not made or not kept, and answers that are final or ask for something."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate

import anyio
import anyio.to_thread
import pytest
from attrs import frozen
from doubles import envelope
from faultcases import ATTEMPTS, LOOKS, VERBS, Verb, at_once, pytest_generate_tests, seen, stack_in_turn  # noqa: F401 - the hook and the fixture are for pytest
from faults import HTML, refuse_early
from raw_server import CERTIFICATE, Behavior, RawServer, answer, black_hole, http, say
from stacks import loop_of_stack, session_of_stack  # noqa: F401 - fixtures go by other names
from timing import PATIENCE, in_time

from face_async import (
    CODES,
    AuthError,
    CallError,
    RequestTooLargeRefusal,
    ResponseError,
    RetryPolicy,
    ServiceError,
    TransportError,
)
from face_async.errors import Retry
from face_async.signature import parse

pytestmark = pytest.mark.anyio

# Connections that are not made


@frozen
class Mending(RetryPolicy):
    """Tries again at once, after having mended what was wrong."""

    mend: Callable[[], object] = list

    def pause(self, attempt, random, asked=0.0):
        self.mend()
        return super().pause(attempt, random, asked)


def assert_certain(error: CallError, verb: Verb) -> None:
    """Assert that a call was tried as often as may be, and certainly had no effect."""
    assert TransportError is type(error)
    assert (verb.name, ATTEMPTS, False) == (error.endpoint, error.attempts, error.maybe_applied)


async def test_a_refused_connection(session_at, verb):
    """Nothing can have happened: it costs an attempt, and for ever it is an error without doubt."""
    with RawServer([verb.good], starts=False) as server:
        async with session_at(server, retry=Mending(base_delay=0, mend=server.start)) as session:
            assert verb.result == await verb.call(session)
            assert 2 == session.stats.requests
    with RawServer([], starts=False) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match="cannot connect") as caught:
                await verb.call(session)
    assert_certain(caught.value, verb)


async def test_a_connection_that_is_never_made(session_at):
    """It costs ``timeout`` seconds an attempt, and nothing can have happened either; so it is for every verb."""

    async def act(timeout):
        await at_once(lambda verb: swallowed(verb, timeout))

    async def swallowed(verb, timeout):
        with RawServer([verb.good], starts=False) as server:
            policy = Mending(base_delay=0, mend=server.swallow())
            async with session_at(server, retry=policy, timeout=timeout) as session:
                assert verb.result == await verb.call(session)
                assert 2 == session.stats.requests
        with black_hole() as url:
            async with session_at(url, timeout=timeout) as session:
                with pytest.raises(TransportError, match="connecting took too long") as caught:
                    await verb.call(session)
        assert_certain(caught.value, verb)

    await in_time(act)


async def test_a_bad_certificate(session_at, verb, tmp_path):
    """Nothing is said to a server that cannot prove who it is."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    with RawServer([], tls=path) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
                await verb.call(session)
    assert_certain(caught.value, verb)
    assert (ATTEMPTS, []) == (server.accepted, server.requests)


async def test_a_connection_that_is_reset_on_arrival(session_at, verb):
    """It costs an attempt. Whether the reset is noticed before all was said is a matter of moments, and so is doubt."""
    with RawServer([verb.good], resets=1) as server:
        async with session_at(server) as session:
            assert verb.result == await verb.call(session)
            assert 2 == session.stats.requests
    with RawServer([], resets=1_000) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError) as caught:
                await verb.call(session)
    assert (verb.name, ATTEMPTS) == (caught.value.endpoint, caught.value.attempts)
    assert caught.value.maybe_applied <= verb.effect
    assert [] == server.requests


# Connections that are kept


def gone(way: str, closed: threading.Event) -> Behavior:
    """Return a behavior that answers and leaves, without having announced it."""

    def behave(connection):
        answer(VERBS["getgroupids"].sample.answer)(connection)
        connection.close() if way == "FIN" else connection.reset()
        closed.set()

    return behave


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_a_connection_gone_stale_costs_nothing(session_at, verb, way):
    """It is noticed before anything is said on it, for small and for large bodies: one attempt, one request."""
    for large in (False, True)[: 1 + verb.uploads]:
        closed = threading.Event()
        with RawServer([gone(way, closed), verb.good]) as server:
            async with session_at(server) as session:
                await session.get_group_ids()
                assert await anyio.to_thread.run_sync(closed.wait, PATIENCE)
                assert verb.result == await verb.call(session, large=large)
                assert 2 == session.stats.requests
        assert Counter(["getgroupids", verb.name]) == seen(server)


async def test_an_answer_sent_ahead_is_nobodys(session_at, verb):
    """A second answer behind the first is not taken for that of the next call."""
    ahead = http(verb.sample.answer) + http(envelope(code=-1101))
    with RawServer([say(ahead), verb.good]) as server:
        async with session_at(server) as session:
            assert [verb.result] * 2 == [await verb.call(session) for _ in range(2)]
    assert {verb.name: 2} == seen(server)
    assert 2 == server.accepted


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_but_told(session_at, verb, status):
    """Nothing was done: the error says where it points, at once, and the other origin hears nothing."""
    with RawServer([]) as other:
        location = f"{other.url}/face/{verb.name}"
        with RawServer([answer(HTML, status, ("Location", location))]) as server:
            async with session_at(server) as session:
                with pytest.raises(ResponseError, match=r"redirect to .*set base_url") as caught:
                    await verb.call(session)
    error = caught.value
    assert (status, location, location in str(error)) == (error.status, error.location, True)
    assert (verb.name, 1, False) == (error.endpoint, error.attempts, error.maybe_applied)
    assert 0 == other.accepted


@pytest.mark.parametrize("large", [False, True])
async def test_a_request_that_is_too_large_for_a_proxy_is_refused_as_by_the_service(session_at, verb, large):
    """HTTP 413 is code 23, whether the request was read to its end or not, and whatever the text is encoded as."""
    packets = [http(HTML, 413), http(b"\x1f\x8b", 413, ("Content-Encoding", "gzip"))]
    behaviors = [refuse_early(packet) if large else say(packet) for packet in packets]
    with RawServer(behaviors, narrow=large) as server:
        async with session_at(server) as session:
            for _ in packets:
                with pytest.raises(RequestTooLargeRefusal, match=r"HTTP 413.*client_max_body_size") as caught:
                    await verb.call(session, large=large)
                error = caught.value
                assert (23, verb.name, 1, False) == (error.code, error.endpoint, error.attempts, error.maybe_applied)


# Answers that are final, and answers that ask for something


FINAL = [code for code, row in CODES.items() if row.retry in {Retry.NEVER, Retry.SMALLER, Retry.HOPELESS, Retry.CLOCK}]


async def test_codes_that_are_answers(session_at, verb):
    """Refusals, and all codes that say who may call, are raised at once, and leave no doubt."""
    with RawServer([answer(envelope(code=code)) for code in FINAL]) as server:
        async with session_at(server) as session:
            for code in FINAL:
                with pytest.raises(ServiceError) as caught:
                    await verb.call(session)
                error = caught.value
                assert (CODES[code].error, code) == (type(error), error.code)
                assert (verb.name, 1, False) == (error.endpoint, error.attempts, error.maybe_applied)
    assert {verb.name: len(FINAL)} == seen(server)


def expired(hours: int) -> Behavior:
    """Return a behavior that calls a signature expired, with a clock of its own."""

    def behave(connection):
        date = formatdate(time.time() + hours * 3_600, usegmt=True)
        answer(envelope(code=9), 200, ("Date", date))(connection)

    return behave


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_an_hour_off_is_corrected_once(session_at, verb, hours):
    """Code 9 costs one attempt, signed by the server's clock; when that does not help, it is final."""
    with RawServer([expired(hours), verb.good]) as server:
        async with session_at(server) as session:
            assert verb.result == await verb.call(session)
    signed = [parse(request.header("Authorization")).signed_at for request in server.requests]
    assert pytest.approx(hours * 3_600, abs=60) == signed[1] - signed[0]
    with RawServer([expired(hours)] * 2) as server:
        async with session_at(server) as session:
            with pytest.raises(AuthError) as caught:
                await verb.call(session)
    assert (9, 2, False) == (caught.value.code, caught.value.attempts, caught.value.maybe_applied)


WAITS = {"HTTP 429": (HTML, 429), "HTTP 503": (HTML, 503), "code 15": (envelope(code=15), 200)}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_wait_beyond_the_deadline_is_not_begun(session_at, verb, wait):
    """Retry-After an hour is an error at once; an effect in doubt is looked for, once."""
    in_doubt = verb.effect and wait == "HTTP 503"
    busy = answer(*WAITS[wait], ("Retry-After", "3600"))
    with RawServer([busy] * (1 + in_doubt)) as server:
        async with session_at(server) as session:
            with pytest.raises(CallError) as caught:
                await verb.call(session)
    assert (1, in_doubt) == (caught.value.attempts, caught.value.maybe_applied)
    assert Counter([verb.name] + [LOOKS.get(verb.name)] * in_doubt) == seen(server)


async def test_a_wait_is_waited_for(session_at):
    """Retry-After a second is a second before the next attempt, for every verb."""

    async def act(verb):
        for wait in WAITS.values():
            tasks.start_soon(waiting, verb, answer(*wait, ("Retry-After", "1")))

    async def waiting(verb, busy):
        with RawServer([busy, verb.good]) as server:
            async with session_at(server) as session:
                started = time.monotonic()
                assert verb.result == await verb.call(session)
                assert time.monotonic() - started >= 1
                assert 2 == session.stats.requests

    async with anyio.create_task_group() as tasks:
        await at_once(act)
