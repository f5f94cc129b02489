"""The thread in which a session's event loop runs."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future

    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, which the first call starts."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._process = os.getpid()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether nothing runs here: it was stopped, or left behind in the process that this one was forked from."""
        return self._stopped or self._process != os.getpid()

    def portal(self) -> BlockingPortal:
        """Return the way into the loop, which is started if need be.

        Raises:
            RuntimeError: It was stopped, or made in another process, from which this one was forked.
        """
        if self._process != os.getpid():  # no thread comes along, and a lock may be held by one
            raise RuntimeError("the session was made before this process was forked: make one in every process")
        with self._starting:
            if self._stopped:
                raise RuntimeError("the session is closed; make calls inside its 'with' block")
            if self._portal is None:
                self._portal = self._stack.enter_context(start_blocking_portal("asyncio", name="face_async.sync"))
            return self._portal

    def start(self, make: Callable[[], Awaitable[T]]) -> Future[T]:
        """Begin to await something in the loop."""
        return self.portal().start_task_soon(make)

    def wait(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await something in the loop, and return its result; where the caller is interrupted, it is cancelled."""
        future = self.start(make)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        with self._starting:
            self._stopped = True
            self._stack.close()

    def __del__(self) -> None:
        if self._portal is not None and not self.stopped:
            warnings.warn("a FaceSession was not closed: use 'with', or close()", ResourceWarning, 2, source=self)
