"""What is noted of each call: one line of the access log, and the metrics."""

from __future__ import annotations

import contextlib
import logging
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from face_async.errors import ReturnCode, printable
from face_async.server.storage.failures import FailureLog

if TYPE_CHECKING:
    from collections.abc import Generator

    from face_async.server.operations.metrics import Metrics

logger = logging.getLogger("face_async.access")

OTHER = "other"
"""The outcome of a call that got no code: its caller had gone, or a script of faults answered it."""

_LONGEST_REASON = 300


@define
class CallRecord:
    """One call.

    Attributes:
        endpoint: The specification's name of the endpoint.
        session_id: What names the call; most answers tell it.
        address: The IP address that it came from.
        appid: Whose call it is, "" until its signature was found good.
        code: Its return code; None while there is none.
        reasons: What the code does not tell: why a signature was refused, or a picture was not fetched.
    """

    endpoint: str
    session_id: str
    address: str
    appid: str = ""
    code: ReturnCode | None = None
    reasons: list[str] = field(factory=list[str])

    @property
    def outcome(self) -> str:
        """The code as text, or :data:`OTHER`."""
        return OTHER if self.code is None else str(int(self.code))


_present: ContextVar[CallRecord] = ContextVar("face_async.server.call")


def note_reason(reason: str) -> None:
    """Note what the code of the present call does not tell; neither a key nor a signature may be in it."""
    record, shown = _present.get(None), printable(reason, _LONGEST_REASON)
    if record is not None and shown not in record.reasons:  # several pictures of a request may share it
        record.reasons.append(shown)


@frozen
class CallObserver:
    """Takes note of the calls of one application.

    Attributes:
        metrics: Counts them; None for nothing.
        failures: Logs refusals that operators should know of, each kind once a minute, where not all calls are logged.
    """

    metrics: Metrics | None
    failures: FailureLog = field(factory=FailureLog)

    @contextlib.contextmanager
    def observe(self, endpoint: str, session_id: str, address: str) -> Generator[CallRecord]:
        """Note the call that is made inside."""
        record = CallRecord(endpoint, session_id, address)
        token = _present.set(record)
        began = time.perf_counter()
        try:
            yield record
        finally:
            seconds = time.perf_counter() - began
            _present.reset(token)
            if self.metrics is not None:
                self.metrics.count(endpoint, record.outcome, seconds)
            self._log(record, seconds)

    def _log(self, record: CallRecord, seconds: float) -> None:
        level = logging.WARNING if _reasons(record) else logging.INFO
        if logger.isEnabledFor(logging.INFO):
            logger.log(level, "%s", _text(record, seconds), extra={"call": _fields(record, seconds)})
        elif logger.isEnabledFor(level):
            fields = {"call": _fields(record, seconds)}
            self.failures.log(f"code {record.outcome}", _text(record, seconds), logger, level, fields)


def _is_refused(code: ReturnCode | None) -> bool:
    return code is not None and ReturnCode.SIGNATURE_EMPTY <= code <= ReturnCode.BUCKET_NOT_EXISTED


def _reasons(record: CallRecord) -> list[str]:
    if record.code is None or record.reasons or not _is_refused(record.code):
        return record.reasons
    return [record.code.meaning]


def _text(record: CallRecord, seconds: float) -> str:
    code = "no code" if record.code is None else f"code {record.code:d} {record.code.name}"
    whose = f"appid {record.appid}, " if record.appid else ""
    of = f"{whose}{1e3 * seconds:.1f} ms, session {record.session_id}"
    return f"{record.address} {record.endpoint}: {code} ({of}){''.join(f': {reason}' for reason in _reasons(record))}"


def _fields(record: CallRecord, seconds: float) -> dict[str, object]:
    return {
        "address": record.address,
        "endpoint": record.endpoint,
        "code": record.code,
        "name": record.code and record.code.name,
        "appid": record.appid,
        "milliseconds": round(1e3 * seconds, 1),
        "session_id": record.session_id,
        "reasons": _reasons(record),
    }
