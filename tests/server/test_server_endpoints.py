"""What each of the 13 endpoints does, and refuses to do."""

from __future__ import annotations

import anyio
import pytest
from serverkit import Caller, ToyRecognizer, authorization, calling, part, picture

from face_async.errors import CODES
from face_async.server import handlers
from face_async.server.handlers import HANDLERS

pytestmark = pytest.mark.anyio

UNKNOWN_FACE = "1" * 19


async def test_newperson_creates_a_person_in_groups_with_a_face(caller):
    """Spec: 2.1."""
    data = await caller.new_person("ada", "staff", "guests", image=picture(1), person_name="Ada", tag="hq")
    assert (data["person_id"], data["suc_group"], data["suc_face"]) == ("ada", 2, 1)
    assert data["group_ids"] == ["staff", "guests"]
    assert data["face_id"].isdecimal()
    assert len(data["face_id"]) == 19
    assert data["session_id"]


async def test_newperson_without_a_picture_has_no_face(caller):
    """``face_id`` is empty then."""
    data = await caller.new_person("ada")
    assert (data["suc_face"], data["face_id"]) == (0, "")


async def test_newperson_counts_a_group_once(caller):
    """However often the request names it."""
    data = await caller.new_person("ada", "staff", "staff")
    assert (data["suc_group"], data["group_ids"]) == (1, ["staff"])


async def test_newperson_refuses_a_person_that_exists(caller):
    """-1302, and nothing changes."""
    await caller.new_person("ada", person_name="Ada")
    assert (await caller.json("newperson", person_id="ada", group_ids=["new"], person_name="Eve"))[0] == -1302
    assert (await caller.ok("getinfo", person_id="ada"))["person_name"] == "Ada"
    assert (await caller.ok("getgroupids"))["group_ids"] == ["staff"]


@pytest.mark.parametrize(("image", "code"), [(b"nobody", -1101), (b"broken", -1102), (b"GIF89a", -1400), (b"", -1300)])
async def test_newperson_creates_nothing_when_its_picture_fails(caller, image, code):
    """The person is created with the face or not at all."""
    parts = [part("person_id", "ada"), part("group_ids[0]", "staff"), part("image", image)]
    assert (await caller.multipart("newperson", *parts))[0] == code
    assert (await caller.json("getinfo", person_id="ada"))[0] == -1303
    assert (await caller.ok("getgroupids"))["group_ids"] == []


async def test_delperson_deletes_the_person_and_keeps_the_group(caller):
    """Spec: 2.2. No operation of the specification deletes a group."""
    face_id = (await caller.new_person("ada", image=picture(1)))["face_id"]
    data = await caller.ok("delperson", person_id="ada")
    assert (data["person_id"], data["deleted"]) == ("ada", 1)
    assert (await caller.json("delperson", person_id="ada"))[0] == -1303
    assert (await caller.json("getfaceinfo", face_id=face_id))[0] == -1305
    assert (await caller.ok("getpersonids", group_id="staff"))["person_ids"] == []
    assert (await caller.ok("getgroupids"))["group_ids"] == ["staff"]


async def test_addface_answers_for_each_picture_in_order(caller):
    """Spec: 2.3. A refused picture has an empty id, and the request still succeeds."""
    await caller.new_person("ada")
    data = await caller.add_faces("ada", picture(1), b"nobody", b"", picture(1, 5), b"broken", b"GIF89a")
    assert data["ret_codes"] == [0, -1101, -1300, 0, -1102, -1400]
    assert data["added"] == 2
    first, none, empty, second, *_ = data["face_ids"]
    assert (none, empty) == ("", "")
    assert (await caller.ok("getfaceids", person_id="ada"))["face_ids"] == [first, second]


async def test_addface_names_the_face_that_is_almost_the_same(caller):
    """-1312, also for a twin in the same request; another person may have the same face."""
    known = (await caller.new_person("ada", image=picture(1)))["face_id"]
    data = await caller.add_faces("ada", picture(1), picture(1, 9), picture(1, 9))
    assert data["ret_codes"] == [-1312, 0, -1312]
    assert data["face_ids"] == [known, data["face_ids"][1], data["face_ids"][1]]
    await caller.new_person("bob")
    assert (await caller.add_faces("bob", picture(1)))["ret_codes"] == [0]


