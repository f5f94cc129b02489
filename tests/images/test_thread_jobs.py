"""Jobs that are wanted in the same turn of the event loop share a worker thread, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import anyio
import anyio.to_thread
import pytest
from timing import PATIENCE

from face_async.images.thread_jobs import MAX_BATCH, ThreadJobs

pytestmark = pytest.mark.anyio


@pytest.fixture
def made(monkeypatch):
    """The batches that were run: how many jobs each had."""
    counts = []
    original = anyio.to_thread.run_sync

    async def counted(work, **options):
        counts.append(len(work.__self__.jobs))
        return await original(work, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    return counts


async def test_what_is_asked_for_in_one_turn_shares_a_batch(made):
    """Twenty jobs make three batches, and every one of them is done in a worker thread."""
    jobs, threads = ThreadJobs(), []
    async with anyio.create_task_group() as tasks:
        for _ in range(2 * MAX_BATCH + 4):
            tasks.start_soon(jobs.run, lambda: threads.append(threading.get_ident()))
    assert sorted(made) == [4, MAX_BATCH, MAX_BATCH]
    assert len(threads) == 2 * MAX_BATCH + 4
    assert threading.get_ident() not in threads


async def test_a_batch_has_few_files_whosever_they_are(made):
    """A job of many files has a thread to itself: read one after another by one, a slow disk's would take for ever."""
    jobs = ThreadJobs()
    for files, batches in ((MAX_BATCH // 2, [1, 2]), (MAX_BATCH + 1, [1, 1, 1])):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(jobs.run, int, files)
        assert sorted(made) == batches
        made.clear()


async def test_a_job_has_a_result():
    assert await ThreadJobs().run(lambda: "seen") == "seen"


async def test_one_after_another_they_go_alone(made):
    jobs = ThreadJobs()
    for _ in range(3):
        await jobs.run(int)
    assert made == [1, 1, 1]


async def test_an_error_is_raised_to_whoever_wanted_the_job():
    """The other jobs of the batch do not notice."""
    jobs, done = ThreadJobs(), []

    async def fail():
        with pytest.raises(ZeroDivisionError):
            await jobs.run(lambda: 1 / 0)
        done.append("failed")

    async def succeed():
        await jobs.run(lambda: None)
        done.append("succeeded")

    async with anyio.create_task_group() as tasks:
        for call in (succeed, fail, succeed):
            tasks.start_soon(call)
    assert sorted(done) == ["failed", "succeeded", "succeeded"]


async def test_an_error_does_not_hold_itself():
    """Errors are gone when they are let go, not when the collector comes by."""

    class OurError(Exception):
        pass

    def fail():
        raise OurError

    gc.disable()
    try:
        try:
            await ThreadJobs().run(fail)
        except OurError as error:
            gone = weakref.ref(error)
        assert gone() is None
    finally:
        gc.enable()


async def test_who_comes_later_does_not_wait_for_those_under_way():
    """A file that hangs holds up its own batch only."""
    jobs, over = ThreadJobs(), threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.run, lambda: over.wait(PATIENCE))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(PATIENCE / 2):
            await jobs.run(int)
        over.set()


async def test_when_the_first_is_cancelled_the_others_go_all_the_same():
    """The batch is begun by the first task; without that one, another task begins it."""
    jobs, done = ThreadJobs(), []
    first = anyio.CancelScope()

    async def ask_and_leave():
        with first:
            await jobs.run(lambda: done.append("first"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_and_leave)
        for _ in range(3):
            tasks.start_soon(jobs.run, lambda: done.append("other"))
        first.cancel()
    assert done.count("other") == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_by_asyncio_itself_nobody_waits_for_the_thread():
    """Its cancellation leaves the thread alone; jobs that were not done are run again."""
    jobs, over, done, began = ThreadJobs(), threading.Event(), [], threading.Event()

    def hang():
        began.set()
        over.wait(PATIENCE)

    first = asyncio.ensure_future(jobs.run(hang))
    others = [asyncio.ensure_future(jobs.run(lambda: done.append(1))) for _ in range(3)]
    await anyio.to_thread.run_sync(began.wait, PATIENCE)
    first.cancel()
    await asyncio.wait([first, *others], timeout=PATIENCE / 2)
    assert first.cancelled()
    assert len(done) == 3
    over.set()
