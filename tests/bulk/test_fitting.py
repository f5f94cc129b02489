"""Pictures that are too large, made to fit: as they are, or as good as they can be."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import time
import zlib

import anyio
import anyio.to_thread
import numpy as np
import pytest
from PIL import Image

import face_async
from face_async import ImageFile, ImageRefusedError, ImageUrl, RequestTooLargeError, ServiceLimits
from face_async.bulk import fitting
from face_async.bulk.fitting import FITTING_BYTES, FORM_BYTES, fit_image, fitted
from face_async.bulk.limited import fit_into, room_for_image
from face_async.endpoints import ADD_FACE, IDENTIFY
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server.recognition import DUPLICATE_SIMILARITY, recognizer

ADA = Image.open(io.BytesIO(draw_portrait(1, size=400))).convert("RGB")


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def opened(content):
    return Image.open(io.BytesIO(content))


def difference(one, other):
    """How far two pictures are apart, in steps of 0 to 255 for each color of each pixel."""
    size = one.size
    ours, theirs = (np.asarray(image.convert("RGB").resize(size), np.float64) for image in (one, other))
    return np.abs(ours - theirs).mean()


PNG = encoded(ADA, "PNG")
PHOTO = encoded(ADA, "JPEG", quality=97)
PHOTO_BYTES = 24_000  # what PHOTO fits into at full size, at the best quality but not at its own


def test_there_is_one_door_to_fitting():
    """A picture by itself is made to fit by one function; many, or all of a folder, by ``fit=True``."""
    offered = [*face_async.__all__, *(name for name in dir(face_async.FaceSession) if not name.startswith("_"))]
    assert ["fit_image"] == [name for name in offered if "fit" in name]


# What fits already


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_what_fits_is_returned_byte_for_byte(kind, tmp_path):
    """From memory and from a file, to the last byte that fits."""
    content = encoded(ADA, kind)
    (tmp_path / "a.picture").write_bytes(content)
    for source in (
        content,
        bytearray(content),
        tmp_path / "a.picture",
        str(tmp_path / "a.picture"),
        ImageFile(content),
    ):
        assert content == fit_image(source, max_bytes=len(content))
        assert content != fit_image(source, max_bytes=len(content) - 1)


def test_what_fits_needs_no_pillow(monkeypatch):
    """It is named with its extra as soon as it is needed."""
    monkeypatch.delitem(sys.modules, "face_async.bulk.recompress", raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert fit_image(PNG) == PNG
    with pytest.raises(ImportError, match=r"pip install 'face_async\[server\]'"):
        fit_image(PNG, max_bytes=len(PNG) - 1)


@pytest.mark.anyio
async def test_by_default_a_request_with_the_longest_texts_and_the_picture_is_within_the_planned_size():
    """Of both kinds of requests: the margin that is left for the form is enough, and not ten times too much."""
    limits = ServiceLimits()
    assert FITTING_BYTES == limits.planned_request_bytes - FORM_BYTES
    picture = PHOTO + bytes(FITTING_BYTES - len(PHOTO))
    longest_id, longest_text = "i" * limits.max_id_bytes, "t" * limits.max_text_bytes
    groups = [f"{number:02}" + longest_id[2:] for number in range(20)]
    async with local_session(recognizer="fingerprint") as session:
        before = session.stats.bytes_sent
        await session.new_person(longest_id, groups, picture, person_name=longest_text, tag=longest_text)
        sent = session.stats.bytes_sent - before
    assert FITTING_BYTES + FORM_BYTES / 10 < sent <= limits.planned_request_bytes


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [(IDENTIFY, {"group_id": "staff"}), (ADD_FACE, {"person_id": "ada", "tag": 'a "tag" \r\n'})],
)
async def test_the_room_for_a_picture_is_exact(endpoint, fields):
    """With a picture of just that size, whatever its name, the request has the planned size to the byte."""
    async with local_session(recognizer="fingerprint") as session:
        await session.new_person("ada", ["staff"], draw_portrait(2))
        named = ImageFile(b"", name='Zo\u00eb\'s "best".png', media_type="image/png")
        room = room_for_image(session, endpoint, fields, named)
        picture = ImageFile(PNG + bytes(room - len(PNG)), name=named.name, media_type=named.media_type)
        before = session.stats.bytes_sent
        if endpoint is ADD_FACE:
            assert (await session.add_face("ada", [picture], tag=fields["tag"])).added == 1
        else:
            await session.identify("staff", picture)
        assert session.limits.planned_request_bytes == session.stats.bytes_sent - before
        assert picture is await fit_into(session, picture, endpoint, fields)


# What does not


def test_all_pixels_are_kept_while_the_quality_stays_good():
    """It is recompressed first, as well as it fits."""
    small = fit_image(PHOTO, max_bytes=PHOTO_BYTES)
    assert ("JPEG", ADA.size) == (opened(small).format, opened(small).size)
    assert 0.8 * PHOTO_BYTES < len(small) <= PHOTO_BYTES
    assert difference(ADA, opened(small)) < 3
    assert len(fit_image(PHOTO, max_bytes=PHOTO_BYTES // 2)) < len(small)


def test_then_it_is_scaled_down_no_more_than_needed():
    """Its shape stays, and most of the room is used."""
    wide = encoded(ADA.resize((600, 400)), "PNG")
    small = fit_image(wide, max_bytes=6_000)
    width, height = opened(small).size
    assert 200 < width < 600
    assert abs(width / height - 1.5) < 0.02
    assert 4_000 < len(small) <= 6_000


def test_noise_fits_too(rng):
    """However badly a picture can be compressed."""
    noise = Image.frombytes("RGB", (400, 400), rng.randbytes(400 * 400 * 3))
    for max_bytes in (60_000, 10_000):
        assert 0.5 * max_bytes < len(fit_image(encoded(noise, "PNG"), max_bytes=max_bytes)) <= max_bytes


@pytest.mark.parametrize("max_bytes", [len(PNG) - 1, PHOTO_BYTES, 4_000])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_no_picture_is_ever_enlarged(kind, max_bytes):
    source = encoded(ADA, kind, **({"lossless": True, "method": 0} if kind == "WEBP" else {}))
    small = fit_image(source, max_bytes=min(max_bytes, len(source) - 1))
    assert len(small) <= max_bytes
    assert opened(small).width <= 400


def test_what_would_become_too_small_is_refused_with_what_to_do():
    """100 pixels are the least, unless the caller says otherwise; a small picture may still be recompressed."""
    with pytest.raises(RequestTooLargeError, match="smaller than 100 pixels in width or height; crop it to the face"):
        fit_image(PNG, max_bytes=1_500)
    with pytest.raises(RequestTooLargeError, match="smaller than 400 pixels"):
        fit_image(PNG, max_bytes=8_000, min_side=400)
    with pytest.raises(RequestTooLargeError, match="smaller than 100 pixels"):
        fit_image(encoded(ADA.resize((400, 120)), "PNG"), max_bytes=2_000)
    assert 50 <= opened(fit_image(PNG, max_bytes=1_500, min_side=50)).width < 100
    tiny = encoded(ADA.resize((60, 60)), "BMP")
    assert (60, 60) == opened(fit_image(tiny, max_bytes=len(tiny) - 1)).size


def test_a_fitted_picture_is_recognized_as_the_picture_it_was():
    """Whether it was recompressed or scaled: the recognizer takes both for the same picture."""
    finder = recognizer("fingerprint")
    face = finder.find_face(PNG)
    for max_bytes in (PHOTO_BYTES, 4_000, 2_500):
        small = finder.find_face(fit_image(PNG, max_bytes=max_bytes))
        assert finder.similarities(small.embedding, face.embedding[None])[0] >= DUPLICATE_SIMILARITY


# Kinds of pictures


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_that_the_camera_noted_is_carried_out(orientation):
    """Without it the face would lie on its side: afterwards it is upright, and nothing is noted any more."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = ADA.resize((300, 400))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright if orientation == 1 else upright.transpose(turns[orientation])
    small = opened(fit_image(encoded(turned, "JPEG", quality=97, exif=exif), max_bytes=20_000))
    assert (300, 400) == small.size
    assert difference(upright, small) < 4
    assert {} == dict(small.getexif())


