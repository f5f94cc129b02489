"""The one decoder: what is a picture, which way is up, what colors it has, and what is refused with which words."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import time
import unittest.mock
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from face_async.cli.pictures import smaller_copy
from face_async.errors import ReturnCode
from face_async.images import decoding
from face_async.images.containers import orientation_of, pixels_of
from face_async.images.decoding import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_STEPS,
    NoPictureError,
    UndecodableError,
    decode,
)

# Four corners of different colors, and a gradient between them: what is turned, cut or recolored can be seen.
SMALL = Image.fromarray(np.array([[[250, 20, 20], [20, 230, 20]], [[20, 20, 250], [240, 240, 60]]], np.uint8))
SCENE = SMALL.resize((120, 80), Image.Resampling.BICUBIC)


def stored(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def apart(one, other):
    """How far two pictures are apart on average, in steps of 0 to 255."""
    assert one.size == other.size
    return np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean()


def exif(*entries, order="<", start=8):
    """EXIF of these entries: tag, type, count, and four bytes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    rows = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + rows + bytes(4)


def with_segment(jpeg, marker, body):
    """A JPEG with one more segment at its beginning."""
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def with_chunk(png, name, data):
    """A PNG with one more chunk behind its header."""
    return png[:33] + struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) + png[33:]


JPEG, PNG = stored(SCENE, "JPEG", quality=95, subsampling=0), stored(SCENE, "PNG")


