"""The one decoder: bytes come in, an upright picture in sRGB goes out. Needs Pillow, so it is imported when needed.

Only the decoder that the first bytes name is ever asked, whatever else Pillow could read.
"""

from __future__ import annotations

import io
import math
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attrs import frozen
from PIL import Image, ImageChops, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from face_async.images.containers import Container, Format, open_container, webp_size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from PIL.ImageFile import ImageFile

MAX_PIXELS = 80_000_000
"""The most pixels of a picture that is decoded, and of all pictures that are decoded at once: up to 560 MB in memory.
A file of 100 KB can claim to have a thousand times as many."""

MAX_WEBP_PIXELS = 20_000_000
"""The same of a WebP: its decoder takes 16 bytes a pixel, so that these are 320 MB."""

MAX_SIDE = 1_000_000
"""The same of a picture's longer side: each row takes up to 36 bytes beside its pixels."""

LAST_ROWS = 0.1
"""Which part of a picture's rows may be missing at its end, where its file breaks off."""

_LAST_BYTES = 0.05  # the same of a WebP, whose rows are not told apart
_PLUGINS: dict[Format, Callable[[io.BytesIO], ImageFile]] = {
    Format.JPEG: JpegImageFile,
    Format.PNG: PngImageFile,
    Format.BMP: BmpImageFile,
    Format.WEBP: WebPImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = range(5, 9)
_BAND_ROWS = 128  # whose colors are converted at a time, as other threads have to wait meanwhile


class NoPictureError(ValueError):
    """These bytes are no JPEG, PNG, BMP or WebP."""


class UndecodableError(ValueError):
    """The picture is damaged, or has too many pixels."""


@frozen
class DecodedPicture:
    """A decoded picture.

    Attributes:
        image: The upright picture in sRGB, scaled down as asked for.
        width: Width of the upright picture before it was scaled down, in pixels.
        height: Height of it, in pixels.
    """

    image: Image.Image
    width: int
    height: int


def decode(content: bytes, *, longest_side: int | None = None, area: int | None = None) -> DecodedPicture:
    """Return a picture, upright and in sRGB; transparency becomes white.

    It blocks, also while others decode as much as memory is meant for: call it in a worker thread.

    Args:
        content: A JPEG, PNG, BMP or WebP file.
        longest_side: Scale the picture down to at most so many pixels each way.
        area: Scale it down to about so many pixels in all, so that a long picture keeps more of its short side.

    Raises:
        NoPictureError: It is of no such format.
        UndecodableError: It is damaged, more than :data:`LAST_ROWS` of it are missing, or it is larger than
            :data:`MAX_PIXELS`, :data:`MAX_WEBP_PIXELS` or :data:`MAX_SIDE`.
    """
    with decoded(content, longest_side=longest_side, area=area) as picture:
        return picture


@contextmanager
def decoded(content: bytes, *, longest_side: int | None = None, area: int | None = None) -> Generator[DecodedPicture]:
    """Hold a picture as :func:`decode` returns it, and the memory for it: for work at full size."""
    container = open_container(content)
    if container is None:
        raise NoPictureError("it is no JPEG, PNG, BMP or WebP picture")
    with _translated_errors():
        image = _opened(container)
        size = image.size
        side = _side(size, longest_side, area)
        image.draft("RGB", (side, side))  # JPEG decodes straight to about the size that is needed
    with _room.held(image.width * image.height):
        with _translated_errors():
            upright = _upright(image, container, side)
        width, height = reversed(size) if container.orientation in _SIDEWAYS else size
        yield DecodedPicture(upright, width, height)


class _Room:
    """Memory for pictures: as much as they need together, and at least one."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._taken, self._changed = pixels, 0, threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Generator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _Room(MAX_PIXELS)


@contextmanager
def _translated_errors() -> Generator[None]:
    try:
        yield
    except (UndecodableError, MemoryError):
        raise  # a lack of memory says nothing about the picture
    except Exception as error:
        # Decoders raise whatever hostile bytes lead them to: OSError, SyntaxError, ValueError, struct.error, ...
        raise UndecodableError("it cannot be decoded; it may be damaged") from error


def _opened(container: Container) -> ImageFile:
    content = container.content
    if container.kind is Format.WEBP:
        if container.missing > _LAST_BYTES * len(content):
            raise UndecodableError("it cannot be decoded; its end is missing")
        content += bytes(container.missing)
        _check_size(webp_size(content), MAX_WEBP_PIXELS)  # before it is opened, which takes memory for its pixels
    image = _PLUGINS[container.kind](io.BytesIO(content))
    _check_size(image.size, MAX_PIXELS)
    return image


def _check_size(size: tuple[int, int], most: int) -> None:
    if math.prod(size) > most:
        raise UndecodableError(f"it has more than {most:,} pixels")
    if max(size) > MAX_SIDE:
        raise UndecodableError(f"it is more than {MAX_SIDE:,} pixels long")


def _side(size: tuple[int, int], longest_side: int | None, area: int | None) -> int:
    width, height = size
    side = max(size) if longest_side is None else min(longest_side, max(size))
    if area is not None and width * height > area:
        side = min(side, round(max(size) * (area / (width * height)) ** 0.5))
    return max(side, 1)


def _upright(image: ImageFile, container: Container, side: int) -> Image.Image:
    _load(image, container)
    flat = _flat(image)
    if container.orientation in _TURNS:
        flat = flat.transpose(_TURNS[container.orientation])
    flat.thumbnail((side, side), reducing_gap=2.0)
    upright = _in_srgb(flat, container.profile)
    upright.info = {}  # of which saving would write comments and profiles
    return upright


def _load(image: ImageFile, container: Container) -> None:
    may_lack_rows = container.broken_off and container.kind is Format.JPEG  # which fills them with gray by itself
    try:
        image.load()
    except OSError:
        if not container.broken_off:
            raise
        image.tile = []  # the rows that are there stay, and nothing more is expected
        may_lack_rows = True
    if may_lack_rows and _missing_rows(image.convert("RGB"), container.kind) > LAST_ROWS * image.height:
        raise UndecodableError("it cannot be decoded; its end is missing")


def _missing_rows(image: Image.Image, kind: Format) -> int:
    """Return how many rows are of one color where a file that breaks off would leave them so."""

    def outside_of(row: int) -> tuple[int, int]:
        plain = Image.new(image.mode, image.size, image.getpixel((0, row)))
        box = ImageChops.difference(image, plain).getbbox()
        return (image.height, 0) if box is None else (box[1], box[3])

    last = image.height - 1
    return outside_of(0)[0] if kind is Format.BMP else image.height - outside_of(last)[1]


def _flat(image: Image.Image) -> Image.Image:
    """Return a picture of eight bits a color that can be scaled: gray, RGB or CMYK, on white."""
    if image.mode.startswith("I"):
        # 16 bits a pixel; converting alone would turn all but the darkest white.
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        # What lies under transparency is anything at all, so it is covered rather than uncovered.
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        return paper
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, image.mode) if profile and image.mode != "L" else None
    if transform is None:
        return image.convert("RGB")
    colored = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height)))
        colored.paste(transform.apply(band), (0, top))
    return colored


@lru_cache(maxsize=8)  # cameras of one make have one profile, and making this takes longer than using it
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what brings colors of a profile to sRGB, None for those that are there, and for a damaged profile."""
    make: Callable[[str], Any] = getattr(ImageCms, "createProfile")  # noqa: B009 - its annotation is half a one
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        target = ImageCms.ImageCmsProfile(make("sRGB"))
        return ImageCms.ImageCmsTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
