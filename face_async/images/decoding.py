"""The one decoder: bytes come in, an upright picture in sRGB goes out. Needs Pillow, so it is imported when needed.

Only the decoder that the first bytes name is ever asked, whatever else Pillow could read.
"""

from __future__ import annotations

import ctypes
import io
import math
import threading
import traceback
from collections import deque
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from attrs import frozen
from PIL import Image, ImageChops
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from face_async.images.colors import in_srgb
from face_async.images.containers import Container, Format, open_container, webp_size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from PIL.ImageFile import ImageFile

MAX_PIXELS = 80_000_000
"""The most pixels of a picture that is decoded: a file of 100 KB can claim to have a thousand times as many."""

MAX_BYTES = 224_000_000
"""The most memory that a decoder may need for a picture; and for all pictures that are decoded at once, with their
copies. That is 56 megapixels in color, 14 of a WebP, and all of :data:`MAX_PIXELS` for most JPEG files and in gray."""

MAX_SIDE = 1_000_000
"""The most pixels of a picture's longer side: each row takes up to 36 bytes beside its pixels."""

MAX_STEPS = 1_000_000_000
"""The most work that decoding a picture takes beside its pixels (:attr:`Container.steps`), which is about 2 seconds: a
JPEG can have a scan over all of its pixels in ten bytes, a PNG a thousand bytes of rows in one."""

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
_BAND_PIXELS = 1_000_000  # that are made flat and smaller at a time, as the copies of a whole picture take memory
_TRIMMED_BYTES = 32_000_000  # after which freed memory is given back to the system
_ROW_BYTES = 36
_COPY_BYTES = 8  # that scaling takes for a pixel of the result
_WEBP_BYTES = 16  # that its decoder takes for a pixel
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # that Pillow takes for a pixel; 4 in all other modes


class NoPictureError(ValueError):
    """These bytes are no JPEG, PNG, BMP or WebP."""


class UndecodableError(ValueError):
    """The picture is damaged, or takes too much to decode."""


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
            :data:`MAX_PIXELS`, :data:`MAX_BYTES`, :data:`MAX_SIDE` or :data:`MAX_STEPS`.
    """
    with decoded(content, longest_side=longest_side, area=area) as picture:
        return picture


@contextmanager
def decoded(content: bytes, *, longest_side: int | None = None, area: int | None = None) -> Generator[DecodedPicture]:
    """Hold a picture as :func:`decode` returns it, and the memory for it: for work at full size."""
    container = _taken_apart(content)
    with _translated_errors():
        # A WebP takes its memory when it is opened.
        image = None if container.kind is Format.WEBP else _opened(container)
        size = _webp_size(container) if image is None else image.size
        _check_size(size)
        if container.steps > MAX_STEPS:
            raise UndecodableError(f"decoding it takes more than {MAX_STEPS:,} steps")
        side = _side(size, longest_side, area)
        if image is not None:
            image.draft("RGB", (side, side))  # JPEG decodes straight to about the size that is needed
        memory = _decoder_memory(container, size if image is None else image.size, image)
        _check_memory(memory)
    with _room.held(memory + _COPY_BYTES * min(side * side, math.prod(size))):
        try:
            with _translated_errors():
                upright = _upright(image or _opened(container), container, side)
        finally:
            image = None  # which an error would keep, by its traceback
        yield DecodedPicture(upright, *_turned(size, container))


def upright_size(content: bytes) -> tuple[int, int]:
    """Return the width and height that :func:`decode` would return, in pixels, without decoding the picture.

    Raises:
        NoPictureError: It is of no format that is decoded.
        UndecodableError: Its header is damaged, or it has more pixels than are decoded.
    """
    container = _taken_apart(content)
    with _translated_errors():
        size = _webp_size(container) if container.kind is Format.WEBP else _opened(container).size
        _check_size(size)
    return _turned(size, container)


class _Room:
    """Memory for pictures: as much as they need together, and at least one; they take it in the order of asking."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._changed = size, 0, threading.Condition()
        self._asking: deque[object] = deque()

    @contextmanager
    def held(self, size: int) -> Generator[None]:
        me = object()
        with self._changed:
            self._asking.append(me)
            try:
                self._changed.wait_for(
                    lambda: self._asking[0] is me and (not self._taken or self._taken + size <= self._size)
                )
                self._taken += size
            finally:
                self._asking.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            if size > _TRIMMED_BYTES:
                _malloc_trim()(0)
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


