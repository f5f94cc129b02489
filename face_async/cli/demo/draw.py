"""``draw``: pictures of drawn people in folders, to try all other commands with."""

from __future__ import annotations

from gettext import gettext as _
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from face_async.cli.demo.people import drawn_people, drawn_strangers
from face_async.cli.exits import fail
from face_async.cli.options import ProgressOption  # noqa: TC001 - typer reads the annotations
from face_async.cli.output import say
from face_async.cli.progress import ProgressDisplay
from face_async.errors import printable
from face_async.ingest.output_file import OutputFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from face_async.cli.demo.people import Participant
    from face_async.cli.pictures import PictureSource


def draw(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Where the folders people and probes are made; . is the working folder."),
    ],
    *,
    people: Annotated[int, typer.Option("--people", min=1, max=1_000, help="How many people to draw.")] = 12,
    faces: Annotated[int, typer.Option("--faces", min=1, max=20, help="How many pictures to enroll of each.")] = 2,
    progress: ProgressOption = None,
) -> None:
    """Draw pictures of people to try things with: FOLDER/people to enroll, FOLDER/probes to recognize.

    FOLDER/people has a sub-folder for each person, named by id. FOLDER/probes has one more picture of each, and two
    strangers. The pictures are always the same ones. A file that exists and is not one of them is never replaced.
    """
    written = kept = 0
    with ProgressDisplay(progress) as display:
        drawn = display.track(drawn_people(people, faces=faces), _("drawing"), people)
        for person in (*drawn, *drawn_strangers()):
            for path, picture in _files_of(person, folder):
                is_new = _write(path, picture)
                written += is_new
                kept += not is_new
    there = _(", {kept:,} were there").format(kept=kept) if kept else ""
    say(
        _("drew {written:,} pictures{there}: {people:,} people in {folder} to enroll,").format(
            written=written, there=there, people=people, folder=printable(str(folder / "people"))
        )
    )
    say(
        _("and a new picture of each, and of two strangers, in {folder} to recognize").format(
            folder=printable(str(folder / "probes"))
        )
    )


def _files_of(person: Participant, folder: Path) -> Iterator[tuple[Path, PictureSource]]:
    """Yield where each picture of a drawn person belongs, and the picture."""
    for number, picture in enumerate(person.enrolled, 1):
        yield folder / "people" / person.person_id / f"{number}.jpg", picture
    for picture in person.probes:
        yield folder / "probes" / f"{person.person_id}.jpg", picture


def _write(path: Path, picture: PictureSource) -> bool:
    """Write a picture unless it is there already; return whether it was written."""
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if path.read_bytes() != content:
            raise fail(_("{path} exists and is another file; choose another folder").format(path=printable(str(path))))
        return False
    with OutputFile(path) as output:
        output.file.buffer.write(content)
    return True
