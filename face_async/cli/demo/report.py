"""The demo's report: its result as a page."""

from __future__ import annotations

from gettext import gettext as _
from itertools import groupby
from typing import TYPE_CHECKING

from face_async import SAME_PERSON
from face_async.cli.exits import one_line
from face_async.cli.html.page import Card, Rank, Section, card, page
from face_async.cli.language import translated
from face_async.ingest.output_file import OutputFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from face_async import Candidate
    from face_async.cli.demo.result import DemoResult, Trial


def write_report(path: Path, result: DemoResult) -> None:
    """Write the page: a summary, then each probe beside its candidates.

    Raises:
        OutputError: It would be written over something that must be kept.
        OSError: The file cannot be written.
    """
    summary = {
        _("people"): len(result.people),
        _("faces enrolled"): len(result.faces),
        _("the same person from"): _("{threshold:g} of 100").format(threshold=SAME_PERSON),
        _("requests"): result.stats.requests,
        _("seconds"): f"{result.seconds:.1f}",
        _("requests a second"): f"{result.stats.requests / result.seconds:.0f}",
        _("recognizer"): result.recognizer,
    }
    with OutputFile(path) as output:
        output.file.writelines(page(result.counts, summary, _sections(result), command="face-async demo"))


def _sections(result: DemoResult) -> Iterator[Section]:
    for where, group in groupby(result.trials, lambda trial: trial.where):
        trials = list(group)
        yield Section(
            _("In {where}").format(where=translated(where)),
            len(trials),
            (card(_card(trial, result)) for trial in trials),
        )


def _card(trial: Trial, result: DemoResult) -> Card:
    return Card(
        title=translated(trial.person.name),
        verdict=_("right") if trial.right else _("wrong"),
        tone="good" if trial.right else "bad",
        picture=trial.probe,
        caption=_("to be recognized"),
        ranks=[_rank(candidate, trial, result) for candidate in trial.candidates],
        reason=translated(one_line(trial.error)) if trial.error else "",
        threshold=trial.threshold,
    )


def _rank(candidate: Candidate, trial: Trial, result: DemoResult) -> Rank:
    same = candidate.person_id == trial.person.person_id
    return Rank(
        result.names.get(candidate.person_id, candidate.person_id),
        candidate.confidence,
        # Only the first candidate is an answer, so only there another person is a mistake.
        "same" if same else "other" if candidate is trial.found else "further",
        picture=result.faces.get(candidate.face_id),
    )
