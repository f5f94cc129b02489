"""How much may be under way at once: places, requests a second, and bytes in flight."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import anyio
from attrs import field, frozen
from attrs.validators import and_, ge, gt, instance_of, lt, optional

if TYPE_CHECKING:
    from collections.abc import Callable


_RECOVERY = 0.1
"""Places that come back after code 15 in the time that a place's call takes: slowly, so that 15 stays an exception."""


@frozen
class Throttle:
    """Bounds on what a session, with all its copies, has under way.

    When the service answers code 15, too many requests, the places and the rate in force are halved; with every answer
    that is none they grow back, by one place in about ten times the time of a call.

    Attributes:
        max_concurrency: Calls under way at once, 1 or more, and with them the connections in use. Further calls queue.
        max_rate: Requests a second, retries included; None sets no bound.
        burst: Requests that may follow each other without a pause after a time of rest, 1 or more; as many as
            ``max_rate`` allows in a second when None.
        max_bytes_in_flight: Bytes of the bodies under way at once, 1 or more; a larger body goes alone. Bodies that
            wait for it hold their places already, and in memory what was given in memory, was read from a file object,
            or is in files of up to 256 KB.
    """

    max_concurrency: int = field(default=64, validator=and_(instance_of(int), ge(1)))
    max_rate: float | None = field(default=None, validator=optional(and_(gt(0), lt(math.inf))))
    burst: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))))
    max_bytes_in_flight: int = field(default=128 * 1024 * 1024, validator=and_(instance_of(int), ge(1)))


@frozen
class ThrottleState:
    """A throttle at one moment.

    Attributes:
        concurrency: How many calls may be under way at once; after code 15 fewer than ``max_concurrency``.
        rate: How many requests a second may be sent, None for any number.
        in_flight: Calls that are under way.
        waiting: Calls that queue for a place or for their bytes.
        bytes_in_flight: Bytes of the bodies that are under way.
        slowdowns: How often the service's code 15 has made it slower.
    """

    concurrency: int = 0
    rate: float | None = None
    in_flight: int = 0
    waiting: int = 0
    bytes_in_flight: int = 0
    slowdowns: int = 0


class Room:
    """So much of something, lent to whoever comes first.

    Lending and returning take constant time. Who wants more than there is of it at all gets all of it.
    """

    def __init__(self, size: float) -> None:
        self.size = size
        self.lent = 0
        self._waiters: OrderedDict[anyio.Event, int] = OrderedDict()  # a dict finds its first in linear time

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def borrow_now(self, amount: int) -> bool:
        """Borrow without waiting, and return whether that was possible."""
        if self._waiters or not self._fits(amount):
            return False
        self.lent += amount
        return True

    async def borrow(self, amount: int) -> None:
        """Borrow, waiting for those who came before."""
        if self.borrow_now(amount):
            return
        turn = anyio.Event()
        self._waiters[turn] = amount
        try:
            await turn.wait()
        except BaseException:
            if self._waiters.pop(turn, None) is None:
                self.give_back(amount)  # it was this one's turn just now
            else:
                self._serve()  # it may have been too large for the room that suffices the next
            raise

    def give_back(self, amount: int) -> None:
        """Return what was borrowed."""
        self.lent -= amount
        self._serve()

    def resize(self, size: float) -> None:
        """Make the room larger or smaller; what is lent stays lent."""
        self.size = size
        self._serve()

    def _fits(self, amount: int) -> bool:
        return self.lent + amount <= self.size or not self.lent

    def _serve(self) -> None:
        while self._waiters:
            turn, amount = next(iter(self._waiters.items()))
            if not self._fits(amount):
                return
            del self._waiters[turn]
            self.lent += amount
            turn.set()


class Gate:
    """A throttle at work."""

    def __init__(self, throttle: Throttle, clock: Callable[[], float] = time.monotonic) -> None:
        self.places = Room(throttle.max_concurrency)
        self.bytes = Room(throttle.max_bytes_in_flight)
        self.slowdowns = 0
        self._most = throttle.max_concurrency
        self._rate = throttle.max_rate
        self._burst = throttle.burst or max(1, int(throttle.max_rate or 1))
        self._rested_at = 0.0  # the moment from which on the whole burst is there again
        self._clock = clock

    @property
    def state(self) -> ThrottleState:
        """How it stands."""
        return ThrottleState(
            concurrency=int(self.places.size),
            rate=self._rate_now,
            in_flight=self.places.lent,
            waiting=self.places.waiting + self.bytes.waiting,
            bytes_in_flight=self.bytes.lent,
            slowdowns=self.slowdowns,
        )

    def seconds_to_wait(self) -> float:
        """Count one request, and return how long to wait before it is sent."""
        if self._rate_now is None:
            return 0.0
        gap = 1 / self._rate_now
        now = self._clock()
        self._rested_at = max(self._rested_at, now) + gap
        return max(0.0, self._rested_at - now - self._burst * gap)

    def unsend(self) -> None:
        """Count one request less: it is not sent after all."""
        if self._rate_now is not None:
            self._rested_at -= 1 / self._rate_now

    def slow_down(self, since: int) -> None:
        """Halve what may be under way.

        Args:
            since: What :attr:`slowdowns` was when the request was sent that the service found one too many: all those
                of one burst together count once.
        """
        if since == self.slowdowns:
            self.slowdowns += 1
            self.places.resize(max(1.0, self.places.size / 2))

    def recover(self) -> None:
        """Let a little more be under way again."""
        if self.places.size < self._most:
            self.places.resize(min(self._most, self.places.size + _RECOVERY / self.places.size))

    @property
    def _rate_now(self) -> float | None:
        return None if self._rate is None else self._rate * self.places.size / self._most
