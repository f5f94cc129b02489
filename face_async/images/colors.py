"""Colors of an ICC profile brought to sRGB. Needs Pillow, so it is imported when needed.

The library that does it, Little CMS, is given the parts of a profile that say what the picture's own numbers mean, and
nothing more: no profile can make it work for long, or take much memory, before the first pixel.
"""

from __future__ import annotations

import io
import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Callable

_BAND_ROWS = 128  # whose colors are converted at a time, as other threads have to wait meanwhile
_HEAD_BYTES = 128
_MOST_TAGS = 100  # that Little CMS reads
_TAGS = {b"desc", b"A2B0", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"}
_TYPES = {b"desc", b"mluc", b"XYZ ", b"curv", b"para", b"mft1", b"mft2", b"mAB "}
"""The types of data whose work is bounded by what they are. One that is not among them, ``mpet``, lists steps without
end, which :data:`_TAGS` leaves out with the tags for other directions and purposes: printers' are 2 MB with them."""
_TABLES = {b"mft1": (48, 1), b"mft2": (52, 2)}  # where their numbers begin, and the bytes of one


def in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture in gray, RGB or CMYK as RGB, with the colors that a profile gives it; b"" is none.

    A damaged profile is none, nor is one that works in another way than those of cameras, screens, scanners and
    presses.
    """
    needed = b"" if image.mode == "L" else _needed(profile)
    transform = _transform(needed, image.mode) if needed else None
    if transform is None:
        return image.convert("RGB")
    colored = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height)))
        colored.paste(transform.apply(band), (0, top))
    return colored


def _needed(profile: bytes) -> bytes:
    """Return a profile with the tags that are needed alone (ICC.1, 7), b"" for none."""
    found = dict[bytes, bytes]()
    try:
        (count,) = struct.unpack_from(">I", profile, _HEAD_BYTES)
        for index in range(min(count, _MOST_TAGS)):
            name, at, size = struct.unpack_from(">4sII", profile, _HEAD_BYTES + 4 + 12 * index)
            data = profile[at : at + size]
            if name in _TAGS and data[:4] in _TYPES and _has_its_table(data):
                found[name] = data
    except (struct.error, IndexError):
        return b""  # it breaks off
    places, at = dict[bytes, int](), _HEAD_BYTES + 4 + 12 * len(found)
    for data in found.values():  # tags may share their data
        if data not in places:
            places[data] = at
            at += -(-len(data) // 4) * 4
    if at > len(profile) + _HEAD_BYTES:
        return b""  # they overlap
    table = b"".join(struct.pack(">4sII", name, places[data], len(data)) for name, data in found.items())
    body = b"".join(data.ljust(-(-len(data) // 4) * 4, b"\0") for data in places)
    return struct.pack(">I", at) + profile[4:_HEAD_BYTES] + struct.pack(">I", len(found)) + table + body


def _has_its_table(data: bytes) -> bool:
    """Return whether the colors are there that a table claims to have, for which memory is taken first."""
    kind, colors, results = data[:4], data[8], data[9]
    if kind in _TABLES:
        begin, each = _TABLES[kind]
        points = [data[10]] * colors
    elif kind == b"mAB ":
        (clut,) = struct.unpack_from(">I", data, 24)
        if not clut:
            return True
        points, each, begin = [*data[clut : clut + colors]], data[clut + 16], clut + 20
    else:
        return True
    return begin + math.prod(points) * results * each <= len(data)


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
