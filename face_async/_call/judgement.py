"""What a failed attempt means: a pure function over one table.

The table of return codes, :class:`~face_async.errors.ReturnCode`, says of every code what it means for trying again; a
few HTTP statuses and a missing answer mean the same. What follows from that is said here, and read alike by retries,
throttle, settlement, bulk verbs and enrollments.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from face_async.errors import CODES, ResponseError, Retry, ServiceError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face_async.endpoints import Endpoint
    from face_async.errors import CallFacts


class Phase(enum.Enum):
    """How far a failed request came."""

    NOT_EXECUTED = "not executed"  # the service cannot have acted: trying again is always safe
    AMBIGUOUS = "ambiguous"  # it may have acted: what became of the effect must be settled
    ANSWERED = "answered"  # the same request would get the same answer


@frozen
class Judgement:
    """What a failed attempt means.

    Attributes:
        phase: How far its request came.
        retry: Whether the same request may succeed when it is sent again.
        slower: Whether fewer requests are to be sent from now on.
        away: Whether that is so because the service, or the way to it, may not work: then waiting may not mend it.
        smaller: Whether a smaller request may succeed.
        hopeless: Whether, if the call ends with this, no further call of the session can succeed either.
        correct_clock: Whether the request may succeed once it is signed by the server's clock.
    """

    phase: Phase
    retry: bool = False
    slower: bool = False
    away: bool = False
    smaller: bool = False
    hopeless: bool = False
    correct_clock: bool = False

    @property
    def too_many(self) -> bool:
        """Whether there were too many requests and nothing else: waiting mends that, however often."""
        return self.slower and not self.away


_FINAL = Judgement(Phase.ANSWERED)

_CONSEQUENCES: Mapping[Retry, Judgement] = MappingProxyType(
    {
        Retry.NEVER: _FINAL,
        Retry.LATER: Judgement(Phase.NOT_EXECUTED, retry=True),
        Retry.SLOWER: Judgement(Phase.NOT_EXECUTED, retry=True, slower=True),
        Retry.SMALLER: Judgement(Phase.ANSWERED, smaller=True),
        Retry.CLOCK: Judgement(Phase.NOT_EXECUTED, hopeless=True, correct_clock=True),
        Retry.HOPELESS: Judgement(Phase.NOT_EXECUTED, hopeless=True),
        Retry.AMBIGUOUS: Judgement(Phase.AMBIGUOUS, retry=True),
        Retry.AWAY: Judgement(Phase.AMBIGUOUS, retry=True, slower=True, away=True),
    }
)

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The HTTP statuses that point elsewhere. The service never does so: the session was pointed at something else."""

_STATUSES: Mapping[int, Retry] = MappingProxyType(
    {
        **dict.fromkeys(REDIRECTS, Retry.HOPELESS),
        401: Retry.LATER,
        403: Retry.LATER,
        408: Retry.LATER,
        413: Retry.SMALLER,
        429: Retry.SLOWER,
        502: Retry.AWAY,
        503: Retry.AWAY,
        504: Retry.AWAY,
    }
)
"""What HTTP statuses say by themselves, mostly of a proxy; others do not tell whether the request was executed."""


@frozen
class Failure:
    """Why an attempt has no result: the answer's return code or else its HTTP status; neither if no answer came."""

    code: int | None = None
    status: int | None = None


NO_ANSWER = Failure()


def judge(failure: Failure, *, effect: bool, handed_over: bool) -> Judgement:
    """Return what a failed attempt means.

    Args:
        failure: Why it failed.
        effect: Whether the endpoint changes what the service stores.
        handed_over: Whether the service may have received the whole request.
    """
    if failure.code is not None:
        retry = CODES[failure.code].retry if failure.code in CODES else Retry.NEVER
    else:
        retry = Retry.AMBIGUOUS if failure.status is None else _STATUSES.get(failure.status, Retry.AMBIGUOUS)
    judgement = _CONSEQUENCES[retry]
    if judgement.phase is Phase.AMBIGUOUS and not (effect and handed_over):
        return evolve(judgement, phase=Phase.NOT_EXECUTED)
    return judgement


def judge_error(error: BaseException) -> Judgement:
    """Return what the error means that an attempt or a whole call ended with; one that is no answer's is final."""
    match error:
        case ServiceError():
            failure = Failure(code=error.code)
        case ResponseError():
            failure = Failure(status=error.status)
        case TransportError():
            failure = NO_ANSWER
        case _:
            return _FINAL
    return judge(failure, effect=error.maybe_applied, handed_over=error.maybe_applied)


def facts_of(
    failure: Failure, endpoint: Endpoint[object], *, subject: str = "", attempts: int = 1, handed_over: bool = True
) -> CallFacts:
    """Return what the error of a failed attempt is made with.

    Args:
        failure: Why the attempt failed.
        endpoint: What was called.
        subject: What the call was about.
        attempts: Which attempt of its call it was, from 1.
        handed_over: Whether the service may have received the whole request.
    """
    phase = judge(failure, effect=endpoint.effect, handed_over=handed_over).phase
    doubtful = phase is Phase.AMBIGUOUS
    return {"endpoint": endpoint.name, "subject": subject, "maybe_applied": doubtful, "attempts": attempts}
