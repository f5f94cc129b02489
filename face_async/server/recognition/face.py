"""What recognizers share: a picture comes in, a face goes out, and faces have distances."""

from __future__ import annotations

import io
import re

import numpy as np
import numpy.typing as npt
from attrs import field, frozen
from PIL import Image, ImageOps

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal

MAX_PIXELS = 50_000_000
"""The largest picture that is decoded; 1.5 MB of PNG can claim to be a thousand times as large."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_SIGNATURES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|BM|RIFF.{4}WEBP", re.DOTALL)


@frozen
class Face:
    """A face as a recognizer sees it. What it cannot measure has the neutral value, and is never made up.

    Attributes:
        x: Left edge of the face's box, in pixels of the picture as sent, after any EXIF rotation.
        y: Upper edge of the box, in pixels.
        width: Width of the box, in pixels; the box lies inside the picture.
        height: Height of the box, in pixels.
        gender: 0 (female) to 100 (male); neutral: 50.
        age: 0 to 100; neutral: 0.
        expression: 0 (normal), 50 (smile) to 100 (laugh); neutral: 0.
        glass: Whether the face wears glasses; neutral: False.
        pitch: Turn up or down, -30 to 30 degrees; neutral: 0.
        yaw: Turn of the nose to the picture's left (below 0) or right, -30 to 30 degrees; neutral: 0.
        roll: Turn in the picture's plane, clockwise above 0, -180 to 180 degrees; neutral: 0.
        embedding: One row of numbers; only embeddings of the same recognizer can be compared.
    """

    x: int
    y: int
    width: float
    height: float
    gender: int = field(default=50, kw_only=True)
    age: int = field(default=0, kw_only=True)
    expression: int = field(default=0, kw_only=True)
    glass: bool = field(default=False, kw_only=True)
    pitch: int = field(default=0, kw_only=True)
    yaw: int = field(default=0, kw_only=True)
    roll: int = field(default=0, kw_only=True)
    embedding: npt.NDArray[np.float32] = field(eq=False, repr=False, kw_only=True)


@frozen
class Picture:
    """A decoded picture.

    Attributes:
        image: The upright picture in RGB, scaled down to be looked at.
        width: Width of the upright picture before it was scaled down, in pixels.
        height: Height of it, in pixels.
    """

    image: Image.Image
    width: int
    height: int


def decode(content: bytes, *, longest_side: int) -> Picture:
    """Return the picture upright, in RGB, and no larger than ``longest_side`` pixels either way.

    Raises:
        Refusal: -1300 for no bytes at all, -1400 for anything but JPEG, PNG, BMP and WebP, -1102 for a picture
            that is damaged, incomplete, or larger than :data:`MAX_PIXELS`.
    """
    if not content:
        raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
    if not _SIGNATURES.match(content):
        raise Refusal(ReturnCode.ERROR_IMAGE_FORMAT_INVALID)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return _load(image, longest_side)
    except MemoryError:
        raise  # that says nothing about the picture
    except Exception as error:
        # Decoders raise whatever hostile bytes lead them to: OSError, SyntaxError, ValueError, struct.error, ...
        raise Refusal(ReturnCode.SDK_IMAGE_DECODE_FAILED) from error


def _load(image: Image.Image, longest_side: int) -> Picture:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError("too many pixels to decode")
    image.draft("RGB", (longest_side, longest_side))  # JPEG decodes straight to about the size that is needed
    upright = ImageOps.exif_transpose(image).convert("RGB")
    if (upright.width < upright.height) != (width < height):
        width, height = height, width
    upright.thumbnail((longest_side, longest_side), reducing_gap=2.0)
    return Picture(upright, width, height)


def distances(probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the Euclidean distance of each row of ``gallery`` to ``probe``."""
    difference = gallery - probe
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return np.sqrt(squares)
