"""The outcomes of bulk verbs for programs without async."""

from __future__ import annotations

import os
import queue
from collections.abc import AsyncIterator, Generator, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import anyio
from attrs import define, field

from face_async.bulk.once import EnteredOnce

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    import face_async
    from face_async import Outcome
    from face_async.sync.loop import LoopThread

T = TypeVar("T")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@define(eq=False)
class _Pull(Generic[ItemT]):
    """The wish for the next item of an input."""

    fulfilled: anyio.Event = field(factory=anyio.Event)
    item: ItemT | None = None
    error: Exception | None = None  # StopAsyncIteration at the end


class _Input(AsyncIterator[ItemT]):
    """An input that is iterated by the thread that takes the outcomes: it may hold what belongs to that thread."""

    def __init__(self, items: Iterable[ItemT], wishes: queue.SimpleQueue[_Pull[ItemT] | Future[Any]]) -> None:
        self._items = items
        self._iterator = iter(items)
        self._wishes = wishes

    async def __anext__(self) -> ItemT:
        pull = _Pull[ItemT]()
        self._wishes.put(pull)
        await pull.fulfilled.wait()
        if pull.error is not None:
            raise pull.error
        return cast("ItemT", pull.item)

    def fulfill(self, pull: _Pull[ItemT]) -> None:
        """Pull an item, in that thread."""
        try:
            pull.item = next(self._iterator)
        except StopIteration:
            pull.error = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - the input's own error is raised where outcomes are taken
            pull.error = error

    def close(self) -> None:
        """Close a generator."""
        if isinstance(self._items, Generator):
            cast("Generator[ItemT]", self._items).close()


class Outcomes(EnteredOnce, Generic[ItemT, ResultT]):
    """As :class:`face_async.Outcomes`, with ``with`` and ``for``.

    The input is pulled by the thread that takes the outcomes, whenever that waits for one; only a list or a tuple is
    read by the session's own thread. ``progress`` is called in the session's thread.
    """

    def __init__(
        self,
        loop: LoopThread,
        items: Iterable[ItemT],
        begin: Callable[[Iterable[ItemT] | _Input[ItemT]], face_async.Outcomes[ItemT, ResultT]],
    ) -> None:
        self._loop = loop
        self._news = queue.SimpleQueue[_Pull[ItemT] | Future[Any]]()  # wishes for items, and calls that are over
        self._waiting = set[Future[Any]]()  # the calls for which a thread waits
        self._input = _Input(items, self._news) if _may_run_code(items) else None
        self._outcomes = self.hold(begin(self._input or items))
        self._block = ExitStack()
        super().__init__("a bulk run", "with session.identify_many(...) as outcomes:")

    def __enter__(self) -> Self:
        self.enter_once()
        # One task of the loop enters and leaves the block, as the task group in it demands.
        self._block.enter_context(self._loop.portal().wrap_async_context_manager(self._outcomes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._block.close()
        finally:
            if self._input is not None:
                self._input.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[ItemT, ResultT]:
        outcome = self._take(lambda: anext(self._outcomes, None))
        if outcome is None:
            raise StopIteration
        return outcome

    def collect(self) -> list[Outcome[ItemT, ResultT]]:
        """As :meth:`face_async.Outcomes.collect`."""
        return self._take(self._outcomes.collect)

    @property
    def untaken(self) -> tuple[Outcome[ItemT, ResultT], ...]:
        """As :attr:`face_async.Outcomes.untaken`."""
        return self._outcomes.untaken

    def _take(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await something in the loop, and pull the input meanwhile."""
        self.check_entered()
        future = self._loop.start(make)
        self._waiting.add(future)
        future.add_done_callback(self._news.put)
        try:
            while not future.done():
                news = self._news.get()
                if isinstance(news, _Pull):
                    self._fulfill(news)
                elif news is not future and news in self._waiting:
                    self._news.put(news)  # it is another thread's
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waiting.discard(future)

    def _fulfill(self, pull: _Pull[ItemT]) -> None:
        if self._input is not None:
            self._input.fulfill(pull)
            self._loop.start(partial(_set, pull.fulfilled))


def _may_run_code(items: object) -> bool:
    """Return whether iterating runs code of the caller's; what is no iterable of items is refused elsewhere."""
    return isinstance(items, Iterable) and not isinstance(items, list | tuple | str | bytes | os.PathLike)


async def _set(event: anyio.Event) -> None:
    event.set()
