"""The people of a demo: drawn in code, or from a folder of photographs."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from attrs import frozen

from face_async.bulk.fitting import FITTING_BYTES, fit_image
from face_async.errors import LimitError
from face_async.images import KINDS
from face_async.images.folders import PassedOver, is_picture, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from face_async.cli.pictures import PictureSource

GROUPS = ("engineering", "science")

_NAMES = (
    *("Ada", "Grace", "Alan", "Hedy", "Edsger", "Katherine", "Donald", "Radia", "Claude", "Barbara", "Tim", "Margaret"),
    *("John", "Frances", "Ken", "Annie", "Linus", "Mary", "Niklaus", "Joan", "Dennis", "Sophie", "Guido", "Lynn"),
)
_MEN = frozenset({"Alan", "Edsger", "Donald", "Claude", "Tim", "John", "Ken", "Linus", "Niklaus", "Dennis", "Guido"})
_STRANGERS = (34, 35)  # numbers of drawn people whom nobody is called after
_LONGEST_ID = 64


@frozen
class Participant:
    """A person who takes part in a demo.

    Attributes:
        person_id: An id that every service takes: ASCII letters, digits and hyphens.
        name: A name to show.
        group_id: The person's group.
        enrolled: The pictures to enroll.
        probes: Other pictures of the person, to be recognized.
        is_stranger: Whether nobody may be found, as the person is not enrolled.
    """

    person_id: str
    name: str
    group_id: str
    enrolled: tuple[PictureSource, ...]
    probes: tuple[PictureSource, ...]
    is_stranger: bool = False


def drawn_people(count: int, *, faces: int) -> Iterator[Participant]:
    """Draw people, with ``faces`` pictures to enroll and one more as the probe each."""
    from face_async.portraits import draw_portrait  # noqa: PLC0415 - slow to import: numpy and pillow

    for number in range(count):
        turn, place = divmod(number, len(_NAMES))
        name = f"{_NAMES[place]} {turn + 1}" if turn else _NAMES[place]
        drawn = _drawn_as(number)
        shots = tuple(draw_portrait(drawn, shot=shot) for shot in range(faces + 1))
        yield Participant(
            person_id=name.lower().replace(" ", "-"),
            name=name,
            group_id=_group(number, count),
            enrolled=shots[:faces],
            probes=shots[faces:],
        )


def drawn_strangers() -> list[Participant]:
    """Draw two people who are not enrolled."""
    from face_async.portraits import draw_portrait  # noqa: PLC0415 - slow to import: numpy and pillow

    return [
        Participant(f"stranger-{place}", f"stranger {place}", "", (), (draw_portrait(drawn),), is_stranger=True)
        for place, drawn in enumerate(_STRANGERS, 1)
    ]


def _drawn_as(number: int) -> int:
    """Return the number of the drawn person whom a name suits: women have even numbers, men odd ones."""
    turn, place = divmod(number, len(_NAMES))
    is_man = _NAMES[place] in _MEN
    before = sum((name in _MEN) == is_man for name in _NAMES[:place])
    drawn = 2 * (turn * (len(_MEN) if is_man else len(_NAMES) - len(_MEN)) + before) + is_man
    return drawn if drawn < _STRANGERS[0] else drawn + len(_STRANGERS)


def photographed_people(folder: Path, passed_over: PassedOver | None = None) -> list[Participant]:
    """Return the people whose names are the sub-folders' and whose pictures lie in them.

    Pictures called ``probe…`` are probes; without any, the last one by name is. A person's only picture is enrolled. A
    sub-folder without pictures is a person without pictures. ``passed_over`` counts the files that are no pictures.

    Raises:
        ValueError: No sub-folder has a picture.
        OSError: The folder cannot be read.
    """
    counts = PassedOver() if passed_over is None else passed_over
    folders = [folder / name for name in names_in(folder, counts.count_litter) if (folder / name).is_dir()]
    people: list[Participant] = []
    taken: set[str] = set()
    for number, home in enumerate(folders):
        enrolled, probes = _split(list(_pictures(home, counts)))
        person_id = _safe_id(home.name, number, taken)
        taken.add(person_id)
        # A name that is no UTF-8 can be on a disk, but not in a request.
        name = home.name.encode(errors="replace").decode()
        group_id = _group(number, len(folders))
        sendable = [tuple(map(_sendable, part)) for part in (enrolled, probes)]
        people.append(Participant(person_id, name, group_id, sendable[0], sendable[1]))
    if not any(person.enrolled for person in people):
        raise ValueError(
            f"{folder} has no sub-folders with pictures ({KINDS}) in them: make one a person, with the person's name"
        )
    return people


def _group(number: int, count: int) -> str:
    return GROUPS[number * len(GROUPS) // count]


def _pictures(home: Path, counts: PassedOver) -> Iterator[Path]:
    for name in names_in(home, counts.count_litter):
        path = home / name
        if path.is_file() and is_picture(path):
            yield path
        elif path.is_file():
            counts.count_other(str(path))


def _split(pictures: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the pictures to enroll and the probes."""
    probes = tuple(path for path in pictures if path.stem.lower().startswith("probe"))
    if not probes and len(pictures) > 1:
        probes = (pictures[-1],)
    return tuple(path for path in pictures if path not in probes), probes


def _sendable(path: Path) -> PictureSource:
    """Return the picture as it is, or smaller when it is too large for a request, as a camera's own are."""
    try:
        return path if path.stat().st_size <= FITTING_BYTES else fit_image(path, max_bytes=FITTING_BYTES)
    except LimitError:
        return path  # enrolling it will fail, and say why


def _safe_id(name: str, number: int, taken: set[str]) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    safe = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:_LONGEST_ID]
    return safe if safe and safe not in taken else f"{safe or 'person'}-{number + 1}"
