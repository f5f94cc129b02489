"""What calls wait for besides their answers: turns, pauses, pictures. Closing the session ends it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator


class Waits:
    """The waits of a session's calls.

    Attributes:
        closed: Whether all have ended, and every further one ends at once.
    """

    def __init__(self) -> None:
        self.closed = False
        self._scopes: set[anyio.CancelScope] = set()

    def close(self) -> None:
        """End all waits."""
        self.closed = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def at_most(self, seconds: float = math.inf) -> Generator[None]:
        """Bound a wait; what follows in the block is left out when it ends early."""
        with anyio.move_on_after(seconds) as scope:
            if self.closed:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    async def sleep(self, seconds: float) -> None:
        """Sleep so long, or until the waits are closed."""
        with self.at_most():
            await anyio.sleep(seconds)
