"""The endpoints of the later revision: what each does, refuses, and answers."""

from __future__ import annotations

import io
import struct
import zlib

import anyio
import pytest
from PIL import Image
from serverkit import ToyRecognizer, calling, part, picture

from face_async.limits import ServiceLimits
from face_async.portraits import draw_portrait
from face_async.server import Face
from face_async.server.handlers import HANDLERS
from face_async.server.later import ALL_HANDLERS, LATER_HANDLERS
from face_async.server.recognition import networks

pytestmark = pytest.mark.anyio

SIZE = (120, 80)
FACE_ITEM = {"face_id", "x", "y", "width", "height", "gender", "age", "expression", "glass", "pitch", "yaw", "roll"}


def crowd(count: int) -> bytes:
    """Return a picture in which :class:`Crowd` sees so many persons, 1 to ``count``."""
    stream = io.BytesIO()
    Image.new("RGB", SIZE, (count, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


class Crowd(ToyRecognizer):
    """Sees in a picture as many persons as its first pixel has red, the largest face being person 1."""

    def find_faces(self, content: bytes, *, most: int = 100) -> list[Face]:
        with Image.open(io.BytesIO(content)) as image:
            count = image.getpixel((0, 0))[0]
        faces = [self.find_face(picture(person + 1)) for person in range(count)]
        return [Face(face.x, place, 64.0 - place, 64.5, embedding=face.embedding) for place, face in enumerate(faces)][
            :most
        ]


@pytest.fixture
async def crowded(store, anyio_backend):
    """A caller of a server that sees several faces in a picture."""
    async with calling(store, recognizer=Crowd()) as caller:
        yield caller


# addgroupids and delgroupids


async def test_addgroupids_puts_a_person_in_groups(caller):
    """Those that do not exist are created; those that the person is in do not count."""
    await caller.new_person("ada", "staff", image=picture(1))
    await caller.new_person("bob", "guests")

    data = await caller.ok("addgroupids", person_id="ada", group_ids=["staff", "guests", "new"])

    assert (data["person_id"], data["added"], data["group_ids"]) == ("ada", 2, ["guests", "new"])
    assert data["session_id"]
    assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff", "guests", "new"]
    assert (await caller.ok("getpersonids", group_id="guests"))["person_ids"] == ["bob", "ada"]
    assert (await caller.ok("getgroupids"))["group_ids"] == ["staff", "guests", "new"]


async def test_delgroupids_takes_a_person_out_of_groups(caller):
    """Groups that the person is not in do not count; the last group may go, and the person stays."""
    await caller.new_person("ada", "staff", image=picture(1))
    await caller.new_person("bob", "guests")

    data = await caller.ok("delgroupids", person_id="ada", group_ids=["guests", "staff"])

    assert (data["person_id"], data["deleted"], data["group_ids"]) == ("ada", 1, ["staff"])
    assert data["session_id"]
    assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == []
    assert (await caller.ok("getpersonids", group_id="staff"))["person_ids"] == []
    assert (await caller.ok("verify", part("person_id", "ada"), part("image", picture(1))))["ismatch"]


@pytest.mark.parametrize(("endpoint", "counted"), [("addgroupids", "added"), ("delgroupids", "deleted")])
async def test_what_is_done_already_is_done_again_without_a_count(caller, endpoint, counted):
    """So that a request which is sent twice does no harm."""
    await caller.new_person("ada", "staff", "guests")
    groups = ["staff"] if endpoint == "addgroupids" else ["guests"]
    await caller.ok(endpoint, person_id="ada", group_ids=groups)

    data = await caller.ok(endpoint, person_id="ada", group_ids=groups)

    assert (data[counted], data["group_ids"]) == (0, [])


async def test_identify_sees_at_once_who_came_and_went(caller):
    """A gallery that was used before is not served again."""
    await caller.new_person("ada", "staff", image=picture(1))
    await caller.new_person("bob", "guests", image=picture(2))
    probe = part("image", picture(1))

    async def seen(group_id: str) -> list[str]:
        data = await caller.ok("identify", part("group_id", group_id), probe)
        return [candidate["person_id"] for candidate in data["candidates"]]

    assert (await seen("staff"), await seen("guests")) == (["ada"], ["bob"])
    await caller.ok("addgroupids", person_id="ada", group_ids=["guests"])
    assert (await seen("staff"), await seen("guests")) == (["ada"], ["ada", "bob"])
    await caller.ok("delgroupids", person_id="ada", group_ids=["staff"])
    assert (await seen("staff"), await seen("guests")) == ([], ["ada", "bob"])


@pytest.mark.parametrize("endpoint", ["addgroupids", "delgroupids"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, -1301),
        ({"person_id": "ada"}, -1301),
        ({"person_id": "ada", "group_ids": []}, -1307),
        ({"person_id": "ada", "group_ids": ["a b"]}, -1313),
        ({"person_id": "ada", "group_ids": ["a" * 129]}, -1304),
        ({"person_id": "ada", "group_ids": "staff"}, 21),
        ({"person_id": "nobody", "group_ids": ["staff"]}, -1303),
    ],
    ids=repr,
)
async def test_the_groups_of_a_person_are_checked(caller, endpoint, sent, code):
    """As those of newperson."""
    await caller.new_person("ada", "staff")
    assert (await caller.json(endpoint, **sent))[0] == code


async def test_delgroupids_refuses_a_group_that_does_not_exist_and_changes_nothing(caller):
    """-1306, whatever other groups are named."""
    await caller.new_person("ada", "staff")
    assert (await caller.json("delgroupids", person_id="ada", group_ids=["staff", "nowhere"]))[0] == -1306
    assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff"]


async def test_addgroupids_keeps_the_limits_and_changes_nothing_beyond_them(store):
    """-1310 for a full group, -1311 for a group too many; the groups that one is in already take no room."""
    limits = ServiceLimits(max_persons_per_group=1, max_groups_per_appid=2)
    async with calling(store, limits=limits) as caller:
        await caller.new_person("ada", "staff")
        await caller.new_person("bob", "guests")
        assert (await caller.json("addgroupids", person_id="ada", group_ids=["guests"]))[0] == -1310
        assert (await caller.json("addgroupids", person_id="ada", group_ids=["new"]))[0] == -1311
        assert (await caller.json("addgroupids", person_id="ada", group_ids=["staff"]))[0] == 0
        assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff"]
        assert (await caller.ok("getgroupids"))["group_ids"] == ["staff", "guests"]


async def test_a_person_moves_while_others_do(store):
    """Requests at the same time share the server, and none is lost."""
    async with calling(store) as caller:
        await caller.new_person("ada", "g0")
        async with anyio.create_task_group() as tasks:
            for number in range(1, 9):
                tasks.start_soon(
                    lambda number=number: caller.ok("addgroupids", person_id="ada", group_ids=[f"g{number}"])
                )
        assert set((await caller.ok("getinfo", person_id="ada"))["group_ids"]) == {f"g{number}" for number in range(9)}


# detect and shape


async def test_detect_describes_the_faces_of_a_picture_the_largest_first(crowded):
    """Programs read ``face[0]``. Every face has an id of its own, which names no stored face."""
    data = await crowded.ok("detect", part("image", crowd(3)))

    assert (data["image_width"], data["image_height"]) == SIZE
    assert [face["width"] for face in data["face"]] == [64.0, 63.0, 62.0]
    assert all(set(face) == FACE_ITEM | {"beauty"} for face in data["face"])
    assert len({face["face_id"] for face in data["face"]}) == 3
    assert (await crowded.json("getfaceinfo", face_id=data["face"][0]["face_id"]))[0] == -1305
    assert data["session_id"]


async def test_detect_describes_five_faces_and_places_the_others(crowded):
    """Those have an id and a box alone."""
    data = await crowded.ok("detect", part("image", crowd(7)))
    assert [set(face) == {"face_id", "x", "y", "width", "height"} for face in data["face"]] == [False] * 5 + [True] * 2


@pytest.mark.parametrize(("mode", "faces"), [(0, 3), (1, 1), ("0", 3), ("1", 1), (None, 3), ("", 3)], ids=repr)
async def test_detect_takes_its_mode_as_a_number_or_a_text(crowded, monkeypatch, mode, faces):
    """1 is the largest face alone. JSON has either, multipart text."""

    async def fetch(self, url, body):
        return crowd(3)

    monkeypatch.setattr("face_async.server.fetch.Fetcher.fetch", fetch)
    assert len((await crowded.ok("detect", url="http://x", mode=mode))["face"]) == faces
    assert len((await crowded.ok("detect", part("url", "http://x"), part("mode", str(mode or ""))))["face"]) == faces


@pytest.mark.parametrize("mode", [2, "2", "all", True, [1], {}, 0.5], ids=repr)
@pytest.mark.parametrize("endpoint", ["detect", "shape"])
async def test_another_mode_is_21(crowded, endpoint, mode):
    """Nobody could say what is meant."""
    assert (await crowded.json(endpoint, url="http://x", mode=mode))[0] == 21


@pytest.mark.parametrize("endpoint", ["detect", "multidentify"])
async def test_no_face_at_all_is_minus_1101(crowded, endpoint):
    """And no picture is -1300, one that cannot be decoded -1102."""
    await crowded.new_person("ada", "staff")
    group = part("group_id", "staff")
    assert (await crowded.multipart(endpoint, group, part("image", crowd(0))))[0] == -1101
    assert (await crowded.multipart(endpoint, group))[0] == -1300
    assert (await crowded.multipart(endpoint, group, part("image", b"")))[0] == -1300


def png_with(name: bytes, data: bytes, *, damage: int = 0) -> bytes:
    """Return a picture with one more chunk behind its header, whose checksum may be wrong."""
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ damage)
    return PORTRAITS["PNG"][:33] + chunk + PORTRAITS["PNG"][33:]


