"""How much work a decoder may have with a picture: no picture is small to send and dear to decode."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from face_async.images.containers import open_container, pixels_of
from face_async.images.decoding import MAX_BYTES, MAX_STEPS, UndecodableError, decode

PROGRESSIVE, SEQUENTIAL, ARITHMETIC = 0xC2, 0xC0, 0xCA
BLOCK_BYTES = 128


def segment(marker, body):
    return b"\xff" + bytes((marker,)) + struct.pack(">H", 2 + len(body)) + body


def scan(*colors, first=0, last=0):
    """A scan without any data: a decoder warns, and goes through all of its blocks nevertheless."""
    return segment(0xDA, bytes((len(colors), *(byte for color in colors for byte in (color, 0)), first, last, 0)))


def frame(marker, side, colors=1):
    sampling = b"".join(bytes((1 + color, 0x11, 0)) for color in range(colors))
    return segment(marker, struct.pack(">BHHB", 8, side, side, colors) + sampling)


def jpeg_of(marker, side, colors, scans, before=b""):
    one_code = bytes((1,)) + bytes(16)
    tables = segment(0xDB, bytes(1) + bytes((1,)) * 64) + segment(0xC4, bytes(1) + one_code)
    tables += segment(0xC4, b"\x10" + one_code)
    return b"\xff\xd8" + tables + before + frame(marker, side, colors) + scans + b"\xff\xd9"


def png_of(width, height, bits, color):
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))))
    packed = (struct.pack(">I", len(data)) + name + data + bytes(4) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


DEAR = {
    "progressive scans": jpeg_of(PROGRESSIVE, 8_000, 1, scan(1) + scan(1, first=1, last=63) * 300),
    "scans of one number": jpeg_of(PROGRESSIVE, 8_000, 1, scan(1) + scan(1, first=1, last=1) * 300),
    "arithmetic scans": jpeg_of(ARITHMETIC, 8_000, 1, scan(1) + scan(1, first=1, last=63) * 300),
    "sequential scans": jpeg_of(SEQUENTIAL, 4_000, 3, (scan(1) + scan(2) + scan(3)) * 100),
    "small and many": jpeg_of(PROGRESSIVE, 800, 1, scan(1) + scan(1, first=1, last=63) * 3_000),
    "16 bits a color": png_of(7_000, 7_000, 16, 6),
}


@pytest.mark.parametrize("name", DEAR)
def test_more_work_than_the_limit_is_refused_before_it_is_begun(name, monkeypatch):
    """A few kilobytes of which decoding takes from 2 seconds to minutes, which nobody could end."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it was decoded"))
    assert len(DEAR[name]) < 40_000
    with pytest.raises(UndecodableError, match=f"more than {MAX_STEPS:,} steps"):
        decode(DEAR[name], longest_side=100)


def test_scans_within_the_limit_are_decoded():
    """As many as a small picture has by its file's size."""
    assert decode(jpeg_of(PROGRESSIVE, 64, 1, scan(1) + scan(1, first=1, last=63) * 1_000)).image.size == (64, 64)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_jpeg_of_any_size_that_memory_allows_is_within_the_limit(mode, subsampling):
    """As encoders write them, which come back to each number of a block a few times; here with twice the work."""
    file = io.BytesIO()
    noise = Image.effect_noise((320, 320), 80).convert(mode)
    noise.save(file, "JPEG", progressive=True, quality=95, subsampling=subsampling)
    container = open_container(file.getvalue())
    steps_a_block = container.steps * BLOCK_BYTES / container.coefficient_bytes
    assert 2 * steps_a_block * MAX_BYTES / BLOCK_BYTES < MAX_STEPS


HIDING = {
    "rubbish": bytes(range(200)),
    "an escaped byte": b"\xff\x00\x00\x17",
    "filling": b"\xff" * 9,
    "a segment without length": b"\xff\xe5\x00\x00",
    "a comment": segment(0xFE, b"\xff\xc0" + bytes(30)),
    "a marker alone": b"\xff\xd0",
}


@pytest.mark.parametrize("how", HIDING)
def test_nothing_before_a_frame_hides_what_it_costs(how):
    """A decoder finds the frame behind it; so does the reckoning."""
    scans = scan(1) + scan(1, first=1, last=63) * 10
    plain = jpeg_of(PROGRESSIVE, 64, 1, scans)
    hidden = jpeg_of(PROGRESSIVE, 64, 1, scans, before=HIDING[how])
    assert decode(hidden).image.size == (64, 64)
    told, known = open_container(hidden), open_container(plain)
    assert (told.steps, told.coefficient_bytes) == (known.steps, known.coefficient_bytes)
    assert known.steps > 0
    assert pixels_of(hidden) == 64 * 64


def test_no_chunk_before_a_header_hides_what_it_costs(monkeypatch):
    """A PNG's header is its first chunk, as the standard has it, and there is one: others are no headers."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it was decoded"))
    dear = DEAR["16 bits a color"]
    small = png_of(8, 8, 8, 0)[8:33]
    for content in (dear[:8] + dear[33:45] + bytes(4) + dear[8:], dear[:33] + small + dear[33:]):
        with pytest.raises(UndecodableError):
            decode(content)
    assert open_container(dear[:8] + small + dear[8:]).steps == open_container(png_of(8, 8, 8, 0)).steps
