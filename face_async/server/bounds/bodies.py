"""Memory for the bodies of all requests under way, and for the pictures that are fetched for them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from face_async.errors import ReturnCode
from face_async.images.machine import memory_limit
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Generator

_MOST_BYTES = 128_000_000
_MEMORY_PART = 8  # which part of the memory they may take on small machines
_RETRY_SECONDS = 1


def most_body_bytes() -> int:
    """Return how many bytes bodies may take together: 128 MB, or an eighth of this process's memory if that is less."""
    return min(_MOST_BYTES, memory_limit() // _MEMORY_PART)


class BodyMemory:
    """The memory; it belongs to one event loop.

    When there is no more of it, the body that has been arriving for the longest time makes room: its request gets
    code 15. So nobody takes the room of others by sending slowly. When all bodies have arrived, the new one is refused.

    Args:
        max_bytes: Bytes that they may take together; one alone may have more.

    Attributes:
        arriving: The bodies that are being read, in the order in which they began.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken = 0
        self.arriving: dict[HeldBody, None] = {}

    @contextlib.contextmanager
    def held(self) -> Generator[HeldBody]:
        """Lend memory for one request, until it is answered."""
        body = HeldBody(self)
        try:
            yield body
        finally:
            self._give_back(body)

    def take(self, body: HeldBody, size: int) -> None:
        """Take memory for a body; see :meth:`HeldBody.take`."""
        if body.is_evicted:
            return  # it is about to end
        body.size += size
        self._taken += size
        while self._taken > self._max_bytes and self._taken > body.size and not body.is_evicted:
            slowest = next(iter(self.arriving), None)
            if slowest is None:
                raise Refusal(ReturnCode.RATE_LIMITED, retry_after=_RETRY_SECONDS)
            self._give_back(slowest)
            slowest.evict()

    def _give_back(self, body: HeldBody) -> None:
        self.arriving.pop(body, None)
        self._taken -= body.size
        body.size = 0


class HeldBody:
    """What one request has of the memory.

    Attributes:
        size: Bytes.
        is_evicted: Whether it had to make room.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0
        self.is_evicted = False
        self._scopes: set[anyio.CancelScope] = set()

    @contextlib.contextmanager
    def arriving(self) -> Generator[None]:
        """Read the body, or a picture for it, inside of this block, and note each piece by :meth:`take`.

        Several tasks may do so at once, each in a block of its own.

        Raises:
            Refusal: 15: it had to make room.
        """
        self._require_room()
        self._memory.arriving[self] = None
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.remove(scope)
                if not self._scopes:
                    self._memory.arriving.pop(self, None)
        self._require_room()

    def _require_room(self) -> None:
        if self.is_evicted:
            raise Refusal(ReturnCode.RATE_LIMITED, retry_after=_RETRY_SECONDS)

    def evict(self) -> None:
        """End all reading for it."""
        self.is_evicted = True
        for scope in self._scopes:
            scope.cancel()

    def take(self, size: int) -> None:
        """Take memory for so many bytes more.

        Raises:
            Refusal: 15: there is no more, and nobody who can make room.
        """
        self._memory.take(self, size)
