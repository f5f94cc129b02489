"""How often and how patiently failed requests are tried again, and the quota that bounds all retries together."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import and_, ge, instance_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

MIN_CLOCK_SKEW = 5.0
"""Seconds from which on a difference of clocks may be why a signature has expired; a Date header has whole seconds."""


_MOST_DOUBLINGS = 60  # of a pause: more is no number that a float can hold


@frozen
class RetryPolicy:
    """How often and how patiently a call is tried.

    Attributes:
        max_attempts: Requests that one call may take, 1 or more. With 1 nothing is tried again, and an effect whose
            answer was lost stays in doubt: it is not looked at either. With more, a request does not count that was
            only told when to come again (code 15, or HTTP status 429, with Retry-After): that is waited for until the
            deadline.
        base_delay: Seconds; the first pause is a random time up to this, and every further one may be twice as long.
        max_delay: Seconds that no pause exceeds, unless the server asks for more with Retry-After.
        quota: Tokens, 0 or more, that all calls of a session share: each retry takes one. A retry that is answered
            gives its token back, and any other answer a tenth of one. Where none is left, in an outage, calls fail
            after one attempt, and their errors say so. Requests that were only told to come later, or that the clock
            was corrected for, take none.
    """

    max_attempts: int = field(default=3, validator=and_(instance_of(int), ge(1)))
    base_delay: float = field(default=0.1, validator=ge(0))
    max_delay: float = field(default=5.0, validator=ge(0))
    quota: int = field(default=100, validator=and_(instance_of(int), ge(0)))

    def pause(self, attempt: int, random: Random, asked: float = 0.0) -> float:
        """Return the seconds to wait after an attempt, counted from 1; at least those that the server ``asked`` for."""
        longest = min(self.max_delay, self.base_delay * 2 ** min(attempt - 1, _MOST_DOUBLINGS))
        return max(asked, random.uniform(0, longest))


def check_policy(policy: object) -> RetryPolicy:
    """Return a retry policy, or raise TypeError."""
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, not {type(policy).__name__}")
    return policy


class RetryQuota:
    """Bounds all retries of a session together, so that an outage is not answered with a flood of requests.

    A token bucket, as :class:`RetryPolicy` describes it: in an outage a session sends no more than ``capacity`` further
    requests.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = 10 * capacity
        self._tenths = self._capacity

    def take(self) -> bool:
        """Take a token, and return whether there was one."""
        if self._tenths < 10:  # noqa: PLR2004 - ten tenths
            return False
        self._tenths -= 10
        return True

    def refund(self, *, token: bool) -> None:
        """Note that an answer came, to a request that has taken a token or not."""
        self._tenths = min(self._capacity, self._tenths + (10 if token else 1))


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds that an answer's headers ask to wait at the Unix time ``now``, 0 when they do not."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    moment = _moment(value)
    return 0.0 if moment is None else max(0.0, moment - now)


def clock_skew(headers: Mapping[str, str], now: float) -> float:
    """Return by how many seconds the server's clock is ahead of ours, which shows the Unix time ``now``.

    A difference that is too small to explain an expired signature is 0.
    """
    moment = _moment(headers.get("date", ""))
    skew = 0.0 if moment is None else moment - now
    return skew if abs(skew) >= MIN_CLOCK_SKEW else 0.0


def _moment(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - slow to import, and few answers are looked at

    try:
        moment = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):  # a server may send anything here
        return None
    return moment if math.isfinite(moment) else None
