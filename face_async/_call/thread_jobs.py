"""Hops to worker threads, shared by those who ask for one in the same turn of the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TOGETHER = 8
"""How many errands share a hop. More would save next to nothing, and leave a slow disk with too few readers."""


class _Errand:
    """What somebody wants done in a worker thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.done = False
        self.error: Exception | None = None
        self._work = work

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - it is raised where the errand was given
            self.error = error
        self.done = True


class _Hop:
    """One hop, and what is done on it."""

    def __init__(self, first: _Errand) -> None:
        self.errands = [first]
        self.over = anyio.Event()

    def run(self) -> None:
        for errand in self.errands:
            errand.run()


class Hops:
    """Runs errands in worker threads, several on one hop.

    A hop costs several times as much as reading a small file, and calls come in crowds: the answers that one turn of
    the event loop brings let as many further calls begin.
    """

    def __init__(self) -> None:
        self._next: _Hop | None = None

    async def run(self, work: Callable[[], None]) -> None:
        """Have something done in a worker thread.

        Args:
            work: Does it. It is run again, maybe while it still runs, if the task that made the hop was cancelled:
                nobody waits for a thread that a disk keeps waiting.

        Raises:
            Exception: Whatever ``work`` raises.
        """
        errand = _Errand(work)
        while not errand.done:
            await self._send(errand)
        if errand.error is not None:
            try:
                raise errand.error
            finally:
                errand.error = None  # or it would hold itself by its traceback

    async def _send(self, errand: _Errand) -> None:
        """Send an errand along with the next hop, or make that hop."""
        hop = self._next
        if hop is not None:
            hop.errands.append(errand)
            if len(hop.errands) == MOST_TOGETHER:
                self._next = None
            await hop.over.wait()
            return
        hop = self._next = _Hop(errand)
        try:
            try:
                await checkpoint()  # whoever else comes in this turn of the event loop comes along
            finally:
                if self._next is hop:
                    self._next = None
            await anyio.to_thread.run_sync(hop.run, abandon_on_cancel=True)
        finally:
            hop.over.set()
