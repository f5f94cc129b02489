"""The report of identified pictures: each with its face framed, beside the candidates, as one page.

It is written as the findings come: cards wait in temporary files. Of what would be too much for a browser the first
part is shown, and the rest is counted.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from face_async.cli.html.page import Card, Rank, card, figure, foot, head, reason_group, section
from face_async.cli.identify.found import Found, Tally, Verdict
from face_async.cli.identify.output import Output
from face_async.cli.pictures import FaceBoxes, pictures_below
from face_async.images import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from face_async.models import Candidate

_MOST_CARDS = 500  # of each section; about 20 kB each
_MOST_FAILURES = 24  # pictures shown for each reason
_THUMBNAIL_SIDE = 240  # pixels


class Report(Output):
    """The page.

    Args:
        path: Where to write it.
        group_ids: Where was searched.
        threshold: From which confidence on it is the same person.
        enrolled: A folder with enrolled pictures: a sub-folder or a picture for each person, named by the id.

    Raises:
        OSError: The file cannot be written, or the folder not be read.
        ImportError: There is nothing to make smaller copies of pictures with.
    """

    def __init__(self, path: Path, *, group_ids: Sequence[str], threshold: float, enrolled: Path | None) -> None:
        import_module("PIL")  # better missed now than at the first picture

        self._known = Enrolled(enrolled)
        self._page = path.open("w", encoding="utf-8")
        self._group_ids = group_ids
        self._threshold = threshold
        self._boxes = FaceBoxes()
        self._tally = Tally()
        self._sections = {verdict: _Waiting() for verdict in (Verdict.UNKNOWN, Verdict.RECOGNIZED)}
        self._failures: dict[str, list[str]] = {}

    def add(self, found: Found) -> None:
        """Make a card of it, unless there are enough."""
        reason = self._tally.add(found)
        if found.verdict is Verdict.FAILED:
            shown = self._failures.setdefault(reason, [])
            if len(shown) < _MOST_FAILURES:
                shown.append(figure(_file(found), found.image, description="failed", side=_THUMBNAIL_SIDE))
        elif (waiting := self._sections[found.verdict]).count < _MOST_CARDS:
            waiting.add(card(self._card(found)))

    def close(self, *, complete: bool) -> None:
        """Write the page, of what has come."""
        with self._page as page:
            page.writelines(self._pieces(complete=complete))
        for waiting in self._sections.values():
            waiting.file.close()
        self._boxes.close()

    def _pieces(self, *, complete: bool) -> Iterator[str]:
        tally = self._tally
        title = f"{tally.counts[Verdict.RECOGNIZED]:,} of {tally.pictures:,} recognized"
        figures = {
            **{verdict.value: f"{count:,}" for verdict, count in tally.counts.items()},
            "searched in": ", ".join(self._group_ids),
            "threshold": f"{self._threshold:g}",
            "seconds": f"{tally.seconds:.1f}",
        }
        yield head(title if complete else f"{title}, then stopped", figures)
        yield from self._section(Verdict.UNKNOWN, "Unknown")
        yield from self._failed()
        yield from self._section(Verdict.RECOGNIZED, "Recognized")
        seen_by = f"Frames around faces are this machine's, by {self._boxes.name}." if self._boxes.name else ""
        yield foot("face-async identify", seen_by)

    def _section(self, verdict: Verdict, title: str) -> Iterator[str]:
        count, waiting = self._tally.counts[verdict], self._sections[verdict]
        waiting.file.seek(0)
        lead = f"The first {waiting.count:,} are shown." if waiting.count < count else ""
        yield from section(title, count, waiting.file, lead=lead)

    def _failed(self) -> Iterator[str]:
        groups = (
            reason_group(reason, count, self._failures[reason]) for reason, count, _ in self._tally.most_frequent()
        )
        yield from section("Failed", self._tally.counts[Verdict.FAILED], groups, kind="reasons")

    def _card(self, found: Found) -> Card:
        picture = _file(found)
        where = Path(found.image)
        return Card(
            title=where.name or found.image,
            note="" if picture is None or where.parent == Path() else str(where.parent),
            verdict=found.verdict,
            tone="good" if found.verdict is Verdict.RECOGNIZED else "open",
            picture=picture,
            box=None if picture is None else self._boxes.find(picture),
            ranks=[self._rank(candidate, place, found) for place, candidate in enumerate(found.candidates)],
            threshold=self._threshold,
        )

    def _rank(self, candidate: Candidate, place: int, found: Found) -> Rank:
        it_is = place == 0 and found.verdict is Verdict.RECOGNIZED
        return Rank(
            candidate.person_id,
            candidate.confidence,
            "same" if it_is else "further",
            note=candidate.tag,
            picture=self._known.picture_of(candidate.person_id),
        )


@define
class _Waiting:
    """Cards that wait for the page to be written."""

    file: IO[str] = field(factory=lambda: tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115 - it is closed with the report
    count: int = 0

    def add(self, piece: str) -> None:
        self.file.write(piece)
        self.count += 1


class Enrolled:
    """Enrolled pictures in a folder: of each person the first one, in a sub-folder or a file named by the person's id.

    Raises:
        OSError: The folder cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        # By the names that are there: no id, whatever it holds, leads to another place.
        entries = () if folder is None else folder.iterdir()
        self._homes = {entry.name if entry.is_dir() else entry.stem: entry for entry in entries}
        self.picture_of = lru_cache(maxsize=1_000)(self._picture_of)

    def _picture_of(self, person_id: str) -> Path | None:
        home = self._homes.get(person_id)
        return next(pictures_below(home), None) if home is not None and home.is_dir() else home


def _file(found: Found) -> Path | None:
    return None if is_url(found.image) else Path(found.image)
