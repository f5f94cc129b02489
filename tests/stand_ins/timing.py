"""Time in tests. What a test asserts must not depend on how busy the machine is, so a test has three means:

* ``PATIENCE`` guards against hanging: as a bound it is never reached, however busy the machine is;
* :func:`in_time` is for what must fit into a short time: on a busy machine it is tried again with a longer one;
* :class:`Stopwatch` is for durations that are the truth under test: it leaves out how long the process had to wait
  for a processor, as the kernel has counted it in the same moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from face_async import FaceError

PATIENCE = 120
"""Seconds that a test waits for what must happen; only a broken program waits so long."""


async def in_time(act: Callable[[float], Awaitable[None]]) -> None:
    """Run ``act(seconds)`` with a short time, and with longer ones on a machine too busy for that."""
    for seconds in (0.2, 1.0, 4.0):
        with contextlib.suppress(AssertionError, FaceError, pytest.fail.Exception, BaseExceptionGroup):
            return await act(seconds)
    return await act(15.0)


class Stopwatch:
    """Runs from its creation on; where the kernel keeps no such accounts, it is an ordinary one."""

    def __init__(self) -> None:
        self._waited = _waited_for_a_processor()
        self._started = time.monotonic()

    @property
    def gross(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self._started

    @property
    def net(self) -> float:
        """The same, less the seconds that threads of this process waited for a processor, all of them together."""
        gross = self.gross
        return gross - sum(now - self._waited.get(thread, 0) for thread, now in _waited_for_a_processor().items())


def _waited_for_a_processor() -> dict[str, float]:
    """Return the seconds that each thread of this process was ready to run and did not."""
    waited = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            waited[path.parent.name] = int(path.read_text(encoding="ascii").split()[1]) / 1e9
    return waited
