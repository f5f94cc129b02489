"""What is told of the attempts of calls: to the log, and to whoever asked for it."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

from attrs import frozen

from face_async.errors import CallError, call_label, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("face_async")
"""All messages of the client; the local server's are those of ``face_async.server``.

======= ===============================================================================================================
ERROR   a function given as ``on_attempt`` has raised
WARNING the service has slowed the session down for the first time; this machine's clock is wrong; looking does not
        tell whether an effect has happened; pictures and signatures are sent unencrypted to another machine
INFO    an attempt that is tried again; every further slowdown; how an effect in doubt was settled, or that it could
        not be looked at, which the call's error says, too
DEBUG   every other attempt
======= ===============================================================================================================
"""


@frozen(kw_only=True)
class Attempt:
    """One attempt of a call, which is over: one request, and what became of it.

    Attributes:
        endpoint: The specification's name of the endpoint, such as ``"identify"``.
        subject: What the call is about, such as ``"group 'staff'"``; ``""`` where it names no person, group or face.
        number: Which attempt of its call it was, from 1.
        elapsed: Seconds that it took, from sending until its answer was read.
        queued: Seconds that its call has waited for the throttle so far, 0 or more.
        bytes_sent: Bytes of its body; fewer may have left if no answer came.
        status: The HTTP status of its answer, 0 when none came.
        code: The return code of its answer, 0 for success; None when no answer came or it has none.
        error: The error that it ended with, None for success. Of a call that was cancelled, the event loop's exception.
        maybe_applied: Whether its effect may have happened although it has failed.
        slowed_to: How many calls may be under way at once from now on, if its answer has slowed the session down; else
            None.
        pause: Seconds until the next attempt, 0 or more; None when it was the last one of its call.
    """

    endpoint: str
    subject: str
    number: int
    elapsed: float
    queued: float
    bytes_sent: int
    status: int = 0
    code: int | None = None
    error: BaseException | None = None
    maybe_applied: bool = False
    slowed_to: int | None = None
    pause: float | None = None

    def __str__(self) -> str:
        """Describe the attempt in one line."""
        if isinstance(self.error, CallError):
            said = self.error.reason
        else:
            what = f"HTTP {self.status}" if self.error is None else type(self.error).__name__
            said = f"{call_label(self.endpoint, self.subject)}: {what}"
        again = "" if self.pause is None else f"; trying again in {self.pause:.3f} seconds"
        doubt = "; the effect may have happened" if self.maybe_applied else ""
        return f"{said} (attempt {self.number}, {self.elapsed:.3f} seconds){doubt}{again}"


class Observers:
    """Tells of attempts: the log, and functions.

    Args:
        functions: They are called with every attempt, in the task that makes the call; None stands for none. What one
            raises is logged: no call fails because of those who look on.

    Raises:
        TypeError: One cannot be called, or has to be awaited.
    """

    def __init__(self, *functions: Callable[[Attempt], object] | None) -> None:
        self._functions = [function for function in functions if function is not None]
        for function in self._functions:
            if iscoroutinefunction(function) or not callable(function):
                raise TypeError(f"on_attempt must be a plain function that takes an Attempt, not {quoted(function)}")
        self._slowed = False

    @property
    def attentive(self) -> bool:
        """Whether anybody wants to hear of attempts that succeed."""
        return bool(self._functions) or logger.isEnabledFor(logging.DEBUG)

    def tell(self, attempt: Attempt) -> None:
        """Tell of an attempt that is over."""
        level = logging.DEBUG if attempt.pause is None else logging.INFO
        logger.log(level, "%s", attempt, extra={"attempt": attempt})
        if attempt.slowed_to is not None:
            level = logging.INFO if self._slowed else logging.WARNING
            logger.log(level, "the service asks for fewer requests: at most %d calls at once now", attempt.slowed_to)
            self._slowed = True
        for function in self._functions:
            try:
                function(attempt)
            except Exception:
                logger.exception("a function that was told of an attempt has raised; the call goes on")