# Which files are pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_four_formats_are_read(kind):
    picture = decode(stored(SCENE, kind))
    assert ("RGB", 120, 80) == (picture.image.mode, picture.width, picture.height)
    assert apart(SCENE, picture.image) < 8


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "EPS", "PPM", "ICO", "JPEG2000"])
def test_no_other_plugin_is_ever_asked(kind, monkeypatch, tmp_path):
    """Whatever the file calls itself: Pillow would hand an EPS to Ghostscript, a program of its own."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_a, **_k: pytest.fail("Ghostscript was run"))
    monkeypatch.setattr(Image, "open", lambda *_a, **_k: pytest.fail("all plugins were asked"))
    (tmp_path / "photo.jpg").write_bytes(stored(SCENE, kind))
    with pytest.raises(NoPictureError):
        decode((tmp_path / "photo.jpg").read_bytes())
    assert smaller_copy(tmp_path / "photo.jpg", 64) is None


def test_a_jpeg_with_further_pictures_behind_it_is_its_first_one():
    """As cameras store a stereo pair or a depth map; Pillow reads these by another plugin."""
    several = io.BytesIO()
    SCENE.save(several, "MPO", save_all=True, append_images=[SCENE.rotate(180)], quality=95)
    assert apart(SCENE, decode(several.getvalue()).image) < 4


# What files say beside pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("number", [3, 4])
def test_the_orientation_is_read_in_every_spelling(order, number):
    value = struct.pack(f"{order}HH" if number == 3 else f"{order}I", *((6, 0) if number == 3 else (6,)))
    picture = decode(with_segment(JPEG, 0xE1, exif((0x0112, number, 1, value), order=order)), longest_side=60)
    assert (80, 120, (40, 60)) == (picture.width, picture.height, picture.image.size)
    assert apart(SCENE.rotate(270, expand=True).resize((40, 60)), picture.image) < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_is_read_in_every_format(kind):
    camera = Image.Exif()
    camera[0x0112] = 3
    assert apart(SCENE.rotate(180), decode(stored(SCENE, kind, exif=camera)).image) < 8


@pytest.mark.parametrize(
    "nonsense",
    [
        exif((0x0112, 2, 1, b"six\0")),  # words instead of a number
        exif((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
        exif((0x011A, 5, 1, struct.pack("<I", 0xFFFFFFF0))),  # a resolution that lies behind the end
        exif((0x9286, 7, 0xFFFFFFFF, bytes(4)), (0x8769, 4, 1, struct.pack("<I", 8))),  # a directory within itself
        exif(start=0xFFFFFFFF),
        b"Exif\0\0II",
        b"Exif\0\0" + b"\xff" * 40,
        exif((0x0112, 3, 1, b""))[:-6],
    ],
    ids=range(8),
)
def test_nonsense_beside_the_pixels_is_nothing(nonsense):
    """No refusal, and no warning, which this suite would take for an error."""
    assert 1 == orientation_of(nonsense)
    for content in (with_segment(JPEG, 0xE1, nonsense), with_chunk(PNG, b"eXIf", nonsense[6:])):
        assert apart(SCENE, decode(content).image) < 4


@pytest.mark.parametrize(
    "content",
    [
        with_segment(JPEG, 0xE2, b"MPF\0" + b"\xff" * 60),
        with_segment(JPEG, 0xED, b"Photoshop 3.0\0" + b"8BIM" + b"\xff" * 9),
        with_segment(JPEG, 0xFE, b"\xff" * 100),
        with_segment(JPEG, 0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(50)),
        with_chunk(PNG, b"zTXt", b"note\0\0" + zlib.compress(bytes(80_000_000))),  # Pillow refuses so much text
        with_chunk(PNG, b"tEXt", b"\xff" * 10),
        with_chunk(PNG, b"iCCP", b"p\0\0" + b"damaged"),
        with_chunk(PNG, b"acTL", b"\0"),
    ],
    ids=["MPF", "Photoshop", "comment", "profile", "text bomb", "text", "PNG profile", "animation"],
)
def test_other_metadata_is_ignored(content):
    assert apart(SCENE, decode(content).image) < 4


# Colors


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGBA", "1"])
def test_all_ways_to_store_colors_become_rgb(mode):
    image = SCENE.convert(mode)
    assert apart(image, decode(stored(image.convert("P") if mode == "PA" else image, "PNG")).image) < 4


def test_inks_become_rgb():
    assert apart(SCENE.convert("CMYK"), decode(stored(SCENE.convert("CMYK"), "JPEG", quality=97)).image) < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_white(kind):
    """Whatever lies under it."""
    glass = SCENE.copy()
    glass.putalpha(Image.new("L", SCENE.size, 0))
    assert apart(Image.new("RGB", SCENE.size, "white"), decode(stored(glass, kind, **LOSSLESS.get(kind, {}))).image) < 1


LOSSLESS = {"WEBP": {"lossless": True, "exact": True}}


def test_a_transparent_color_of_a_palette_is_white():
    palette = SCENE.quantize(16)
    palette.paste(3, (0, 0, 120, 40))
    top = decode(stored(palette, "PNG", transparency=3)).image.crop((0, 0, 120, 40))
    assert apart(Image.new("RGB", (120, 40), "white"), top) < 1


def test_sixteen_bits_a_color_become_eight():
    """Neither all white, nor noise of the low bytes."""
    gray = np.asarray(SCENE.convert("L"), np.uint16)
    assert apart(SCENE.convert("L"), decode(stored(Image.fromarray(gray * 257), "PNG")).image) < 2


# Where a file breaks off

NOISE = Image.effect_noise((160, 160), 80).convert("RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_missing_end_is_tolerated_when_all_but_the_last_rows_are_there(kind):
    whole = stored(NOISE, kind)
    nearly, half = whole[: int(len(whole) * 0.95)], whole[: len(whole) // 2]
    rows = (0, 20, 160, 160) if kind == "BMP" else (0, 0, 160, 140)  # a BMP begins with its lowest row
    assert apart(decode(whole).image.crop(rows), decode(nearly).image.crop(rows)) == 0
    with pytest.raises(UndecodableError, match="its end is missing"):
        decode(half)


def test_a_missing_end_of_a_webp_is_tolerated_by_its_bytes():
    whole = stored(NOISE, "WEBP")
    assert apart(decode(whole).image.crop((0, 0, 160, 100)), decode(whole[:-100]).image.crop((0, 0, 160, 100))) < 1
    with pytest.raises(UndecodableError):
        decode(whole[: len(whole) * 9 // 10])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_jpeg_of_passes_and_rubbish_behind_the_end_are_read(kind):
    options = {"progressive": True} if kind == "JPEG" else {}
    assert apart(SCENE, decode(stored(SCENE, kind, **options) + b"rubbish" * 99).image) < 8


def test_passes_over_a_png_that_break_off_are_damage():
    """Their last rows are everywhere."""
    rows = np.asarray(SCENE.convert("L"))
    scan = b"".join(b"\0" + rows[top::8, left::8].tobytes() for top, left in [(0, 0)] if top < 80)
    header = struct.pack(">IIBBBBB", 120, 80, 8, 0, 0, 0, 1)
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(scan))):
        png += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    with pytest.raises(UndecodableError):
        decode(png)


# Sizes


def png_of(width, height, bits=1, colors=0, *, palette=False):
    header = struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0)
    chunks = ((b"IHDR", header), *([(b"PLTE", bytes(6))] if palette else []), (b"IDAT", zlib.compress(bytes(99))))
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg_of(side, marker, sampling=0x11, scan=3):
    """A JPEG's head, of three colors, and its first scan, which is of some of them."""
    colors = bytes((1, sampling, 0, 2, 0x11, 0, 3, 0x11, 0))
    frame = struct.pack(">HBHHB", 17, 8, side, side, 3) + colors
    scanned = b"".join(bytes((color, 0)) for color in range(1, 1 + scan))
    start = struct.pack(">HB", 6 + 2 * scan, scan) + scanned + bytes((0, 63, 0))
    return b"\xff\xd8\xff" + bytes((marker,)) + frame + b"\xff\xda" + start


