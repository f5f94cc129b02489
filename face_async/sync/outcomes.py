"""The outcomes of bulk verbs for programs without async."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

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
    """The wish for the next item of an input, and how far it is fulfilled: Ctrl-C may come between any two steps."""

    known: anyio.Event = field(factory=anyio.Event)  # what follows, to the loop
    item: ItemT | None = None
    error: Exception | None = None  # StopAsyncIteration at the end
    pulled: bool = False
    told: bool = False


class _Input(AsyncIterator[ItemT]):
    """An input that is iterated by the threads that take the outcomes: it may hold what belongs to them."""

    def __init__(self, items: Iterable[ItemT], takers: set[queue.SimpleQueue[None]]) -> None:
        self._items = items
        self._iterator = iter(items)
        self._takers = takers
        self._pull: _Pull[ItemT] | None = None  # the newest; it stays until there is another
        self._pulling = threading.Lock()

    async def __anext__(self) -> ItemT:
        self._pull = pull = _Pull[ItemT]()
        self._wake_takers()
        await pull.known.wait()
        if pull.error is not None:
            raise pull.error
        return cast("ItemT", pull.item)

    def fulfill(self, loop: LoopThread) -> bool:
        """Pull an item, if one is wished for and no other thread does; return whether there was anything to do."""
        pull = self._pull
        if pull is None or pull.told or not self._pulling.acquire(blocking=False):
            return False
        try:
            if not pull.pulled:
                self._next(pull)
                pull.pulled = True
            loop.start(partial(_set, pull.known))
            pull.told = True
        except BaseException:
            self._wake_takers()  # another thread may go on
            raise
        finally:
            self._pulling.release()
        return True

    def _next(self, pull: _Pull[ItemT]) -> None:
        try:
            pull.item = next(self._iterator)
        except StopIteration:
            pull.error = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - the input's own error is raised where outcomes are taken
            pull.error = error

    def _wake_takers(self) -> None:
        for taker in tuple(self._takers):
            taker.put(None)

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
        self._takers = set[queue.SimpleQueue[None]]()  # what wakes each thread that takes outcomes
        self._input = _Input(items, self._takers) if _may_run_code(items) else None
        self._outcomes = self.hold(begin(self._input or items))
        self._block = ExitStack()
        super().__init__("a bulk run", "with session.identify_many(...) as outcomes:")

    def __enter__(self) -> Self:
        self.enter_once()
        self._block.callback(self._loop.enter(self._outcomes))
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
        news = queue.SimpleQueue[None]()
        self._takers.add(news)
        future = self._loop.start(make)
        future.add_done_callback(lambda _: news.put(None))
        try:
            with self._loop.waiting_for(future):
                while not future.done():
                    if self._input is None or not self._input.fulfill(self._loop):
                        news.get()
                return future.result()
        finally:
            self._takers.discard(news)


def _may_run_code(items: object) -> bool:
    """Return whether iterating runs code of the caller's; what is no iterable of items is refused elsewhere."""
    return isinstance(items, Iterable) and not isinstance(items, list | tuple | str | bytes | os.PathLike)


async def _set(event: anyio.Event) -> None:
    event.set()
