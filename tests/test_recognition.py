"""Recognizers: what a picture must be, where its face is, and how alike faces are."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timing import PATIENCE

from face_async.portraits import draw_portrait
from face_async.server.recognition import DUPLICATE_SIMILARITY, MATCH_SIMILARITY, recognizer
from face_async.server.recognition import dlib_network as _dlib
from face_async.server.refusal import Refusal

PHOTOS = Path(__file__).parents[2] / "shared" / "photos"

needs_dlib = pytest.mark.skipif(not _dlib.is_installed(), reason="the recognition extra is not installed")
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="there are no photographs here")


@pytest.fixture(scope="module")
def dlib():
    finder = recognizer("dlib")
    yield finder
    finder.close()


@pytest.fixture(scope="module")
def fingerprint():
    return recognizer("fingerprint")


@pytest.fixture(params=["fingerprint", pytest.param("dlib", marks=needs_dlib)])
def finder(request):
    return request.getfixturevalue(request.param)


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def portrait(person=0, shot=0):
    return Image.open(io.BytesIO(draw_portrait(person, shot=shot)))


def box(face):
    return face.x, face.y, face.width, face.height


def refusal(finder, picture):
    with pytest.raises(Refusal) as caught:
        finder.find_face(picture)
    return caught.value.code


# What a picture must be


def test_no_bytes_are_no_picture(finder):
    assert -1300 == refusal(finder, b"")


@pytest.mark.parametrize("form", ["GIF", "TIFF", "ICO", "PPM"])
def test_other_formats_are_not_supported(finder, form):
    assert -1400 == refusal(finder, stored(portrait().resize((64, 64)), form))


@pytest.mark.parametrize("content", [b"\0", b"GIF89a", b"hello, world", b"<svg/>", b"RIFF\0\0\0\0WAVE"])
def test_what_is_no_picture_is_not_supported_either(finder, content):
    assert -1400 == refusal(finder, content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_picture_that_breaks_off_is_damaged(finder, form):
    whole = stored(portrait(), form)

    assert {-1102} == {refusal(finder, whole[: len(whole) * tenths // 10]) for tenths in (1, 5, 9)}


def test_a_picture_overwritten_in_its_middle_is_damaged(finder):
    whole = stored(portrait())
    middle = len(whole) // 2

    assert -1102 == refusal(finder, whole[:middle] + bytes(100) + whole[middle + 100 :])


@pytest.mark.parametrize("side", [7_100, 9_600, 16_000], ids=["over the cap", "Pillow warns", "Pillow refuses"])
def test_a_decompression_bomb_is_never_decoded(finder, side, monkeypatch):
    """A few kilobytes that would take 150 MB and more."""
    bomb = stored(Image.new("1", (side, side)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))

    assert -1102 == refusal(finder, bomb)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (120, 30, 60)])
def test_a_uniform_picture_shows_no_face(finder, color):
    assert -1101 == refusal(finder, stored(Image.new("RGB", (300, 200), color), "JPEG"))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (20, 20)])
def test_a_tiny_picture_shows_no_face(finder, size):
    assert -1101 == refusal(finder, stored(Image.new("RGB", size, (200, 180, 160))))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_colors_may_be_stored_in_any_way(finder, mode):
    content = stored(portrait().convert(mode), "JPEG" if mode == "CMYK" else "PNG")

    assert finder.find_face(content).width > 100


# The real recognizer


@needs_dlib
def test_a_real_face_is_a_box_inside_the_picture_around_eyes_and_mouth(dlib):
    x, y, width, height = box(dlib.find_face(draw_portrait(0)))

    assert 60 <= x <= 120
    assert 60 <= y <= 120
    assert 200 <= x + width <= 260
    assert 200 <= y + height <= 260


@needs_dlib
def test_what_is_not_measured_is_neutral(dlib):
    face = dlib.find_face(draw_portrait(0))

    assert (50, 0, 0, False, 0) == (face.gender, face.age, face.expression, face.glass, face.pitch)
    assert (np.float32, (128,)) == (face.embedding.dtype, face.embedding.shape)


@needs_dlib
@pytest.mark.parametrize("turn", [-15, 15])
def test_roll_is_clockwise(dlib, turn):
    turned = portrait().rotate(-turn, resample=Image.Resampling.BICUBIC, fillcolor=(210, 210, 210))

    assert abs(turn - dlib.find_face(stored(turned)).roll) <= 5


@needs_dlib
def test_the_largest_of_several_faces_is_found(dlib):
    crowd = Image.new("RGB", (640, 320), (220, 220, 220))
    crowd.paste(portrait(1).resize((220, 220)), (0, 50))
    crowd.paste(portrait(2), (320, 0))

    face = dlib.find_face(stored(crowd))
    assert face.x > 320
    assert dlib.similarities(face.embedding, dlib.find_face(draw_portrait(2)).embedding[None])[0] > 90


@needs_dlib
def test_the_box_is_in_pixels_of_the_picture_as_sent(dlib):
    """However far the picture is scaled down to be looked at."""
    small = np.array(box(dlib.find_face(stored(portrait()))))
    large = np.array(box(dlib.find_face(stored(portrait().resize((2560, 2560)), "JPEG"))))

    assert np.abs(large / 8 - small).max() < 20


@needs_dlib
def test_a_face_too_small_for_the_first_look_is_found_by_the_second(dlib):
    scene = Image.new("RGB", (1600, 1200), (220, 220, 220))
    scene.paste(portrait().resize((240, 240)), (1000, 700))

    x, y, width, height = box(dlib.find_face(stored(scene)))
    assert 1000 <= x <= x + width <= 1240
    assert 700 <= y <= y + height <= 940


def test_a_picture_on_its_side_is_turned_upright_first(finder):
    """The box counts in pixels of the upright picture."""
    upright = portrait().crop((0, 0, 320, 280))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise to see me"
    sideways = stored(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)

    one, other = finder.find_face(stored(upright)), finder.find_face(sideways)
    assert box(one) == box(other)
    assert one.embedding.tolist() == other.embedding.tolist()


@needs_dlib
def test_similarity_is_a_straight_line_between_the_published_distances(dlib):
    """100 at distance 0, 75 at 0.6, 0 from 1.2."""
    gallery = np.zeros((5, 128), np.float32)
    gallery[:, 0] = [0.0, 0.3, 0.6, 0.9, 2.0]

    assert [100.0, 87.5, 75.0, 37.5, 0.0] == pytest.approx(dlib.similarities(np.zeros(128, np.float32), gallery))


@needs_dlib
@needs_photos
def test_photographs_of_one_person_match_and_of_others_do_not(dlib):
    names = ["biden-1", "biden-2", "obama-1", "obama-2", "probe-obama", "rose-1", "rose-2"]
    persons = [name.removeprefix("probe-").partition("-")[0] for name in names]
    faces = np.stack([dlib.find_face((PHOTOS / f"{name}.jpg").read_bytes()).embedding for name in names])
    matches = np.stack([dlib.similarities(face, faces) >= MATCH_SIMILARITY for face in faces])

    assert [[one == other for other in persons] for one in persons] == matches.tolist()


@needs_dlib
def test_a_killed_child_is_replaced(dlib):
    before = dlib.find_face(draw_portrait(0))
    for lane in dlib._lanes:
        if lane._embedder._process:
            lane._embedder._process.kill()

    assert before.embedding.tolist() == dlib.find_face(draw_portrait(0)).embedding.tolist()


@needs_dlib
def test_a_child_that_cannot_work_is_a_refusal_and_no_hang(monkeypatch):
    finder = recognizer("dlib")
    monkeypatch.setattr("face_async.server.recognition.dlib_network.sys.executable", "/bin/false")

    assert -1103 == refusal(finder, draw_portrait(0))
    finder.close()


@needs_dlib
def test_a_closed_recognizer_opens_again_when_it_is_used():
    finder = recognizer("dlib")
    before = finder.find_face(draw_portrait(0))
    finder.close()
    finder.close()

    assert before == finder.find_face(draw_portrait(0))
    children = [lane._embedder._process for lane in finder._lanes if lane._embedder._process]
    finder.close()
    assert all(child.returncode is not None for child in children)


FORGETFUL = """
import sys
from face_async.portraits import draw_portrait
from face_async.server.recognition import recognizer
finder = recognizer("dlib")
finder.find_face(draw_portrait(0))
print([lane._embedder._process.pid for lane in finder._lanes if lane._embedder._process][0], flush=True)
sys.stdin.read()
"""


@needs_dlib
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here")
def test_ctrl_c_ends_a_program_that_forgot_to_close_and_its_child_without_a_word_of_the_child():
    """A script without ``if __name__ == "__main__"``, too."""
    with subprocess.Popen(
        [sys.executable, "-c", FORGETFUL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as program:
        child = int(program.stdout.readline())
        os.killpg(program.pid, signal.SIGINT)
        said = program.communicate(timeout=PATIENCE)[1].decode()

    assert 1 == said.count("Traceback")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


# The fingerprint


def test_a_fingerprint_takes_the_whole_picture_for_a_face(fingerprint):
    face = fingerprint.find_face(stored(portrait().resize((300, 200))))

    assert (0, 0, 300.0, 200.0) == box(face)
    assert (50, 0, 0, False, 0, 0, 0) == (
        face.gender, face.age, face.expression, face.glass, face.pitch, face.yaw, face.roll,
    )  # fmt: skip


def structure(seed):
    cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(cells).resize((240, 240))


@pytest.mark.parametrize("picture", [portrait(1), structure(1)], ids=["portrait", "structure"])
@pytest.mark.parametrize(
    "again",
    [
        lambda picture: stored(picture, "JPEG", quality=50),
        lambda picture: stored(picture, "WEBP", quality=60),
        lambda picture: stored(picture.resize((160, 160)), "JPEG"),
        lambda picture: stored(picture.resize((480, 480)), "BMP"),
    ],
    ids=["recompressed", "other format", "smaller", "larger"],
)
def test_a_recompressed_or_rescaled_picture_is_almost_the_same_face(fingerprint, picture, again):
    one = fingerprint.find_face(stored(picture)).embedding
    other = fingerprint.find_face(again(picture)).embedding

    assert fingerprint.similarities(one, other[None])[0] >= DUPLICATE_SIMILARITY


def test_unrelated_structures_are_nothing_alike(fingerprint):
    faces = np.stack([fingerprint.find_face(stored(structure(seed))).embedding for seed in range(12)])
    similarities = np.stack([fingerprint.similarities(face, faces) for face in faces])

    assert similarities[~np.eye(12, dtype=bool)].max() < 20


# Both


def test_a_face_is_entirely_like_itself(finder):
    face = finder.find_face(draw_portrait(4)).embedding

    assert [100.0] == pytest.approx(finder.similarities(face, face[None]))


def test_similarities_to_nobody_are_none(finder):
    face = finder.find_face(draw_portrait(4)).embedding
    similarities = finder.similarities(face, np.empty((0, face.size), np.float32))

    assert (0,) == similarities.shape
    assert np.float64 == similarities.dtype


def test_threads_see_what_one_thread_sees(finder):
    pictures = [draw_portrait(person) for person in range(4)] * 2
    alone = [finder.find_face(picture) for picture in pictures]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(finder.find_face, pictures))

    assert alone == together
    assert [face.embedding.tolist() for face in alone] == [face.embedding.tolist() for face in together]


# Which recognizer


@pytest.mark.parametrize("name", ["fingerprint", pytest.param("dlib", marks=needs_dlib)])
def test_a_recognizer_is_had_by_its_name(name):
    assert name == recognizer(name).name


@needs_dlib
def test_auto_is_the_real_one_where_it_is_installed():
    assert "dlib" == recognizer("auto").name == recognizer().name


@pytest.mark.parametrize("missing", ["dlib", "face_recognition_models"])
def test_without_the_extra_auto_is_the_fingerprint_and_dlib_says_what_to_install(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find_spec(name))

    assert "fingerprint" == recognizer("auto").name
    with pytest.raises(ImportError, match=r"pip install 'face_async\[recognition\]'"):
        recognizer("dlib")


def test_no_other_name_is_known():
    with pytest.raises(ValueError, match="'auto', 'dlib' or 'fingerprint', not 'magic'"):
        recognizer("magic")
