"""The output of an enrollment: a live line while it runs, and a summary at its end."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

import attrs
from rich.filesize import decimal
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from face_async.cli.output import say, tell
from face_async.cli.progress import DoneColumn, live_progress
from face_async.errors import CODES, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import TaskID

    from face_async import ThrottleState
    from face_async.ingest import Difference, Summary

_WINDOW = 10.0  # seconds over which the speed is averaged
_LINE_EVERY = 60.0  # seconds between lines where there is no terminal
_MOST_DIFFERENCES = 20

_WORDS = {
    "missing": "the file is not there",
    "changed": "the file has changed since it was listed",
    "refused": "the file is empty, no JPEG, PNG, BMP or WebP, or cannot be read",
    "no-answer": "the service gave no answer",
    "bad-answer": "the service's answer could not be understood",
    "invalid": "the row has a value that no request may have",
}
"""The words in the journal where there is no return code -> their meaning."""

_OTHER_ROWS = {
    "row": "a row or file that is not a picture of a person, or lies outside of the folder: see --failures",
    "same": "the same picture as another of the person",
    "doubt": "may have been added: the next run finds out",
    "passed": "files and folders that systems and programs leave behind, passed over",
}


class Display(AbstractContextManager["Display"]):
    """Shows the progress of a run: a live line on a terminal, a line a minute elsewhere, nothing if ``quiet``."""

    def __init__(self, throttle: Callable[[], ThrottleState], *, quiet: bool) -> None:
        self._throttle = throttle
        self._quiet = quiet
        self._progress = live_progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            DoneColumn(),
            TextColumn("{task.fields[speed]}", style="dim"),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[at_once]}", style="dim"),
            TimeRemainingColumn(compact=True),
            quiet=quiet,
        )
        self._line: TaskID | None = None
        self._phase = ""
        self._away: str | None = None
        self._samples: deque[tuple[float, int, int]] = deque()
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, summary: Summary) -> None:
        """Show the progress of a run."""
        if self._quiet:
            return
        if summary.away != self._away:
            self._away = summary.away
            if summary.away is not None:
                tell(f"waiting for the service: {summary.away}")
            elif summary.phase in {"listing", "sending"}:  # a run that is stopped only ends its waiting
                tell("the service is back")
        total = summary.total if summary.phase != "listing" else None
        completed = summary.done + summary.failed if total is not None else summary.listed
        if self._line is None or (self._phase == "listing" and total is not None):
            # A new one, or what was done before this run would be taken for speed.
            if self._line is not None:
                self._progress.remove_task(self._line)
            self._line = self._progress.add_task("", total=total, completed=completed, speed="", failed="", at_once="")
        self._phase = summary.phase
        self._progress.update(
            self._line,
            description=summary.phase,
            total=total,
            completed=completed,
            speed=self._speed(summary),
            failed=f"{summary.failed:,} failed" if summary.failed else "",
            at_once=self._under_way(),
        )
        if self._progress.disable and time.monotonic() - self._said_at >= _LINE_EVERY:
            self._said_at = time.monotonic()
            so_far = f"{completed:,}" if total is None else f"{completed:,} of {total:,}, {summary.failed:,} failed"
            tell(f"{summary.phase}: {so_far} {self._speed(summary)}".rstrip())

    def _speed(self, summary: Summary) -> str:
        now = time.monotonic()
        self._samples.append((now, summary.added, summary.added_bytes))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, added, size = self._samples[0]
        if now - then < 1 or summary.phase == "listing":
            return ""
        faces, rate = (summary.added - added) / (now - then), (summary.added_bytes - size) / (now - then)
        return f"{_count(faces)}/s {decimal(int(rate))}/s"

    def _under_way(self) -> str:
        state = self._throttle()
        slowed = f" of {state.concurrency}" if state.slowdowns else ""
        return f"{state.in_flight}{slowed} at once"


def say_summary(summary: Summary, *, dry_run: bool) -> None:
    """Print the result of a run: counts, and why pictures were not enrolled."""
    if dry_run:
        say(f"{summary.pending:,} of {summary.total:,} pictures would be sent, {summary.done:,} are enrolled already")
    else:
        said = f"{summary.done:,} of {summary.total:,} pictures are enrolled"
        if summary.added:
            rate = f"{_count(summary.faces_per_second)} faces and {decimal(int(summary.bytes_per_second))} a second"
            said += f", {summary.added:,} by this run in {summary.seconds:.1f} s: {rate}"
        say(said)
    rows = [(code, count, _meaning(code)) for code, count in summary.codes.items()]
    others = {"row": summary.bad_rows, "same": summary.collapsed, "doubt": summary.ambiguous}
    others["passed"] = summary.passed_over
    rows += [(word, count, _OTHER_ROWS[word]) for word, count in others.items()]
    for code, count, meaning in sorted(rows, key=lambda row: -row[1]):
        if count:
            say(f"{count:>9,}  {code:<10}  {meaning}")


def as_json(summary: Summary, differences: Sequence[Difference] | None) -> dict[str, object]:
    """Return a summary as JSON; with differences if the service was compared with the journal."""
    told: dict[str, object] = {
        "total": summary.total,
        "complete": summary.complete,
        **attrs.asdict(summary, filter=lambda attribute, _: attribute.name not in {"codes", "away", "phase"}),
        "codes": dict(summary.codes),
        "faces_per_second": summary.faces_per_second,
        "bytes_per_second": summary.bytes_per_second,
    }
    if differences is not None:
        told["differences"] = [attrs.asdict(difference) for difference in differences]
    return told


def tell_comparison(compared: tuple[int, int], *, repaired: int, differ: int) -> None:
    """Print what comparing the service with the journal has shown: persons and faces, and how many persons differ."""
    persons, faces = compared
    result = f"they differ for {differ:,}" if differ else "they are the same"
    before = f", before the repair they differed for {repaired:,}" if repaired else ""
    tell(f"compared the service and the journal, people {persons:,}, faces {faces:,}: {result}{before}")


def tell_differences(differences: Sequence[Difference]) -> None:
    """Print the differences between the service and the journal."""
    for difference in differences[:_MOST_DIFFERENCES]:
        tell(f"{printable(difference.person_id)}: {_what_differs(difference)}")
    if len(differences) > _MOST_DIFFERENCES:
        tell(f"and {len(differences) - _MOST_DIFFERENCES:,} more people differ")


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"  # noqa: PLR2004 - two digits tell enough


def _what_differs(difference: Difference) -> str:
    if difference.absent:
        return "the service does not know this person"
    missing = len(difference.missing) + difference.missing_unnamed
    said = (
        f"{missing} faces are missing" if missing else "",
        f"{len(difference.extra)} faces are not of this journal" if difference.extra else "",
        f"not in {', '.join(map(printable, difference.missing_groups))}" if difference.missing_groups else "",
    )
    return ", ".join(filter(None, said))


def _meaning(code: str) -> str:
    number = int(code) if code.lstrip("-").isdecimal() else 0
    return CODES[number].meaning if number in CODES else _WORDS.get(code, "see --failures")
