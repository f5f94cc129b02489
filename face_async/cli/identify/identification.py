"""The result of identifying one picture, and the counts of all."""

from __future__ import annotations

import enum
import time
from gettext import gettext as _
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from face_async.cli.exits import Exit, exit_code, one_line
from face_async.cli.language import translated
from face_async.errors import CODES, RequestTooLargeError, ServiceError, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from face_async import Candidate
    from face_async.errors import FaceError

_EXAMPLES = 3  # pictures that are named for each reason
_MAX_REASONS = 50  # the others are counted together: a server may give a new reason each time
_OTHER_REASONS = "other reasons"


class Verdict(enum.StrEnum):
    """Whether the person in a picture was recognized."""

    RECOGNIZED = "recognized"
    UNKNOWN = "unknown"
    FAILED = "failed"


@frozen
class Identification:
    """The candidates for the person in one picture, most confident first, or why there are none."""

    image: str  # its path or URL
    candidates: Sequence[Candidate] = ()
    error: FaceError | ValueError | None = None  # why not all groups could be searched
    threshold: float = field(default=0.0, kw_only=True)  # the confidence, 0 to 100, from which on it is the same person

    @property
    def verdict(self) -> Verdict:
        """The verdict; ``FAILED`` after any error, as the person may be in the group that could not be searched."""
        if self.error is not None:
            return Verdict.FAILED
        known = bool(self.candidates) and self.candidates[0].confidence >= self.threshold
        return Verdict.RECOGNIZED if known else Verdict.UNKNOWN

    @property
    def exit(self) -> Exit:
        """The exit code for this picture alone."""
        if self.error is not None:
            return exit_code(self.error)
        return Exit.OK if self.verdict is Verdict.RECOGNIZED else Exit.NO

    @property
    def reason(self) -> str:
        """Why it failed, in words that are the same for all pictures that failed for this reason; "" if it did not."""
        match self.error:
            case None:
                return ""
            case RequestTooLargeError():
                return _("too large for a request; --fit makes it smaller")
            case ServiceError() as error if error.code in CODES:
                return f"{translated(CODES[error.code].meaning)} ({error.code})"
            case error:
                return translated(one_line(error).replace(f"the image {quoted(self.image)}", "the file"))


@define
class Tally:
    """The counts of all pictures so far.

    Attributes:
        reasons: Why pictures failed: for each reason their number, and the first few of them.
        exit: The exit code for all pictures together: the highest.
    """

    counts: dict[Verdict, int] = field(factory=lambda: dict.fromkeys(Verdict, 0))
    reasons: dict[str, tuple[int, list[str]]] = field(factory=dict[str, tuple[int, list[str]]])
    exit: Exit = Exit.OK
    _started: float = field(factory=time.monotonic, init=False)

    @property
    def seconds(self) -> float:
        """Seconds since counting began."""
        return time.monotonic() - self._started

    @property
    def pictures(self) -> int:
        """The number of pictures."""
        return sum(self.counts.values())

    def add(self, identified: Identification) -> str:
        """Count a picture; return the reason that it is counted under, "" unless it failed."""
        self.counts[identified.verdict] += 1
        self.exit = max(self.exit, identified.exit)
        reason = identified.reason
        if not reason:
            return ""
        if len(self.reasons) >= _MAX_REASONS and reason not in self.reasons:
            reason = translated(_OTHER_REASONS)
        count, examples = self.reasons.get(reason, (0, []))
        if count < _EXAMPLES:
            examples.append(printable(identified.image))
        self.reasons[reason] = count + 1, examples
        return reason

    def most_frequent(self) -> list[tuple[str, int, list[str]]]:
        """Return each reason with its count and its first pictures, the most frequent one first."""
        rows = ((reason, count, examples) for reason, (count, examples) in self.reasons.items())
        return sorted(rows, key=lambda row: -row[1])

    def summary(self) -> str:
        """Return all counts in one line."""
        verdicts = ", ".join(f"{count:,} {_(verdict)}" for verdict, count in self.counts.items())
        seconds = self.seconds
        return _("{pictures:,} pictures in {seconds:.1f} s ({rate:.1f} a second): {verdicts}").format(
            pictures=self.pictures, seconds=seconds, rate=self.pictures / seconds, verdicts=verdicts
        )

    def failures(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for reason, count, examples in self.most_frequent():
            more = _(" and {count:,} more").format(count=count - len(examples)) if count > len(examples) else ""
            yield _("{count:,} failed: {reason}: {examples}{more}").format(
                count=count, reason=reason, examples=", ".join(examples), more=more
            )
