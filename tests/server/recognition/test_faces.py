"""The recognizer of faces: where the faces of a picture are, what they show, and how alike they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from facekit import box, draw_portrait, needs_faces, portrait, refusal, stored
from PIL import Image

from face_async.limits import ALMOST_THE_SAME, SAME_PERSON, SURELY_THE_SAME
from face_async.local import local_session
from face_async.server.recognition import DUPLICATE_SIMILARITY, MATCH_SIMILARITY, base, networks
from face_async.server.refusal import Refusal

PHOTOS = Path(os.environ.get("FACE_ASYNC_TEST_PHOTOS", "nowhere"))
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="FACE_ASYNC_TEST_PHOTOS names no folder")


# The real recognizer: finding


def middle(face):
    return face.x + face.width / 2, face.y + face.height / 2


def scene(width, height, *faces):
    """A gray picture with drawn people in it: who, how large, and where the middle is."""
    picture = Image.new("RGB", (width, height), (127, 127, 127))
    for person, size, x, y in faces:
        picture.paste(portrait(person).resize((size, size)), (x - size // 2, y - size // 2))
    return picture


@needs_faces
def test_a_face_is_a_box_inside_the_picture_from_forehead_to_chin(faces):
    x, y, width, height = box(faces.find_face(draw_portrait(0)))

    assert 60 <= x <= 120
    assert 60 <= y <= 120
    assert 200 <= x + width <= 270
    assert 200 <= y + height <= 270


@needs_faces
@pytest.mark.parametrize("turn", [-60, -45, 15, 45, 60, 90, 135, 180, -90])
def test_a_turned_face_is_found_and_its_roll_is_clockwise(faces, turn):
    turned = portrait().rotate(-turn, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=(210, 210, 210))
    face = faces.find_face(stored(turned))

    assert abs((face.roll - turn - faces.find_face(draw_portrait(0)).roll + 180) % 360 - 180) <= 10
    assert middle(face) == pytest.approx((turned.width / 2, turned.height / 2), abs=40)


@needs_faces
@pytest.mark.parametrize("part", [10, 16, 24, 40])
def test_a_small_face_in_a_large_picture_is_found(faces, part):
    """A drawn face takes up half the width of its portrait."""
    size = 2 * 1600 // part
    face = faces.find_face(stored(scene(1600, 1200, (6, size, 1180, 330)), "JPEG"))

    assert middle(face) == pytest.approx((1180, 330), abs=size / 4)


@needs_faces
@pytest.mark.parametrize("size", [(6_000, 500), (500, 6_000)], ids=["panorama", "screenshot"])
def test_a_face_in_a_long_picture_is_found(faces, size):
    x, y = size[0] * 3 // 4 + 30, size[1] // 2 if size[0] > size[1] else 2_000
    x = min(x, size[0] - 150)
    face = faces.find_face(stored(scene(*size, (6, 260, x, y)), "JPEG"))

    assert middle(face) == pytest.approx((x, y), abs=70)


@needs_faces
def test_the_largest_of_several_faces_is_found(faces):
    face = faces.find_face(stored(scene(640, 320, (1, 220, 110, 160), (2, 320, 480, 160))))

    assert face.x > 320
    assert faces.similarities(face.embedding, faces.find_face(draw_portrait(2)).embedding[None])[0] > SURELY_THE_SAME


@needs_faces
def test_all_faces_come_largest_first_and_no_more_than_asked_for(faces):
    sizes = (300, 240, 200, 160)
    places = [(number, size, 220 + 360 * (number % 2), 200 + 330 * (number // 2)) for number, size in enumerate(sizes)]
    crowd = stored(scene(800, 720, *reversed(places)))
    found = faces.find_faces(crowd)

    for face, (person, size, x, y) in zip(found, places, strict=True):
        assert middle(face) == pytest.approx((x, y), abs=size / 4)
        own = faces.find_face(draw_portrait(person)).embedding
        assert faces.similarities(face.embedding, own[None])[0] > MATCH_SIMILARITY
    assert found[:2] == faces.find_faces(crowd, most=2)


def test_no_face_is_no_refusal_when_all_are_asked_for(finder):
    plain = stored(Image.new("RGB", (300, 200), (120, 30, 60)))

    assert [] == finder.find_faces(plain)
    with pytest.raises(Refusal):
        finder.find_faces(b"hello")


@needs_faces
def test_noise_and_stripes_have_no_face(faces):
    noise = Image.effect_noise((640, 480), 90).convert("RGB")
    stripes = Image.fromarray((np.indices((480, 640)).sum(axis=0) // 9 % 2 * 255).astype(np.uint8)).convert("RGB")

    assert [-1101, -1101] == [refusal(faces, stored(picture)) for picture in (noise, stripes)]


@needs_faces
def test_the_box_is_in_pixels_of_the_picture_as_sent(faces):
    """However far the picture is scaled down to be looked at."""
    small = np.array(box(faces.find_face(stored(portrait()))))
    large = np.array(box(faces.find_face(stored(portrait().resize((2560, 2560)), "JPEG"))))

    assert np.abs(large / 8 - small).max() < 8


def test_a_picture_on_its_side_is_turned_upright_first(finder):
    """The box counts in pixels of the upright picture; which side is scaled first is seen in roundings alone."""
    upright = portrait().crop((0, 0, 320, 280))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise to see me"
    sideways = stored(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)

    one, other = finder.find_face(stored(upright)), finder.find_face(sideways)
    assert box(one) == box(other)
    assert one.embedding == pytest.approx(other.embedding, abs=1e-3)


# The real recognizer: what a face shows


@needs_faces
def test_drawn_glasses_are_seen_and_none_where_there_are_none(faces):
    """Persons 8, 15, 16 and 19 are drawn with them; the thin frames of some others are missed."""
    worn = [faces.find_face(draw_portrait(person)).glass for person in (8, 15, 16, 19, 2, 10, 14, 17)]

    assert [True] * 4 + [False] * 4 == worn


@needs_faces
def test_a_mirrored_face_looks_the_other_way(faces):
    """A face that looks aside is one whose half is drawn narrower."""
    picture = portrait(6)
    left, right = picture.crop((0, 0, 160, 320)), picture.crop((160, 0, 320, 320))
    aside = Image.new("RGB", (320, 320), (200, 200, 200))
    aside.paste(left.resize((80, 320)), (80, 0))
    aside.paste(right, (160, 0))
    one = faces.find_face(stored(aside))
    other = faces.find_face(stored(aside.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))

    assert one.yaw < -5 < 5 < other.yaw
    assert abs(one.yaw + other.yaw) <= 5
    assert abs(one.pitch - other.pitch) <= 5


@needs_faces
def test_all_attributes_are_within_the_specifications_ranges(faces):
    """Of faces that are turned every way (Spec: 2.10)."""
    for number, turn in enumerate(range(0, 360, 45)):
        turned = portrait(number).rotate(turn, expand=True, fillcolor=(210, 210, 210))
        face = faces.find_face(stored(turned))
        assert 0 <= min(face.gender, face.age, face.expression)
        assert max(face.gender, face.age, face.expression) <= 100
        assert -30 <= min(face.pitch, face.yaw)
        assert max(face.pitch, face.yaw) <= 30
        assert -180 <= face.roll <= 180


@needs_faces
@needs_photos
@pytest.mark.anyio
async def test_no_attribute_of_a_photograph_is_neutral(anyio_backend):
    """As they reach a client; a laughing man's picture, who wears no glasses."""
    photo = PHOTOS / "biden-2.jpg"
    async with local_session(recognizer="faces") as session:
        added = await session.new_person("joe", ["staff"], photo)
        face = await session.get_face_info(added.face_id)
    assert face.gender > 90
    assert 40 < face.age < 90
    assert face.expression > 50
    assert not face.glass
    assert 0 not in (face.pitch, face.yaw)


