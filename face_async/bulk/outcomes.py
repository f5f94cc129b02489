"""The bounded map: a call for every item, and never more than a given number of items alive."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Sized
from contextvars import Context, copy_context
from io import BufferedIOBase, RawIOBase
from typing import TYPE_CHECKING, Generic, Self, TypedDict, TypeVar, cast

import anyio
from attrs import define, field, frozen

from face_async._call.judgement import judge_error
from face_async.bulk.once import EnteredOnce
from face_async.endpoints import Endpoint
from face_async.errors import FaceError, TransportError
from face_async.limits import check_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from face_async.bulk.outage import BulkOutages

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
WorkT = TypeVar("WorkT")

MAX_AT_ONCE = 64
"""How many items may be alive at once, unless the caller says otherwise."""

_SOME_CALL = Endpoint("call", "", object, effect=True)


@frozen
class Outcome(Generic[ItemT, ResultT]):
    """What became of one item: a result or an error.

    Attributes:
        index: The item's place in the input, from 0.
        item: The item as it was given.
        result: The result, None when there is an error.
        error: The error, None when there is a result.
    """

    index: int
    item: ItemT = field(repr=False)
    result: ResultT | None = None
    error: FaceError | ValueError | None = None

    def unwrap(self) -> ResultT:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("ResultT", self.result)


@define(eq=False)
class Job(Generic[ItemT]):
    """An item that was pulled and has no outcome yet, with its place in the input."""

    index: int
    item: ItemT = field(repr=False)
    taken: ItemT = field(repr=False)  # the item for its call: what would not outlast the next pull was read
    begun: bool = False  # its call was begun, so its request may have been sent


class MapOptions(TypedDict, Generic[ItemT, ResultT], total=False):
    """The keyword arguments that all bulk verbs take.

    Attributes:
        max_at_once: How many items may be alive at once, 1 or more; 64 by default.
        ordered: True yields outcomes in input order, False (the default) as they are completed.
        progress: Called as ``progress(done, total_or_None, outcome)`` when an item is completed.
    """

    max_at_once: int
    ordered: bool
    progress: Callable[[int, int | None, Outcome[ItemT, ResultT]], object] | None


class JobBoard(Generic[ItemT, ResultT]):
    """The jobs of a bounded map that were pulled, and the outcomes that wait to be taken.

    Attributes:
        jobs: The jobs that have no outcome yet, by their index.
        ready: The outcomes that can be taken, the next one first.
        early: Of an ordered map, the outcomes that are complete before their turn, by their index.
        taken: How many outcomes were taken.
        full: Whether the input waits because as many items are alive as may be.
        taking: Whether an item that was pulled is being read, and will be begun next.
        failure: What ends the map.
        news: Set when there may be something to take.
    """

    def __init__(
        self,
        *,
        size: int | None,
        ordered: bool,
        progress: Callable[[int, int | None, Outcome[ItemT, ResultT]], object] | None,
        outages: BulkOutages | None,
    ) -> None:
        self.jobs: dict[int, Job[ItemT]] = {}
        self.ready: deque[Outcome[ItemT, ResultT]] = deque()
        self.early: dict[int, Outcome[ItemT, ResultT]] = {}
        self.taken = 0
        self.full = False
        self.taking = False
        self.failure: Exception | None = None
        self.news = anyio.Event()
        self._done = 0
        self._size = size
        self._ordered = ordered
        self._progress = progress
        self._outages = outages

    def put(self, outcome: Outcome[ItemT, ResultT]) -> None:
        """Have an outcome taken, now or in its turn."""
        del self.jobs[outcome.index]
        self._done += 1
        if self._ordered:
            self.early[outcome.index] = outcome
            while (turn := self.taken + len(self.ready)) in self.early:
                self.ready.append(self.early.pop(turn))
        else:
            self.ready.append(outcome)
        self.news.set()
        if outcome.error is not None and (judge_error(outcome.error).hopeless or self._has_ended()):
            self.fail(outcome.error)
        if self._progress is not None:
            self._progress(self._done, self._size, outcome)

    def _has_ended(self) -> bool:
        return self._outages is not None and self._outages.ended is not None

    def fail(self, error: Exception) -> None:
        """End the map with an error: nothing more is begun, and it is raised instead of the next outcome."""
        if self.failure is None:
            self.failure = error
        self.news.set()


class JobRunner(ABC, Generic[ItemT, ResultT]):
    """Runs the jobs of one bounded map, each to an outcome on the board."""

    @abstractmethod
    def begin(self, board: JobBoard[ItemT, ResultT], tasks: TaskGroup, job: Job[ItemT]) -> None:
        """Begin a job, and return at once; called in input order.

        Raises:
            TypeError: Its item is of a wrong type, which ends the map.
        """

    def item_wanted(self) -> None:
        """Called before an item is pulled: one more may be alive again."""


class _IdleTask(Generic[WorkT]):
    """A task that waits for more work; woken without any, it ends."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.woken = anyio.Event()
        self.work: WorkT | None = None

    def is_new_in(self, context: Context) -> bool:
        """Return whether a new task in a context would see what this one sees, the very same objects."""
        mine = self.context
        return len(mine) == len(context) and all(mine.get(name, mine) is value for name, value in context.items())