def test_what_else_the_file_says_is_left_out():
    """Where and by whom a picture was taken is nobody's business."""
    exif = Image.Exif()
    exif[0x010F] = "the camera's maker"
    source = encoded(ADA, "JPEG", quality=97, exif=exif, comment=b"at home", xmp=b"<x:xmpmeta/>", dpi=(300, 300))
    assert {"exif", "comment", "xmp", "dpi"} <= opened(source).info.keys()
    for max_bytes in (PHOTO_BYTES, 4_000):
        assert {"jfif", "jfif_version", "jfif_unit", "jfif_density"} == opened(
            fit_image(source, max_bytes=max_bytes)
        ).info.keys()


def test_transparency_becomes_white():
    """Whatever color lies under it: of pictures with an alpha channel, and of palettes with a transparent color."""
    hidden = ADA.copy()
    hidden.putalpha(Image.linear_gradient("L").resize(ADA.size).point(lambda level: 255 * (level > 127)))
    expected = Image.composite(ADA, Image.new("RGB", ADA.size, "white"), hidden.getchannel("A"))
    gray = hidden.convert("LA")
    palette = hidden.convert("RGB").quantize(255)
    palette.paste(7, (0, 0, 400, 200))
    for image, wanted in ((hidden, expected), (gray, expected.convert("L"))):
        assert difference(wanted, opened(fit_image(encoded(image, "PNG"), max_bytes=30_000))) < 4
    small = opened(fit_image(encoded(palette, "PNG", transparency=7), max_bytes=30_000))
    assert (255, 255, 255) == small.convert("RGB").getpixel((200, 100))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (ADA.convert("CMYK"), "JPEG"),
        (ADA.quantize(200), "PNG"),
        (ADA.convert("L"), "PNG"),
        (ADA.convert("L"), "BMP"),
    ],
    ids=["CMYK", "palette", "gray", "gray BMP"],
)
def test_all_kinds_of_colors_become_the_same_in_rgb(image, kind):
    source = encoded(image, kind, **({"quality": 97} if kind == "JPEG" else {}))
    small = opened(fit_image(source, max_bytes=30_000))
    assert ("JPEG", "RGB") == (small.format, small.mode)
    assert difference(image, small) < 4


