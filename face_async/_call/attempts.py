"""One call: through the throttle, its attempts and its deadline."""

from __future__ import annotations

import time
import warnings
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from attrs import Factory, define, field, frozen

from face_async._call import wire
from face_async._call.home import Home
from face_async._call.judgement import Failure, Phase, facts_of, judge_error
from face_async._call.observation import Attempt, logger
from face_async._call.retry import MIN_CLOCK_SKEW, RetryPolicy, RetryQuota, check_policy, clock_skew, retry_after
from face_async._call.waits import Waits
from face_async._transports.base import BadResponse, Reason, Timeouts, TransportFailure
from face_async._version import __version__
from face_async.endpoints import subject_of
from face_async.errors import (
    CallError,
    DeadlineError,
    FaceError,
    ResponseError,
    ReturnCode,
    ServiceError,
    TransportError,
    call_label,
)
from face_async.images.thread_jobs import ThreadJobs
from face_async.models import Meta
from face_async.signature import MAX_NONCE, Credentials, Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute

    from face_async._call.judgement import Judgement
    from face_async._call.multipart import SentBody
    from face_async._call.observation import Observers
    from face_async._call.throttle import RunningThrottle, WeightedLimiter
    from face_async._call.wire import Request
    from face_async._transports.base import Answer, Transport
    from face_async.errors import CallFacts
    from face_async.limits import ServiceLimits

_LEAST_PLANNED_BYTES = 32 * 1024
"""A server that has refused even less takes hardly a picture: there is nothing to plan for."""

_AS_OF_TLS = {Reason.BROKEN_HTTP, Reason.BROKEN_CONNECTION}
"""How a server that speaks TLS meets a request without it."""

_MAY_BE_TLS = ": if it speaks TLS, base_url must begin with https://"

R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Address:
    """Who calls, and the service that is called."""

    appid: str
    bucket: str
    credentials: Credentials
    base_url: str
    host: str


def _is_duration(_: object, attribute: Attribute[float], value: float) -> None:
    if not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise TypeError(f"{attribute.name} must be a number of seconds, not {type(value).__name__}")
    if not value > 0:  # nor is NaN
        raise ValueError(f"{attribute.name} must be more than 0 seconds, not {value}")


@frozen
class CallOptions:
    """The options of :class:`FaceSession` that may differ from call to call."""

    timeout: float = field(validator=_is_duration)
    deadline: float = field(validator=_is_duration)
    retry: RetryPolicy = field(converter=check_policy)
    quota: RetryQuota = Factory(lambda self: RetryQuota(self.retry.quota), takes_self=True)


@define
class CallInFlight(Generic[T_co]):
    """A call that was begun.

    Attributes:
        settles: Whether an effect in doubt will be settled after the call, so that it may be tried again.
        started: When it began, on the monotonic clock.
        attempts: How many requests have been sent.
        put_off: How many of them were answered only by when to come again; they do not count as tries.
        handed_over: Whether the service may have received the whole of the present one.
        queued: Seconds spent waiting for the throttle.
        doubtful: Whether an attempt may have had its effect although its answer was lost.
        clock: By how many seconds the last attempt's signature was dated ahead of this machine's clock.
        clock_corrected: Whether the clock was corrected for this call.
        token: Whether the last attempt that was a retry has taken a token of the quota.
        out_of_quota: Whether the call is given up because the quota has no token left.
        status: The HTTP status of the last attempt that was told of, 0 if it had no answer.
    """

    request: Request[T_co]
    options: CallOptions
    throttle: RunningThrottle
    settles: bool
    started: float = field(factory=time.monotonic)
    attempts: int = 0
    put_off: int = 0
    handed_over: bool = False
    queued: float = 0.0
    doubtful: bool = False
    clock: float = 0.0
    clock_corrected: bool = False
    token: bool = False
    out_of_quota: bool = False
    status: int = 0

    @property
    def name(self) -> str:
        """The specification's name of the endpoint."""
        return self.request.endpoint.name

    @property
    def subject(self) -> str:
        """What it is about, such as ``"person 'ada'"``."""
        return subject_of(self.request.fields)

    @property
    def label(self) -> str:
        """What messages call it, such as ``"identify for group 'staff'"``."""
        return call_label(self.name, self.subject)

    @property
    def deadline(self) -> float:
        """The moment at which the call must be over, on the monotonic clock."""
        return self.started + self.options.deadline

    def facts(self, failure: Failure) -> CallFacts:
        """Return what the error of the present attempt is made with."""
        return facts_of(
            failure,
            self.request.endpoint,
            subject=self.subject,
            attempts=self.attempts,
            handed_over=self.handed_over,
        )

    def facts_so_far(self) -> CallFacts:
        """Return what an error is made with that is not of the present attempt alone."""
        return {
            "endpoint": self.name,
            "subject": self.subject,
            "maybe_applied": self.doubtful,
            "attempts": self.attempts,
        }

    def take_token(self) -> bool:
        """Take a token of the quota for a further request, and return whether there was one."""
        self.token = self.options.quota.take()
        self.out_of_quota = not self.token
        return self.token

    def explain(self, error: CallError) -> CallError:
        """Return the error that ends the call, which says so if it is given up because of the quota."""
        if not self.out_of_quota:
            return error
        return error.remarked(f"; given up early: the session's quota of {self.options.retry.quota} retries is used up")

    def meta(self, status: int, settled: str = "") -> Meta:
        """Return how the answer came that ends the call."""
        return Meta(status, self.attempts, time.monotonic() - self.started, self.queued, settled)


