"""Timeouts of sockets and deadlines of calls: exact, and over everything that a call does."""

from __future__ import annotations

import anyio
import pytest
from doubles import envelope
from faults import DRIPS, LARGE, dripping
from raw_server import RawServer, answer, black_hole, http, never_read, silence
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE, Stopwatch, in_time
from transportkit import INFO, head_seen

from face_async import DeadlineError, RetryPolicy, Throttle, TransportError, UnavailableError

pytestmark = pytest.mark.anyio

# To the point


STALLS = {
    "connect": None,
    "write": never_read(),
    "read": silence(),
    "read body": dripping(http(b"", 200, ("Content-Length", "1000")), b"", PATIENCE),
}


async def assert_exact(session_at, behavior, error, picture, **options):
    """Assert that a call ends by this error after 0.15 seconds and 250 ms more at most, in one of three tries."""
    options = {"retry": RetryPolicy(max_attempts=1), **options}
    for _ in range(3):
        server = RawServer(iter([behavior]), narrow=True) if behavior else black_hole()
        with server as where:
            async with session_at(where, **options) as session:
                watch = Stopwatch()
                with pytest.raises(TransportError) as caught:
                    await session.identify("g", picture)
                gross, net = watch.gross, watch.net
        assert type(caught.value) is error
        assert gross >= 0.145
        if net <= 0.4:
            return
    pytest.fail(f"{net:.3f} seconds")


def upload(stall, large):
    """Return the picture to send: a large one only where writing stalls, as a busy machine takes long to send it."""
    return large if "write" in stall else LARGE[:1_000]


@pytest.mark.parametrize("name", STALLS)
async def test_timeouts_are_exact(session_at, name, large):
    """Connecting, a write that stalls and a read that stalls end after ``timeout``, neither earlier nor much later."""
    await assert_exact(session_at, STALLS[name], TransportError, upload(name, large), timeout=0.15)


@pytest.mark.parametrize("name", [*STALLS, *DRIPS])
async def test_deadlines_are_exact(session_at, name, large):
    """Whatever a call waits for, or is kept waiting with, it ends at its deadline."""
    behavior = {**STALLS, **DRIPS}[name]
    await assert_exact(session_at, behavior, DeadlineError, upload(name, large), timeout=PATIENCE, deadline=0.15)


# Deadlines


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        pytest.param(lambda session: session.get_info("p"), False, id="read"),
        pytest.param(lambda session: session.set_info("p", tag="t"), True, id="effect"),
    ],
)
async def test_the_deadline_ends_a_call_that_waits_for_its_answer(session_at, verb, expected):
    """The whole call ends at its deadline; only an effect whose request was whole is in doubt."""

    async def act(deadline):
        with RawServer([silence()]) as server:
            async with session_at(server, timeout=PATIENCE, deadline=deadline) as session:
                with pytest.raises(DeadlineError, match=f"{deadline:g} seconds") as caught:
                    await verb(session)
                assert session.stats.connections == 0
        assert (caught.value.maybe_applied, caught.value.attempts) == (expected, 1)

    await in_time(act)


async def test_the_deadline_ends_an_upload_under_way_without_doubt(session_at):
    """A call whose last chunk was not handed over at its deadline was not executed."""

    async def act(deadline):
        with RawServer([never_read()], narrow=True) as server:
            async with session_at(server, timeout=PATIENCE, deadline=deadline) as session:
                with pytest.raises(DeadlineError) as caught:
                    await session.add_face("p", [LARGE])
        assert (caught.value.maybe_applied, caught.value.attempts) == (False, 1)

    await in_time(act)


async def test_the_deadline_counts_queueing(session_at):
    """A call that never got its turn was not executed, and made no attempt."""
    with RawServer([silence()]) as server:
        async with (
            session_at(server, throttle=Throttle(max_concurrency=1)) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(session.get_info, "p")
            await head_seen(server)
            with pytest.raises(DeadlineError) as caught:
                await session.with_options(deadline=0.1).set_info("p", tag="t")
            tasks.cancel_scope.cancel()
    assert (caught.value.maybe_applied, caught.value.attempts) == (False, 0)


async def test_a_back_off_beyond_the_deadline_is_not_waited_for(session_at):
    """When no time is left for another attempt, the error that it would follow is raised at once."""
    patient = RetryPolicy(base_delay=1e9, max_delay=1e9)
    with RawServer([answer(envelope(code=107))]) as server:
        async with session_at(server, retry=patient) as session:
            with pytest.raises(UnavailableError) as caught:
                await session.set_info("p", tag="t")
    assert (caught.value.code, caught.value.attempts) == (107, 1)


@pytest.mark.parametrize(
    "packet",
    [http(INFO), http(INFO)[-len(INFO) :], b"HTTP/1.1 100 Continue\r\n\r\n" * 500],
    ids=["whole", "body", "1xx"],
)
async def test_a_dripping_answer_cannot_outlive_the_deadline(session_at, packet):
    """A byte now and then satisfies every read's timeout, but not the deadline."""
    head = b"" if packet.startswith(b"HTTP") else http(INFO)[: -len(INFO)]

    def behave(connection):
        connection.read_request()
        connection.send(head)
        for byte in packet:
            connection.send(bytes([byte]))
            if connection.server.over.wait(0.15):
                return

    async def act(deadline):
        with RawServer([behave]) as server:
            async with session_at(server, timeout=PATIENCE, deadline=deadline) as session:
                with pytest.raises(DeadlineError):
                    await session.get_info("p")
        assert len(server.requests) == 1

    await in_time(act)
