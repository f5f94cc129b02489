"""The service as a long run sees it: it may be away for a while, which costs time and no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from face_async._call.judgement import Phase, judge_error
from face_async._call.retry import RetryPolicy
from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from face_async.session import FaceSession

T = TypeVar("T")

_TRIES = 3
"""How often a call fails, with the service answering others in between, until it is given up."""

_GIVEN_UP_IN_ROW = 8
"""Calls given up, with none that succeeds in between, until the fault must be the service's."""

_MAX_PROBE_DELAY = 60.0


class RunEndedError(Exception):
    """Nothing further can be done in this run.

    Attributes:
        error: What ended it, None when it was told to stop.
    """

    def __init__(self, error: FaceError | None = None) -> None:
        super().__init__(error)
        self.error = error


class Service:
    """Makes calls, and waits while the service is away.

    A call that fails for want of the service, after all its retries, makes everything wait: one task asks for the
    groups, again and again with growing pauses, until there is an answer, and then the call is tried again. Calls are
    given up only when they fail while others are answered, and only a few in a row: a service that answers none of
    them is to blame itself.

    Args:
        session: What to call with.
        probe_delay: Seconds before the first question; every further pause is twice as long, a minute at most.
        on_change: Called when :attr:`away` changes.

    Attributes:
        away: Why everything waits, None when nothing does.
    """

    def __init__(self, session: FaceSession, *, probe_delay: float, on_change: Callable[[], object]) -> None:
        self.away: str | None = None
        self._session = session.with_options(retry=RetryPolicy(max_attempts=1))
        self._probe_delay = probe_delay
        self._on_change = on_change
        self._back = anyio.Event()
        self._stop = anyio.Event()
        self._given_up = 0

    @property
    def stopping(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin nothing new, and wait no longer for a service that is away."""
        self._stop.set()

    async def call(self, make: Callable[[], Awaitable[T]], *, proves: bool = False) -> T:
        """Make a call, and return its result or raise what it ends with.

        Args:
            make: Makes the call.
            proves: Whether its success shows that the service does its work.

        Raises:
            RunEndedError: No further call can succeed, or the run was told to stop while the service was away.
            FaceError, ValueError: Whatever the call raises that says nothing of other calls.
        """
        tries = 0
        while True:
            while self.away is not None:
                await self._back.wait()
            if self.stopping and tries:
                raise RunEndedError
            try:
                result = await make()
            except FaceError as error:
                judgement = judge_error(error)
                if judgement.hopeless:
                    raise RunEndedError(error) from None
                if judgement.phase is Phase.ANSWERED:
                    raise
                tries += not judgement.slower  # too many requests: waiting mends that, however often
                if tries == _TRIES:
                    self._give_up(error)
                    raise
                reason = str(error)
            else:
                if proves:
                    self._given_up = 0
                return result
            await self._wait_for_it(reason)

    def _give_up(self, error: FaceError) -> None:
        self._given_up += 1
        if self._given_up > _GIVEN_UP_IN_ROW:
            raise RunEndedError(error) from None

    async def _wait_for_it(self, reason: str) -> None:
        """Wait until the service answers; one task asks for all."""
        if self.away is not None:
            return
        self.away, self._back = reason, anyio.Event()
        self._on_change()
        delay = self._probe_delay
        try:
            while True:
                with anyio.move_on_after(delay):
                    await self._stop.wait()
                    break
                if await self._answers():
                    break
                delay = min(2 * delay, _MAX_PROBE_DELAY)
        finally:
            self.away = None
            self._back.set()
            self._on_change()

    async def _answers(self) -> bool:
        try:
            await self._session.get_group_ids()
        except FaceError as error:
            judgement = judge_error(error)
            if judgement.hopeless:
                raise RunEndedError(error) from None
            return judgement.phase is Phase.ANSWERED
        return True
