"""The demo's report: what came out of it, as a page."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from face_async.cli.exits import one_line
from face_async.cli.html.page import Card, Rank, card, foot, head, section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from face_async.cli.demo.findings import Findings, Trial
    from face_async.models import Candidate


def write_report(path: Path, findings: Findings) -> None:
    """Write the page.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(page(findings), encoding="utf-8")


def page(findings: Findings) -> str:
    """Return the page: the summary, then each probe beside its candidates."""
    figures = {
        "people": len(findings.people),
        "faces enrolled": len(findings.faces),
        "requests": findings.stats.requests,
        "seconds": f"{findings.seconds:.1f}",
        "requests a second": f"{findings.stats.requests / findings.seconds:.0f}",
        "recognizer": findings.recognizer,
    }
    title = f"{findings.recognized} of {len(findings.trials)} recognized"
    return "".join((head(title, figures), *_sections(findings), foot("face-async demo")))


def _sections(findings: Findings) -> Iterator[str]:
    for where, group in groupby(findings.trials, lambda trial: trial.where):
        trials = list(group)
        yield from section(f"In {where}", len(trials), (card(_card(trial, findings)) for trial in trials))


def _card(trial: Trial, findings: Findings) -> Card:
    return Card(
        title=trial.person.name,
        verdict="right" if trial.right else "wrong",
        tone="good" if trial.right else "bad",
        picture=trial.probe,
        caption="to be recognized",
        ranks=[_rank(candidate, place, trial, findings) for place, candidate in enumerate(trial.candidates)],
        reason=one_line(trial.error) if trial.error else "nobody was found",
    )


def _rank(candidate: Candidate, place: int, trial: Trial, findings: Findings) -> Rank:
    same = candidate.person_id == trial.person.person_id
    return Rank(
        findings.names.get(candidate.person_id, candidate.person_id),
        candidate.confidence,
        # Only the first candidate is an answer, so only there another person is a mistake.
        "same" if same else "other" if place == 0 else "further",
        picture=findings.faces.get(candidate.face_id),
    )
