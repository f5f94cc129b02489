"""The verbs beyond the specification with the local server: what they find, change, settle and bound."""

from __future__ import annotations

import io
import json

import anyio
import pytest
from doubles import AT_ONCE
from PIL import Image
from serverkit import ToyRecognizer, picture

import face_async
from face_async import (
    AddGroupIdsResult,
    DelGroupIdsResult,
    GroupLimitError,
    ImageError,
    NotFoundError,
    PersonLimitError,
    ServiceLimits,
    ShardedGroup,
)
from face_async.bulk.ledger import Key
from face_async.server import Face
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

SMALL = ServiceLimits(max_persons_per_group=2, max_groups_per_appid=4)


class Crowd(ToyRecognizer):
    """Sees in a picture as many persons as its first pixel has red, the largest face being person 1."""

    def find_faces(self, content: bytes, *, most: int = 100) -> list[Face]:
        with Image.open(io.BytesIO(content)) as image:
            count = image.getpixel((0, 0))[0]
        return [self.find_face(picture(person + 1)) for person in range(count)][:most]


def crowd(count: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), (count, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def server():
    with FaceServer(recognizer=Crowd(), limits=SMALL) as server:
        yield server
        assert server.faults.pending == ()


@pytest.fixture
async def session(server, anyio_backend):
    async with server.session(retry=AT_ONCE) as session:
        yield session


# With the local server


async def test_the_faces_of_a_picture_are_found_and_identified(session):
    """All of them, or the largest alone."""
    for person in (1, 2):
        await session.new_person(f"p{person}", ["staff"], picture(person))
    assert len((await session.detect(crowd(2))).faces) == 2
    found = await session.detect(crowd(2), largest_only=True)
    assert (len(found.faces), found.image_width, found.image_height) == (1, 60, 40)
    faces = (await session.multi_identify(["staff"], crowd(2))).faces
    assert [face.best.person_id for face in faces if face.best] == ["p1", "p2"]
    with pytest.raises(ImageError, match="-1101"):
        await session.detect(crowd(0))
    with pytest.raises(NotFoundError, match="-1306"):
        await session.multi_identify(["staff", "nowhere"], crowd(1))


async def test_identify_searches_several_groups_as_if_they_were_one(session):
    """Five candidates of all, in one request."""
    await session.new_person("ada", ["staff"], picture(1))
    await session.new_person("bob", ["guests"], picture(2))
    found = await session.identify(["guests", "staff"], picture(1))
    assert [candidate.person_id for candidate in found.candidates] == ["ada", "bob"]


async def test_a_person_moves_between_groups(session):
    """Both verbs count real changes alone."""
    await session.new_person("ada", ["staff"])
    added = await session.add_group_ids("ada", ["staff", "guests"])
    assert added == AddGroupIdsResult(person_id="ada", added=1, group_ids=("guests",), session_id=added.session_id)
    deleted = await session.del_group_ids("ada", ["staff"])
    assert deleted == DelGroupIdsResult(person_id="ada", deleted=1, group_ids=("staff",), session_id=deleted.session_id)
    assert (await session.get_info("ada")).group_ids == ("guests",)
    for verb in (session.add_group_ids, session.del_group_ids):
        with pytest.raises(NotFoundError, match="-1303"):
            await verb("nobody", ["staff"])
    with pytest.raises(NotFoundError, match="-1306"):
        await session.del_group_ids("ada", ["nowhere"])


async def test_the_local_server_lacks_what_it_lacks(session):
    """Its envelope for no endpoint is code 3; shape has one, as -1104."""
    assert json.loads((await session.request("nosuch", {})).content)["code"] == 3
    assert json.loads((await session.request("shape", {}, {"image": picture(1)})).content)["code"] == -1104


# Bounded by the ledger


async def test_no_group_gets_a_person_too_many(server, session):
    """The ledger refuses before anything is sent; whoever is in a full group already needs no room there."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["staff"])
    await session.new_person("cyd", ["guests"])
    with pytest.raises(PersonLimitError) as caught:
        await session.add_group_ids("cyd", ["staff", "guests"])
    assert not hasattr(caught.value, "code")
    assert server.calls("addgroupids") == []
    assert (await session.add_group_ids("ada", ["staff", "guests"])).group_ids == ("guests",)
    assert (await session.add_group_ids("ada", ["staff", "guests"])).added == 0
    with pytest.raises(GroupLimitError):
        await session.add_group_ids("ada", ["g1", "g2", "g3"])


async def test_whoever_leaves_a_group_makes_room(session):
    """The group is counted anew before anybody is refused."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    await session.new_person("cyd", ["guests"])
    await session.add_group_ids("bob", ["staff"])
    with pytest.raises(PersonLimitError):
        await session.add_group_ids("cyd", ["staff"])
    await session.del_group_ids("ada", ["staff"])
    assert (await session.add_group_ids("cyd", ["staff"])).added == 1


async def test_many_at_once_fill_a_group_to_its_limit_and_no_further(server, session):
    """Without a single refusal by the server, and with one list of each group."""
    for index in range(6):
        await session.new_person(f"p{index}", [f"g{index % 3}"])
    outcomes: list[type] = []

    async def join(index: int) -> None:
        try:
            await session.add_group_ids(f"p{index}", ["staff"])
            outcomes.append(int)
        except PersonLimitError:
            outcomes.append(PersonLimitError)

    async with anyio.create_task_group() as tasks:
        for index in range(6):
            tasks.start_soon(join, index)
    assert sorted(map(str, outcomes)) == sorted(map(str, [int] * 2 + [PersonLimitError] * 4))
    assert [call.code for call in server.calls("addgroupids")] == [0, 0]


# Settled


LOST = [
    pytest.param({"drop_response": True}, id="answer lost"),
    pytest.param({"code": 213, "after": True}, id="213 after the effect"),
    pytest.param({"status": 502, "after": True}, id="502 after the effect"),
    pytest.param({"drop_response": True, "late": 1}, id="late, before the retry"),
]


@pytest.mark.parametrize("fault", LOST)
async def test_groups_joined_by_a_lost_answer_are_found_out(server, session, fault):
    """The second answer counts nothing; the person is in all of them."""
    await session.new_person("ada", ["staff"])
    server.faults.add("addgroupids", **fault)
    added = await session.add_group_ids("ada", ["guests", "hq"])
    assert (added.added, added.group_ids) == (2, ("guests", "hq"))
    assert (added.meta.settled, added.meta.attempts) == ("the person is in all of the groups", 2)
    assert (await session.get_info("ada")).group_ids == ("staff", "guests", "hq")
    balance = session.ledger.snapshot(Key("persons", "guests"))
    assert balance is None or balance.ambiguous == 1


@pytest.mark.parametrize("fault", LOST)
async def test_groups_left_by_a_lost_answer_are_found_out(server, session, fault):
    """The person is in none of them."""
    await session.new_person("ada", ["staff", "guests"])
    server.faults.add("delgroupids", **fault)
    deleted = await session.del_group_ids("ada", ["guests", "staff"])
    assert (deleted.deleted, deleted.group_ids) == (2, ("guests", "staff"))
    assert (deleted.meta.settled, deleted.meta.attempts) == ("the person is in none of the groups", 2)
    assert (await session.get_info("ada")).group_ids == ()


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_a_request_that_was_lost_is_sent_again_and_nothing_is_looked_up(server, session, verb):
    """The second answer tells it all."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    group = "guests" if verb == "add_group_ids" else "staff"
    server.faults.add(verb.replace("_", ""), drop_request=True)
    result = await getattr(session, verb)("ada", [group])
    assert (result.group_ids, result.meta.settled, result.meta.attempts) == ((group,), "", 2)
    assert server.calls("getinfo") == []


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_what_cannot_be_found_out_is_said(server, session, verb):
    """Where no attempt got through, and the person's groups are not as they would be."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    group = "guests" if verb == "add_group_ids" else "staff"
    server.faults.add(verb.replace("_", ""), drop_request=True, times=3)
    with pytest.raises(face_async.TransportError) as caught:
        await getattr(session, verb)("ada", [group])
    assert caught.value.maybe_applied


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_a_person_who_is_gone_is_in_no_group(server, session, verb):
    """-1303 after a lost request: nothing was done."""
    await session.new_person("ada", ["staff"])
    server.faults.add(verb.replace("_", ""), drop_request=True)
    with pytest.raises(NotFoundError, match="-1303") as caught:
        await getattr(session, verb)("nobody", ["staff"])
    assert not caught.value.maybe_applied


# In bulk


async def test_many_pictures_are_looked_at(session):
    """One outcome a picture, in order if asked for; one without a face fails alone."""
    pictures = [crowd(count) for count in (1, 0, 3)]
    async with session.detect_many(pictures, ordered=True) as outcomes:
        found = [outcome.error or len(outcome.unwrap().faces) async for outcome in outcomes]
    assert (found[0], type(found[1]), found[2]) == (1, ImageError, 3)
    async with session.detect_many(pictures[2:], largest_only=True) as outcomes:
        assert [len(outcome.unwrap().faces) async for outcome in outcomes] == [1]


async def test_many_pictures_are_identified_in_several_groups(session):
    """As identify does."""
    await session.new_person("ada", ["staff"], picture(1))
    await session.new_person("bob", ["guests"], picture(2))
    async with session.identify_many([picture(1), picture(2)], ["staff", "guests"], ordered=True) as outcomes:
        assert [outcome.unwrap().best.person_id async for outcome in outcomes] == ["ada", "bob"]


# Sharded


async def test_a_person_is_taken_into_a_population_and_out_of_it(session):
    """Into the lowest shard that has room; whoever is in it already stays where they are."""
    for person in ("ada", "bob", "cyd"):
        await session.new_person(person, ["others" if person != "cyd" else "rest"])
    staff = ShardedGroup(session, "staff")
    joined = [(await staff.add_person(person)).group_ids for person in ("ada", "bob", "cyd")]
    assert joined == [("staff-0000",), ("staff-0000",), ("staff-0001",)]
    assert (await staff.add_person("ada")).added == 0
    assert await staff.shards() == ["staff-0000", "staff-0001"]

    assert (await staff.remove_person("ada")).group_ids == ("staff-0000",)
    assert (await session.get_info("ada")).group_ids == ("others",)
    assert (await staff.add_person("ada")).group_ids == ("staff-0000",)
    with pytest.raises(NotFoundError):
        await staff.add_person("nobody")


async def test_a_person_moves_from_one_population_to_another(server, session):
    """Added there before they are removed here; what failed half-way is taken up again."""
    staff, alumni = ShardedGroup(session, "staff"), ShardedGroup(session, "alumni")
    await staff.new_person("ada", picture(1))
    await staff.new_person("bob", picture(2))
    moved = await staff.move_person("ada", alumni)
    assert (moved.added, moved.group_ids) == (1, ("alumni-0000",))
    assert (await session.get_info("ada")).group_ids == ("alumni-0000",)

    server.faults.add("delgroupids", code=-1310)
    with pytest.raises(PersonLimitError):
        await staff.move_person("bob", alumni)
    assert (await session.get_info("bob")).group_ids == ("staff-0000", "alumni-0000")
    assert (await staff.move_person("bob", alumni)).added == 0
    assert (await session.get_info("bob")).group_ids == ("alumni-0000",)
    assert [person async for person in staff.person_ids()] == []


async def test_only_members_are_moved_and_removed(session):
    """Nothing is changed for whoever is not in the population."""
    staff, alumni = ShardedGroup(session, "staff"), ShardedGroup(session, "alumni")
    await session.new_person("ada", ["others"])
    for step in (lambda: staff.remove_person("ada"), lambda: staff.move_person("ada", alumni)):
        with pytest.raises(NotFoundError) as caught:
            await step()
        assert "in none of the shards of 'staff'" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="to must be another population than 'staff'"):
        await staff.move_person("ada", ShardedGroup(session, "staff"))
    assert (await session.get_info("ada")).group_ids == ("others",)
