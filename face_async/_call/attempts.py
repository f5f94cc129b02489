"""One call: through the throttle, its attempts and its deadline."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, TypeVar

import anyio
from attrs import define, field, frozen
from attrs.validators import gt, instance_of

from face_async._call.retry import (
    MIN_CLOCK_SKEW,
    NOT_EXECUTED_STATUSES,
    Phase,
    RetryPolicy,
    RetryQuota,
    clock_skew,
    phase_of,
    retry_after,
)
from face_async._call.thread_jobs import Hops
from face_async._transports.base import AnswerRefused, Timeouts, TransportFailure
from face_async._version import __version__
from face_async.errors import (
    CallError,
    DeadlineError,
    FaceError,
    ResponseError,
    Retry,
    ServiceError,
    TransportError,
)
from face_async.models import Meta
from face_async.signature import MAX_NONCE, Credentials, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from face_async._call.multipart import Attempt
    from face_async._call.throttle import Gate, Room
    from face_async._call.wire import Request
    from face_async._transports.base import Answer, Transport
    from face_async.limits import ServiceLimits

T = TypeVar("T")

_TOO_MANY_REQUESTS = 429


@frozen
class Address:
    """Who calls, and where."""

    appid: str
    bucket: str
    credentials: Credentials
    base_url: str
    host: str


@frozen
class CallOptions:
    """What every call may have of its own."""

    timeout: float = field(validator=gt(0))
    deadline: float = field(validator=gt(0))
    retry: RetryPolicy = field(validator=instance_of(RetryPolicy))


@define
class Course:
    """One call, and its way so far.

    Attributes:
        request: What is sent.
        options: How long and how often.
        gate: The throttle it has to pass.
        settles: Whether somebody finds out what became of an effect in doubt, so that it may be tried again.
        started: When it began, on the monotonic clock.
        attempts: How many requests have been sent.
        queued: Seconds spent waiting for the throttle.
        doubtful: Whether an attempt may have had its effect although its answer was lost.
        clock: By how many seconds the last attempt's signature was dated ahead of this machine's clock.
        clock_corrected: Whether an attempt has corrected that already.
    """

    request: Request[object]
    options: CallOptions
    gate: Gate
    settles: bool
    started: float = field(factory=time.monotonic)
    attempts: int = 0
    queued: float = 0.0
    doubtful: bool = False
    clock: float = 0.0
    clock_corrected: bool = False

    @property
    def deadline(self) -> float:
        """The moment at which the call must be over, on the monotonic clock."""
        return self.started + self.options.deadline

    def meta(self, status: int, settled: str = "") -> Meta:
        """Return how the answer came that ends the call."""
        return Meta(status, self.attempts, time.monotonic() - self.started, self.queued, settled)


class Caller:
    """Makes the calls of a session and all its copies.

    Attributes:
        transport: What the requests are sent with.
        requests: Requests begun, retries included.
        retries: Requests that were a further try.
        bytes_sent: Bytes of the bodies of all requests begun.
        seconds_queued: Seconds that all calls together have waited for their throttle.
        closed: Whether no further call may be made.
    """

    def __init__(self, address: Address, transport: Transport, limits: ServiceLimits) -> None:
        self.transport = transport
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0
        self.seconds_queued = 0.0
        self.closed = False
        self.quota = RetryQuota()
        self._address = address
        self._limits = limits
        self._hops = Hops()
        self._random = Random()  # noqa: S311 - jitter and nonces: they must be new, not unpredictable
        self._clock_skew = 0.0

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        self.closed = True
        await self.transport.aclose()

    async def perform(self, course: Course, read: Callable[[Answer], T]) -> T:
        """Take a call through the throttle, its attempts and its deadline.

        Args:
            course: The call.
            read: Makes the result of an answer, or raises the error that it stands for.
        """
        if self.closed:
            raise RuntimeError("the session is closed; make calls inside its 'async with' block")
        gate, body = course.gate, course.request.body
        await self._borrow(gate.places, 1, course)
        try:
            await self._load(course)
            await self._borrow(gate.bytes, body.length, course)
            try:
                return await self._try(course, read)
            finally:
                gate.bytes.give_back(body.length)
        finally:
            gate.places.give_back(1)

    async def _borrow(self, room: Room, amount: int, course: Course) -> None:
        """Wait for a part of the throttle, no longer than the deadline."""
        if room.borrow_now(amount):
            return
        began = time.monotonic()
        try:
            with anyio.move_on_after(course.deadline - began):
                await room.borrow(amount)
                return
        finally:
            self._note_queueing(course, time.monotonic() - began)
        raise self._too_late(course)

    async def _load(self, course: Course) -> None:
        """Learn the body's length, which for files and file objects means to look at them."""
        body = course.request.body
        if not body.waits:
            await body.load(self._limits, self._hops)
            return
        with anyio.move_on_after(course.deadline - time.monotonic()):
            await body.load(self._limits, self._hops)
            return
        raise self._too_late(course)

    async def _try(self, course: Course, read: Callable[[Answer], T]) -> T:
        while True:
            if self.closed:
                name = course.request.endpoint.name
                raise TransportError(
                    f"{name}: the session was closed",
                    endpoint=name,
                    maybe_applied=course.doubtful,
                    attempts=course.attempts,
                )
            await self._pace(course)
            course.attempts += 1
            slowdowns = course.gate.slowdowns
            body = course.request.body.attempt()
            answer = None
            try:
                answer = await self._send(course, body)
                result = read(answer)
            except FaceError as error:
                self._complete(error, course, handed_over=body.handed_over)
                if answer is not None:
                    self._heed(error, course, slowdowns)
                pause = self._pause(error, course, answer)
                if pause is None:
                    raise
            else:
                self.quota.refund()
                course.gate.recover()
                return result
            finally:
                body.close()
            self.retries += 1
            await anyio.sleep(pause)

    async def _pace(self, course: Course) -> None:
        """Wait until the rate allows another request."""
        pause = course.gate.seconds_to_wait()
        if not pause:
            return
        began = time.monotonic()
        if began + pause >= course.deadline:
            course.gate.unsend()
            raise self._too_late(course)
        try:
            await anyio.sleep(pause)
        except BaseException:
            course.gate.unsend()
            raise
        finally:
            self._note_queueing(course, time.monotonic() - began)

    def _note_queueing(self, course: Course, seconds: float) -> None:
        course.queued += seconds
        self.seconds_queued += seconds

    @staticmethod
    def _complete(error: FaceError, course: Course, *, handed_over: bool) -> None:
        """Tell an attempt's error what only its call knows."""
        if not isinstance(error, CallError):
            return
        error.attempts = course.attempts
        if course.request.endpoint.effect and handed_over:
            if isinstance(error, ResponseError):
                in_doubt = error.status not in NOT_EXECUTED_STATUSES
            else:
                in_doubt = isinstance(error, ServiceError) and error.retry is Retry.AMBIGUOUS
            if in_doubt:
                error.leave_in_doubt()
        course.doubtful = course.doubtful or error.maybe_applied

    def _heed(self, error: FaceError, course: Course, slowdowns: int) -> None:
        """Adapt to an answer that is an error."""
        if _asks_for_less(error):
            course.gate.slow_down(slowdowns)
        elif phase_of(error) is Phase.ANSWERED:
            self.quota.refund()
            course.gate.recover()

    def _pause(self, error: FaceError, course: Course, answer: Answer | None) -> float | None:
        """Return the seconds to wait before the next attempt, None when there is none."""
        if self.closed or (phase_of(error) is Phase.AMBIGUOUS and not course.settles):
            return None
        policy = course.options.retry
        if answer is not None and self._corrects_clock(error, course, answer):
            pause = 0.0 if course.attempts < policy.max_attempts else None
        else:
            asked = 0.0 if answer is None else retry_after(answer.headers, time.time())
            pause = policy.pause_before_retry(error, course.attempts, self._random, asked)
        if pause is None or time.monotonic() + pause >= course.deadline:
            return None
        # Who is asked for less gives less: what the throttle bounds already needs no quota.
        return pause if _asks_for_less(error) or self.quota.take() else None

    def _corrects_clock(self, error: FaceError, course: Course, answer: Answer) -> bool:
        """Take over the server's clock if that may be why a signature has expired; once a call."""
        if not isinstance(error, ServiceError) or error.retry is not Retry.CLOCK or course.clock_corrected:
            return False
        skew = clock_skew(answer.headers, time.time())
        if abs(skew - course.clock) < MIN_CLOCK_SKEW:
            return False
        self._clock_skew = skew
        course.clock_corrected = True
        return True

    def _too_late(self, course: Course) -> DeadlineError:
        name = course.request.endpoint.name
        return DeadlineError(
            f"{name}: no answer within the deadline of {course.options.deadline:g} seconds",
            endpoint=name,
            maybe_applied=course.doubtful,
            attempts=course.attempts,
        )

    async def _send(self, course: Course, body: Attempt) -> Answer:
        endpoint = course.request.endpoint
        address = self._address
        self.requests += 1
        self.bytes_sent += body.length
        deadline = course.deadline
        timeouts = Timeouts(course.options.timeout, max(0.0, deadline - time.monotonic()))
        try:
            answer = await self.transport.send(address.base_url + endpoint.path, self._headers(course), body, timeouts)
        except TransportFailure as failure:
            reason, status = str(failure), None
            in_doubt = endpoint.effect and body.handed_over and not failure.unsent
        except AnswerRefused as refused:
            reason, status, in_doubt = str(refused), refused.status, False
        else:
            if body.failure is not None:
                raise body.failure  # an application in this process took it for an error of its own, and answered
            return answer
        # Raised out here, so that nothing of the transport hangs on the error as its context.
        if status is not None:
            raise ResponseError(reason, endpoint=endpoint.name, status=status)
        if time.monotonic() >= deadline:
            course.doubtful = course.doubtful or in_doubt
            raise self._too_late(course)
        message = f"{endpoint.name}: {address.base_url}: {reason}"
        raise TransportError(message, endpoint=endpoint.name, maybe_applied=in_doubt)

    def _headers(self, course: Course) -> dict[str, str]:
        address, body = self._address, course.request.body
        course.clock = self._clock_skew
        return {
            "Host": address.host,
            "User-Agent": f"face_async/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": body.content_type,
            "Content-Length": str(body.length),
            "Authorization": sign(
                address.credentials,
                appid=address.appid,
                bucket=address.bucket,
                now=int(time.time() + course.clock),
                nonce=self._random.randint(0, MAX_NONCE),
            ),
        }


def _asks_for_less(error: FaceError) -> bool:
    """Return whether an answer says that there are too many requests: code 15, or an HTTP page that does."""
    if isinstance(error, ServiceError):
        return error.retry is Retry.SLOWER
    return isinstance(error, ResponseError) and error.status == _TOO_MANY_REQUESTS
