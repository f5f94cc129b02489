"""The output of an enrollment: what it shows while it runs, and a summary at its end."""

from __future__ import annotations

import os
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from rich.filesize import decimal

from face_async.cli.language import translated
from face_async.cli.output import say, say_json_line, tell
from face_async.cli.progress import OutageNotice, short_number
from face_async.errors import CODES, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from face_async import ThrottleState
    from face_async.cli.progress import ProgressDisplay
    from face_async.ingest import Difference, Summary, Unit

_MOST_DIFFERENCES = 20
_LONGEST_PATH = 1_000
MOST_FAILURES = 10
"""Pictures that are named at the end of a run."""

UNIT_FIELDS = ("person_id", "source", "state", "face_id", "code", "reason")
"""What a line of JSON says of a picture."""

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


class Display:
    """Shows how far a run has come, and tells when the service goes away and comes back; nothing if ``quiet``."""

    def __init__(self, throttle: Callable[[], ThrottleState], progress: ProgressDisplay, *, quiet: bool) -> None:
        self._throttle = throttle
        self._progress = progress
        self._quiet = quiet
        self._work = ""
        self._outage = OutageNotice()

    def show(self, summary: Summary) -> None:
        """Show the progress of a run."""
        if self._quiet:
            return
        # A run that is stopped only ends its waiting.
        self._outage.show(summary.away, goes_on=summary.phase in {"listing", "sending"})
        work = "listing" if summary.phase == "listing" else "sending"
        if work != self._work:
            self._work = work
            self._progress.begin(_("listing") if work == "listing" else _("sending"))
        if work == "listing":
            self._progress.show(summary.listed)
            return
        self._progress.show(
            summary.done + summary.failed,
            total=summary.total,
            failed=summary.failed,
            size=summary.added_bytes,
            note={"waiting": _("waiting"), "stopping": _("stopping")}.get(summary.phase) or self._under_way(),
        )

    def _under_way(self) -> str:
        state = self._throttle()
        if not state.in_flight:
            return ""
        said = _("{in_flight} of {most} at once") if state.slowdowns else _("{in_flight} at once")
        return said.format(in_flight=state.in_flight, most=state.concurrency)


def say_summary(summary: Summary, *, person: str | None, dry_run: bool) -> None:
    """Print the result of a run: counts, and why pictures were not enrolled; ``person`` if all are this one's."""
    if person is not None and not dry_run:
        say(
            _("pictures enrolled for {person}: {done:,} of {total:,}").format(
                person=printable(person), done=summary.done, total=summary.total
            )
        )
    elif dry_run:
        say(
            _("{pending:,} of {total:,} pictures would be sent, {done:,} are enrolled already").format(
                pending=summary.pending, total=summary.total, done=summary.done
            )
        )
    else:
        said = _("{done:,} of {total:,} pictures are enrolled").format(done=summary.done, total=summary.total)
        if summary.added:
            rate = _("{faces} faces and {size} a second").format(
                faces=short_number(summary.faces_per_second), size=decimal(int(summary.bytes_per_second))
            )
            said += _(", {added:,} by this run in {seconds:.1f} s: {rate}").format(
                added=summary.added, seconds=summary.seconds, rate=rate
            )
        say(said)
    rows = [(code, count, _meaning(code)) for code, count in summary.codes.items()]
    others = {"row": summary.bad_rows, "same": summary.collapsed, "doubt": summary.ambiguous}
    others["passed"] = summary.passed_over
    rows += [(word, count, _OTHER_ROWS[word]) for word, count in others.items()]
    for code, count, meaning in sorted(rows, key=lambda row: -row[1]):
        if count:
            say(f"{count:>9,}  {code:<10}  {translated(meaning)}")


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


def say_unit(unit: Unit) -> None:
    """Print what became of a picture as a line of JSON."""
    say_json_line({name: getattr(unit, name) for name in UNIT_FIELDS})


def tell_failures(failures: Sequence[tuple[str, str, str, str]], count: int, *, listed: bool) -> None:
    """Name pictures that were not enrolled, or are in doubt.

    Args:
        failures: The first of them: person id, source, code and reason of each.
        count: How many there are.
        listed: Whether all of them are in a file.
    """
    for _person_id, source, code, reason in failures:
        number = int(code) if code.lstrip("-").isdecimal() else 0
        # The reason of a file names it.
        unnamed = reason.replace(quoted(source), "the file").replace("the image the file", "the file")
        why = f"{translated(CODES[number].meaning)} ({code})" if number in CODES else translated(unnamed)
        tell(
            _("failed: {source}: {why}").format(
                source=printable(_short(source), _LONGEST_PATH), why=printable(why, _LONGEST_PATH)
            )
        )
    if failures and count > len(failures) and not listed:
        tell(_("and {count:,} more: --failures FILE.csv lists all").format(count=count - len(failures)))


def tell_comparison(compared: tuple[int, int], *, repaired: int, differ: int) -> None:
    """Print what comparing the service with the journal has shown: persons and faces, and how many persons differ."""
    persons, faces = compared
    result = _("they differ for {differ:,}").format(differ=differ) if differ else _("they are the same")
    before = _(", before the repair they differed for {repaired:,}").format(repaired=repaired) if repaired else ""
    tell(
        _("compared the service and the journal, people {persons:,}, faces {faces:,}: {result}{before}").format(
            persons=persons, faces=faces, result=result, before=before
        )
    )


def tell_differences(differences: Sequence[Difference]) -> None:
    """Print the differences between the service and the journal."""
    for difference in differences[:_MOST_DIFFERENCES]:
        tell(f"{printable(difference.person_id)}: {_what_differs(difference)}")
    if len(differences) > _MOST_DIFFERENCES:
        tell(_("and {count:,} more people differ").format(count=len(differences) - _MOST_DIFFERENCES))


def _short(source: str) -> str:
    """Return a path from the working folder if it is below it; anything else as it is."""
    return source.removeprefix(f"{Path.cwd()}{os.sep}")


def _what_differs(difference: Difference) -> str:
    if difference.absent:
        return _("the service does not know this person")
    missing = len(difference.missing) + difference.missing_unnamed
    said = (
        _("{missing} faces are missing").format(missing=missing) if missing else "",
        _("{count} faces are not of this journal").format(count=len(difference.extra)) if difference.extra else "",
        _("not in {groups}").format(groups=", ".join(map(printable, difference.missing_groups)))
        if difference.missing_groups
        else "",
    )
    return ", ".join(filter(None, said))


def _meaning(code: str) -> str:
    number = int(code) if code.lstrip("-").isdecimal() else 0
    return CODES[number].meaning if number in CODES else _WORDS.get(code, "see --failures")
