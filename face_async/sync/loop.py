"""The thread in which a session's event loop runs."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import warnings
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskStatus
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

_LAST_SECONDS = 2.0
"""How long calls have to fail by themselves when the loop is stopped, before they are cancelled."""


class LoopThread:
    """An event loop in a thread of its own, which the first call starts."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._starting: set[int] = set()  # the threads that begin something
        self._calls: set[Future[object]] = set()
        self._stopping = threading.RLock()
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._thread = 0
        self._process = os.getpid()
        self._stopped = False

    def check(self) -> None:
        """Check that calls can be made.

        Raises:
            RuntimeError: It was stopped, or made in another process, from which this one was forked.
        """
        if self._process != os.getpid():  # no thread comes along, and a lock may be held by one
            raise RuntimeError("the session was made before this process was forked: make one in every process")
        if self._stopped:
            raise RuntimeError("the session is closed; make calls inside its 'with' block")

    def start(self, make: Callable[[], Awaitable[T]]) -> Future[T]:
        """Begin to await something in the loop, which is started if need be.

        Raises:
            RuntimeError: As :meth:`check`.
        """
        with self._running_portal() as portal:
            return portal.start_task_soon(make)

    def wait(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await something in the loop, and return its result."""
        future = self.start(make)
        self._calls.add(cast("Future[object]", future))
        try:
            with self.waiting_for(future):
                return future.result()
        finally:
            self._calls.discard(cast("Future[object]", future))

    @contextmanager
    def waiting_for(self, future: Future[T]) -> Generator[None]:
        """Wait in the block for what was begun: if the caller is interrupted, or the loop stopped, it is cancelled."""
        try:
            yield
        except BaseException as error:
            future.cancel()
            if isinstance(error, RuntimeError | CancelledError):
                self.check()
            raise

    def enter(self, block: AbstractAsyncContextManager[object]) -> Callable[[], None]:
        """Enter an asynchronous block, which is left when the loop is stopped; return what leaves it earlier.

        Raises:
            RuntimeError: As :meth:`check`.
        """
        over = anyio.Event()

        async def stay(*, task_status: TaskStatus[None]) -> None:
            async with block:  # entered and left by the same task, as the task group in it demands
                task_status.started()
                await over.wait()

        async def end() -> None:
            over.set()

        with self._running_portal() as portal:
            staying, _ = portal.start_task(stay)

        def leave() -> None:
            try:
                self.start(end)
            except RuntimeError:
                if not self._stopped:
                    raise
            with suppress(CancelledError):
                staying.result()

        return leave

    def stop(self, close: Callable[[], Awaitable[object]]) -> None:
        """End all that is under way, the loop and its thread; doing so twice is fine.

        Args:
            close: What makes the calls under way fail.

        Raises:
            RuntimeError: It is called in the loop's own thread, which cannot wait for itself.
        """
        if self._process != os.getpid():
            return
        if self._thread == threading.get_ident():
            raise RuntimeError("the session cannot be closed in its own thread, by progress or on_attempt")
        with self._stopping:
            with self._state:
                self._stopped = True
                # What a signal's handler has interrupted in this very thread goes on only after it.
                self._state.wait_for(lambda: self._starting <= {threading.get_ident()})
            if self._portal is not None:
                with suppress(RuntimeError):  # it was stopped already
                    self._portal.call(close)
                    concurrent.futures.wait(self._calls.copy(), _LAST_SECONDS)
                    self._portal.call(self._portal.stop, True)
            self._stack.close()

    @contextmanager
    def _running_portal(self) -> Generator[BlockingPortal]:
        """The way into the loop, which is not stopped during the block: what is begun later would never end."""
        self.check()
        with self._state:
            self.check()
            if self._portal is None:
                self._portal = self._stack.enter_context(start_blocking_portal("asyncio", name="face_async.sync"))
                self._thread = self._portal.call(threading.get_ident)
            self._starting.add(threading.get_ident())
        try:
            yield self._portal
        finally:
            with self._state:
                self._starting.discard(threading.get_ident())
                self._state.notify_all()

    def __del__(self) -> None:
        if self._portal is not None and not self._stopped and self._process == os.getpid():
            warnings.warn("a FaceSession was not closed: use 'with', or close()", ResourceWarning, 2, source=self)