PORTRAITS = {}
for _kind in ("JPEG", "PNG", "WEBP"):
    _stream = io.BytesIO()
    Image.open(io.BytesIO(draw_portrait(1, size=160))).crop((0, 0, 120, 160)).save(_stream, _kind, quality=95)
    PORTRAITS[_kind] = _stream.getvalue()
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ODD = {
    "checksum of a text": png_with(b"tEXt", b"a\0b", damage=1),
    "checksum of the header": PORTRAITS["PNG"][:29] + bytes(4) + PORTRAITS["PNG"][33:],
    "EXIF": png_with(b"eXIf", b"XXXX"),
    "profile": png_with(b"iCCP", b"a\0\1zz"),
    "end": PORTRAITS["WEBP"][:-8],
    "orientation in XMP alone": PORTRAITS["JPEG"][:2]
    + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + PORTRAITS["JPEG"][2:],
}  # fmt: skip


@pytest.mark.parametrize("oddity", ODD)
async def test_all_endpoints_take_the_same_pictures_and_see_the_same_in_them(store, oddity):
    """One decoder reads them, whatever is wrong beside their pixels."""
    image = part("image", ODD[oddity])
    async with calling(store, recognizer="fingerprint") as caller:
        await caller.new_person("ada", "staff", image=ODD[oddity])
        assert (await caller.ok("identify", part("group_id", "staff"), image))["candidates"]
        detected = await caller.ok("detect", image)
        several = await caller.ok("multidentify", part("group_id", "staff"), image)
    (face,) = detected["face"]
    assert (detected["image_width"], detected["image_height"]) == (120, 160) == (face["width"], face["height"])
    assert len(several["results"]) == 1


