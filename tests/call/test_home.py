"""A session belongs to one process and one event loop: elsewhere every use raises at once, on every transport."""

from __future__ import annotations

import base64
import copy
import gc
import os
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
from itertools import repeat
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from doubles import CREDENTIALS, envelope, session_on
from raw_server import RawServer, answer
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE

from face_async import FaceSession, ShardedGroup
from face_async.local import local_session

GROUPS = envelope({"group_ids": ["staff"]})
IN_ANOTHER_LOOP = "belongs to another event loop: open one in each"


async def collect(outcomes):
    async with outcomes:
        return await outcomes.collect()


USES = {
    "a verb": lambda session: session.get_group_ids(),
    "a picture": lambda session: session.identify("g", b"\xff\xd8\xff"),
    "any request": lambda session: session.request("getgroupids", {}),
    "a copy": lambda session: session.with_options(deadline=1).get_group_ids(),
    "a bulk verb": lambda session: collect(session.add_faces([("ada", b"x")])),
    "a sharded group": lambda session: ShardedGroup(session, "staff").shards(),
    "entering": lambda session: session.__aenter__(),
    "closing": lambda session: session.aclose(),
}
every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


# Event loops


@every_use
@pytest.mark.anyio
async def test_in_the_loop_of_another_thread_it_raises_and_goes_on_in_its_own(stack, session_at, use):
    """Both loops run at the same time; its connection is kept."""

    def elsewhere():
        with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
            anyio.run(use, session, backend=stack.loop)

    with RawServer([answer(GROUPS)] * 2) as server:
        async with session_at(server) as session:
            await session.get_group_ids()
            await anyio.to_thread.run_sync(elsewhere)
            assert await session.get_group_ids() == ["staff"]
            assert session.stats.requests == 2
    assert server.accepted == 1