def webp_of(width, height):
    body = (
        b"WEBPVP8X"
        + struct.pack("<IB3x", 10, 0)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("size", [(8_001, 10_000), (10_000, 10_000), (60_000, 60_000)])
@pytest.mark.parametrize("claiming", [png_of, webp_of])
def test_more_pixels_than_the_limit_are_refused_before_they_take_memory(claiming, size, monkeypatch):
    """With the limit in the message, and no warning of the library, also where it would refuse by itself."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it was decoded"))
    with pytest.raises(UndecodableError, match=f"more than {MAX_PIXELS:,} pixels"):
        decode(claiming(*size) + bytes(100))


# What a decoder takes for a pixel, in bytes, by what its file says.
NEEDED = {
    "gray PNG": (lambda side: png_of(side, side, 8, 0), 1),
    "gray PNG of 16 bits": (lambda side: png_of(side, side, 16, 0), 2),
    "PNG with a palette": (lambda side: png_of(side, side, 8, 3, palette=True), 1),
    "colored PNG": (lambda side: png_of(side, side, 8, 2), 4),
    "transparent PNG": (lambda side: png_of(side, side, 8, 6), 4),
    "transparent PNG of 16 bits": (lambda side: png_of(side, side, 16, 6), 4),
    "gray and transparent PNG": (lambda side: png_of(side, side, 8, 4), 4),
    "WebP": (lambda side: webp_of(side, side), 16),
    "progressive JPEG": (lambda side: jpeg_of(side, 0xC2), 6),
    "progressive JPEG, colors halved": (lambda side: jpeg_of(side, 0xC2, 0x22), 3),
    "JPEG in one scan a color": (lambda side: jpeg_of(side, 0xC0, scan=1), 6),
}


@pytest.mark.parametrize("name", NEEDED)
def test_more_memory_than_the_limit_is_refused_before_it_is_taken(name, monkeypatch):
    """What a decoder needs depends on the format and its colors, more than on the number of pixels."""
    claiming, each = NEEDED[name]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it was decoded"))
    side = min(16_000, int((MAX_BYTES / each) ** 0.5) + 50)
    refusal = (
        f"more than ({MAX_BYTES:,} bytes of memory|{MAX_STEPS:,} steps)"
        if side**2 <= MAX_PIXELS
        else f"more than {MAX_PIXELS:,} pixels"
    )
    with pytest.raises(UndecodableError, match=refusal):
        decode(claiming(side) + bytes(100), longest_side=100)
    assert needed(claiming(1_000)) == pytest.approx(each * 1_000**2, rel=0.08)


def needed(content):
    """Return the memory that a picture is held to need, when it becomes of no size."""
    sizes = []

    class Room:
        @contextlib.contextmanager
        def held(self, size):
            sizes.append(size)
            raise NoPictureError
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_room", Room())
        with pytest.raises(NoPictureError):
            decode(content + bytes(100), longest_side=1)
    return sizes[0]


def test_a_picture_of_endless_length_is_refused_before_it_takes_memory(monkeypatch):
    """Few pixels in many rows take the memory of many pixels."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it was decoded"))
    with pytest.raises(UndecodableError, match=f"more than {MAX_SIDE:,} pixels long"):
        decode(png_of(1, MAX_SIDE + 1))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