_room = _Room(MAX_BYTES)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], object]:
    """Return what gives freed memory back to the system, of which glibc keeps much for each thread."""
    try:
        return cast("Callable[[int], object]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):  # another C library
        return lambda _: None


@contextmanager
def _translated_errors() -> Generator[None]:
    try:
        yield
    except (UndecodableError, MemoryError) as error:
        traceback.clear_frames(error.__traceback__)
        raise  # a lack of memory says nothing about the picture
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold pictures, for as long as somebody has the error
        # Decoders raise whatever hostile bytes lead them to: OSError, SyntaxError, ValueError, struct.error, ...
        raise UndecodableError("it cannot be decoded; it may be damaged") from error


def _taken_apart(content: bytes) -> Container:
    container = open_container(content)
    if container is None:
        raise NoPictureError("it is no JPEG, PNG, BMP or WebP picture")
    return container


def _turned(size: tuple[int, int], container: Container) -> tuple[int, int]:
    width, height = size
    return (height, width) if container.orientation in _SIDEWAYS else (width, height)


def _opened(container: Container) -> ImageFile:
    return _PLUGINS[container.kind](io.BytesIO(container.content + bytes(container.missing)))


def _webp_size(container: Container) -> tuple[int, int]:
    if container.missing > _LAST_BYTES * len(container.content):
        raise UndecodableError("it cannot be decoded; its end is missing")
    return webp_size(container.content)


def _check_size(size: tuple[int, int]) -> None:
    if math.prod(size) > MAX_PIXELS:
        raise UndecodableError(f"it has more than {MAX_PIXELS:,} pixels")
    if max(size) > MAX_SIDE:
        raise UndecodableError(f"it is more than {MAX_SIDE:,} pixels long")


def _decoder_memory(container: Container, size: tuple[int, int], image: ImageFile | None) -> int:
    each = _WEBP_BYTES if image is None else _BYTES.get(image.mode, 4)
    return each * math.prod(size) + _ROW_BYTES * size[1] + container.coefficient_bytes


def _check_memory(memory: int) -> None:
    if memory > MAX_BYTES:
        raise UndecodableError(f"decoding it takes more than {MAX_BYTES:,} bytes of memory")


def _side(size: tuple[int, int], longest_side: int | None, area: int | None) -> int:
    width, height = size
    side = max(size) if longest_side is None else min(longest_side, max(size))
    if area is not None and width * height > area:
        side = min(side, round(max(size) * (area / (width * height)) ** 0.5))
    return max(side, 1)


def _upright(image: ImageFile, container: Container, side: int) -> Image.Image:
    _load(image, container)
    small = _scaled(image, side)
    if container.orientation in _TURNS:
        small = small.transpose(_TURNS[container.orientation])
    upright = in_srgb(small, container.profile)
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
    if may_lack_rows and _missing_rows(image, container.kind) > LAST_ROWS * image.height:
        raise UndecodableError("it cannot be decoded; its end is missing")


def _missing_rows(image: Image.Image, kind: Format) -> int:
    """Return how many rows are of one color where a file that breaks off would leave them so."""
    upwards = kind is not Format.BMP  # which begins with the last row
    last = image.height - 1 if upwards else 0
    color = image.crop((0, last, 1, last + 1)).convert("RGB").getpixel((0, 0))
    missing = 0
    for top, bottom in reversed(_bands(image)) if upwards else _bands(image):
        band = image.crop((0, top, image.width, bottom)).convert("RGB")
        box = ImageChops.difference(band, Image.new("RGB", band.size, color)).getbbox()
        if box is not None:
            return missing + (band.height - box[3] if upwards else box[1])
        missing += band.height
    return missing


def _bands(image: Image.Image, multiple: int = 1) -> list[tuple[int, int]]:
    """Return where bands of rows begin and end, that have few pixels and a multiple of rows."""
    rows = max(1, _BAND_PIXELS // (image.width * multiple)) * multiple
    return [(top, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _scaled(image: Image.Image, side: int) -> Image.Image:
    """Return a picture without transparency, at most ``side`` pixels each way.

    Made band by band, as a copy of all of a large picture takes several times its memory. The result is the same: first
    means of some pixels, then columns, then rows.
    """
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    if (width, height) == image.size and _is_flat(image):
        return image
    means = max(1, int(image.width / width / 2)), max(1, int(image.height / height / 2))
    means = means[0], min(means[1], max(1, _BAND_PIXELS // image.width))
    mode = _flat(image.crop((0, 0, 1, 1))).mode
    narrow = Image.new(mode, (width, math.ceil(image.height / means[1])))
    for top, bottom in _bands(image, means[1]):
        band = _flat(image.crop((0, top, image.width, bottom))).reduce(means)
        box = (0, 0, image.width / means[0], band.height)
        narrow.paste(band.resize((width, band.height), Image.Resampling.BICUBIC, box), (0, top // means[1]))
    return narrow.resize((width, height), Image.Resampling.BICUBIC, (0, 0, width, image.height / means[1]))


def _is_flat(image: Image.Image) -> bool:
    return image.mode in {"L", "RGB", "CMYK"} and not image.has_transparency_data


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
    return image if _is_flat(image) else image.convert("RGB")
