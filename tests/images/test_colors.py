"""Colors: what profiles of cameras, screens and presses mean, and what hostile ones cost."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from face_async.images import containers
from face_async.images.containers import open_container
from face_async.images.decoding import decode

WHITE = (0.9642, 1.0, 0.8249)
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def xyz(values):
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


TEXT = struct.pack(">4s4xI", b"desc", 10) + b"Some inks\0" + bytes(82)
CURVE = struct.pack(">4s4xIH", b"curv", 1, round(2.2 * 256)).ljust(16, b"\0")
PRIMARIES = (0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841)
WIDE = {
    b"desc": TEXT,
    b"wtpt": xyz(WHITE),
    b"cprt": struct.pack(">4s4x4s", b"text", b"x\0\0\0"),
    **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, PRIMARIES), strict=True)),
    **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), CURVE),
}
"""The tags of a wide gamut, as cameras of telephones write them: sRGB's curve, and more saturated primaries."""


def profile(tags, space=b"RGB ", connection=b"XYZ ", version=2):
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4xI4s4s4s12x4s", at + len(body), version << 24, kind, space, connection, b"acsp")
    return head.ljust(68, b"\0") + xyz(WHITE)[8:].ljust(60, b"\0") + table + body


def inks_table(points=2):
    """What a press prints with all mixtures of its inks: lightness falls with every ink, black most."""
    mixtures = itertools.product(np.linspace(1, 0, points), repeat=4)
    colors = bytes(
        level
        for cyan, magenta, yellow, black in mixtures
        for level in (round(255 * (0.2 + 0.8 * cyan * magenta * yellow) * black), 128, 128)
    )
    identity = np.eye(3, dtype=">i4").ravel() * 65536
    head = b"mft1" + bytes(4) + bytes((4, 3, points, 0)) + identity.astype(">i4").tobytes()
    return head + bytes(range(256)) * 4 + colors + bytes(range(256)) * 3


INKS = {b"desc": TEXT, b"wtpt": xyz(WHITE), b"A2B0": inks_table()}


def steps_without_end(count=20_000):
    """A tag of steps that all are the same one, eight bytes each (ICC.1, 10.18)."""
    matrix = b"matf" + struct.pack(">4xHH12f", 3, 3, 1, 0.001, 0, 0, 1, 0, 0, 0, 1, 1e-6, 0, 0)
    head = b"mpet" + struct.pack(">4xHHI", 3, 3, count)
    return head + struct.pack(">II", len(head) + 8 * count, len(matrix)) * count + matrix


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **LOSSLESS.get(kind, {}), **options)
    return file.getvalue()


def colors_of(image, tags=None, kind="PNG", **options):
    """The decoded pixels of a picture with this profile."""
    given = {} if tags is None else {"icc_profile": profile(tags, **options)}
    return np.asarray(decode(stored(image, kind, **given)).image, int)


MANY = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_colors_of_a_wide_gamut_become_those_of_screens(kind):
    """Gray stays gray, and what looks pale by its numbers gets the color that it was meant to have."""
    pale, gray = (colors_of(Image.new("RGB", (40, 40), color), WIDE, kind) for color in ((200, 120, 110), (120,) * 3))
    assert pale[20, 20, 0] > 206
    assert pale[20, 20, 1] < 119
    assert np.abs(gray - 120).max() < 6


def test_colors_of_screens_stay_as_they_are():
    screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (np.asarray(decode(stored(MANY, icc_profile=screen)).image) == np.asarray(MANY)).all()


def test_inks_become_what_their_press_prints():
    """Its profile is mostly the way back, from colors to inks, which is left out."""
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    printed = colors_of(inks, INKS, "JPEG", space=b"CMYK", connection=b"Lab ")
    way_back = {f"B2A{intent}".encode(): b"mft2" + bytes(600_000) for intent in range(3)}
    assert (printed == colors_of(inks, INKS | way_back, "JPEG", space=b"CMYK", connection=b"Lab ")).all()
    assert np.abs(printed - printed[..., :1]).max() <= 2  # this press prints in gray alone
    assert 30 < printed[8, 8, 0] < 90
    assert np.abs(printed - colors_of(inks, kind="JPEG")).max() > 60


@pytest.fixture
def given(monkeypatch):
    """What Little CMS is given, from then on."""
    seen, make = [], ImageCms.ImageCmsProfile

    def note(source):
        if isinstance(source, io.BytesIO):
            seen.append(source.getvalue())
        return make(source)

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", note)
    return seen


@pytest.mark.parametrize("name", [b"D2B0", b"D2B1", b"A2B0", b"rTRC"])
@pytest.mark.parametrize("version", [2, 4])
def test_steps_without_end_are_not_gone_through(name, version, given):
    """However they are listed; the profile is read as if it had them not."""
    without = {tag: data for tag, data in WIDE.items() if tag != name}
    seen = colors_of(MANY, without | {name: steps_without_end()}, version=version)
    assert (seen == colors_of(MANY, without, version=version)).all()
    assert not any(b"mpet" in each for each in given)
    assert all(len(each) < 2_000 for each in given)


TABLES = {
    "8 bits": b"mft1" + bytes(4) + bytes((3, 3, 255, 0)) + bytes(3_000),
    "16 bits": b"mft2" + bytes(4) + bytes((3, 3, 200, 0)) + bytes(36) + struct.pack(">HH", 2, 2) + bytes(3_000),
    "of several parts": b"mAB " + bytes(4) + bytes((3, 3, 0, 0)) + struct.pack(">5I", 32, 0, 0, 32, 32)
    + bytes((255,) * 3) + bytes(13) + bytes((2, 0, 0, 0)) + bytes(3_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_is_not_there_takes_no_memory(kind, given):
    """A few bytes can claim 100 MB, which Little CMS takes before it reads them."""
    seen = colors_of(MANY, WIDE | {b"A2B0": TABLES[kind]})
    assert (seen == colors_of(MANY, WIDE)).all()
    assert not any(b"A2B0" in each for each in given)


def test_tags_that_overlap_take_no_memory_of_their_own(given):
    """Every tag of a file can be all of the file."""
    tags = {name: b"curv" + bytes(50_000) for name in (b"rTRC", b"gTRC", b"bTRC")}
    whole = bytearray(profile(WIDE | tags))
    for entry in range(132, 132 + 12 * len(WIDE), 12):
        if whole[entry + 1 : entry + 4] == b"TRC":
            struct.pack_into(">II", whole, entry + 4, 400 + 4 * entry, len(whole))
    decode(stored(MANY, icc_profile=bytes(whole)))
    assert all(len(each) <= len(whole) + 128 for each in given)


def test_a_profile_is_unpacked_once_however_often_a_png_has_it(monkeypatch):
    unpacked = []
    monkeypatch.setattr(containers, "_unpacked", lambda data: unpacked.append(data) or b"")
    png = stored(MANY, icc_profile=profile(WIDE))
    at = png.index(b"iCCP") - 4
    chunk = png[at : at + 12 + int.from_bytes(png[at : at + 4], "big")]
    open_container(png[:at] + 50 * chunk + png[at:])
    assert len(unpacked) == 1


@pytest.mark.parametrize("size", [0, 1, 100, 128, 131, 140, 300, 500])
def test_a_profile_that_breaks_off_is_none(size):
    """Or what is left of it; never an error."""
    assert decode(stored(MANY, icc_profile=profile(WIDE)[:size].ljust(1, b"x"))).width == 16