async def test_addface_wants_a_person_and_a_picture(caller):
    """-1303 and -1300."""
    assert (await caller.multipart("addface", part("person_id", "ada"), part("images[0]", picture(1))))[0] == -1303
    await caller.new_person("ada")
    assert (await caller.json("addface", person_id="ada"))[0] == -1300
    assert (await caller.json("addface", person_id="ada", urls=[]))[0] == -1300


async def test_delface_deletes_the_faces_that_the_person_has(caller):
    """Spec: 2.4. Another person's face is none of this one's."""
    await caller.new_person("ada")
    faces = (await caller.add_faces("ada", picture(1), picture(1, 5), picture(1, 9)))["face_ids"]
    foreign = (await caller.new_person("bob", image=picture(2)))["face_id"]
    data = await caller.ok("delface", person_id="ada", face_ids=[faces[2], UNKNOWN_FACE, foreign, faces[0], faces[0]])
    assert (data["deleted"], data["face_ids"]) == (2, [faces[2], faces[0]])
    assert (await caller.ok("getfaceids", person_id="ada"))["face_ids"] == [faces[1]]
    assert (await caller.json("delface", person_id="ada", face_ids=[faces[0], foreign]))[0] == -1305
    assert (await caller.json("delface", person_id="eve", face_ids=[foreign]))[0] == -1303
    assert (await caller.json("delface", person_id="ada", face_ids=[]))[0] == -1301


async def test_setinfo_changes_what_is_given(caller):
    """Spec: 2.5. An absent or null field stays, an empty one clears."""
    await caller.new_person("ada", person_name="Ada", tag="hq")
    assert (await caller.ok("setinfo", person_id="ada", person_name="Lady Ada"))["person_id"] == "ada"
    info = await caller.ok("getinfo", person_id="ada")
    assert (info["person_name"], info["tag"]) == ("Lady Ada", "hq")
    await caller.ok("setinfo", person_id="ada", person_name=None, tag="")
    info = await caller.ok("getinfo", person_id="ada")
    assert (info["person_name"], info["tag"]) == ("Lady Ada", "")
    assert (await caller.json("setinfo", person_id="bob", tag="x"))[0] == -1303


async def test_getinfo_tells_all_of_a_person(caller):
    """Spec: 2.6. Also in Chinese."""
    face_id = (await caller.new_person("ada", "乙", "甲", image=picture(1), person_name="埃达", tag="总部"))["face_id"]
    info = await caller.ok("getinfo", person_id="ada")
    del info["session_id"]
    assert info == {
        "person_id": "ada", "person_name": "埃达", "face_ids": [face_id], "group_ids": ["乙", "甲"], "tag": "总部",
    }  # fmt: skip
    assert (await caller.json("getinfo", person_id="bob"))[0] == -1303


async def test_lists_keep_the_order_of_enrollment(caller):
    """Spec: 2.7 to 2.9, whose answers have no session_id."""
    assert await caller.ok("getgroupids") == {"group_ids": []}
    await caller.new_person("zoe", "z", "a")
    await caller.new_person("ada", "m", "a")
    assert await caller.ok("getgroupids") == {"group_ids": ["z", "a", "m"]}
    assert await caller.ok("getpersonids", group_id="a") == {"person_ids": ["zoe", "ada"]}
    assert (await caller.json("getpersonids", group_id="none"))[0] == -1306
    assert await caller.ok("getfaceids", person_id="zoe") == {"face_ids": []}
    assert (await caller.json("getfaceids", person_id="none"))[0] == -1303


async def test_getfaceinfo_describes_a_face(caller):
    """Spec: 2.10."""
    face_id = (await caller.new_person("ada", image=picture(1)))["face_id"]
    assert await caller.ok("getfaceinfo", face_id=face_id) == {
        "face_info": {
            "face_id": face_id, "x": 44, "y": 33, "width": 64.0, "height": 64.5, "gender": 99, "age": 37,
            "expression": 6, "glass": True, "pitch": 5, "yaw": 6, "roll": 0,
        }
    }  # fmt: skip
    assert (await caller.json("getfaceinfo", face_id=UNKNOWN_FACE))[0] == -1305


