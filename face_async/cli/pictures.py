"""Pictures that commands show and send: in folders, as smaller copies, and the faces in them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from face_async.images.folders import PassedOver, is_picture, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from face_async.server import Recognizer

PictureSource: TypeAlias = bytes | Path


def pictures_below(folder: Path, passed_over: PassedOver | None = None) -> Iterator[Path]:
    """Yield all pictures in a folder and its sub-folders, sorted by name, those of a folder before its sub-folders'.

    What a picture is, is told by its first bytes; ``passed_over`` counts the rest. What is hidden or litter is left
    out, and links to folders are not followed. Memory holds the names of one folder and of its parents.

    Raises:
        OSError: A folder cannot be read.
    """
    counts = PassedOver() if passed_over is None else passed_over
    homes: list[Path] = []
    for name in names_in(folder, counts.count_litter):
        path = folder / name
        if path.is_dir():
            homes += [] if path.is_symlink() else [path]
        elif is_picture(path):
            yield path
        else:
            counts.count_other(str(path))
    for home in homes:
        yield from pictures_below(home, counts)


@frozen
class Copy:
    """A smaller copy of a picture, and the size of the upright original in pixels."""

    jpeg: bytes = field(repr=False)
    width: int
    height: int


def smaller_copy(picture: PictureSource | None, longest_side: int) -> Copy | None:
    """Return an upright JPEG of at most ``longest_side`` pixels either way, None without a picture that can be read.

    The copy has none of the data that cameras add to a picture: place, time and model.
    """
    if picture is None:
        return None
    from face_async.images.decoding import NoPictureError, UndecodableError, decode  # noqa: PLC0415 - slow to import

    try:
        content = picture.read_bytes() if isinstance(picture, Path) else picture
        decoded = decode(content, longest_side=longest_side)
    except (OSError, NoPictureError, UndecodableError):
        return None
    jpeg = io.BytesIO()
    decoded.image.save(jpeg, "JPEG", quality=85)
    return Copy(jpeg.getvalue(), decoded.width, decoded.height)


@frozen
class Box:
    """The place of a face, in pixels of the upright picture."""

    x: float
    y: float
    width: float
    height: float


class FaceBoxes:
    """Finds faces on this machine, as the service does not say where in the picture a face is.

    It needs the extra ``recognition``, and finds none without it.
    """

    def __init__(self) -> None:
        self._recognizer: Recognizer | None = None
        with contextlib.suppress(ImportError):
            from face_async.server import recognizer  # noqa: PLC0415 - slow to import

            self._recognizer = recognizer("faces")

    @property
    def name(self) -> str:
        """The name of the recognizer that finds them, "" without one."""
        return "" if self._recognizer is None else self._recognizer.name

    def find(self, picture: Path) -> Box | None:
        """Return the place of the largest face, None when none is found. It blocks."""
        if self._recognizer is None:
            return None
        from face_async.server.refusal import Refusal  # noqa: PLC0415 - as above

        try:
            face = self._recognizer.find_face(picture.read_bytes())
        except (Refusal, OSError):
            return None
        return Box(face.x, face.y, face.width, face.height)

    def close(self) -> None:
        """Close the recognizer."""
        if self._recognizer is not None:
            self._recognizer.close()
