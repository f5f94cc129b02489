"""Threads for work on a store: each kind of work has its own, so that none waits for the threads of another."""

from __future__ import annotations

import functools
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
        threads: How many; they are started as they are needed.
    """

    def __init__(self, name: str, threads: int) -> None:
        # A limiter belongs to the event loop that it was made in, and one application may serve several.
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar(f"face_async.server.{name}")
        self._threads = threads

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a worker thread, and return its result."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._threads)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs), limiter=limiter)


reads = Workers("reads", 40)
"""For what is answered within moments."""

writes = Workers("writes", 256)
"""For what may wait for the file: those who wait at the same time share a commit."""

rankings = Workers("rankings", 16)
"""For comparisons with galleries, which may have to be loaded."""
