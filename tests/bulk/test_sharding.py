"""A population in several groups behaves as if it were one group."""

from __future__ import annotations

import io

import anyio
import pytest
from albums import JPEG
from doubles import envelope, session_on
from serverkit import picture, served

from face_async import (
    AlreadyExistsError,
    GroupLimitError,
    ImageError,
    NewPerson,
    NotFoundError,
    PersonLimitError,
    ServiceLimits,
    ShardedGroup,
)

pytestmark = pytest.mark.anyio

SMALL = ServiceLimits(max_persons_per_group=7, max_groups_per_appid=40)


async def sizes(session):
    """Return how many persons each group has."""
    return {group: len(await session.get_person_ids(group)) for group in await session.get_group_ids()}


# New persons


async def test_persons_go_into_the_lowest_shard_that_has_room():
    """One after another: a shard is used when all before it are full, and created when it is used."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        created = [await group.new_person(f"p{index}") for index in range(16)]
        assert ["staff-0000"] * 7 + ["staff-0001"] * 7 + ["staff-0002"] * 2 == [each.group_ids[0] for each in created]
        assert {"staff-0000": 7, "staff-0001": 7, "staff-0002": 2} == await sizes(session)


async def test_two_hundred_at_once_fill_one_shard_after_another():
    """No shard is over its limit, and none is used while there is room in one before it."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        async with anyio.create_task_group() as tasks:
            for index in range(200):
                tasks.start_soon(group.new_person, f"p{index}")
        found = await sizes(session)
        assert [7] * 28 + [4] == [found[f"staff-{number:04}"] for number in range(29)]


async def test_failures_leave_no_gap():
    """Of 200 at once, every third without a face and every fourth there already: the room they left is used."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        await session.new_person("twin", ["others"])
        persons = [
            NewPerson("twin" if index % 4 == 0 else f"p{index}", image=b"nobody" if index % 3 == 0 else picture(index))
            for index in range(100)
        ]
        async with group.new_persons(persons, max_at_once=100) as outcomes:
            found = await outcomes.collect()
        assert {ImageError, AlreadyExistsError, type(None)} == {type(outcome.error) for outcome in found}
        added = sum(outcome.error is None for outcome in found)
        for index in range(100, 110):  # what was left open while others were in flight is filled by the next
            await group.new_person(f"p{index}")
        full, rest = divmod(added + 10, 7)
        found = await sizes(session)
        del found["others"]
        assert [7] * full + [rest] * bool(rest) == [found[name] for name in sorted(found)]


async def test_new_persons_are_one_outcome_each():
    """As of the session's own; the groups are not the caller's to choose."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        persons = [NewPerson("ada", (), picture(1), "Ada", "hq"), NewPerson("ada"), NewPerson("bob", ["staff"])]
        async with group.new_persons(persons, max_at_once=1) as outcomes:
            found = await outcomes.collect()
        assert [type(None), AlreadyExistsError, ValueError] == [type(outcome.error) for outcome in found]
        info = await session.get_info("ada")
        assert ("Ada", "hq", ("staff-0000",), 1) == (info.person_name, info.tag, info.group_ids, len(info.face_ids))
        with pytest.raises(TypeError, match="every item must be a NewPerson"):
            async with group.new_persons(["ada"]) as outcomes:
                await outcomes.collect()


async def test_a_shard_that_somebody_else_has_filled_is_passed_over():
    """On -1310 the next shard is taken, with the same picture, and the full one is not tried again."""
    exceeded = envelope(code=-1310)
    created = envelope({"person_id": "p", "suc_group": 1, "suc_face": 1, "group_ids": ["staff-0001"], "face_id": "f"})
    listed = [envelope({"person_ids": []}), envelope({"group_ids": ["staff-0000", "staff-0001"]})]
    session, network = session_on(*listed, exceeded, envelope({"person_ids": []}), created)
    group = ShardedGroup(session, "staff")
    assert ("staff-0001",) == (await group.new_person("p", io.BytesIO(JPEG + b"picture"))).group_ids
    bodies = [sent.body for sent in network.sent if sent.url.endswith("newperson")]
    assert [True, True] == [JPEG + b"picture" in body for body in bodies]
    await group.new_person("q")
    assert b"staff-0001" in network.sent[-1].body
    assert 6 == len(network.sent), "the full shard was neither listed nor tried"


async def test_an_appid_without_room_for_another_shard():
    """When all shards are full and no group can be made, GroupLimitError says so."""
    async with served(ServiceLimits(max_persons_per_group=2, max_groups_per_appid=2)) as [session]:
        group = ShardedGroup(session, "staff")
        for index in range(4):
            await group.new_person(f"p{index}")
        with pytest.raises(GroupLimitError):
            await group.new_person("p4")


# Opening


async def test_a_population_is_opened_again_by_its_name():
    """The shards are those that the server lists by exactly such a name, and room in them is found again."""
    async with served(SMALL, count=2) as [session, later]:
        group = ShardedGroup(session, "staff")
        for index in range(9):
            await group.new_person(f"p{index}")
        for name in ("staff", "staff-1", "staff-00000", "staff-000a", "my-staff-0003", "staff-0004"):
            await session.new_person(f"other {name}".replace(" ", "_"), [name])
        group = ShardedGroup(later, "staff")
        assert ["staff-0000", "staff-0001", "staff-0004"] == await group.shards()
        assert ("staff-0001",) == (await group.new_person("ada")).group_ids