class StayingTasks(Generic[WorkT]):
    """Tasks that stay for more work: a new one costs more than everything else about a small call.

    To its work a task looks new: the context variables are those of the moment when the work was given to it; none is
    as other work has left it.

    Args:
        do: Does a piece of work, and raises nothing.
    """

    def __init__(self, do: Callable[[WorkT], Awaitable[None]]) -> None:
        self._do = do
        self._idle: list[_IdleTask[WorkT]] = []

    def start(self, tasks: TaskGroup, work: WorkT) -> None:
        """Have a piece of work done, by an idle task or by a new one of the group, always the same one."""
        context = copy_context()
        while self._idle:
            task = self._idle.pop()
            task.woken.set()
            if task.is_new_in(context):
                task.work = work
                return
        tasks.start_soon(self._run, work)

    async def _run(self, work: WorkT | None) -> None:
        while work is not None:
            await self._do(work)
            work = None  # while there is nothing to do, nothing is kept
            idle = _IdleTask[WorkT](copy_context())
            self._idle.append(idle)
            await idle.woken.wait()
            work = idle.work
            del idle


class _OneByOne(JobRunner[ItemT, ResultT]):
    """Runs every job by a call of its own."""

    def __init__(self, call: Callable[[ItemT], Awaitable[ResultT]]) -> None:
        self._call = call
        self._tasks = StayingTasks[tuple["JobBoard[ItemT, ResultT]", "Job[ItemT]"]](self._run)

    def begin(self, board: JobBoard[ItemT, ResultT], tasks: TaskGroup, job: Job[ItemT]) -> None:
        self._tasks.start(tasks, (board, job))

    async def _run(self, work: tuple[JobBoard[ItemT, ResultT], Job[ItemT]]) -> None:
        board, job = work
        del work
        try:
            if board.failure is None:
                job.begun = True
                board.put(await self._outcome(job))
        except Exception as error:  # noqa: BLE001 - a programming error is raised where outcomes are taken
            board.fail(error)

    async def _outcome(self, job: Job[ItemT]) -> Outcome[ItemT, ResultT]:
        # The error's traceback refers to the frame that catches it. If that frame held the outcome, the two would be a
        # reference cycle, which only the garbage collector frees, late and with the item's picture.
        try:
            return Outcome(job.index, job.item, result=await self._call(job.taken))
        except (FaceError, ValueError) as error:
            return Outcome(job.index, job.item, error=error)


