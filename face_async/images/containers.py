"""What a picture's file holds beside its pixels, read here and by nobody else.

A decoder is given the parts that pixels need and nothing more. Whatever a camera or an editor wrote wrong elsewhere
then never matters, and formats that hide behind a well-known one have no one to read them.
"""

from __future__ import annotations

import enum
import re
import struct
import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MAX_PROFILE_BYTES = 4 * 1024 * 1024  # of colors, unpacked; those of printers have up to 2 MB

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff([^\x00\xff])")  # a decoder goes on to the next one, whatever is in between
_START_OF_SCAN = 0xDA
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # which says the size
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_BLOCK_NUMBERS = 64
_BLOCK_BYTES = 2 * _BLOCK_NUMBERS  # in memory
_BLOCK_STEPS = 8  # that going to a block takes, beside one for each of its numbers
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers that nothing belongs to
_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # comments and applications but JFIF and Adobe, which explain colors
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"

_PNG_NEEDED = {b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # beside the header
_PNG_COLORS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # numbers of a pixel, by what the header calls the type of its color
_PNG_BYTE_STEPS = 4  # that unpacking a byte and adding its neighbors takes

_BMP_SIZES = {12: "<HH", **dict.fromkeys((40, 52, 56, 64, 108, 124), "<ii")}  # by how many bytes the header has

_WEBP_SIDE = 0x3FFF  # pixels at most, and the bits that hold them

_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # what EXIF calls byte, short and long


class Format(enum.StrEnum):
    """The formats that are read, by Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    BMP = "BMP"
    WEBP = "WEBP"


_SIGNATURES = {
    Format.JPEG: re.compile(rb"\xff\xd8\xff"),
    Format.PNG: re.compile(rb"\x89PNG\r\n\x1a\n"),
    Format.BMP: re.compile(rb"BM"),
    Format.WEBP: re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}


@frozen
class Container:
    """A picture's file, taken apart.

    Attributes:
        kind: What its first bytes say that it is.
        content: The file without what pixels do not need.
        orientation: 1 to 8, how the camera was held; 1 when the file does not say.
        profile: The ICC profile of its colors, b"" for none.
        broken_off: Whether the end of the file may be missing, and its first rows be there nevertheless.
        missing: How many bytes are certainly missing at the end.
        coefficient_bytes: What a decoder keeps in memory of a JPEG whose pixels come in several passes, beside them.
        steps: How much work decoding takes beyond what pixels take in general, in steps of at most about 2 ns.
    """

    kind: Format
    content: bytes
    orientation: int = 1
    profile: bytes = b""
    broken_off: bool = False
    missing: int = 0
    coefficient_bytes: int = 0
    steps: int = 0


def open_container(content: bytes) -> Container | None:
    """Return the file taken apart, None when it is no JPEG, PNG, BMP or WebP."""
    kind = _kind(content)
    return None if kind is None else _READERS[kind](content)


def pixels_of(content: bytes) -> int:
    """Return how many pixels a file claims to have, 0 when it is no picture or breaks off before it says so."""
    try:
        match _kind(content):
            case Format.JPEG:
                frames = (segment for marker, segment in _jpeg_segments(content) if marker in _START_OF_FRAME)
                width, height = struct.unpack_from(">HH", next(frames, b""), 5)
            case Format.PNG:
                width, height = struct.unpack_from(">II", _png_header(content))
            case Format.BMP if form := _BMP_SIZES.get(int.from_bytes(content[14:18], "little")):
                width, height = struct.unpack_from(form, content, 18)
            case Format.WEBP:
                width, height = webp_size(content)
            case _:
                return 0
    except struct.error:
        return 0
    return abs(int(width) * int(height))


def _kind(content: bytes) -> Format | None:
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(content)), None)


def webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height that a WebP's first part claims, in pixels; as large as can be if it is cut short."""
    try:
        if content[12:16] == b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
            return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
        if content[12:16] == b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            return 1 + (bits & _WEBP_SIDE), 1 + (bits >> 14 & _WEBP_SIDE)
        width, height = struct.unpack_from("<HH", content, 26)
    except struct.error:
        return _WEBP_SIDE, _WEBP_SIDE
    return width & _WEBP_SIDE, height & _WEBP_SIDE


def orientation_of(exif: bytes) -> int:
    """Return what EXIF says of how the camera was held, 1 to 8; 1 for nothing or nonsense."""
    exif = exif.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, number = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION and number in _NUMBERS:
                (value,) = struct.unpack_from(f"{order}{_NUMBERS[number]}", exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1  # noqa: PLR2004 - eight ways to hold a rectangle
    except struct.error:
        pass  # it breaks off
    return 1


def _read_jpeg(content: bytes) -> Container:
    kept, profile, orientation, passes, frame = [_START_OF_IMAGE], dict[int, bytes](), 1, (0, 0), b""
    for marker, segment in _jpeg_segments(content):
        body = segment[4:]
        if marker in _START_OF_FRAME:
            frame = segment
        elif marker == _START_OF_SCAN:
            passes = _passes(frame, segment)
        if marker not in _DROPPED:
            kept.append(segment)
        elif body.startswith(_EXIF):
            orientation = orientation_of(body)
        elif body.startswith(_PROFILE) and len(body) > len(_PROFILE):
            profile[body[len(_PROFILE)]] = body[len(_PROFILE) + 2 :]
    # Within pixels this pair of bytes cannot be.
    broken_off = _END_OF_IMAGE not in kept[-1]
    if broken_off:
        kept.append(_END_OF_IMAGE)
    whole_profile = b"".join(part for _, part in sorted(profile.items()))
    return Container(Format.JPEG, b"".join(kept), orientation, whole_profile, broken_off, 0, *passes)


def _passes(frame: bytes, scans: bytes) -> tuple[int, int]:
    """Return the bytes that a decoder keeps of a JPEG and the steps of its scans; 0, 0 when one scan has the pixels.

    The frame is that of ITU-T T.81, B.2.2; of the scans each may go through all of the picture, however short it is.
    """
    try:
        height, width, count = (int(number) for number in struct.unpack_from(">HHB", frame, 5))
        samplings = [divmod(frame[11 + 3 * number], 16) for number in range(count)]
        across, down = (max(1, *(sampling[axis] for sampling in samplings)) for axis in (0, 1))
        if frame[1] in _SEQUENTIAL and scans[4] >= count:
            return 0, 0
    except (struct.error, IndexError, ValueError, TypeError):
        return 0, 0  # it breaks off, and no decoder takes it
    sizes = [-(-width * h // across // 8) * -(-height * v // down // 8) for h, v in samplings]
    blocks = dict[int, int]()
    for number, size in enumerate(sizes):
        color = frame[10 + 3 * number]
        blocks[color] = max(size, blocks.get(color, 0))
    at_once = _BLOCK_NUMBERS if frame[1] in _SEQUENTIAL else 0
    starts = (found.start() for found in re.finditer(rb"\xff\xda", scans))
    return _BLOCK_BYTES * sum(sizes), sum(_scan_steps(scans[at : at + 16], blocks, at_once) for at in starts)


def _scan_steps(head: bytes, blocks: Mapping[int, int], at_once: int) -> int:
    """Return the steps of a scan by its header (ITU-T T.81, B.2.3), however few bytes follow it.

    Args:
        head: The header.
        blocks: How many blocks each color has.
        at_once: How many numbers of a block every scan has; 0: the header says which.
    """
    try:
        count = head[4]
        first, last = head[5 + 2 * count : 7 + 2 * count]
    except (IndexError, ValueError):
        return 0  # no decoder takes it
    numbers = at_once or max(0, last - first + 1)
    return sum(blocks.get(color, 0) for color in head[5 : 5 + 2 * count : 2]) * (_BLOCK_STEPS + numbers)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers and all that belongs to them; to the first scan belongs the rest of the file."""
    at = 2
    while found := _MARKER.search(content, at):
        marker, start = found[1][0], found.start()
        if marker == _START_OF_SCAN:
            yield marker, content[start:]
            return
        at = found.end()
        if marker not in _ALONE:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
        yield marker, content[start:at]


def _read_png(content: bytes) -> Container:
    header = _png_header(content)
    kept, profile, orientation, ended = [content[:8], _png_chunk(b"IHDR", header)], b"", 1, False
    for name, data in _png_chunks(content):
        if name in _PNG_NEEDED:
            kept.append(_png_chunk(name, data))
        elif name == b"eXIf":
            orientation = orientation_of(data)
        elif name == b"iCCP":
            profile = data
        ended |= name == b"IEND"
    in_passes, steps = _png_work(header)
    unpacked = _unpacked(profile.partition(b"\0")[2][1:])
    return Container(Format.PNG, b"".join(kept), orientation, unpacked, not ended and not in_passes, steps=steps)


def _png_header(content: bytes) -> bytes:
    """Return what the header has, which is the first chunk; b"" if it is not."""
    return content[16:29] if content[12:16] == b"IHDR" else b""


def _png_work(header: bytes) -> tuple[bool, int]:
    """Return whether rows come in passes, and how many steps their bytes take."""
    try:
        width, height, bits, color, _, _, passes = struct.unpack(">IIBBBBB", header)
    except struct.error:
        return False, 0  # it breaks off
    return passes == 1, _PNG_BYTE_STEPS * height * -(-width * bits * _PNG_COLORS.get(color, 0) // 8)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks; the last one is as long as the file allows."""
    at = 8
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        yield name, content[at + 8 : at + 8 + length]
        at += 12 + length


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""


def _read_bmp(content: bytes) -> Container:
    return Container(Format.BMP, content, broken_off=True)  # nothing marks its end


def _read_webp(content: bytes) -> Container:
    parts = {name: data for name, data in _webp_chunks(content) if name in {b"EXIF", b"ICCP"}}
    missing = max(0, 8 + int.from_bytes(content[4:8], "little") - len(content))
    orientation, profile = orientation_of(parts.get(b"EXIF", b"")), parts.get(b"ICCP", b"")
    return Container(Format.WEBP, content, orientation, profile, missing > 0, missing)


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        yield name, content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


_READERS: Mapping[Format, Callable[[bytes], Container]] = MappingProxyType(
    {Format.JPEG: _read_jpeg, Format.PNG: _read_png, Format.BMP: _read_bmp, Format.WEBP: _read_webp}
)
