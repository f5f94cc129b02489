"""The connections that wait for their next request."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from face_async._transports.base import KEEPALIVE_SECONDS

T = TypeVar("T")


class IdleStack(Generic[T]):
    """A stack of idle connections, the last used on top: everything takes constant time, however many there are.

    Of those that fewer calls no longer need, each call ends one: the one at the bottom, when it has been idle too long.
    """

    def __init__(self) -> None:
        self._since: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def pop(self) -> tuple[T, bool]:
        """Return the last used connection, and whether it has been idle for too long."""
        connection, since = self._since.popitem()
        return connection, since < time.monotonic() - KEEPALIVE_SECONDS

    def push(self, connection: T) -> T | None:
        """Keep a connection; returns another one, to be closed, that has been idle for too long."""
        now = time.monotonic()
        self._since[connection] = now
        oldest = next(iter(self._since))
        if oldest is connection or self._since[oldest] >= now - KEEPALIVE_SECONDS:
            return None
        del self._since[oldest]
        return oldest

    def discard(self, connection: T) -> None:
        """Forget a connection that is gone."""
        self._since.pop(connection, None)