async def test_detect_works_with_a_recognizer_that_knows_the_largest_face_alone(store):
    """As fingerprint does: the whole picture is the face. A picture that is stored sideways is seen upright."""
    async with calling(store, recognizer="fingerprint") as caller:
        sideways = io.BytesIO()
        with Image.open(io.BytesIO(draw_portrait(1))) as image:
            width, height = image.size
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(sideways, "JPEG", exif=exif)
        for content, size in ((draw_portrait(1), (width, height)), (sideways.getvalue(), (height, width))):
            data = await caller.ok("detect", part("image", content))
            assert (data["image_width"], data["image_height"]) == size
            assert [(face["width"], face["height"]) for face in data["face"]] == [size]
        assert (await caller.multipart("detect", part("image", b"GIF89a")))[0] == -1400


async def test_shape_answers_the_points_of_every_face(store):
    """An array with one entry a face, each with arrays of points by the names of the parts."""

    class Measuring(ToyRecognizer):
        def find_shapes(self, content, *, most):
            return [{"nose": [(1, 2), (3, 4)], "mouth": [(5, 6)]}, {"nose": [], "mouth": []}][:most]

    async with calling(store, recognizer=Measuring()) as caller:
        data = await caller.ok("shape", part("image", crowd(1)))
        assert (data["image_width"], data["image_height"]) == SIZE
        assert data["face_shape"][0] == {"nose": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "mouth": [{"x": 5, "y": 6}]}
        assert len(data["face_shape"]) == 2
        assert data["session_id"]
        assert len((await caller.ok("shape", part("image", crowd(1)), part("mode", "1")))["face_shape"]) == 1


@pytest.mark.skipif(not networks.is_installed(), reason="the recognition extra is not installed")
async def test_the_real_recognizer_has_the_88_points(store):
    """Of each part as many as the vendor's documents say, in pixels of the picture, and where the part is."""
    async with calling(store, recognizer="faces") as caller:
        data = await caller.ok("shape", part("image", draw_portrait(1)))
        (face,) = (await caller.ok("detect", part("image", draw_portrait(1))))["face"]
    (shape,) = data["face_shape"]
    counts = {"face_profile": 21, "left_eye": 8, "right_eye": 8, "left_eyebrow": 8, "right_eyebrow": 8, "mouth": 22}
    assert {name: len(points) for name, points in shape.items()} == counts | {"nose": 13}
    across, down = {}, {}
    for name, points in shape.items():
        assert all(0 <= point["x"] < data["image_width"] and 0 <= point["y"] < data["image_height"] for point in points)
        across[name] = sum(point["x"] for point in points) / len(points)
        down[name] = sum(point["y"] for point in points) / len(points)
        assert face["x"] <= across[name] <= face["x"] + face["width"]
        assert face["y"] <= down[name] <= face["y"] + face["height"]
    assert across["left_eye"] < across["nose"] < across["right_eye"]
    assert across["left_eyebrow"] < across["right_eyebrow"]
    assert down["left_eyebrow"] < down["left_eye"] < down["nose"] < down["mouth"]
    assert shape["face_profile"][0]["x"] < across["mouth"] < shape["face_profile"][-1]["x"]