async def test_the_list_of_groups_is_asked_for_once():
    """By however many at once; refresh asks again, and an appid without a list has no shards."""
    session, network = session_on(envelope({"group_ids": ["a-0001"]}), envelope(code=-1307), envelope(code=16))
    group = ShardedGroup(session, "a")
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(group.shards)
    assert 1 == len(network.sent)
    assert [] == await ShardedGroup(session, "a").shards()
    group.refresh()
    with pytest.raises(NotFoundError):
        await group.shards()


@pytest.mark.parametrize("name", ["", "two words", "a/b", "x" * 124])
async def test_a_name_that_makes_no_group_id_is_refused(name):
    """At once, by ValueError."""
    session, _ = session_on(envelope())
    with pytest.raises(ValueError, match="name"):
        ShardedGroup(session, name)
    assert "ShardedGroup('staff')" == repr(ShardedGroup(session, "staff"))
    assert "staff" == ShardedGroup(session, "staff").name


# Persons


async def test_persons_are_listed_over_all_shards():
    """Shard by shard, each person once."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        assert [] == [person async for person in group.person_ids()]
        for index in range(16):
            await group.new_person(f"p{index}")
        assert [f"p{index}" for index in range(16)] == [person async for person in group.person_ids()]


async def test_only_a_member_is_deleted_and_leaves_room():
    """Whoever is in no shard stays; the room of who was deleted is used first."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        for index in range(16):
            await group.new_person(f"p{index}")
        await session.new_person("eve", ["others"])
        with pytest.raises(NotFoundError, match="-1303") as caught:
            await group.del_person("eve")
        assert ["a person of this id exists, but in none of the shards of 'staff'"] == caught.value.__notes__
        with pytest.raises(NotFoundError):
            await group.del_person("nobody")
        assert "eve" == (await session.get_info("eve")).person_id
        assert "p9" == (await group.del_person("p9")).person_id
        assert ("staff-0001",) == (await group.new_person("ada")).group_ids
        assert ("staff-0002",) == (await group.new_person("bob")).group_ids


async def test_whom_the_session_deletes_leaves_room_too():
    """del_person of the session is heard of by a group that is not full; a full shard wants refresh."""
    async with served(ServiceLimits(max_persons_per_group=2)) as [session]:
        await session.new_person("ada", ["guests"])
        async with session.new_persons([NewPerson("bob", ["guests"]), NewPerson("eve", ["guests"])]) as outcomes:
            errors = [outcome.error async for outcome in outcomes]
        assert 1 == sum(isinstance(error, PersonLimitError) for error in errors)
        await session.del_person("ada")
        async with session.new_persons([NewPerson("ken", ["guests"])]) as outcomes:
            (await anext(outcomes)).unwrap()
        group = ShardedGroup(session, "staff")
        for name in ("p0", "p1", "p2"):
            await group.new_person(name)
        await session.del_person("p0")
        group.refresh()
        assert ("staff-0000",) == (await group.new_person("p3")).group_ids


# Recognition


async def test_all_shards_are_identified_in_as_if_they_were_one():
    """The best of all shards; a picture of anybody is found, wherever they are."""
    async with served(SMALL) as [session]:
        group = ShardedGroup(session, "staff")
        assert () == (await group.identify(picture(1))).candidates
        for index in range(16):
            await group.new_person(f"p{index}", picture(3 * index))
        for index in range(16):
            assert f"p{index}" == (await group.identify(picture(3 * index, 1), top=1)).best.person_id
        found = await group.identify(picture(0))
        assert ["p0", "p1", "p2", "p3", "p4"] == [each.person_id for each in found.candidates[:5]]
        assert ["staff-0000", "staff-0001", "staff-0002"] == list(found.by_group)
        probes = [picture(3 * index) for index in range(16)]
        async with group.identify_many(probes, top=2, ordered=True) as outcomes:
            assert [f"p{index}" for index in range(16)] == [each.unwrap().best.person_id async for each in outcomes]


async def test_a_shard_that_fails_is_an_error_unless_errors_are_collected():
    """By default the error is raised, since the best may be there; errors="collect" puts it beside the others."""
    found = envelope({"candidates": [{"person_id": "p", "face_id": "f", "confidence": 80.0}]})
    answers = [envelope({"group_ids": ["a-0000", "a-0001"]}), found, envelope(code=-1306)]
    session, network = session_on(*answers)
    group = ShardedGroup(session, "a")
    with pytest.raises(NotFoundError):
        await group.identify(JPEG)
    network.answers = [found, envelope(code=-1306)]
    collected = await group.identify(JPEG, errors="collect")
    assert ("p", 1) == (collected.best.person_id, len(collected.errors))
    network.answers = [found, envelope(code=-1306)]
    async with group.identify_many([JPEG]) as outcomes:
        assert isinstance((await anext(outcomes)).error, NotFoundError)
    network.answers = [found, envelope(code=-1306)]
    async with group.identify_many([JPEG], errors="collect") as outcomes:
        assert "p" == (await anext(outcomes)).unwrap().best.person_id
