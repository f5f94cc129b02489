"""Calls are cancelled at any point, hundreds or ten thousand of them, and nothing is left behind (goal G3)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from doubles import envelope
from raw_server import RawServer, http
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE

from face_async import RetryPolicy, Throttle

pytestmark = pytest.mark.anyio

PLACES = 8
INFO = http(envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""}))
FOUND = http(envelope({"candidates": []}))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def files_back_to(before):
    """Wait until no more file descriptors are open than before; loops and threads close some a little later."""
    with anyio.move_on_after(PATIENCE):
        while open_files() > before:  # noqa: ASYNC110 - the kernel has no events for it
            await anyio.sleep(0.01)
    return open_files() - before


class Slow:
    """Behaviors for pictures: some answers come at once, some late or in pieces, and nothing is kept.

    ``getinfo`` is answered when ``PLACES`` of its requests are there at once, so it tells whether all places are free.
    """

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.barrier = threading.Barrier(PLACES)

    def __call__(self, connection):
        head = connection.read_head()
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        pause = self.rng.choice([0, 0, 0.002, 0.02])
        while left:
            size = min(left, 65_536)
            connection.read(size)
            left -= size
            connection.server.over.wait(pause / 4)
        if head.startswith(b"POST /face/getinfo "):
            self.barrier.wait(PATIENCE)
            connection.send(INFO)
            return
        for piece in (FOUND[:10], FOUND[10:-5], FOUND[-5:]):
            connection.server.over.wait(pause / 3)
            connection.send(piece)


async def by_scope(call, patience):
    """Return whether the call was cancelled by a scope of anyio."""
    with anyio.move_on_after(patience) as scope:
        await call
    return scope.cancelled_caught


async def by_task(call, patience):
    """Return whether the call was cancelled by asyncio itself."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task], timeout=patience)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def test_whenever_calls_are_cancelled_nothing_is_left_behind(  # noqa: PLR0917 - fixtures have no order
    session_at, stack, rng, seed, full, tmp_path
):
    """No place stays taken, no file or socket open, and the next call is served."""
    goal = 10_000 if full else 100
    path = tmp_path / "large.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(600_000))
    sources = [path, path.read_bytes()[:50_000], path.read_bytes(), "https://example.com/a.jpg"]
    ways = [by_scope, by_task] if stack.loop == "asyncio" else [by_scope]
    cancelled = answered = 0

    async def worker(session):
        nonlocal cancelled, answered
        while cancelled < goal:
            call = session.identify("g", rng.choice(sources))
            if await rng.choice(ways)(call, rng.choice([0, 0.001, 0.01, 0.05]) * rng.random()):
                cancelled += 1
            else:
                answered += 1

    options = {"throttle": Throttle(max_concurrency=PLACES), "timeout": PATIENCE, "retry": RetryPolicy(max_attempts=1)}
    slow = Slow(seed)
    with RawServer(itertools.repeat(slow), narrow=True) as warm_up:
        async with session_at(warm_up, **options) as session:
            await session.identify("g", path)  # what a process opens once for all is open now
    before = open_files()
    started = time.monotonic()
    with RawServer(itertools.repeat(slow), narrow=True) as server:
        async with session_at(server, **options) as session:
            async with anyio.create_task_group() as tasks:
                for _ in range(4 * PLACES):
                    tasks.start_soon(worker, session)
            took = time.monotonic() - started
            with anyio.fail_after(PATIENCE):
                await session.identify("g", "https://example.com/a.jpg")
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    for _ in range(PLACES):
                        tasks.start_soon(session.get_info, "p")
            assert session.stats.connections == PLACES
    assert await files_back_to(before) <= 0
    assert cancelled >= goal
    if full:
        counts = f"{cancelled} cancelled, {answered} answered, {server.accepted} connections, {took:.1f} s"
        sys.stderr.write(f"\n{stack}: {counts}\n")  # pytest -s shows it


