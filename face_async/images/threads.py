"""Worker threads: each kind of work has its own, so that none waits for threads that another kind holds.

Least of all for anyio's own: in a web back end the callers of a session may hold all of those, and wait in them for
what they have called.
"""

from __future__ import annotations

import io
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Worker threads for one kind of work: so many at most in each event loop.

    Args:
        name: A name of its own.
        threads: How many, or what tells it; they are started as they are needed.
        abandon: Whether a task that is cancelled leaves its thread to itself, instead of waiting for it.
    """

    def __init__(self, name: str, threads: int | Callable[[], int], *, abandon: bool = False) -> None:
        # A limiter belongs to the event loop that it was made in, and one application may serve several.
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar(f"face_async.{name}")
        self._threads = threads
        self._abandon = abandon

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a worker thread, and return its result."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            threads = self._threads
            limiter = anyio.CapacityLimiter(threads if isinstance(threads, int) else threads())
            self._limiter.set(limiter)
        work = partial(function, *args, **kwargs) if args or kwargs else function
        return await anyio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=self._abandon)


pictures = Workers("pictures", 40, abandon=True)
"""For pictures' files, which are opened and closed within the work: a disk may take any time."""

file_objects = Workers("file objects", 40)
"""For file objects that a user has given, and may close or read further when a call has ended."""

streams = Workers("streams", 40, abandon=True)
"""For file objects that may deliver nothing for any time: a call must not last as long."""

_WRAPPED = ("raw", "file", "_file", "fileobj", "_fileobj", "fp", "_fp")
"""Where the wrappers of the standard library keep what they read from."""

_MOST_WRAPPERS = 10


def may_stall(file: object) -> bool:
    """Return whether reading a file object may wait for others: it ends neither in a regular file nor in memory.

    So do pipes, sockets, answers of HTTP, archives that are read out of them, and whatever does not tell.
    """
    try:
        for _ in range(_MOST_WRAPPERS):
            if isinstance(file, io.BytesIO):
                return False
            if isinstance(file, io.FileIO):
                return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            inner: list[object] = [getattr(file, name, None) for name in _WRAPPED]
            file = next((each for each in inner if hasattr(each, "read")), None)
    except (OSError, ValueError):  # it is closed, so that reading fails at once
        return False
    return True
