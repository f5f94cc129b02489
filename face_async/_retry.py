"""When a failed request is tried again: pure functions of the error.

A failure falls in one of three phases. *Not executed*: the server cannot have acted, so trying again is always safe.
*Ambiguous*: it may have acted; a request that changes nothing is tried again, an effect is not. *Answered*: the same
request would get the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import ge

from face_async.errors import CODES, ResponseError, Retry, ServiceError, TransportError

if TYPE_CHECKING:
    from random import Random

    from face_async.errors import FaceError

NOT_EXECUTED_STATUSES = frozenset({401, 403, 408, 413, 429})
"""HTTP statuses that say by themselves that the request was not executed."""


@frozen
class RetryPolicy:
    """How often and how patiently a call is tried.

    Attributes:
        max_attempts: Requests that one call may take, 1 or more; 1 never retries.
        base_delay: Seconds; the first pause is a random time up to this, and every further one may be twice as long.
        max_delay: Seconds that no pause exceeds.
    """

    max_attempts: int = field(default=3, validator=ge(1))
    base_delay: float = field(default=0.1, validator=ge(0))
    max_delay: float = field(default=5.0, validator=ge(0))

    def pause_before_retry(self, error: FaceError, attempt: int, *, effect: bool, random: Random) -> float | None:
        """Return the seconds to wait before trying again, None when the error is final.

        Args:
            error: What the attempt ended with.
            attempt: Which attempt it was, from 1.
            effect: Whether the call changes what the service stores.
            random: The source of the jitter.
        """
        if attempt >= self.max_attempts or not may_retry(error, effect=effect):
            return None
        return random.uniform(0, min(self.max_delay, self.base_delay * 2 ** (attempt - 1)))


def may_retry(error: FaceError, *, effect: bool) -> bool:
    """Return whether sending the same request again is safe and may help."""
    if isinstance(error, TransportError | ResponseError):
        return not error.maybe_applied
    if isinstance(error, ServiceError) and error.code in CODES:
        advice = CODES[error.code].retry
        return advice in {Retry.LATER, Retry.SLOWER} or (advice is Retry.AMBIGUOUS and not effect)
    return False
