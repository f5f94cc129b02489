"""Pictures that commands show and send: where they lie, smaller copies of them, and where the face is in them."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from face_async.server import Recognizer

PictureSource: TypeAlias = bytes | Path

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
KINDS = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
"""What counts as a picture in a folder, to be said to users."""


def is_picture(name: str) -> bool:
    """Return whether a file's name says that it is a picture."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES and not name.startswith(".")  # noqa: PTH122 - a name, no path


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield all pictures in a folder and its sub-folders, sorted by name, those of a folder before its sub-folders'.

    What is hidden is passed over, and links to folders are not followed. No more than one folder's names are in
    memory.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for home, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(home, name) for name in sorted(filter(is_picture, names)))


@frozen
class Copy:
    """A smaller copy of a picture.

    Attributes:
        jpeg: The copy.
        width: Width of the upright original, in pixels.
        height: Height of it, in pixels.
    """

    jpeg: bytes = field(repr=False)
    width: int
    height: int


def smaller_copy(picture: PictureSource, longest_side: int) -> Copy | None:
    """Return an upright JPEG of at most ``longest_side`` pixels either way, None when the picture cannot be read.

    The copy leaves behind what cameras write beside the picture: where, when and with what it was taken.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - slow to import, and few commands need it

    try:
        with Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture)) as original:
            width, height = original.size
            original.draft("RGB", (longest_side, longest_side))  # JPEG decodes straight to about the size needed
            copy = ImageOps.exif_transpose(original).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if (copy.width < copy.height) != (width < height):
        width, height = height, width
    copy.thumbnail((longest_side, longest_side))
    jpeg = io.BytesIO()
    copy.save(jpeg, "JPEG", quality=85)
    return Copy(jpeg.getvalue(), width, height)


@frozen
class Box:
    """Where a face is, in pixels of the upright picture."""

    x: float
    y: float
    width: float
    height: float


class FaceBoxes:
    """Finds faces with this machine's own eyes, as no answer of the service says where it saw one.

    That needs dlib; without it, nothing is found.
    """

    def __init__(self) -> None:
        self._eyes: Recognizer | None = None
        with contextlib.suppress(ImportError):
            from face_async.server import recognizer  # noqa: PLC0415 - slow to import

            self._eyes = recognizer("dlib")

    @property
    def name(self) -> str:
        """Who finds them, "" for nobody."""
        return "" if self._eyes is None else self._eyes.name

    def find(self, picture: Path) -> Box | None:
        """Return where the largest face is, None when that is not known. It blocks."""
        if self._eyes is None:
            return None
        from face_async.server.refusal import Refusal  # noqa: PLC0415 - as above

        try:
            face = self._eyes.find_face(picture.read_bytes())
        except (Refusal, OSError):
            return None
        return Box(face.x, face.y, face.width, face.height)

    def close(self) -> None:
        """Give back what is held."""
        if self._eyes is not None:
            self._eyes.close()