# The real recognizer: telling apart


@needs_faces
def test_similarity_is_a_straight_line_between_the_measured_distances(faces):
    gallery = np.zeros((7, 128), np.float32)
    gallery[:, 0] = [0.0, 0.2, 0.55, 0.9, 1.0, 1.41, 2.0]
    expected = [100.0, ALMOST_THE_SAME, 94.5, SURELY_THE_SAME, SAME_PERSON, 0.0, 0.0]

    assert expected == pytest.approx(faces.similarities(np.zeros(128, np.float32), gallery), abs=1e-4)


def test_similarity_falls_with_distance(finder):
    """So the most similar face is the nearest one, for whoever searches by distance."""
    numbers = np.random.default_rng(3).normal(size=(500, 128)).astype(np.float32)
    gallery = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    order = np.argsort(base.distances(gallery[0], gallery))

    assert (np.diff(finder.similarities(gallery[0], gallery)[order]) <= 0).all()


@needs_faces
def test_copies_of_one_picture_are_almost_the_same_face(faces, full):
    """Recompressed, resized, and cropped a little (-1312)."""
    persons = 5 if full else 3
    changes = (
        lambda picture: stored(picture, "JPEG", quality=70),
        lambda picture: stored(picture, "WEBP", quality=80),
        lambda picture: stored(picture.resize((288, 288)), "JPEG", quality=90),
        lambda picture: stored(picture.resize((400, 400), Image.Resampling.BICUBIC)),
        lambda picture: stored(picture.crop((8, 8, 312, 312)), "JPEG", quality=90),
    )
    alike = [
        faces.similarities(faces.find_face(stored(portrait(person))).embedding, faces.find_face(copy).embedding[None])[
            0
        ]
        for person in range(persons)
        for copy in (change(portrait(person)) for change in changes)
    ]

    assert sum(similarity >= DUPLICATE_SIMILARITY for similarity in alike) >= 4 * persons