class _PutOff(NamedTuple):
    """What a call has instead of a result when it is to come again in a number of seconds."""

    seconds: float


class CallRunner:
    """Makes the calls of a session and all its copies.

    Attributes:
        home: Where calls may be made.
        transport: What the requests are sent with.
        requests: Requests begun, retries included.
        retries: Requests that were a further try.
        bytes_sent: Bytes of the bodies of all requests begun.
        seconds_queued: Seconds that all calls together have waited for their throttle.
        planned_bytes: The bytes of a body up to which requests are planned: less than the limit says, once less was
            refused, and as much as was accepted since.
    """

    def __init__(self, address: Address, transport: Transport, limits: ServiceLimits, observers: Observers) -> None:
        self.home = Home("session")
        self.transport = transport
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0
        self._was_answered = False
        self.seconds_queued = 0.0
        self._address = address
        self.planned_bytes = limits.planned_request_bytes
        self._limits = limits
        self._observers = observers
        self._jobs = ThreadJobs()
        self._waits = Waits()
        self._clock_skew = 0.0
        self._signer = Signer(address.credentials, appid=address.appid, bucket=address.bucket)
        self._same_headers = {
            "Host": address.host,
            "User-Agent": f"face_async/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }

    @cached_property
    def _random(self) -> Random:
        """What jitter and nonces come from; made by the first call, so that a process that is forked has its own."""
        return Random()  # noqa: S311 - they must be new, not unpredictable

    @property
    def closed(self) -> bool:
        """Whether no further call may be made."""
        return self._waits.closed

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        self.home.enter()
        self._waits.close()
        await self.transport.aclose()

    def __del__(self) -> None:
        if not self.closed and self.transport.connections and self.home.is_this_process:
            hint = "use 'async with', or await aclose() at the end"
            warnings.warn(f"a FaceSession was not closed: {hint}", ResourceWarning, source=self, stacklevel=2)

    async def run(self, call: CallInFlight[R], read: Callable[[CallInFlight[R], Answer], T]) -> T:
        """Take a call through the throttle, its attempts and its deadline, and return its result.

        ``read(call, answer)`` returns the result that an answer has, or raises the error that the answer stands for.
        """
        self.home.enter()
        if self.closed:
            raise RuntimeError("the session is closed; make calls inside its 'async with' block")
        while True:
            await self._enter(call)
            try:
                ended = await self._try(call, read)
            finally:
                call.throttle.bytes.release(call.request.body.length)
                call.throttle.places.release(1)
            if not isinstance(ended, _PutOff):
                return ended
            await self._waits.sleep(ended.seconds)

    async def _enter(self, call: CallInFlight[object]) -> None:
        """Wait for the call's place and for room for its bytes, in a new turn each time that it is to come again."""
        throttle, body = call.throttle, call.request.body
        if not throttle.places.acquire_now(1):
            await self._acquire(throttle.places, 1, call)
        try:
            if body.waits:
                await self._load(call)
            else:
                body.prepare(self._limits)
            if not throttle.bytes.acquire_now(body.length):
                await self._acquire(throttle.bytes, body.length, call)
        except BaseException:
            throttle.places.release(1)
            raise

    async def _acquire(self, limiter: WeightedLimiter, amount: int, call: CallInFlight[object]) -> None:
        """Wait for a part of the throttle, no longer than the deadline."""
        began = time.monotonic()
        try:
            with self._waits.at_most(call.deadline - began):
                await limiter.acquire(amount, first=call.attempts > 0)
                return
        finally:
            self._note_queueing(call, time.monotonic() - began)
        raise self._cut_short(call)

    async def _load(self, call: CallInFlight[object]) -> None:
        """Learn the body's length, for which files and file objects must be read."""
        with self._waits.at_most(call.deadline - time.monotonic()):
            await call.request.body.load(self._limits, self._jobs)
            return
        raise self._cut_short(call, reading=True)

    async def _try(self, call: CallInFlight[R], read: Callable[[CallInFlight[R], Answer], T]) -> T | _PutOff:
        while True:
            if wait := call.throttle.seconds_to_wait():
                await self._pace(call, wait)
            if self.closed:
                raise self._cut_short(call)
            call.attempts += 1
            slowdowns = call.throttle.slowdowns
            body = call.request.body.attempt()
            answer = None
            began = time.monotonic()
            try:
                answer = await self._send(call, body)
                result = read(call, answer)
            except FaceError as error:
                judgement = judge_error(error)
                call.doubtful = call.doubtful or judgement.phase is Phase.AMBIGUOUS
                slowed_to = self._adapt(judgement, call, slowdowns, answered=answer is not None)
                pause = None if isinstance(error, DeadlineError) else self._pause(judgement, call, answer)
                if pause is None and isinstance(error, CallError):
                    error = call.explain(error)
                self._tell(call, body, began, answer, error, slowed_to=slowed_to, pause=pause)
                if pause is None:
                    raise error from error.__cause__
                error.__traceback__ = None  # or who keeps the event would keep the pictures of the call
            except BaseException as error:  # the call was cancelled, or there is an error in a program
                self._tell(call, body, began, answer, error)
                raise
            else:
                self._note_success(call, body, began, answer)
                return result
            finally:
                body.close()
            self.retries += 1
            if judgement.slower:
                return _PutOff(pause)  # with its place kept, it would be no slower
            await self._waits.sleep(pause)

    def _note_success(self, call: CallInFlight[object], body: SentBody, began: float, answer: Answer) -> None:
        call.options.quota.refund(token=call.token)
        call.throttle.recover()
        if call.request.body.length > self.planned_bytes:
            self.planned_bytes = min(call.request.body.length, self._limits.planned_request_bytes)
        if self._observers.attentive:
            self._tell(call, body, began, answer)

    def _tell(
        self,
        call: CallInFlight[object],
        body: SentBody,
        began: float,
        answer: Answer | None,
        error: BaseException | None = None,
        *,
        slowed_to: int | None = None,
        pause: float | None = None,
    ) -> None:
        """Tell of an attempt that is over."""
        call.status = error.status if isinstance(error, ResponseError) else 0 if answer is None else answer.status
        unknown = error is not None and body.handed_over and call.request.endpoint.effect
        attempt = Attempt(
            endpoint=call.name,
            subject=call.subject,
            number=call.attempts,
            elapsed=time.monotonic() - began,
            queued=call.queued,
            bytes_sent=body.length,
            status=call.status,
            code=error.code if isinstance(error, ServiceError) else None if error else int(ReturnCode.OK),
            error=error,
            maybe_applied=error.maybe_applied if isinstance(error, CallError) else unknown,
            slowed_to=slowed_to,
            pause=pause,
        )
        self._observers.tell(attempt)

    async def _pace(self, call: CallInFlight[object], pause: float) -> None:
        """Wait until the rate allows another request, which is counted already."""
        began = time.monotonic()
        if began + pause >= call.deadline:
            call.throttle.unsend()
            raise self._too_late(call)
        try:
            await self._waits.sleep(pause)
        except BaseException:
            call.throttle.unsend()
            raise
        finally:
            self._note_queueing(call, time.monotonic() - began)

    def _note_queueing(self, call: CallInFlight[object], seconds: float) -> None:
        call.queued += seconds
        self.seconds_queued += seconds

    def _adapt(self, judgement: Judgement, call: CallInFlight[object], slowdowns: int, *, answered: bool) -> int | None:
        """Let an answer that is an error change how fast further requests are sent, and how large they are planned.

        Returns how many calls may be under way at once from now on, if they have become fewer.
        """
        if judgement.smaller:
            self.planned_bytes = min(self.planned_bytes, max(_LEAST_PLANNED_BYTES, call.request.body.length // 2))
        if judgement.slower:
            return int(call.throttle.places.limit) if call.throttle.slow_down(slowdowns) else None
        if answered and judgement.phase is Phase.ANSWERED:
            call.options.quota.refund(token=call.token)
            call.throttle.recover()
        return None

    def _pause(self, judgement: Judgement, call: CallInFlight[object], answer: Answer | None) -> float | None:
        """Return the seconds to wait before the next attempt, None when there is none."""
        policy = call.options.retry
        corrected = judgement.correct_clock and answer is not None and self._correct_clock(call, answer)
        asked = 0.0 if answer is None else retry_after(answer.headers, time.time())
        if judgement.slower and asked and policy.max_attempts > 1:
            call.put_off += 1
        tries = call.attempts - call.put_off
        if self.closed or tries >= policy.max_attempts or not (judgement.retry or corrected):
            return None
        if judgement.phase is Phase.AMBIGUOUS and not call.settles:
            return None
        pause = 0.0 if corrected else policy.pause(max(tries, 1), self._random, asked)
        if time.monotonic() + pause >= call.deadline:
            return None
        # No quota for what is bounded already: too many requests by the throttle, corrections by being one a call.
        return pause if judgement.too_many or corrected or call.take_token() else None

    def _correct_clock(self, call: CallInFlight[object], answer: Answer) -> bool:
        """Take over the server's clock if that may be why a signature has expired; once a call."""
        skew = clock_skew(answer.headers, time.time())
        if call.clock_corrected or abs(skew - call.clock) < MIN_CLOCK_SKEW:
            return False
        self._clock_skew = skew
        call.clock_corrected = True
        logger.warning("this machine's clock is %+.0f seconds off the server's, by which requests are dated now", -skew)
        return True

    def _cut_short(self, call: CallInFlight[object], *, reading: bool = False) -> TransportError:
        """Return the error of a call that need not wait any longer: the session was closed, or it is too late."""
        if self.closed:
            return TransportError(f"{call.label}: {Reason.CLOSED}", **call.facts_so_far())
        return self._too_late(call, reading=reading)

    @staticmethod
    def _too_late(call: CallInFlight[object], *, reading: bool = False) -> DeadlineError:
        within = f"within the deadline of {call.options.deadline:g} seconds"
        if call.attempts:
            why = f"no answer {within}"
        elif reading:
            why = f"its pictures could not be read {within}; nothing was sent"
        else:
            why = (
                f"it never left the queue {within}, so nothing was sent; make fewer calls at once, or give them a "
                "longer deadline or a wider Throttle"
            )
        return DeadlineError(f"{call.label}: {why}", **call.facts_so_far())

    async def _send(self, call: CallInFlight[object], body: SentBody) -> Answer:
        base_url = self._address.base_url
        self.requests += 1
        self.bytes_sent += body.length
        timeouts = Timeouts(call.options.timeout, max(0.0, call.deadline - time.monotonic()))
        try:
            answer = await self.transport.send(
                base_url + call.request.endpoint.path, self._headers(call), body, timeouts
            )
        except TransportFailure as failure:
            reason, status = str(failure), None
            call.handed_over = body.handed_over and not failure.unsent
        except BadResponse as bad:
            reason, status = str(bad), bad.status
            call.handed_over = body.handed_over
        else:
            self._was_answered = True
            call.handed_over = body.handed_over
            if body.failure is not None:
                raise body.failure  # an application in this process took it for an error of its own, and answered
            return answer
        # Raised outside the except clauses, so that the error does not keep the transport's exception as its context.
        facts = call.facts(Failure(status=status))
        if status is not None:
            raise wire.unreadable(reason, status, call.facts)
        # An event loop whose clock runs in steps, as uvloop's does, may end the last wait a moment early.
        if reason == Reason.DEADLINE or time.monotonic() >= call.deadline:
            call.doubtful = call.doubtful or facts.get("maybe_applied", False)
            raise self._too_late(call)
        if not self._was_answered and base_url.startswith("http:") and reason in _AS_OF_TLS:
            reason += _MAY_BE_TLS
        raise TransportError(f"{call.label}: {base_url}: {reason}", **facts)

    def _headers(self, call: CallInFlight[object]) -> dict[str, str]:
        body = call.request.body
        call.clock = self._clock_skew
        now, nonce = int(time.time() + call.clock), int(self._random.random() * (MAX_NONCE + 1))
        return {
            **self._same_headers,
            "Content-Type": body.content_type,
            "Content-Length": str(body.length),
            "Authorization": self._signer.sign(now=now, nonce=nonce),
        }
