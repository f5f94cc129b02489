"""A picture made smaller in bytes: upright, in sRGB, as JPEG. Needs Pillow, so it is imported when needed."""

from __future__ import annotations

import io
import math

from face_async.errors import ImageRefusedError, RequestTooLargeError

try:
    from PIL import Image

    from face_async.images.decoding import NoPictureError, UndecodableError, decoded
except ImportError:
    raise ImportError("making pictures fit needs the extra 'server': pip install 'face_async[server]'") from None

_MAX_SIDE = 65_500  # pixels; no JPEG can be wider or higher
_LEAST_QUALITY = 75  # below, blocks begin to show; losing pixels is the smaller evil
_BETTER_QUALITIES = (90, 82)  # the best first


def recompress(content: bytes, max_bytes: int, *, min_side: int, label: str) -> bytes:
    """Return the picture as a JPEG of at most ``max_bytes``: as many pixels as possible, then as good as possible.

    Raises:
        ImageRefusedError: It cannot be decoded, or is too large to be.
        RequestTooLargeError: It does not fit with ``min_side`` pixels each way.
    """
    try:
        with decoded(content) as picture:
            if max(picture.image.size) > _MAX_SIDE:
                raise ImageRefusedError(f"{label} has a side of more than {_MAX_SIDE:,} pixels")
            return _fitted(picture.image, max_bytes, min_side, label)
    except (NoPictureError, UndecodableError) as error:
        raise ImageRefusedError(f"{label} is refused: {error}") from error


def _fitted(picture: Image.Image, max_bytes: int, min_side: int, label: str) -> bytes:
    smaller = picture
    fitted = _jpeg(smaller, _LEAST_QUALITY)
    while len(fitted) > max_bytes:
        # Bytes follow pixels nearly, so that one or two rounds find about the largest size that fits.
        scale = 0.98 * math.sqrt(max_bytes / len(fitted))
        width, height = int(smaller.width * scale), int(smaller.height * scale)
        if min(width, height) < min_side:
            raise RequestTooLargeError(
                f"{label} does not fit into {max_bytes:,} bytes unless it becomes smaller than {min_side} pixels "
                "in width or height; crop it to the face"
            )
        smaller = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        fitted = _jpeg(smaller, _LEAST_QUALITY)
    better = (_jpeg(smaller, quality) for quality in _BETTER_QUALITIES)
    return next((content for content in better if len(content) <= max_bytes), fitted)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