@needs_faces
@needs_photos
def test_photographs_of_one_person_match_and_of_others_do_not(faces):
    names = ["biden-1", "biden-2", "obama-1", "obama-2", "probe-obama", "rose-1", "rose-2"]
    persons = [name.removeprefix("probe-").partition("-")[0] for name in names]
    found = np.stack([faces.find_face((PHOTOS / f"{name}.jpg").read_bytes()).embedding for name in names])
    matches = np.stack([faces.similarities(face, found) >= MATCH_SIMILARITY for face in found])

    assert [[one == other for other in persons] for one in persons] == matches.tolist()


# The networks


@needs_faces
@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda network: network.name)
def test_a_network_answers_as_its_source_does(network):
    """But for what float16 loses: at most one part in a hundred of the largest answer."""
    reference = json.loads((networks.FOLDER / networks.REFERENCE).read_text())[network.name]
    answers = networks.session(network).run(network.outputs, {network.input: networks.sample(network)})
    for answer, expected in zip(answers, reference, strict=True):
        flat = answer.reshape(-1)
        places = np.linspace(0, len(flat) - 1, len(expected)).round().astype(int)
        assert np.abs(flat[places] - expected).max() <= 0.01 * np.abs(flat).max()


def test_every_network_has_a_license_and_every_data_file_a_network():
    folder = networks.FOLDER
    assert {network.name for network in networks.NETWORKS} == {path.stem for path in folder.glob("*.onnx")}
    assert all((folder / "licenses" / network.license).stat().st_size > 500 for network in networks.NETWORKS)
    assert sum(path.stat().st_size for path in folder.glob("*.onnx")) < 11_500_000


ALONE = """
import os, sys, time
from face_async.portraits import draw_portrait
from face_async.server.recognition import recognizer
picture, finder = draw_portrait(0), recognizer("faces")
before = len(os.listdir("/proc/self/task"))
finder.find_face(picture)
after, used = len(os.listdir("/proc/self/task")), time.process_time()
time.sleep(0.3)
print(after - before, time.process_time() - used)
"""


@needs_faces
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads cannot be counted here")
def test_a_picture_computes_in_its_own_thread_and_nothing_spins_afterwards():
    """However many processors there are: one more thread at most, which the runtime has for itself, and it sleeps."""
    said = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, check=True, text=True).stdout
    more, seconds = said.split()

    assert int(more) <= 1
    assert float(seconds) < 0.05


@needs_faces
def test_other_threads_go_on_while_a_picture_is_looked_at(faces):
    """How long one that only wants to wake up every millisecond pauses, usually."""
    picture = stored(scene(1600, 1200, (6, 200, 1180, 330)), "JPEG")
    faces.find_face(picture)
    with ThreadPoolExecutor(1) as pool:
        looking, pauses = pool.submit(faces.find_face, picture), []
        while not looking.done():
            began = time.perf_counter()
            time.sleep(0.001)
            pauses.append(time.perf_counter() - began)
    assert len(pauses) >= 3
    assert float(np.median(pauses)) < 0.02