async def test_shape_says_that_there_are_no_points(caller):
    """-1104, after the checks of the request and of the picture."""
    assert (await caller.multipart("shape", part("image", picture(1))))[0] == -1104
    assert (await caller.multipart("shape", part("image", b"nobody")))[0] == -1101
    assert (await caller.json("shape"))[0] == -1300


# multidentify


async def test_multidentify_finds_the_persons_of_every_face(crowded):
    """One result a face, the largest first, each as identify ranks it, with its place in the picture."""
    for person in (1, 2, 3):
        await crowded.new_person(f"p{person}", "staff", image=picture(person), tag=f"t{person}")

    data = await crowded.ok("multidentify", part("group_id", "staff"), part("image", crowd(2)))

    assert [[found["person_id"] for found in result["candidates"]] for result in data["results"]] == [
        ["p1", "p2", "p3"],
        ["p2", "p1", "p3"],
    ]
    assert [result["face_rect"] for result in data["results"]] == [
        {"x": 44, "y": 0, "width": 64.0, "height": 64.5},
        {"x": 44, "y": 1, "width": 63.0, "height": 64.5},
    ]
    best = data["results"][0]["candidates"][0]
    assert (best["confidence"], best["tag"], set(best)) == (100.0, "t1", {"person_id", "face_id", "confidence", "tag"})
    assert data["group_size"] == 3
    assert type(data["time_ms"]) is int
    assert data["session_id"]


async def test_multidentify_looks_in_all_groups_that_are_named(crowded):
    """By ``group_ids``, in JSON and in multipart, or by ``group_id``; -1306 for a group that does not exist."""
    await crowded.new_person("ada", "staff", image=picture(1))
    await crowded.new_person("bob", "guests", image=picture(2))
    image = part("image", crowd(1))

    both = [part("group_ids[0]", "staff"), part("group_ids[1]", "guests")]
    data = await crowded.ok("multidentify", *both, image)
    assert [found["person_id"] for found in data["results"][0]["candidates"]] == ["ada", "bob"]
    assert data["group_size"] == 2
    data = await crowded.ok("multidentify", part("group_ids", "guests"), image)
    assert [found["person_id"] for found in data["results"][0]["candidates"]] == ["bob"]
    assert (await crowded.multipart("multidentify", part("group_id", "nowhere"), image))[0] == -1306
    assert (await crowded.multipart("multidentify", image))[0] == -1301


async def test_multidentify_in_a_group_without_faces_has_nobody(crowded):
    """The faces of the picture are answered all the same."""
    await crowded.new_person("ada", "staff")
    data = await crowded.ok("multidentify", part("group_id", "staff"), part("image", crowd(2)))
    assert [result["candidates"] for result in data["results"]] == [[], []]
    assert data["group_size"] == 0


# All of them


async def test_identify_says_how_many_faces_it_searched_and_how_long_it_took(caller):
    """As the hosted service was seen to; all groups together."""
    await caller.new_person("ada", "staff", image=picture(1))
    await caller.add_faces("ada", picture(1, 1))
    await caller.new_person("bob", "guests", image=picture(2))
    data = await caller.ok("identify", part("group_id", "staff"), part("image", picture(1)))
    assert (data["group_size"], type(data["time_ms"])) == (2, int)
    groups = [part("group_ids[0]", "staff"), part("group_ids[1]", "guests")]
    assert (await caller.ok("identify", *groups, part("image", picture(1))))["group_size"] == 3


async def test_a_session_id_that_is_sent_is_no_other_parameter(caller):
    """Java's client may send one."""
    await caller.new_person("ada", "staff")
    data = await caller.ok("addgroupids", person_id="ada", group_ids=["new"], session_id="mine")
    assert data["session_id"] not in {"", "mine"}


def test_the_13_endpoints_and_the_later_ones_are_told_apart(anyio_backend):
    """They make up all that there are."""
    assert (len(HANDLERS), set(HANDLERS) & set(LATER_HANDLERS)) == (13, set())
    assert set(ALL_HANDLERS) == set(HANDLERS) | set(LATER_HANDLERS)