def test_how_many_pixels_a_picture_has_is_read_without_decoding_it(form):
    """A file that breaks off before it says so has none; a WebP is then taken to be as large as one can be."""
    content = stored(SCENE.resize((31, 17)), form)
    assert pixels_of(content) == 31 * 17
    assert pixels_of(content[:14]) == (16_383**2 if form == "WEBP" else 0)


def test_how_many_pixels_the_oldest_kind_of_bmp_has_is_read_as_well():
    """Its header has two bytes for each side."""
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 31, 17, 1, 24) + bytes(96 * 17)
    assert (31, 17) == decode(old).image.size
    assert pixels_of(old) == 31 * 17


@pytest.mark.parametrize("content", [b"BM" + b" " * 40, b"RIFF\0\0\0\0WAVE" + b"\xff" * 40, b"\x89PNG" + b"\xff" * 40])
def test_what_only_begins_like_a_picture_claims_no_pixels(content):
    assert pixels_of(content) == 0


def test_the_servers_message_names_the_same_limits():
    meaning = ReturnCode.SDK_IMAGE_DECODE_FAILED.meaning
    assert f"{MAX_PIXELS:,} pixels" in meaning
    assert f"{MAX_BYTES // 1_000_000} MB of memory" in meaning


def test_a_long_picture_keeps_its_short_side():
    """A bound of the area leaves it 400 pixels here, where one of the longest side would leave 64."""
    panorama = decode(stored(SCENE.resize((4_000, 640)), "JPEG"), area=1_000_000).image
    assert panorama.width * panorama.height == pytest.approx(1_000_000, rel=0.01)
    assert panorama.height == pytest.approx(400, abs=2)


@pytest.mark.parametrize("bound", [{}, {"longest_side": 500}, {"area": 1_000_000}])
def test_no_picture_is_enlarged(bound):
    assert (120, 80) == decode(PNG, **bound).image.size


def test_who_is_interrupted_while_waiting_for_memory_holds_up_nobody(monkeypatch):
    room = decoding._Room(10)
    interrupted = unittest.mock.Mock(side_effect=KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            room.held(5).__enter__()
    with room.held(10):
        assert (room._taken, len(room._asking)) == (10, 0)


def test_memory_for_pictures_at_once_is_bounded(monkeypatch):
    """Two that do not fit together take turns; one that is too large alone has its turn, too."""
    monkeypatch.setattr(decoding, "_room", decoding._Room(2 * 120 * 80))
    running, most, lock = 0, 0, threading.Lock()
    upright = decoding._upright

    def counted(*arguments):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            time.sleep(0.002)
            return upright(*arguments)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(decoding, "_upright", counted)
    large = stored(SCENE.resize((400, 400)), "PNG")
    threads = [threading.Thread(target=decode, args=(content,)) for content in [PNG, large] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 2


# All that can be wrong


def test_no_bytes_whatsoever_raise_anything_else(rng):
    """However a file is damaged, so that one picture that fails never ends a folder of them."""
    for _ in range(300):
        content = bytearray(rng.choice([JPEG, PNG, stored(SCENE, "BMP"), stored(SCENE, "WEBP")]))
        for _ in range(rng.randrange(1, 30)):
            content[rng.randrange(2, len(content))] = rng.randrange(256)
        try:
            decode(bytes(content[: rng.randrange(2, len(content) + 1)]), area=5_000)
        except (NoPictureError, UndecodableError):
            continue