def test_sixteen_bits_a_pixel_become_eight():
    """Not all white, which cutting them off would give."""
    gray = np.asarray(ADA.convert("L"), np.uint16)
    source = encoded(Image.fromarray(gray * 257), "PNG")
    assert "I;16" == opened(source).mode
    assert difference(ADA.convert("L"), opened(fit_image(source, max_bytes=30_000))) < 4


def test_a_profile_of_colors_is_left_out():
    """Colors are brought to those of screens, which need none."""
    for image in (ADA, ADA.convert("L")):
        source = encoded(image, "PNG", icc_profile=b"p" * 500)
        assert "icc_profile" not in opened(fit_image(source, max_bytes=30_000)).info


# What is refused


def png_of(width, height):
    """A PNG that claims to be of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed) + bytes(1_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GIF89a" + bytes(2_000), "is a GIF, which the service does not accept; send a JPEG or PNG"),
        (b"%PDF-1.7" + bytes(2_000), "no JPEG, PNG, BMP or WebP picture; convert it"),
        (b"II*\0" + bytes(2_000), "no JPEG, PNG, BMP or WebP picture"),
        (PNG[:5_000], "cannot be decoded; its end is missing"),
        (PHOTO[:5_000], "cannot be decoded"),
        (b"\xff\xd8\xff" + bytes(2_000), "cannot be decoded"),
        (b"BM" + b"\xff" * 2_000, "cannot be decoded"),
        (png_of(10_000, 8_001), "has more than 80,000,000 pixels"),
        (png_of(10_000, 10_000), "has more than 80,000,000 pixels"),  # about which Pillow warns
        (png_of(60_000, 60_000), "has more than 80,000,000 pixels"),  # about which Pillow raises
        (encoded(Image.new("RGB", (70_000, 1)), "PNG", compress_level=0), "a side of more than 65,500"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_made_to_fit_is_refused_with_what_to_do(content, message, tmp_path):
    """Also under a false name, and never by an error of another library."""
    (tmp_path / "a.jpg").write_bytes(content)
    for source, name in ((content, "the image "), (tmp_path / "a.jpg", "a.jpg' "), (ImageFile(content), "the image ")):
        with pytest.raises(ImageRefusedError, match=message) as caught:
            fit_image(source, max_bytes=1_000)
        assert name in str(caught.value)


def test_a_gif_and_no_picture_are_refused_even_where_they_would_fit():
    for content in (b"GIF89a" + bytes(100), b"hello"):
        for source in (content, ImageFile(content, name="a.jpg", media_type="image/jpeg")):
            with pytest.raises(ImageRefusedError):
                fit_image(source)


def test_a_missing_file_is_refused():
    with pytest.raises(ImageRefusedError, match=r"'missing\.jpg' cannot be read: No such file"):
        fit_image("missing.jpg")


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.bmp"
    with path.open("wb") as file:
        file.write(b"BM")
        file.truncate(300 * 1024 * 1024)
    with pytest.raises(ImageRefusedError, match="more than 268,435,456 bytes; scale it down"):
        fit_image(path)


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"min_side": 0}])
def test_numbers_below_one_are_wrong_arguments(options):
    with pytest.raises(ValueError, match="must be 1 or more"):
        fit_image(PNG, **options)


@pytest.mark.parametrize(
    "source", ["https://example.com/a.jpg", ImageUrl("https://example.com/a.jpg"), io.BytesIO(PNG)]
)
def test_what_is_not_at_hand_is_a_wrong_argument(source):
    with pytest.raises(TypeError, match="path or bytes"):
        fit_image(source)
    with pytest.raises(TypeError, match="not int"):
        fit_image(7)


# Without blocking


@pytest.mark.anyio
async def test_of_any_source_an_image_that_fits_comes_out(tmp_path):
    """What fits comes out as it went in, a file unread; what a file object gave is kept, since it is used up."""
    (tmp_path / "a.png").write_bytes(PNG)
    for source in (PNG, tmp_path / "a.png", "https://example.com/a.jpg", named := ImageFile(PNG, name="ada.png")):
        assert source is await fitted(source)
    assert ImageFile(PNG) == await fitted(io.BytesIO(PNG))
    expected = fit_image(PNG, max_bytes=20_000)
    for source in (PNG, tmp_path / "a.png", io.BytesIO(PNG)):
        assert ImageFile(expected) == await fitted(source, max_bytes=20_000)
    assert ImageFile(expected, name="ada.png") == await fitted(named, max_bytes=20_000)
    typed = ImageFile(io.BytesIO(PNG), name="ada.png", media_type="image/png")
    assert ImageFile(expected, name="ada.png") == await fitted(typed, max_bytes=20_000)


@pytest.mark.anyio
async def test_many_at_once_take_turns(monkeypatch):
    """No more at once than there are processors: each may need hundreds of megabytes."""
    running = most = done = 0
    lock = threading.Lock()

    def smaller(*_):
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
            done += 1

    monkeypatch.setattr(fitting, "_smaller", smaller)
    async with anyio.create_task_group() as tasks:
        for _ in range(4 * os.cpu_count()):
            tasks.start_soon(fitted, PNG)
    assert 4 * os.cpu_count() == done
    assert most <= os.cpu_count()


@pytest.mark.anyio
async def test_what_cannot_be_decoded_is_a_typed_error_here_too():
    with pytest.raises(ImageRefusedError, match="its end is missing"):
        await fitted(PNG[:5_000], max_bytes=1_000)


@pytest.mark.anyio
async def test_a_picture_that_was_too_large_is_found_again():
    """Enrolled as a photograph of several megabytes, identified by the original's smaller copy."""
    large = encoded(ADA.resize((800, 800)), "BMP")
    async with local_session(recognizer="fingerprint") as session:
        with pytest.raises(RequestTooLargeError):
            await session.new_person("ada", ["staff"], large)
        await session.new_person("ada", ["staff"], await anyio.to_thread.run_sync(fit_image, large))
        await session.new_person("bob", ["staff"], draw_portrait(2))
        assert "ada" == (await session.identify("staff", PNG)).best.person_id
