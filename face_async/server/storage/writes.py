"""Writes that wait for a database, and are done together."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import field, frozen

from face_async.server.storage.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
D = TypeVar("D")  # what a work is done with


@frozen(eq=False)
class Write(Generic[D, T]):
    """A write that waits for what it returns, since ``since`` by the monotonic clock."""

    work: Callable[[D], T]
    outcome: Future[T] = field(factory=Future)
    since: float = field(factory=time.monotonic)


class WriteQueue(Generic[D]):
    """Writes that wait, and the threads that do them.

    Args:
        work_off: Takes what waits from :attr:`waiting`, does it and sets the outcomes; called in a thread whenever
            something has come.
        threads: How many threads there are at most.
    """

    def __init__(self, work_off: Callable[[], None], threads: int) -> None:
        self.waiting: deque[Write[D, object]] = deque()
        self._work_off = work_off
        self._threads = ThreadPoolExecutor(threads, "face_async storage")

    def close(self) -> None:
        """Finish the writes that wait; twice does no harm."""
        self._threads.shutdown()

    def wait_for(self, work: Callable[[D], T]) -> T:
        """Let ``work`` be done, and return its result once that is committed."""
        write = Write[D, T](work)
        self.waiting.append(write)  # type: ignore[arg-type]  # a queue of writes with results of all kinds
        try:
            self._threads.submit(self._work_off)
        except RuntimeError:
            with contextlib.suppress(ValueError):  # it was taken together with those before it
                self.waiting.remove(write)  # type: ignore[arg-type]
                raise StoreError("the database is closed") from None
        return write.outcome.result()
