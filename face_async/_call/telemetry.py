"""OpenTelemetry: one span a call, and metrics of calls and of their requests (extra ``telemetry``).

Names and attributes follow OpenTelemetry's conventions for RPC where they are about a call, and those for HTTP where
they are about one of its requests. No id of a person, group or face is an attribute; only the messages of errors, which
describe failed spans and attempts, name them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from attrs import frozen

from face_async._transports.target import target_of
from face_async._version import __version__
from face_async.errors import CODES, CallError, FaceError, ReturnCode, ServiceError
from face_async.models import Result

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from face_async._call.attempts import CallInFlight
    from face_async._call.observation import Attempt

T = TypeVar("T")

_Attributes: TypeAlias = dict[str, str | int | float]

_FIRST_ERROR_STATUS = 400
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds of the buckets of durations, those of the conventions."""


@frozen
class Telemetry:
    """Whom the spans and metrics of a session are given to.

    Attributes:
        tracer_provider: OpenTelemetry's provider of tracers, None for the global one of this process.
        meter_provider: OpenTelemetry's provider of meters, None for the global one of this process.
    """

    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None


class CallTelemetry:
    """Makes the spans and metrics of a session.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """

    def __init__(self, telemetry: Telemetry, base_url: str) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        except ImportError:
            raise ImportError(
                "telemetry= needs the extra 'telemetry': pip install 'face_async[telemetry]'", name="face_async"
            ) from None
        target = target_of(base_url)
        self._server: _Attributes = {"server.address": target.host, "server.port": target.port}
        self._api = trace
        self._tracer = trace.get_tracer("face_async", __version__, telemetry.tracer_provider)
        meter = metrics.get_meter("face_async", __version__, telemetry.meter_provider)

        def seconds(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS)

        self._calls = seconds("rpc.client.call.duration", "Duration of calls, queueing and retries included.")
        self._queueing = seconds("face_async.client.queue.duration", "Time that calls have waited for the throttle.")
        self._requests = seconds("http.client.request.duration", "Duration of HTTP requests: attempts of calls.")
        self._bodies = meter.create_histogram("http.client.request.body.size", "By", "Size of HTTP request bodies.")
        self._slowdowns = meter.create_counter(
            "face_async.client.slowdowns", "{slowdown}", "How often the service has slowed the session down."
        )

    async def trace(self, call: CallInFlight[object], running: Coroutine[None, None, T]) -> T:
        """Make a call within a span of its own."""
        method = call.request.endpoint.path.lstrip("/")
        about: _Attributes = {"rpc.system.name": "face", "rpc.method": method, **self._server}
        with self._tracer.start_as_current_span(
            method,
            kind=self._api.SpanKind.CLIENT,
            attributes=about,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                result = await running
            except BaseException as error:
                self._end(span, about, call, error)
                raise
            self._end(span, about, call, result)
            return result

    def on_attempt(self, attempt: Attempt) -> None:
        """Count an attempt, and note in the span of its call how it failed."""
        error, status = attempt.error, attempt.status
        about: _Attributes = {"http.request.method": "POST", **self._server, **_status(status)}
        if status >= _FIRST_ERROR_STATUS:
            about["error.type"] = str(status)
        if error is not None:
            if not status:
                about["error.type"] = _error_type(error)
            said: _Attributes = {"exception.type": type(error).__qualname__, "exception.message": _message(error)}
            pause: _Attributes = {} if attempt.pause is None else {"face_async.pause": attempt.pause}
            seen: _Attributes = {"face_async.attempt": attempt.number, **_status(status), **said, **pause}
            self._api.get_current_span().add_event("face_async.attempt_failed", seen)
        self._requests.record(attempt.elapsed, about)
        self._bodies.record(attempt.bytes_sent, about)
        if attempt.slowed_to is not None:
            self._slowdowns.add(1, self._server)

    def _end(self, span: Span, about: _Attributes, call: CallInFlight[object], ended: object) -> None:
        error = ended if isinstance(ended, BaseException) else None
        known = dict(about)
        if error is None:
            known["rpc.response.status_code"] = str(int(ReturnCode.OK))
        else:
            known["error.type"] = _error_type(error)
            span.set_status(self._api.StatusCode.ERROR, _message(error))
        if isinstance(error, ServiceError):
            known["rpc.response.status_code"] = _code(error)
        span.set_attributes({**known, **_status(call.status)})
        span.set_attributes({"face_async.attempts": call.attempts, "face_async.queued": call.queued})
        if isinstance(ended, Result) and ended.meta.settled:
            span.set_attribute("face_async.settled", ended.meta.settled)
        if isinstance(error, CallError) and error.maybe_applied:
            span.set_attribute("face_async.maybe_applied", True)
        self._calls.record(time.monotonic() - call.started, known)
        self._queueing.record(call.queued, about)


def _status(status: int) -> _Attributes:
    return {"http.response.status_code": status} if status else {}


def _code(error: ServiceError) -> str:
    """Return a code as an attribute: those that no table has are one value, so that no server can make millions."""
    return str(error.code) if error.code in CODES else "_OTHER"


def _error_type(error: BaseException) -> str:
    return _code(error) if isinstance(error, ServiceError) else type(error).__qualname__


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, FaceError) else type(error).__qualname__