@every_use
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_in_a_second_run_it_raises_over_a_transport_that_is_given_too(loop, use):
    """As with asyncio.run twice: it is one rule for all transports."""
    session, network = session_on(GROUPS)
    anyio.run(session.get_group_ids, backend=loop)
    with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
        anyio.run(use, session, backend=loop)
    assert len(network.sent) == 1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_others_wait_for_in_one_loop_hangs_nobody_in_another(loop):
    """A list that a ledger waits for, and the lock of a sharded group, when the loop has ended meanwhile."""

    class Endless(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            await anyio.sleep_forever()

    session = FaceSession("1", "b", CREDENTIALS, transport=Endless())
    group = ShardedGroup(session, "staff")
    uses = [group.shards, lambda: session.ledger.person(["staff"])]

    async def leave_in_the_middle():
        async with anyio.create_task_group() as tasks:
            for use in uses:
                tasks.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            # What a fork in this moment would copy: a lock that is held, and a list that is awaited.
            kept.append((copy.copy(group._listing), dict(session.ledger._busy)))
            tasks.cancel_scope.cancel()

    kept = []
    anyio.run(leave_in_the_middle, backend=loop)
    [(group._listing, session.ledger._busy)] = kept

    async def wait(use):
        with anyio.fail_after(PATIENCE), pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
            await use()

    for use in uses:
        anyio.run(wait, use, backend=loop)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_local_session_belongs_to_its_loop_as_well(loop):
    """It is a session like any other."""
    left = []

    async def use():
        async with local_session(recognizer="fingerprint") as session:
            await session.get_group_ids()
            left.append(session)

    async def use_again():
        await left[0].get_group_ids()

    anyio.run(use, backend=loop)
    with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
        anyio.run(use_again, backend=loop)


def test_a_session_that_was_not_used_belongs_to_no_loop_yet(stack, session_at):
    """It may be made anywhere, such as where a module is imported."""
    with RawServer([answer(GROUPS)]) as server:
        session = session_at(server)

        async def use():
            async with session:
                return await session.get_group_ids()

        assert ["staff"] == anyio.run(use, backend=stack.loop)


# Processes

PROGRAM = """
import os, sys, time
import anyio
from face_async import Credentials, FaceSession

url, http, loop, way = sys.argv[1:]
session = FaceSession("1", "b", Credentials("i", "k"), base_url=url, http=http, deadline=30)


def child(run):
    # Runs in a forked child, and says what it did; then the parent goes on.
    pid = os.fork()
    if pid == 0:
        began = time.monotonic()
        try:
            said = run()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(1, f"child: {said}; {time.monotonic() - began < 10}\\n".encode())
        os._exit(0)
    os.waitpid(pid, 0)


async def calls(count=1):
    return [await session.get_group_ids() for _ in range(count)][-1]


async def fork_in_the_loop():
    async with session:
        await calls()
        # What a coroutine does that is driven by hand, in a child that has the parent's loop.
        def run():
            try:
                calls().send(None)
            except StopIteration as stop:
                return stop.value
        child(run)
        print("parent:", await calls())


async def fork_unused():
    async with session:
        print("parent:", await calls(20))


async def close():
    await session.aclose()


if way == "in the loop":
    anyio.run(fork_in_the_loop, backend=loop)
elif way == "after use":
    anyio.run(calls, backend=loop)
    for use in (calls, close):
        child(lambda: anyio.run(use, backend=loop))
    sys.stdout.flush()
    os._exit(0)
else:
    child(lambda: anyio.run(calls, 20, backend=loop))
    anyio.run(fork_unused, backend=loop)
"""

IN_A_CHILD = "RuntimeError: the session belongs to the process that this one was forked from: open one in each process"


@pytest.fixture
def forked(stack, tmp_path):
    """Run the program at a server; return what it said, line by line."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")

    def run(server, way):
        command = [sys.executable, "-W", "error", str(script), server.url, stack.http, stack.loop, way]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment)
        assert (0, "") == (ran.returncode, ran.stderr)
        return ran.stdout.splitlines()

    return run


def test_in_a_forked_child_it_raises_at_once_and_the_parent_goes_on(forked):
    """The child has not touched the connection, which serves the parent's next call."""
    with RawServer([answer(GROUPS)] * 2) as server:
        said = forked(server, "in the loop")
    assert [f"child: {IN_A_CHILD}, after the fork; True", "parent: ['staff']"] == said
    assert server.accepted == 1


def test_in_a_forked_child_it_raises_at_once_in_a_loop_of_the_childs_own(forked):
    """No call outlives its deadline there, and none is made; closing it raises as well."""
    with RawServer([answer(GROUPS)]) as server:
        said = forked(server, "after use")
    assert [f"child: {IN_A_CHILD}, after the fork; True"] * 2 == said


def test_a_session_that_was_not_used_before_a_fork_is_right_on_both_sides(forked):
    """It shares nothing: no connection, and no nonce."""
    with RawServer(repeat(answer(GROUPS))) as server:
        said = forked(server, "unused")
    assert ["child: ['staff']; True", "parent: ['staff']"] == said
    assert server.accepted == 2
    signed = [base64.b64decode(request.header("Authorization")) for request in server.requests]
    nonces = {match[1] for text in signed if (match := re.search(rb"&r=(\d+)", text))}
    assert len(nonces) == len(signed) == 40


# Sessions that are left


@pytest.mark.anyio
async def test_a_session_that_is_collected_with_open_connections_warns(session_at):
    """It says what to do; its copies are the same session."""
    with RawServer([answer(GROUPS)]) as server:
        left = []

        async def leave():
            session = session_at(server)
            await session.with_options(deadline=30).get_group_ids()
            left.append(session._runner.transport)

        await leave()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            gc.collect()
        warned = [str(each.message) for each in warned if each.category is ResourceWarning]
        assert any("FaceSession was not closed: use 'async with'" in message for message in warned)
        await left[0].aclose()


@pytest.mark.anyio
async def test_a_session_that_has_nothing_to_close_is_collected_without_a_word(session_at):
    """One that was closed, one that was not used, and one over a transport that its owner closes."""
    with RawServer([answer(GROUPS)]) as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with session_at(server) as session:
            await session.get_group_ids()
        session = session_at(server)
        session, _ = session_on(GROUPS)
        await session.get_group_ids()
        session = None
        gc.collect()
    assert [] == [each for each in warned if "FaceSession" in str(each.message)]


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda take: take.__name__)
def test_a_session_is_neither_pickled_nor_copied(take):
    """Nor is what has one; the error says what to do, and holds no secret."""
    session = FaceSession("1", "b", CREDENTIALS)
    with pytest.raises(TypeError, match=r"open one in each process.*with_options") as refused:
        take(session)
    assert CREDENTIALS.secret_key not in str(refused.value)
    with pytest.raises(TypeError, match="open one in each process"):
        pickle.dumps(ShardedGroup(session, "staff"))