class Outcomes(EnteredOnce, Generic[ItemT, ResultT]):
    """The bounded map: runs a call for every item, and yields one :class:`Outcome` each.

    An asynchronous context manager and iterator. The input is pulled only as outcomes are taken: of all items pulled,
    at most ``max_at_once`` are not done with, the one that the caller holds included. An item that fails costs one
    outcome. What ends the iteration, raised where outcomes are taken, is an item of a wrong type, with its
    ``TypeError``, and an error after which no further call can succeed: codes 4-6, 9-12, 14, 16 and 24, or, where the
    run waits for a service that is away, the ninth call in a row that failed three times while the service was there.

    Leaving the block, early or not, cancels what runs and closes the input; :attr:`untaken` tells what became of it.
    A block can be entered once: entered again it raises ``RuntimeError``, and one that never was entered, so that
    nothing was done, gives a ``RuntimeWarning``.
    """

    def __init__(
        self,
        call: Callable[[ItemT], Awaitable[ResultT]] | JobRunner[ItemT, ResultT],
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        *,
        max_at_once: int = MAX_AT_ONCE,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[ItemT, ResultT]], object] | None = None,
        endpoint: Endpoint[object] = _SOME_CALL,
        outages: BulkOutages | None = None,
        take: Callable[[ItemT], Awaitable[ItemT] | None] | None = None,
    ) -> None:
        check_count("max_at_once", max_at_once)
        _check_iterable(items)
        self._runner = cast("JobRunner[ItemT, ResultT]", call if isinstance(call, JobRunner) else _OneByOne(call))
        self._items = items
        self._endpoint = endpoint
        self._take = take  # makes an item independent of the input, before the next one is pulled; None: it is already
        size = len(items) if isinstance(items, Sized) else None
        self._board = JobBoard[ItemT, ResultT](size=size, ordered=ordered, progress=progress, outages=outages)
        self._outages = outages
        self._free = max_at_once  # how many more items may be alive
        self._freed = anyio.Event()
        self._collected: list[Outcome[ItemT, ResultT]] = []
        self._untaken: tuple[Outcome[ItemT, ResultT], ...] = ()
        self._pulled = 0
        self._held = 0  # outcomes that callers have, and whose places are not free yet: one each, if tasks share them
        self._end: int | None = None  # how many items there were, once known
        self._tasks: TaskGroup | None = None
        super().__init__(f"the run of {endpoint.name}", "async with session.identify_many(...) as outcomes:")

    async def __aenter__(self) -> Self:
        self.enter_once()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._feed, self._tasks)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            try:
                # Not told of the body's exception, the group cannot wrap it: it goes on as it is.
                await self._tasks.__aexit__(None, None, None)
            finally:
                self._tasks = None
                self._finish()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[ItemT, ResultT]:
        self._check_running()
        board = self._board
        if self._held:
            self._held -= 1
            self._free += 1
            self._freed.set()
        while board.failure is None and not board.ready and board.taken != self._end:
            if board.news.is_set():  # else another taker waits for it already
                board.news = anyio.Event()
            await board.news.wait()
            self._check_running()  # another task may have left the block
        if board.failure is not None:
            raise board.failure
        if not board.ready:
            raise StopAsyncIteration
        board.taken += 1
        self._held += 1
        return board.ready.popleft()

    def _check_running(self) -> None:
        self.check_entered()
        if self._tasks is None:
            raise RuntimeError(f"{self._name} has ended: take outcomes inside its block")

    async def collect(self) -> list[Outcome[ItemT, ResultT]]:
        """Return all remaining outcomes in a list, in the order in which iterating yields them.

        When it is cut short, by an error or cancellation, what it had is in :attr:`untaken` after the block.
        """
        collected: list[Outcome[ItemT, ResultT]] = []
        try:
            async for outcome in self:
                collected.append(outcome)  # noqa: PERF401 - what there is must not be lost with an exception
        except BaseException:
            self._collected += collected
            raise
        return collected

    @property
    def untaken(self) -> tuple[Outcome[ItemT, ResultT], ...]:
        """After the block: the outcomes of all items that were pulled and not taken, in input order.

        There are some when the block was left early: by ``break``, an error or cancellation. An item whose call was
        cut short has a ``TransportError``, and its ``maybe_applied`` says whether the effect may have happened: True
        unless it is certain that nothing was sent, and False for calls that change nothing.
        """
        return self._untaken

    async def _feed(self, tasks: TaskGroup) -> None:
        board = self._board
        source: _Source[ItemT] | None = None
        try:
            source = _Source(self._items)
            while board.failure is None and not tasks.cancel_scope.cancel_called:
                while not self._free:
                    board.full = True
                    self._freed = anyio.Event()
                    await self._freed.wait()
                board.full = False
                self._free -= 1
                if self._outages is not None and self._outages.away is not None:
                    await self._outages.wait_until_back()
                self._runner.item_wanted()
                job = self._job(await source.next())
                taking = None if self._take is None else self._take(job.item)
                if taking is None or await self._taken(job, taking):
                    self._runner.begin(board, tasks, job)
        except StopAsyncIteration:
            self._end = self._pulled
        except Exception as error:  # noqa: BLE001 - the input's own error is raised where outcomes are taken
            board.fail(error)
        finally:
            board.news.set()
            if source is not None:
                with anyio.CancelScope(shield=True):
                    try:
                        await source.aclose()
                    except Exception as error:  # noqa: BLE001 - the input's own, too
                        board.fail(error)

    def _job(self, item: ItemT) -> Job[ItemT]:
        job = self._board.jobs[self._pulled] = Job(self._pulled, item, item)
        self._pulled += 1
        return job

    async def _taken(self, job: Job[ItemT], taking: Awaitable[ItemT]) -> bool:
        """Take an item out of its input; return whether it can go on, or has its outcome already."""
        self._board.taking = True
        try:
            job.taken = await taking
        except (FaceError, ValueError) as error:
            self._board.put(Outcome(job.index, job.item, error=error))
            return False
        finally:
            self._board.taking = False
        return True

    def _finish(self) -> None:
        """Make an outcome of everything that was pulled and not taken."""
        board = self._board
        done = [*self._collected, *board.ready, *board.early.values()]
        untaken = [*done, *map(self._cut_short, board.jobs.values())]
        self._untaken = tuple(sorted(untaken, key=lambda outcome: outcome.index))
        board.ready.clear()
        board.early.clear()
        board.jobs.clear()
        board.news.set()

    def _cut_short(self, job: Job[ItemT]) -> Outcome[ItemT, ResultT]:
        name, maybe_applied = self._endpoint.name, job.begun and self._endpoint.effect
        message = f"{name}: its block was left before {'the answer came' if job.begun else 'anything was sent'}"
        return Outcome(job.index, job.item, error=TransportError(message, endpoint=name, maybe_applied=maybe_applied))


def _check_iterable(items: object) -> None:
    if isinstance(items, str | bytes | os.PathLike | BufferedIOBase | RawIOBase) or not isinstance(
        items, Iterable | AsyncIterable
    ):
        kind = type(items).__name__  # pyright: ignore[reportUnknownArgumentType]  # it is anything at all
        raise TypeError(f"expected a sync or async iterable of items, not a single {kind}")


class _Source(Generic[ItemT]):
    """The input, one item after another. It is no generator, whose frame would keep the last item alive."""

    def __init__(self, items: Iterable[ItemT] | AsyncIterable[ItemT]) -> None:
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        # A generator is closed with us: nobody else knows when it is no longer needed.
        self._close = items.close if isinstance(items, Generator) else None

    async def next(self) -> ItemT:
        """Return the next item, or raise ``StopAsyncIteration``."""
        if isinstance(self._items, AsyncIterator):
            return await anext(self._items)
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        if isinstance(self._items, AsyncGenerator):
            await cast("AsyncGenerator[ItemT, None]", self._items).aclose()
        elif self._close is not None:
            self._close()