async def test_verify_takes_the_persons_most_similar_face(caller):
    """Spec: 2.11. A match from 75 on."""
    await caller.new_person("ada", image=picture(3))
    await caller.add_faces("ada", picture(5))
    data = await caller.ok("verify", part("person_id", "ada"), part("image", picture(5, 1)))
    assert (data["confidence"], data["ismatch"]) == (98.0, True)
    data = await caller.ok("verify", part("person_id", "ada"), part("image", picture(8)))
    assert (data["confidence"], data["ismatch"]) == (70.0, False)
    assert (await caller.multipart("verify", part("person_id", "bob"), part("image", picture(1))))[0] == -1303
    assert (await caller.json("verify", person_id="ada"))[0] == -1300


async def test_a_person_without_faces_matches_nobody(caller):
    """Confidence 0."""
    await caller.new_person("ada")
    data = await caller.ok("verify", part("person_id", "ada"), part("image", picture(1)))
    assert (data["confidence"], data["ismatch"]) == (0.0, False)


async def test_identify_ranks_five_persons_by_their_best_face(caller):
    """Spec: 2.12. The tag is that of the face, not of the person."""
    for person in range(1, 8):
        await caller.new_person(f"p{person}", image=picture(person), tag="first")
    best = (await caller.add_faces("p3", picture(4, 3), tag="second"))["face_ids"][0]
    data = await caller.ok("identify", part("group_id", "staff"), part("image", picture(4, 3)))
    assert [candidate["person_id"] for candidate in data["candidates"]] == ["p3", "p4", "p5", "p2", "p6"]
    assert data["candidates"][0] == {"person_id": "p3", "face_id": best, "confidence": 100.0, "tag": "second"}
    assert data["candidates"][1]["confidence"] == 94.0
    assert data["candidates"][1]["tag"] == "first"


async def test_identify_sees_every_change_at_once(caller):
    """Added and deleted persons and faces, although galleries are cached."""

    async def found() -> list[str]:
        data = await caller.ok("identify", part("group_id", "staff"), part("image", picture(1)))
        return [candidate["person_id"] for candidate in data["candidates"]]

    await caller.new_person("ada")
    assert await found() == []
    face_id = (await caller.add_faces("ada", picture(1)))["face_ids"][0]
    assert await found() == ["ada"]
    await caller.new_person("bob", image=picture(2))
    assert await found() == ["ada", "bob"]
    await caller.ok("delface", person_id="ada", face_ids=[face_id])
    assert await found() == ["bob"]
    await caller.ok("delperson", person_id="bob")
    assert await found() == []


async def test_identify_looks_in_the_group_that_was_named(caller):
    """Or, as Java's client may ask, in several at once, each person once; -1306 when one does not exist."""
    await caller.new_person("ada", "a", "b", image=picture(1))
    await caller.new_person("bob", "b", image=picture(2))
    await caller.new_person("eve", "c", image=picture(1))
    probe = part("image", picture(2))
    named = {"a": ["ada"], "b": ["bob", "ada"]}
    for group, persons in named.items():
        data = await caller.ok("identify", part("group_id", group), probe)
        assert [candidate["person_id"] for candidate in data["candidates"]] == persons
    data = await caller.ok("identify", part("group_ids[0]", "b"), part("group_ids[1]", "a"), probe)
    assert [candidate["person_id"] for candidate in data["candidates"]] == ["bob", "ada"]
    assert (await caller.multipart("identify", part("group_id", "none"), probe))[0] == -1306
    assert (await caller.multipart("identify", part("group_ids[0]", "a"), part("group_ids[1]", "z"), probe))[0] == -1306
    assert (await caller.json("identify", group_ids=[]))[0] == -1307
    assert (await caller.json("identify"))[0] == -1301


