"""Drawn people: always the same, all different, and faces to the recognizers."""

import io

import numpy as np
import pytest
from PIL import Image

from face_async.limits import SURELY_THE_SAME
from face_async.portraits import _looks, _seed, draw_portrait
from face_async.server.recognition import DUPLICATE_SIMILARITY, MATCH_SIMILARITY, recognizer


@pytest.fixture(params=["faces", "fingerprint"])
def finder(request):
    if request.param == "faces":
        pytest.importorskip("onnxruntime")
    finder = recognizer(request.param)
    yield finder
    finder.close()


def test_a_portrait_is_a_square_jpeg_of_the_size_asked_for():
    portrait = Image.open(io.BytesIO(draw_portrait(7, size=150)))

    assert ("JPEG", "RGB", (150, 150)) == (portrait.format, portrait.mode, portrait.size)


def test_the_same_arguments_give_the_same_bytes():
    assert draw_portrait(3, shot=2, size=160) == draw_portrait(3, shot=2, size=160)


def test_persons_and_shots_all_differ():
    portraits = {draw_portrait(person, shot=shot, size=100) for person in range(8) for shot in range(4)}

    assert 32 == len(portraits)


@pytest.mark.parametrize("arguments", [{"person": -1}, {"person": 0, "shot": -1}, {"person": 0, "size": 99}])
def test_numbers_that_make_no_picture_are_refused(arguments):
    with pytest.raises(ValueError, match="not"):
        draw_portrait(**arguments)


def test_a_new_shot_is_nearest_to_its_own_person(finder):
    """With two shots enrolled; and no two shots of a person are alike enough to be refused as duplicates."""
    persons = range(6)
    gallery = np.stack([finder.find_face(draw_portrait(p, shot=shot)).embedding for p in persons for shot in (0, 1)])
    probes = [finder.find_face(draw_portrait(person, shot=2)).embedding for person in persons]
    similarities = np.stack([finder.similarities(probe, gallery) for probe in probes]).reshape(6, 6, 2)

    own = similarities[persons, persons]
    assert list(persons) == similarities.max(axis=2).argmax(axis=1).tolist()
    assert own.min() >= MATCH_SIMILARITY
    assert own.max() < DUPLICATE_SIMILARITY


def test_strangers_are_nobody_to_the_real_recognizer():
    """The first people are all farther apart than a match, in whatever shots, and a person's shots are surely one."""
    faces = pytest.importorskip("onnxruntime") and recognizer("faces")
    shots = np.stack(
        [
            [faces.find_face(draw_portrait(person, shot=shot)).embedding for shot in (0, 3)]
            for person in (*range(8), 34, 35)
        ]
    )
    alike = np.stack([faces.similarities(shot, shots.reshape(20, -1)) for shot in shots[:, 1]]).reshape(10, 10, 2)
    own = np.eye(10, dtype=bool)

    assert alike[~own].max() < MATCH_SIMILARITY
    assert SURELY_THE_SAME <= alike[own][:, 0].min() <= alike[own][:, 0].max() < DUPLICATE_SIMILARITY


def test_only_men_have_beards():
    assert not any(_looks(_seed(person)).beard > 0 or _looks(_seed(person)).moustache > 0 for person in range(0, 80, 2))
    assert any(_looks(_seed(person)).beard > 0 for person in range(1, 20, 2))


def test_of_twenty_persons_the_fingerprint_tells_every_one():
    finder = recognizer("fingerprint")
    gallery = np.stack([finder.find_face(draw_portrait(person)).embedding for person in range(20)])
    probes = [finder.find_face(draw_portrait(person, shot=1)).embedding for person in range(20)]

    assert list(range(20)) == [int(finder.similarities(probe, gallery).argmax()) for probe in probes]
