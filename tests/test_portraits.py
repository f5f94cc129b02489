"""Drawn people: always the same, all different, and faces to the recognizers."""

import io

import numpy as np
import pytest
from PIL import Image

from face_async.portraits import draw_portrait
from face_async.server.recognition import DUPLICATE_SIMILARITY, MATCH_SIMILARITY, recognizer


@pytest.fixture(params=["dlib", "fingerprint"])
def finder(request):
    if request.param == "dlib":
        pytest.importorskip("dlib")
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


def test_of_twenty_persons_the_fingerprint_tells_every_one():
    finder = recognizer("fingerprint")
    gallery = np.stack([finder.find_face(draw_portrait(person)).embedding for person in range(20)])
    probes = [finder.find_face(draw_portrait(person, shot=1)).embedding for person in range(20)]

    assert list(range(20)) == [int(finder.similarities(probe, gallery).argmax()) for probe in probes]
