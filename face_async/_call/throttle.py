"""How much may be under way at once: calls, requests a second, and bytes in flight."""

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
"""What an answer adds to the number of calls is this divided by that number: slowly, so that code 15 stays rare."""


@frozen
class Throttle:
    """Bounds on what a session, with all its copies, has under way.

    When the service answers code 15, too many requests, the number of calls and the rate in force are halved, and a
    call that is tried again queues again; with every other answer they grow again, by one call in about ten times the
    time that a call takes. So they are by the HTTP statuses 429, 502, 503 and 504, with which mostly a proxy answers.

    Attributes:
        max_concurrency: Calls under way at once, 1 or more, and with them the connections in use. Further calls queue.
        max_rate: Requests a second, retries included; None sets no bound.
        burst: Requests that may follow each other without a pause when none were sent for a while, 1 or more; as many
            as ``max_rate`` allows in a second when None.
        max_bytes_in_flight: Bytes of the bodies under way at once, 1 or more; a larger body is sent alone. Calls
            that wait for it count in ``max_concurrency`` already, and keep in memory what was given as bytes, was read
            from a file object, or is in files of up to 256 KB.
    """

    max_concurrency: int = field(default=64, validator=and_(instance_of(int), ge(1)))
    max_rate: float | None = field(default=None, validator=optional(and_(gt(0), lt(math.inf))))
    burst: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))))
    max_bytes_in_flight: int = field(default=128 * 1024 * 1024, validator=and_(instance_of(int), ge(1)))

    def divided(self, parts: int) -> Throttle:
        """Return the equal share of each of several sessions that together keep these bounds, asking nobody.

        A share has no burst: what follows each other in one session would add up with what does in the others.

        Args:
            parts: How many sessions there are, 1 to ``max_concurrency``.

        Raises:
            ValueError: There are more sessions than calls.
        """
        if not 1 <= parts <= self.max_concurrency:
            raise ValueError(f"parts must be 1 to max_concurrency, which is {self.max_concurrency}, not {parts}")
        return Throttle(
            max_concurrency=self.max_concurrency // parts,
            max_rate=None if self.max_rate is None else self.max_rate / parts,
            burst=1,
            max_bytes_in_flight=max(1, self.max_bytes_in_flight // parts),
        )


@frozen
class ThrottleState:
    """A throttle at one moment.

    Attributes:
        concurrency: How many calls may be under way at once; after code 15 fewer than ``max_concurrency``.
        rate: How many requests a second may be sent, None for any number.
        in_flight: Calls that are under way.
        waiting: Calls that queue to begin or to send their bytes.
        bytes_in_flight: Bytes of the bodies that are under way.
        slowdowns: How often the service, or a proxy before it, has made it slower.
    """

    concurrency: int = 0
    rate: float | None = None
    in_flight: int = 0
    waiting: int = 0
    bytes_in_flight: int = 0
    slowdowns: int = 0


class WeightedLimiter:
    """Bounds the sum of what its users hold; they are served in the order in which they come.

    Acquiring and releasing take constant time. An amount larger than the whole limit is granted when nothing else is
    held.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.held = 0
        self._waiters: OrderedDict[anyio.Event, int] = OrderedDict()  # a dict finds its first in linear time

    @property
    def waiting(self) -> int:
        """How many users wait."""
        return len(self._waiters)

    def acquire_now(self, amount: int) -> bool:
        """Acquire without waiting, and return whether that was possible."""
        if self._waiters or not self._fits(amount):
            return False
        self.held += amount
        return True

    async def acquire(self, amount: int, *, first: bool = False) -> None:
        """Acquire, after all that came before; or before all of them, as one who came earlier and has given back."""
        if self.acquire_now(amount):
            return
        turn = anyio.Event()
        self._waiters[turn] = amount
        if first:
            self._waiters.move_to_end(turn, last=False)
        try:
            await turn.wait()
        except BaseException:
            if self._waiters.pop(turn, None) is None:
                self.release(amount)  # it had been granted just before
            else:
                self._serve()  # the next one may want less, and need not wait any longer
            raise

    def release(self, amount: int) -> None:
        """Give back what was acquired."""
        self.held -= amount
        self._serve()

    def resize(self, limit: float) -> None:
        """Change the limit; what is held stays held."""
        self.limit = limit
        self._serve()

    def _fits(self, amount: int) -> bool:
        return self.held + amount <= self.limit or not self.held

    def _serve(self) -> None:
        while self._waiters:
            turn, amount = next(iter(self._waiters.items()))
            if not self._fits(amount):
                return
            del self._waiters[turn]
            self.held += amount
            turn.set()


class RunningThrottle:
    """A throttle at work.

    Attributes:
        places: Bounds the calls under way.
        bytes: Bounds the bytes of their bodies.
        slowdowns: How often the service has made it slower.
    """

    def __init__(self, throttle: Throttle, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(throttle, Throttle):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise TypeError(f"throttle must be a Throttle, not {type(throttle).__name__}")
        self.places = WeightedLimiter(throttle.max_concurrency)
        self.bytes = WeightedLimiter(throttle.max_bytes_in_flight)
        self.slowdowns = 0
        self._max_concurrency = throttle.max_concurrency
        self._max_rate = throttle.max_rate
        self._burst = throttle.burst or max(1, int(throttle.max_rate or 1))
        self._full_at = 0.0  # the moment from which on the whole burst is available again
        self._clock = clock

    @property
    def state(self) -> ThrottleState:
        """Its state at this moment."""
        return ThrottleState(
            concurrency=int(self.places.limit),
            rate=self._rate,
            in_flight=self.places.held,
            waiting=self.places.waiting + self.bytes.waiting,
            bytes_in_flight=self.bytes.held,
            slowdowns=self.slowdowns,
        )

    def seconds_to_wait(self) -> float:
        """Count one request, and return how long to wait before it is sent."""
        if self._rate is None:
            return 0.0
        gap = 1 / self._rate
        now = self._clock()
        self._full_at = max(self._full_at, now) + gap
        return max(0.0, self._full_at - now - self._burst * gap)

    def unsend(self) -> None:
        """Count one request less: it is not sent after all."""
        if self._rate is not None:
            self._full_at -= 1 / self._rate

    def slow_down(self, since: int) -> bool:
        """Halve the number of calls that may be under way; ``since`` is :attr:`slowdowns` when the request was sent.

        So the requests of one burst, to all of which the service answers code 15, slow it down only once; returns
        whether this one did.
        """
        if since != self.slowdowns:
            return False
        self.slowdowns += 1
        self._resize(max(1.0, self.places.limit / 2))
        return True

    def recover(self) -> None:
        """Allow a little more again after a slowdown, up to what the throttle allows."""
        if self.places.limit < self._max_concurrency:
            self._resize(min(self._max_concurrency, self.places.limit + _RECOVERY / self.places.limit))

    def _resize(self, limit: float) -> None:
        """Change how many calls may be under way, and the rate with it; as many requests count as before."""
        now = self._clock()
        self._full_at = now + max(0.0, self._full_at - now) * self.places.limit / limit
        self.places.resize(limit)

    @property
    def _rate(self) -> float | None:
        return None if self._max_rate is None else self._max_rate * self.places.limit / self._max_concurrency