class SlowAlbum(Slow):
    """Behaviors for adding faces: every picture is added, some after a while."""

    def __call__(self, connection):
        head = connection.read_head()
        body = connection.read(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        connection.server.over.wait(self.rng.choice([0, 0, 0.002, 0.02]))
        if head.startswith(b"POST /face/getfaceids "):
            connection.send(http(envelope({"face_ids": []})))
        else:
            count = body.count(b'name="images[')
            ids = [f"{self.rng.random()}" for _ in range(count)]
            connection.send(http(envelope({"added": count, "face_ids": ids, "ret_codes": [0] * count})))


async def test_whenever_bulk_runs_are_cancelled_nothing_is_left_behind(session_at, stack, rng, seed, full, tmp_path):  # noqa: PLR0917 - fixtures have no order
    """No place or byte of the throttle stays taken, no room reserved, no file open; the next run is served at once."""
    goal, runs = 10_000 if full else 25, 0
    paths = [tmp_path / name for name in ("small.jpg", "large.jpg")]
    for path, size in zip(paths, (40_000, 500_000), strict=True):
        path.write_bytes(b"\xff\xd8\xff" + bytes(size))

    def pairs():
        while True:
            yield f"p{rng.randrange(1_000_000)}", rng.choice(paths)
            yield f"p{rng.randrange(1_000_000)}", rng.choice(paths).read_bytes()

    async def add_some(session):
        async with session.add_faces(pairs(), max_at_once=rng.randrange(1, 20)) as outcomes:
            for _ in range(rng.randrange(40)):
                (await anext(outcomes)).unwrap()

    async def worker(session):
        nonlocal runs
        ways = [by_scope, by_task] if stack.loop == "asyncio" else [by_scope]
        while runs < goal:
            runs += 1
            await rng.choice(ways)(add_some(session), 0.1 * rng.random() ** 3)

    options = {"throttle": Throttle(max_concurrency=PLACES), "timeout": PATIENCE, "retry": RetryPolicy(max_attempts=1)}
    album = SlowAlbum(seed)
    with RawServer(itertools.repeat(album)) as warm_up:
        async with session_at(warm_up, **options) as session:
            await add_some(session)
    before = open_files()
    with RawServer(itertools.repeat(album)) as server:
        async with session_at(server, **options) as session:
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(worker, session)
            throttle = session.stats.throttle
            assert (0, 0, 0) == (throttle.in_flight, throttle.waiting, throttle.bytes_in_flight)
            assert "0 in use, 0 reserved, 0 waiting" in repr(session.ledger)
            with anyio.fail_after(PATIENCE):
                async with session.add_faces([("ada", paths[0])]) as outcomes:
                    (await anext(outcomes)).unwrap()
    assert await files_back_to(before) <= 0


async def test_calls_that_fail_leave_nothing_behind_either(session_at, tmp_path, full):
    """Lost answers and refused ones, of uploads from files: sockets and files are closed while the session lives."""
    path = tmp_path / "large.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(600_000))
    ways = itertools.cycle(["reset", "close", "answer", "half"])

    def fail(connection):
        connection.read_head()
        way = next(ways)
        if way == "answer":
            connection.send(http(b"<html>", 502))
        elif way == "half":
            connection.send(http(b"{}", 200, ("Content-Length", "1000")))
        if way == "reset":
            connection.reset()
        connection.close()

    rounds = 1_000 if full else 20
    with RawServer(itertools.repeat(fail)) as server:
        async with session_at(server, retry=RetryPolicy(max_attempts=1), timeout=PATIENCE) as session:
            with contextlib.suppress(Exception):
                await session.identify("g", path)
            before = open_files()
            for _ in range(rounds):
                with pytest.raises(Exception, match="identify"):
                    await session.identify("g", path)
            assert await files_back_to(before) <= 1
            assert session.stats.connections == 0
    # A connection whose end is noticed late is used once more: then the call fails on it without a new one.
    assert rounds / 2 < server.accepted <= rounds + 1
