"""A call whose effect is settled when an attempt leaves it in doubt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import anyio

from face_async._call import wire
from face_async._call.observation import logger
from face_async._call.settle import Doubt, Finding, settle
from face_async.errors import CallError, FaceError, TransportError
from face_async.models import Result, with_meta

if TYPE_CHECKING:
    from collections.abc import Collection

    from face_async._call.attempts import CallInFlight, CallRunner
    from face_async._transports.base import Answer
    from face_async.endpoints import FaceApi
    from face_async.images import ImageSource

T = TypeVar("T")


class _Session(Protocol):
    """What other endpoints are asked with."""

    def with_options(self, *, deadline: float) -> FaceApi: ...


async def run_settled(
    runner: CallRunner, call: CallInFlight[T], session: _Session, before: Collection[str] | None
) -> T:
    """Make a call, settle its effect if an attempt leaves it in doubt, and return its result.

    Args:
        runner: What makes the call.
        call: The call.
        session: What other endpoints are asked with.
        before: The person's faces before the call, None when they are not known.
    """
    ended: T | FaceError
    try:
        result = ended = await runner.run(call, _read)
    except FaceError as error:
        if not (call.doubtful and call.settles):
            raise
        ended = error
    else:
        if not call.doubtful:
            return result  # as nearly always
    finding = await _look(runner, call, ended, session, before)
    if finding.result is not None:
        status = ended.meta.status if isinstance(ended, Result) else 0
        return cast("T", with_meta(finding.result, call.meta(status, finding.how)))
    if not finding.certain:
        raise _in_doubt(call, ended)
    if isinstance(ended, FaceError):
        raise ended
    return ended


def _read(call: CallInFlight[T], answer: Answer) -> T:
    result = wire.decode_answer(call.request, answer.status, answer.content, call.facts, answer.headers)
    return with_meta(result, call.meta(answer.status))


async def _look(
    runner: CallRunner,
    call: CallInFlight[T],
    ended: T | FaceError,
    session: _Session,
    before: Collection[str] | None,
) -> Finding:
    """Find out what became of an effect in doubt, within the call's deadline and the quota of retries."""
    left = call.deadline - time.monotonic()
    # Looking is more traffic, as trying again is: in an outage, where nothing is answered, it must be no flood.
    if isinstance(ended, Result) or (left > 0 and not runner.closed and call.take_token()):
        images = cast("list[ImageSource]", call.request.images)  # as pictures: file objects were read
        doubt = Doubt(call.name, call.request.fields, images, cast("Result | FaceError", ended), before)
        try:
            with anyio.move_on_after(left):
                return await settle(session.with_options(deadline=max(left, 0.001)), doubt)
        except RuntimeError:
            if not runner.closed:  # else it was closed between two requests
                raise
    logger.info("%s: an answer was lost, and there was no time or quota to look what became of the effect", call.label)
    return Finding(certain=False)


def _in_doubt(call: CallInFlight[T], ended: T | FaceError) -> CallError:
    """Return the error of a call of which it cannot be found out whether it had its effect."""
    if isinstance(ended, CallError):
        return call.explain(ended.in_doubt())
    # A picture that changed, or could not be fetched again, before an earlier request with it was settled.
    cause = ended if isinstance(ended, FaceError) else None
    reason = cause or "the last answer does not tell what an earlier request has done"
    error = TransportError(f"{call.label}: {reason}", **call.facts_so_far())
    error.__cause__ = cause
    return call.explain(error)
