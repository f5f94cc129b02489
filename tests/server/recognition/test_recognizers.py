"""Recognizers: what a picture must be, what holds for both of them, and which one is had by which name."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import anyio
import numpy as np
import pytest
from facekit import box, draw_portrait, needs_faces, portrait, refusal, stored
from PIL import Image

from face_async.local import local_session
from face_async.server.recognition import DUPLICATE_SIMILARITY, recognizer

# What a picture must be


def test_no_bytes_are_no_picture(finder):
    assert -1300 == refusal(finder, b"")


@pytest.mark.parametrize("form", ["GIF", "TIFF", "ICO", "PPM"])
def test_other_formats_are_not_supported(finder, form):
    assert -1400 == refusal(finder, stored(portrait().resize((64, 64)), form))


@pytest.mark.parametrize("content", [b"\0", b"GIF89a", b"hello, world", b"<svg/>", b"RIFF\0\0\0\0WAVE"])
def test_what_is_no_picture_is_not_supported_either(finder, content):
    assert -1400 == refusal(finder, content)


def test_a_picture_overwritten_in_its_middle_is_damaged(finder):
    whole = stored(portrait())
    middle = len(whole) // 2

    assert -1102 == refusal(finder, whole[:middle] + bytes(100) + whole[middle + 100 :])


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


@pytest.mark.parametrize("name", ["fingerprint", pytest.param("faces", marks=needs_faces)])
def test_a_recognizer_is_had_by_its_name(name):
    assert name == recognizer(name).name


@needs_faces
def test_auto_is_the_real_one_where_it_is_installed_and_dlib_its_old_name():
    assert "faces" == recognizer("auto").name == recognizer().name == recognizer("dlib").name


def test_without_the_extra_auto_is_the_fingerprint_and_faces_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    assert "fingerprint" == recognizer("auto").name
    for name in ("faces", "dlib"):
        with pytest.raises(ImportError, match=r"onnxruntime is not .* pip install 'face_async\[recognition\]'"):
            recognizer(name)


def test_no_other_name_is_known():
    with pytest.raises(ValueError, match="'auto', 'faces' or 'fingerprint', not 'magic'"):
        recognizer("magic")


@needs_faces
@pytest.mark.parametrize("name", ["faces", "dlib"])
def test_faces_of_another_recognizer_are_told_of_and_left_alone(tmp_path, caplog, name):
    """Those that dlib stored cannot be compared, and searching them finds nobody."""

    async def use(*, enroll):
        async with local_session(tmp_path / "faces.db", recognizer=name) as session:
            if enroll:
                await session.new_person("ada", ["staff"], draw_portrait(0))
            return await session.identify("staff", draw_portrait(0, shot=1))

    assert "ada" == anyio.run(lambda: use(enroll=True)).best.person_id
    assert "" == caplog.text
    with closing(sqlite3.connect(tmp_path / "faces.db")) as db, db:
        db.execute("UPDATE faces SET recognizer = 'dlib'")
    assert anyio.run(lambda: use(enroll=False)).best is None
    assert "faces cannot compare the faces that were added by dlib: add their pictures again, to a new database" in (
        caplog.text
    )
