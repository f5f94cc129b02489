"""A picture made smaller in bytes: upright, in RGB, as JPEG. The one file of the client that imports Pillow."""

from __future__ import annotations

import io
import math

from face_async.errors import ImageRefusedError, RequestTooLargeError

try:
    from PIL import Image, ImageOps
except ImportError:
    raise ImportError("making pictures fit needs the extra 'server': pip install 'face_async[server]'") from None

MAX_PIXELS = 80_000_000
"""The largest picture that is decoded: 240 MB in memory. A file of 100 KB can claim to be a thousand times as large."""

_MAX_SIDE = 65_500  # pixels; no JPEG can be wider or higher
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_LEAST_QUALITY = 75  # below, blocks begin to show; losing pixels is the smaller evil
_BETTER_QUALITIES = (90, 82)  # the best first
_MAX_PROFILE_BYTES = 4_096  # of colors: those of cameras and screens have some hundred bytes, printers' far more


def recompress(content: bytes, max_bytes: int, *, min_side: int, label: str) -> bytes:
    """Return the picture as a JPEG of at most ``max_bytes``: as many pixels as possible, then as good as possible.

    Raises:
        ImageRefusedError: It cannot be decoded, or is too large to be.
        RequestTooLargeError: It does not fit with ``min_side`` pixels each way.
    """
    picture, profile = _decode(content, label)
    smaller = picture
    fitted = _jpeg(smaller, _LEAST_QUALITY, profile)
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
        fitted = _jpeg(smaller, _LEAST_QUALITY, profile)
    better = (_jpeg(smaller, quality, profile) for quality in _BETTER_QUALITIES)
    return next((content for content in better if len(content) <= max_bytes), fitted)


def _decode(content: bytes, label: str) -> tuple[Image.Image, bytes | None]:
    """Return the picture upright in RGB, and the profile of its colors if it is worth keeping."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height <= MAX_PIXELS and max(image.size) <= _MAX_SIDE:
                profile: bytes | None = image.info.get("icc_profile") if image.mode in {"RGB", "RGBA"} else None
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                upright = _in_rgb(image)
                upright.info = {}  # of which saving would write comments and XMP
                return upright, profile if profile and len(profile) <= _MAX_PROFILE_BYTES else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass  # Pillow's own limits are beyond ours
    except Exception as error:
        # Decoders raise whatever damaged bytes lead them to: OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageRefusedError(f"{label} cannot be decoded; it may be damaged") from error
    raise ImageRefusedError(f"{label} has more than {MAX_PIXELS:,} pixels, or a side of more than {_MAX_SIDE:,}")


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        # What lies under transparency is anything at all, so it is covered rather than uncovered.
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        return paper
    if image.mode.startswith("I"):
        # 16 bits a pixel; converting alone would turn all but the darkest white.
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _jpeg(image: Image.Image, quality: int, profile: bytes | None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, icc_profile=profile)
    return buffer.getvalue()
