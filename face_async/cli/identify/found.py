"""What identifying pictures found out: one picture's outcome, and the counts of all."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from face_async.cli.exits import Exit, exit_code, one_line
from face_async.errors import CODES, RequestTooLargeError, ServiceError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from face_async.errors import FaceError
    from face_async.models import Candidate

_EXAMPLES = 3  # how many pictures are named for a reason
_MOST_REASONS = 50  # more are told of together: a server may say something new each time
_ELSE = "other reasons"


class Verdict(enum.StrEnum):
    """How it went for a picture."""

    RECOGNIZED = "recognized"
    UNKNOWN = "unknown"
    FAILED = "failed"


@frozen
class Found:
    """Whom one picture may show, or why that is not known.

    Attributes:
        image: The picture's path or URL.
        candidates: Whom it may show, most confident first.
        error: Why it could not be searched for, or not everywhere.
        threshold: From which confidence on it is the same person.
    """

    image: str
    candidates: Sequence[Candidate] = ()
    error: FaceError | ValueError | None = None
    threshold: float = field(default=0.0, kw_only=True)

    @property
    def verdict(self) -> Verdict:
        """How it went; a picture that was not searched for everywhere has failed, whatever was found elsewhere."""
        if self.error is not None:
            return Verdict.FAILED
        known = bool(self.candidates) and self.candidates[0].confidence >= self.threshold
        return Verdict.RECOGNIZED if known else Verdict.UNKNOWN

    @property
    def exit(self) -> Exit:
        """The exit code that this picture alone deserves."""
        if self.error is not None:
            return exit_code(self.error)
        return Exit.OK if self.verdict is Verdict.RECOGNIZED else Exit.NO

    @property
    def reason(self) -> str:
        """Why it failed, in words that all pictures that failed for this reason share."""
        match self.error:
            case None:
                return ""
            case RequestTooLargeError():
                return "too large for a request; --fit makes it smaller"
            case ServiceError() as error if error.code in CODES:
                return f"{CODES[error.code].meaning} ({error.code})"
            case error:
                return one_line(error).replace(f"the image {self.image!r}", "the file")


@define
class Tally:
    """The counts of all pictures so far.

    Attributes:
        counts: How many there were of each verdict.
        reasons: Why pictures failed: how often, and the first few of them.
        exit: The exit code that they deserve together: the gravest.
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
        """How many pictures there were."""
        return sum(self.counts.values())

    def add(self, found: Found) -> str:
        """Count a picture, and return the reason that it is counted under if it failed."""
        self.counts[found.verdict] += 1
        self.exit = max(self.exit, found.exit)
        if found.error is None:
            return ""
        reason = found.reason if len(self.reasons) < _MOST_REASONS or found.reason in self.reasons else _ELSE
        count, examples = self.reasons.get(reason, (0, []))
        if count < _EXAMPLES:
            examples.append(printable(found.image))
        self.reasons[reason] = count + 1, examples
        return reason

    def most_frequent(self) -> list[tuple[str, int, list[str]]]:
        """Return all reasons with their counts and first pictures, the most frequent first."""
        rows = ((reason, count, examples) for reason, (count, examples) in self.reasons.items())
        return sorted(rows, key=lambda row: -row[1])

    def summary(self) -> str:
        """Return all counts in one line."""
        verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items())
        seconds = self.seconds
        return f"{self.pictures:,} pictures in {seconds:.1f} s ({self.pictures / seconds:.1f} a second): {verdicts}"

    def failures(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for reason, count, examples in self.most_frequent():
            more = f" and {count - len(examples):,} more" if count > len(examples) else ""
            yield f"{count:,} failed: {reason}: {', '.join(examples)}{more}"
