"""The one bounded map: a call for every item, and never more than so many items alive."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Sized
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import anyio
from attrs import define, field, frozen

from face_async._call.judgement import judge_error
from face_async.endpoints import Endpoint
from face_async.errors import FaceError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

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
    """An item that was pulled and has no outcome yet.

    Attributes:
        index: The item's place in the input.
        item: The item as it was given.
        begun: Whether its call was begun, so that its request may have been sent.
    """

    index: int
    item: ItemT = field(repr=False)
    begun: bool = False


class Outcomes(Generic[ItemT, ResultT]):
    """The bounded map: runs a call for every item, and yields one :class:`Outcome` each.

    An asynchronous context manager and iterator. The input is pulled only as outcomes are taken: of all items pulled,
    at most ``max_at_once`` are not done with, the one that the caller holds included. An item that fails costs one
    outcome. What ends the iteration, raised where outcomes are taken, is an item of a wrong type, with its
    ``TypeError``, and an error after which no further call can succeed: codes 4-6, 9-12, 14, 16 and 24.

    Leaving the block, early or not, cancels what runs and closes the input; :attr:`untaken` tells what became of it.
    """

    def __init__(
        self,
        call: Callable[[ItemT], Awaitable[ResultT]] | None,
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        *,
        max_at_once: int,
        ordered: bool = False,
        progress: Callable[[int, int | None, Outcome[ItemT, ResultT]], object] | None = None,
        endpoint: Endpoint[object] = _SOME_CALL,
    ) -> None:
        if max_at_once < 1:
            raise ValueError(f"max_at_once must be 1 or more, not {max_at_once}")
        _check_iterable(items)
        self._call = cast("Callable[[ItemT], Awaitable[ResultT]]", call)  # None where _begin is another one
        self._items = items
        self._size = len(items) if isinstance(items, Sized) else None
        self._ordered = ordered
        self._progress = progress
        self._endpoint = endpoint
        self._places = anyio.Semaphore(max_at_once, fast_acquire=True)
        self._jobs: dict[int, Job[ItemT]] = {}
        self._ready: deque[Outcome[ItemT, ResultT]] = deque()
        self._early: dict[int, Outcome[ItemT, ResultT]] = {}  # ordered: done before their turn
        self._collected: list[Outcome[ItemT, ResultT]] = []
        self._untaken: tuple[Outcome[ItemT, ResultT], ...] = ()
        self._pulled = 0
        self._done = 0
        self._taken = 0
        self._holding = False  # whether the caller has an outcome whose place is not free yet
        self._end: int | None = None  # how many items there were, once known
        self._failure: Exception | None = None
        self._news = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._feed, self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            try:
                # Not told of the body's exception, the group cannot wrap it: it goes on as it is.
                await self._tasks.__aexit__(None, None, None)
            finally:
                self._tasks = None
                self._settle()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[ItemT, ResultT]:
        if self._tasks is None:
            raise RuntimeError("outcomes are a context manager: async with session.identify_many(...) as outcomes:")
        if self._holding:
            self._holding = False
            self._places.release()
        while self._failure is None and not self._ready and self._taken != self._end:
            if self._news.is_set():  # else another taker waits for it already
                self._news = anyio.Event()
            await self._news.wait()
        if self._failure is not None:
            raise self._failure
        if not self._ready:
            raise StopAsyncIteration
        self._taken += 1
        self._holding = True
        return self._ready.popleft()

    async def collect(self) -> list[Outcome[ItemT, ResultT]]:
        """Return all remaining outcomes in a list, in the order in which iterating yields them.

        When it is cut short, by an error or cancellation, what it had is in :attr:`untaken` after the block.
        """
        collected: list[Outcome[ItemT, ResultT]] = []
        try:
            async for outcome in self:
                collected.append(outcome)  # noqa: PERF401 - what there is must not be lost with an exception
        except BaseException:
            self._collected = collected
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
        source: _Source[ItemT] | None = None
        try:
            source = _Source(self._items)
            while self._failure is None:
                await self._next_place()
                self._begin(tasks, self._job(await source.next()))
        except StopAsyncIteration:
            self._end = self._pulled
        except Exception as error:  # noqa: BLE001 - the input's own error is raised where outcomes are taken
            self._fail(error)
        finally:
            self._news.set()
            if source is not None:
                with anyio.CancelScope(shield=True):
                    try:
                        await source.aclose()
                    except Exception as error:  # noqa: BLE001 - the input's own, too
                        self._fail(error)

    def _job(self, item: ItemT) -> Job[ItemT]:
        job = self._jobs[self._pulled] = Job(self._pulled, item)
        self._pulled += 1
        return job

    async def _next_place(self) -> None:
        """Wait until one more item may be alive."""
        await self._places.acquire()

    def _begin(self, tasks: TaskGroup, job: Job[ItemT]) -> None:
        """Set a job going; called in input order."""
        tasks.start_soon(self._run, job)

    async def _run(self, job: Job[ItemT]) -> None:
        try:
            if self._failure is None:
                job.begun = True
                self._put(await self._outcome(job))
        except Exception as error:  # noqa: BLE001 - a programming error is raised where outcomes are taken
            self._fail(error)

    async def _outcome(self, job: Job[ItemT]) -> Outcome[ItemT, ResultT]:
        # The frame that catches an error hangs on the error, so it must not hold the outcome, or both would be
        # garbage that only the collector finds, late and with the item's picture.
        try:
            return Outcome(job.index, job.item, result=await self._call(job.item))
        except (FaceError, ValueError) as error:
            return Outcome(job.index, job.item, error=error)

    def _put(self, outcome: Outcome[ItemT, ResultT]) -> None:
        """Have an outcome taken, now or in its turn."""
        del self._jobs[outcome.index]
        self._done += 1
        if self._ordered:
            self._early[outcome.index] = outcome
            while (turn := self._taken + len(self._ready)) in self._early:
                self._ready.append(self._early.pop(turn))
        else:
            self._ready.append(outcome)
        self._news.set()
        if outcome.error is not None and judge_error(outcome.error).hopeless:
            self._fail(outcome.error)
        if self._progress is not None:
            self._progress(self._done, self._size, outcome)

    def _fail(self, error: Exception) -> None:
        """End the iteration with an error: nothing more is begun, and it is raised instead of the next outcome."""
        if self._failure is None:
            self._failure = error
        self._news.set()

    def _settle(self) -> None:
        """Make an outcome of everything that was pulled and not taken."""
        done = [*self._collected, *self._ready, *self._early.values()]
        untaken = [*done, *map(self._cut_short, self._jobs.values())]
        self._untaken = tuple(sorted(untaken, key=lambda outcome: outcome.index))
        self._ready.clear()
        self._early.clear()
        self._jobs.clear()

    def _cut_short(self, job: Job[ItemT]) -> Outcome[ItemT, ResultT]:
        name, maybe_applied = self._endpoint.name, job.begun and self._endpoint.effect
        message = f"{name}: its block was left before {'the answer came' if job.begun else 'anything was sent'}"
        return Outcome(job.index, job.item, error=TransportError(message, endpoint=name, maybe_applied=maybe_applied))


def _check_iterable(items: object) -> None:
    if isinstance(items, str | bytes | os.PathLike) or not isinstance(items, Iterable | AsyncIterable):
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
