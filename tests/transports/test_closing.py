"""What is left when a session is closed, a call is cancelled, or an error is let go: nothing."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from doubles import CREDENTIALS, Network
from faults import BROKEN, HTML, LARGE, REFUSED
from raw_server import RawServer, answer, close_after_request, reset_after_request, silence
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE, in_time
from transportkit import ADDED, INFO, ONCE, every_open_connection_closed, free_port, head_seen

from face_async import FaceSession, ResponseError, RetryPolicy, Throttle, TransportError

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def every_file_closed():
    """Assert that no file descriptor more is open after the block than before; loops close sockets a little later."""
    before = open_files()
    yield
    with anyio.move_on_after(PATIENCE):
        while open_files() > before:  # noqa: ASYNC110 - the kernel has no events for it
            await anyio.sleep(0.01)
    assert open_files() <= before


# Closing and cancelling


async def test_a_closed_session_says_so(session_at):
    """A call on a closed session is a programming error; closing twice is none."""
    with RawServer([answer(INFO)]) as server:
        async with session_at(server) as session:
            await session.get_info("p")
        await session.aclose()
        assert session.stats.connections == 0
        with pytest.raises(RuntimeError, match="closed"):
            await session.get_info("p")
        with pytest.raises(RuntimeError, match="closed"):
            await session.with_options(deadline=1).get_info("p")


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        pytest.param(lambda session: session.get_info("p"), False, id="read"),
        pytest.param(lambda session: session.set_info("p", tag="t"), True, id="effect"),
    ],
)
async def test_closing_ends_the_calls_under_way(session_at, stack, verb, expected):
    """A call under way when its session is closed fails at once, and opens no further connection."""
    caught = []

    async def call(session):
        with pytest.raises(TransportError) as error:
            await verb(session)
        caught.append(error.value)

    with RawServer([silence()]) as server:
        async with every_open_connection_closed(server), anyio.create_task_group() as tasks:
            session = session_at(server, timeout=PATIENCE)
            tasks.start_soon(call, session)
            await head_seen(server)
            await session.aclose()
        assert session.stats.connections == 0
    assert [expected] == [error.maybe_applied for error in caught]
    assert server.accepted == 1


async def test_closing_ends_the_calls_in_the_queue(session_at):
    """A call that waits for its turn when the session is closed was certainly not executed."""
    caught = []

    async def call(session):
        with pytest.raises(TransportError) as error:
            await session.set_info("p", tag="t")
        caught.append(error.value)

    with RawServer([silence()]) as server:
        async with anyio.create_task_group() as tasks:
            session = session_at(server, timeout=PATIENCE, throttle=Throttle(max_concurrency=1))
            tasks.start_soon(call, session)
            await head_seen(server)
            tasks.start_soon(call, session)
            await anyio.wait_all_tasks_blocked()
            await session.aclose()
    assert sorted(error.maybe_applied for error in caught) == [False, True]
    assert server.accepted == 1


async def test_cancelling_a_call_frees_its_place(session_at, stack):
    """A cancelled call is gone with its connection, and the next is served."""
    with RawServer([silence(), answer(INFO)]) as server:
        async with session_at(server, throttle=Throttle(max_concurrency=1), timeout=PATIENCE) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.get_info, "p")
                await head_seen(server)
                tasks.cancel_scope.cancel()
            assert session.stats.connections == 0
            assert (await session.get_info("p")).person_name == "Ada"
            assert session.stats.connections == 1


async def test_no_connection_outlives_its_session(session_at, tmp_path):
    """Good answers, lost ones, refused ones and time-outs: all sockets and files are closed in the end."""
    path = tmp_path / "large.jpg"
    path.write_bytes(LARGE)
    script = [
        answer(ADDED),
        reset_after_request(),
        answer(HTML),
        silence(),
        close_after_request(),
        REFUSED["oversized"][0],
    ]

    async def act(timeout):
        async with every_file_closed():
            with RawServer(script) as server:
                async with session_at(server, timeout=timeout, retry=ONCE) as session:
                    await session.add_face("p", [path])
                    for _ in script[1:]:
                        with pytest.raises((TransportError, ResponseError)):
                            await session.add_face("p", [path])

    await in_time(act)


# What hangs on an error


async def test_no_foreign_exception_hangs_on_ours(session_at):
    """Neither cause nor context of an error is an exception of httpx, httpcore or json."""
    failures = [reset_after_request(), silence(), *BROKEN.values(), *(behavior for behavior, _ in REFUSED.values())]

    async def act(timeout):
        behind = []
        with RawServer(failures) as server:
            async with session_at(server, timeout=timeout, retry=ONCE) as session:
                for _ in failures:
                    with pytest.raises((TransportError, ResponseError)) as caught:
                        await session.set_info("p", tag="t")
                    error = caught.value
                    while error := error.__cause__ or error.__context__:
                        behind.append(type(error).__module__)
        assert [] == [module for module in behind if not module.startswith("face_async")]

    await in_time(act)


@pytest.mark.parametrize("answered", [True, False])
async def test_an_error_is_gone_with_its_picture_when_it_is_let_go(answered):
    """Errors are no circular garbage: in an outage, pictures are freed at once, not when the collector comes by."""
    network = Network([HTML]) if answered else None
    base_url = f"http://127.0.0.1:{free_port()}"
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with FaceSession("1", "b", CREDENTIALS, base_url=base_url, transport=network, retry=AT_ONCE) as session:
            for _ in range(20):
                with contextlib.suppress(TransportError, ResponseError):
                    await session.identify("g", bytes(1_000_000))
                if network:
                    network.sent.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < 3_000_000