async def test_compare_tells_how_similar_two_pictures_are(caller):
    """Spec: 2.13."""
    data = await caller.ok("compare", part("imageA", picture(1)), part("imageB", picture(3)))
    assert data["similarity"] == 80.0


@pytest.mark.parametrize(
    ("parts", "code", "flag"),
    [
        ((part("imageA", b"nobody"), part("imageB", picture(1))), -1101, 1),
        ((part("imageA", picture(1)), part("imageB", b"GIF89a")), -1400, 2),
        ((part("imageA", b"broken"), part("imageB", b"nobody")), -1102, 1),
        ((part("imageA", picture(1)),), -1300, 2),
        ((part("imageB", picture(1)),), -1300, 1),
        ((part("urlA", "http://x/"), part("imageB", picture(1))), -1308, 1),
    ],
)
async def test_compare_flags_the_picture_that_failed(caller, parts, code, flag):
    """The first of them when both did."""
    got, data = await caller.multipart("compare", *parts)
    assert (got, data["fail_flag"]) == (code, flag)


async def test_appids_are_separate_worlds(caller):
    """Groups are counted per appid (Spec: 2, item 1); buckets divide nothing."""
    face_id = (await caller.new_person("ada", image=picture(1)))["face_id"]
    caller.sign = lambda: authorization(bucket="other")
    assert (await caller.ok("getgroupids", bucket="other"))["group_ids"] == ["staff"]
    caller.sign = lambda: authorization(appid="777")
    assert (await caller.ok("getgroupids", appid="777"))["group_ids"] == []
    assert (await caller.json("getfaceinfo", appid="777", face_id=face_id))[0] == -1305
    assert (await caller.json("getinfo", appid="777", person_id="ada"))[0] == -1303
    await caller.ok("newperson", appid="777", person_id="ada", group_ids=["staff"])


async def test_faces_of_another_recognizer_are_not_compared(store):
    """Their numbers mean something else."""

    class Other(ToyRecognizer):
        name = "other"

    async with calling(store) as caller:
        await caller.new_person("ada", image=picture(1))
    async with calling(store, recognizer=Other()) as caller:
        data = await caller.ok("identify", part("group_id", "staff"), part("image", picture(1)))
        assert data["candidates"] == []
        data = await caller.ok("verify", part("person_id", "ada"), part("image", picture(1)))
        assert data["confidence"] == 0.0
        assert (await caller.add_faces("ada", picture(1)))["ret_codes"] == [0]


async def test_an_unexpected_fault_is_213_and_tells_nothing(caller, caplog):
    """The traceback stays in the log."""
    code, data = await caller.multipart("compare", part("imageA", b"crash"), part("imageB", b"crash"))
    assert code == 213
    assert set(data) == {"session_id"}
    assert "a fault in the recognizer" in caplog.text


async def test_a_failing_database_is_minus_1200(caller, store, caplog):
    """A full disk, say, or here a closed file."""
    store.close()
    assert (await caller.json("getgroupids"))[0] == -1200
    assert "database failed" in caplog.text


async def test_concurrent_requests_share_the_server(caller: Caller):
    """And none waits for ever."""
    async with anyio.create_task_group() as tasks:
        for person in range(20):
            tasks.start_soon(lambda person=person: caller.new_person(f"p{person}", image=picture(person)))
    assert len((await caller.ok("getpersonids", group_id="staff"))["person_ids"]) == 20


def test_every_endpoint_of_the_specification_has_a_handler(anyio_backend):
    """13 of them."""
    assert sorted(HANDLERS) == [
        "addface", "compare", "delface", "delperson", "getfaceids", "getfaceinfo", "getgroupids", "getinfo",
        "getpersonids", "identify", "newperson", "setinfo", "verify",
    ]  # fmt: skip


def test_the_table_of_codes_speaks_of_every_code(anyio_backend):
    """Each code of chapter 3 is in it, as returned or as never returned."""
    said = handlers.__doc__.replace("-1105 to -1109", " ".join(str(code) for code in range(-1109, -1104)))
    words = said.replace(",", " ").replace(";", " ").split()
    assert [code for code in CODES if str(code) not in words] == []
