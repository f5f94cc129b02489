"""Jobs in worker threads: those that are wanted in the same turn of the event loop share a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from face_async.images.threads import pictures

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BATCH = 8
"""Files in a batch. More would save next to nothing, and leave a slow disk with too few readers."""

T = TypeVar("T")


class _ThreadJob(Generic[T]):
    """A function to be called in a worker thread."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = False
        self.error: Exception | None = None
        self.result: T | None = None
        self._work = work

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001 - it is raised by the task that wanted the job
            self.error = error
        self.done = True


class _ThreadBatch:
    """Jobs that one worker thread runs one after another, and the files that they read."""

    def __init__(self) -> None:
        self.jobs: list[_ThreadJob[object]] = []
        self.files = 0
        self.over = anyio.Event()

    def run(self) -> None:
        for job in self.jobs:
            job.run()


class ThreadJobs:
    """Runs jobs in worker threads, in batches.

    Starting a job in a worker thread costs several times as much as reading a small file, and many calls begin in the
    same turn of the event loop: as many as it brings answers to earlier calls.
    """

    def __init__(self) -> None:
        self._next: _ThreadBatch | None = None

    async def run(self, work: Callable[[], T], files: int = 1) -> T:
        """Call a function in a worker thread, and return its result.

        If the task that began its batch is cancelled, it does not wait for the thread, which may wait for a disk; then
        ``work`` is called again, maybe while it still runs.

        Args:
            work: The function.
            files: How many files it reads.

        Raises:
            Exception: Whatever ``work`` raises.
        """
        job = _ThreadJob(work)
        while not job.done:
            await self._run_in_batch(cast("_ThreadJob[object]", job), files)
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # or it would hold itself by its traceback
        return cast("T", job.result)

    async def _run_in_batch(self, job: _ThreadJob[object], files: int) -> None:
        """Add a job to the batch that is about to begin, or begin one."""
        batch = self._next
        begins = batch is None or batch.files + files > MAX_BATCH
        if batch is None or begins:
            batch = self._next = _ThreadBatch()
        batch.jobs.append(job)
        batch.files += files
        if not begins:
            await batch.over.wait()
            return
        try:
            try:
                await checkpoint()  # other tasks of this turn of the event loop add theirs
            finally:
                if self._next is batch:
                    self._next = None
            await pictures.run(batch.run)
        finally:
            batch.over.set()
