"""The report of identified pictures: each with a frame around its face, beside the candidates, as one page.

Cards are made while pictures are identified, and kept in temporary files until the page is written. Of more pictures
than a browser can show, the first ones are shown, and the others counted.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from gettext import gettext as _
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from face_async.cli.html.page import Card, Rank, Section, card, failed_pictures, page
from face_async.cli.identify.identification import Identification, Tally, Verdict
from face_async.cli.identify.output import Output
from face_async.cli.pictures import FaceBoxes, pictures_below
from face_async.images import is_url
from face_async.images.folders import names_in
from face_async.ingest.enclosure import Enclosure
from face_async.ingest.output_file import OutputFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import IO

    from face_async import Candidate

_MAX_CARDS = 500  # in each section; a card has about 20 kB
_MAX_FAILURES = 24  # pictures shown for each reason


class Report(Output):
    """The page.

    It is written to ``path``, and not over ``sources``. The folder ``enrolled`` has pictures of the candidates, as
    :class:`Enrolled` reads it.

    Raises:
        OutputError: It would be written over something that must be kept.
        OSError: The file cannot be written, or the folder not be read.
        ImportError: Pillow is missing, which makes smaller copies of pictures, or Jinja2, which makes the page.
    """

    def __init__(
        self,
        path: Path,
        *,
        sources: Iterable[Path] = (),
        group_ids: Sequence[str],
        threshold: float,
        enrolled: Path | None,
        allow_outside: bool = False,
    ) -> None:
        for needed in ("PIL", "jinja2"):
            import_module(needed)  # a missing package is reported before the first picture, not after it
        self._enrolled = Enrolled(enrolled, allow_outside=allow_outside)
        self._output = OutputFile(path, sources=sources)
        self._group_ids = group_ids
        self._threshold = threshold
        self._boxes = FaceBoxes()
        self._tally = Tally()
        self._cards = {verdict: _temporary_file() for verdict in (Verdict.UNKNOWN, Verdict.RECOGNIZED)}
        self._failures: dict[str, list[tuple[Path | None, str]]] = {}

    def add(self, identified: Identification) -> None:
        """Make a card of a picture, unless there are enough."""
        reason = self._tally.add(identified)
        if identified.verdict is Verdict.FAILED:
            shown = self._failures.setdefault(reason, [])
            if len(shown) < _MAX_FAILURES:
                shown.append((_file(identified), identified.image))
        elif self._tally.counts[identified.verdict] <= _MAX_CARDS:
            self._cards[identified.verdict].write(card(self._card(identified)))

    def close(self, *, complete: bool) -> None:
        """Write the page, unless nothing came of the run."""
        tally = self._tally
        ending = "" if complete else _(", then stopped")
        title = _("{recognized:,} of {pictures:,} recognized{ending}").format(
            recognized=tally.counts[Verdict.RECOGNIZED], pictures=tally.pictures, ending=ending
        )
        summary = {
            **{_(verdict.value): f"{count:,}" for verdict, count in tally.counts.items()},
            _("searched in"): ", ".join(self._group_ids),
            _("threshold"): f"{self._threshold:g}",
            _("seconds"): f"{tally.seconds:.1f}",
        }
        finder = self._boxes.name
        remark = (
            _("The frames around faces were found on this machine, by {finder}.").format(finder=finder)
            if finder
            else ""
        )
        pieces = page(title, summary, self._sections(), command="face-async identify", remark=remark)
        if complete or tally.pictures:
            with self._output as output:
                output.file.writelines(pieces)
        self._output.close(keep=False)
        for cards in self._cards.values():
            cards.close()
        self._boxes.close()

    def _sections(self) -> Iterator[Section]:
        yield self._cards_of(Verdict.UNKNOWN)
        reasons = (
            failed_pictures(reason, count, self._failures[reason]) for reason, count, _ in self._tally.most_frequent()
        )
        yield Section(_("Failed"), self._tally.counts[Verdict.FAILED], reasons, kind="reasons")
        yield self._cards_of(Verdict.RECOGNIZED)

    def _cards_of(self, verdict: Verdict) -> Section:
        count, cards = self._tally.counts[verdict], self._cards[verdict]
        cards.seek(0)
        lead = _("The first {count:,} are shown.").format(count=_MAX_CARDS) if count > _MAX_CARDS else ""
        return Section(_(verdict.capitalize()), count, cards, lead)

    def _card(self, identified: Identification) -> Card:
        picture = _file(identified)
        where = Path(identified.image)
        return Card(
            title=where.name or identified.image,
            note="" if picture is None or where.parent == Path() else str(where.parent),
            verdict=_(identified.verdict),
            tone="good" if identified.verdict is Verdict.RECOGNIZED else "open",
            picture=picture,
            box=None if picture is None else self._boxes.find(picture),
            ranks=[self._rank(candidate, place, identified) for place, candidate in enumerate(identified.candidates)],
            threshold=self._threshold,
        )

    def _rank(self, candidate: Candidate, place: int, identified: Identification) -> Rank:
        same = place == 0 and identified.verdict is Verdict.RECOGNIZED
        picture = self._enrolled.picture_of(candidate.person_id)
        return Rank(candidate.person_id, candidate.confidence, "same" if same else "further", candidate.tag, picture)


class Enrolled:
    """Enrolled pictures in a folder: of each person the first one, in a sub-folder or a file named by the person's id.

    Pictures that lie outside of the folder, where links lead, are shown only if ``allow_outside``.

    Raises:
        OSError: The folder cannot be read.
    """

    def __init__(self, folder: Path | None, *, allow_outside: bool = False) -> None:
        self._enclosure = None if folder is None or allow_outside else Enclosure(folder)
        # By the names that are there: no id, whatever it holds, leads to another place.
        entries = [] if folder is None else [folder / name for name in names_in(folder)]
        self._homes = {entry.name if entry.is_dir() else entry.stem: entry for entry in entries}
        self.picture_of = lru_cache(maxsize=1_000)(self._picture_of)

    def _picture_of(self, person_id: str) -> Path | None:
        home = self._homes.get(person_id)
        if home is None or self._lies_outside(home):
            return None
        pictures = pictures_below(home) if home.is_dir() else (home,)
        return next((picture for picture in pictures if not self._lies_outside(picture)), None)

    def _lies_outside(self, path: Path) -> bool:
        return self._enclosure is not None and self._enclosure.complaint(str(path)) is not None


def _temporary_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _file(identified: Identification) -> Path | None:
    return None if is_url(identified.image) else Path(identified.image)
