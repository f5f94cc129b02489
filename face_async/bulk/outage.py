"""Outages: while the service is away, a long run waits for it; the run loses time, but none of its items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

import anyio

from face_async._call.judgement import Phase, judge_error
from face_async._call.retry import RetryPolicy
from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

SINGLE_ATTEMPT = RetryPolicy(max_attempts=1)
"""For a session that asks whether the service is back: nothing is tried again by the session itself."""

_TRIES = 3
"""A call that fails this often, while the service answers probes in between, is given up."""

_GIVEN_UP_IN_ROW = 8
"""How many calls in a row may be given up before the run ends: then the fault is the service's."""

PROBE_DELAY = 1.0
"""Seconds after which a service that is away is probed for the first time, unless the caller says otherwise."""

_MAX_PROBE_DELAY = 60.0

OnOutage: TypeAlias = Literal["wait", "fail"]
"""What a bulk run does while the service is away: it waits, as long as it takes, or lets item after item fail."""


class RunEndedError(Exception):
    """Nothing further can be done in this run.

    Attributes:
        error: What ended it, None when it was told to stop.
    """

    def __init__(self, error: FaceError | None = None) -> None:
        super().__init__(error)
        self.error = error


class OutageHandler:
    """Makes calls, and waits while the service is away.

    A call that fails because the service is away, after all its retries, makes all calls wait: one task probes the
    service with growing pauses until it answers, and then the call is tried again. A call that keeps failing while the
    service answers probes is given up. When several calls in a row are given up, the whole run ends.

    Args:
        probe: Asks the service for anything, once.
        probe_delay: Seconds before the first probe; every further pause is twice as long, a minute at most.
        on_change: Called when :attr:`away` changes.

    Attributes:
        away: Why everything waits, None when nothing does.
    """

    def __init__(
        self, probe: Callable[[], Awaitable[object]], *, probe_delay: float, on_change: Callable[[], object]
    ) -> None:
        self.away: str | None = None
        self._probe = probe
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

    async def wait_until_back(self) -> None:
        """Wait while the service is away."""
        while self.away is not None:
            await self._back.wait()

    async def call(self, make: Callable[[], Awaitable[T]], *, proves: bool = False) -> T:
        """Make a call, and return its result or raise the error that it ends with.

        ``proves`` says whether its success shows that the service does its work.

        Raises:
            RunEndedError: No further call can succeed, or the run was told to stop while the service was away.
            FaceError, ValueError: Whatever the call raises that says nothing of other calls.
        """
        tries = 0
        while True:
            await self.wait_until_back()
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
                tries += not judgement.too_many
                if tries == _TRIES:
                    self._give_up(error)
                    raise
                reason = str(error)
            else:
                if proves:
                    self._given_up = 0
                return result
            await self._wait_for_service(reason)

    def _give_up(self, error: FaceError) -> None:
        self._given_up += 1
        if self._given_up > _GIVEN_UP_IN_ROW:
            raise RunEndedError(error) from None

    async def _wait_for_service(self, reason: str) -> None:
        """Wait until the service answers; one task probes it for all."""
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
            await self._probe()
        except FaceError as error:
            judgement = judge_error(error)
            if judgement.hopeless:
                raise RunEndedError(error) from None
            return judgement.phase is Phase.ANSWERED
        return True


class BulkOutages(OutageHandler):
    """Makes the calls of a bulk run, which waits while the service is away, or does not.

    Args:
        probe: Asks the service for anything, once.
        on_outage: ``"wait"`` waits; ``"fail"`` makes every call once, and nothing waits.
        on_change: Called when :attr:`away` changes.

    Attributes:
        ended: The error after which no further call can succeed, None while there is none.

    Raises:
        ValueError: Another word for ``on_outage``.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        on_outage: OnOutage,
        *,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        if on_outage not in {"wait", "fail"}:
            raise ValueError(f"on_outage must be 'wait' or 'fail', not {on_outage!r}")
        super().__init__(probe, probe_delay=PROBE_DELAY, on_change=on_change)
        self.ended: FaceError | None = None
        self._waits = on_outage == "wait"

    async def call(self, make: Callable[[], Awaitable[T]], *, proves: bool = True) -> T:
        """Make a call, and return its result or raise the error that it ends with, whichever it is."""
        if not self._waits:
            return await make()
        try:
            return await super().call(make, proves=proves)
        except RunEndedError as ended:
            self.ended = cast("FaceError", ended.error)  # nobody tells such a run to stop
            raise self.ended from None
