"""What a run has left in doubt, the next one finds out; whatever has become of the files meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest
from ingestkit import enrolled, finished, outcomes, serving, write_people
from serverkit import picture

from face_async import RetryPolicy
from face_async.ingest import State, verify

pytestmark = pytest.mark.anyio

ONCE = {"retry": RetryPolicy(max_attempts=1)}


@pytest.fixture
def ada(tmp_path):
    """Return a function that makes a folder of one person with so many pictures."""
    return lambda shots: write_people(tmp_path / "people", 1, shots)


async def crash(network, run, how, effect="addface"):
    """Cancel a run while it does not know what became of its first such effect, whose request or answer was lost."""
    with anyio.CancelScope() as scope:
        sent = []

        def plan(name):
            if name == effect:
                sent.append(name)
                return how
            if sent:
                scope.cancel()
            return ""

        network.plan = plan
        await finished(run)
    assert scope.cancelled_caught
    network.plan = lambda name: ""


def ends(units):
    return {Path(unit.source).name: (unit.state.value, unit.code) for unit in units}


@pytest.mark.parametrize("how", ["refuse", "lose"])
async def test_pictures_that_are_there_are_sent_again(store, ada, run_on, how):
    """The server says which of them it has; a file that was only touched is the same picture."""
    people = ada(3)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), how)
        os.utime(people / "person0" / "01.jpg", (1, 1))
        units = await outcomes(run_on(session, people))
        assert {State.DONE} <= {unit.state for unit in units}
        assert {0, 1, 2} == set(enrolled(store)["person0"])
        assert set(enrolled(store)["person0"].values()) == {unit.face_id for unit in units if unit.state is State.DONE}


@pytest.mark.parametrize(
    "case", [(1, "lose", "done", None), (3, "lose", "done", None), (1, "refuse", "failed", "missing")]
)
async def test_pictures_that_are_gone_are_told_by_the_faces(store, ada, run_on, journal, case):
    """As many new faces as pictures: they are theirs. None: they were not added."""
    shots, how, *end = case
    people = ada(shots)
    async with serving(store, **ONCE) as (session, network):
        await session.new_person("person0", ["staff"])
        await crash(network, run_on(session, people), how)
        for path in people.rglob("*.jpg"):
            path.unlink()
        units = await outcomes(run_on(session, people))
        assert {f"{shot:02}.jpg": tuple(end) for shot in range(shots)} == ends(units)
        if end[0] == "done":
            async with verify(session, journal) as differences:
                assert [] == [difference async for difference in differences]
        if (shots, end[0]) == (1, "done"):
            assert list(enrolled(store)["person0"].values()) == [unit.face_id for unit in units]


async def test_when_only_some_can_be_told_the_rest_fails_and_says_so(store, ada, run_on):
    """Two pictures are gone, one face is there: nobody guesses whose it is."""
    people = ada(2)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "refuse")
        await session.add_face("person0", [picture(0, 1)])
        for path in people.rglob("*.jpg"):
            path.unlink()
        units = await outcomes(run_on(session, people))
    assert {"00.jpg": ("failed", "missing"), "01.jpg": ("failed", "missing")} == ends(units)
    assert all("may have been added by the former run" in unit.reason for unit in units)


async def test_a_picture_that_changed_meanwhile_is_another_one(store, ada, run_on):
    """The old one is told by its face, the new one is added."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await session.new_person("person0", ["staff"])
        await crash(network, run_on(session, people), "lose")
        (people / "person0" / "00.jpg").write_bytes(picture(0, 55))
        summary = await finished(run_on(session, people))
    assert {0, 55} == set(enrolled(store)["person0"])
    assert (2, 0) == (summary.done, summary.failed)


@pytest.mark.parametrize("how", ["refuse", "lose"])
async def test_a_folder_that_was_moved_has_the_same_pictures(store, ada, run_on, tmp_path, how):
    """Whether they were added before or not, they are there once in the end."""
    people = ada(3)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), how)
        moved = Path(shutil.move(people, tmp_path / "moved"))
        summary = await finished(run_on(session, moved))
    assert {0, 1, 2} == set(enrolled(store)["person0"])
    assert 3 == summary.done


async def test_a_person_who_was_deleted_is_enrolled_anew(store, ada, run_on):
    people = ada(3)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "lose")
        await session.del_person("person0")
        assert 3 == (await finished(run_on(session, people))).done
        await session.del_person("person0")
        (people / "person0" / "new.jpg").write_bytes(picture(0, 9))
        await finished(run_on(session, people))
    assert {9} == set(enrolled(store)["person0"])


@pytest.mark.parametrize("refusal", ["getfaceids", "addface"])
async def test_what_cannot_be_told_stays_in_doubt_and_nothing_is_sent_behind_it(store, ada, run_on, refusal):
    """The faces from before must not be mixed with later ones: the person's other pictures wait, too."""
    people = ada(3)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "lose")
        (people / "person0" / "new.jpg").write_bytes(picture(0, 9))
        network.plan = lambda name: 213 if name == refusal else ""
        async with run_on(session, people) as run:
            units = [unit async for unit in run]
        assert {f"{shot:02}.jpg": ("ambiguous", "213") for shot in range(3)} == ends(units)
        assert (3, 1, {"213": 3}) == (run.summary.ambiguous, run.summary.pending, run.summary.codes)
        network.plan = lambda name: ""
        assert 4 == (await finished(run_on(session, people))).done
    assert {0, 1, 2, 9} == set(enrolled(store)["person0"])


async def test_a_full_person_does_not_hide_what_was_added(store, tmp_path, run_on):
    """The server refuses the whole request then; looking at the pictures tells which it has."""
    people = write_people(tmp_path / "people", 1, 22)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "lose")
        assert 20 == len(enrolled(store)["person0"])
        units = await outcomes(run_on(session, people))
    done = {Path(unit.source).name: unit.face_id for unit in units if unit.state is State.DONE}
    assert {f"{shot:02}.jpg": face_id for shot, face_id in enrolled(store)["person0"].items()} == done
    assert 2 == sum(unit.code == "-1309" for unit in units)


async def test_nobody_guesses_when_others_have_filled_the_person(store, ada, run_on):
    """The request is refused as a whole, and none of the faces is known to be the picture's."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await session.new_person("person0", ["staff"])
        await crash(network, run_on(session, people), "refuse")
        await session.add_face("person0", [picture(0, shot) for shot in range(40, 60)])
        units = await outcomes(run_on(session, people))
        assert {"00.jpg": ("ambiguous", "no-answer")} == ends(units)
        await session.del_face("person0", list(enrolled(store)["person0"].values()))
        assert 1 == (await finished(run_on(session, people))).done


async def test_a_full_person_who_has_nothing_new_was_not_given_anything(store, ada, run_on):
    """Then the server's refusal is the whole truth."""
    people = ada(0)
    async with serving(store, **ONCE) as (session, network):
        await session.new_person("person0", ["staff"], picture(0, 40))
        await session.add_face("person0", [picture(0, shot) for shot in range(41, 59)])
        (people / "person0" / "1.jpg").write_bytes(picture(0, 1))
        await crash(network, run_on(session, people), "refuse")
        network.plan = lambda name: -1309 if name == "addface" else ""
        assert {"1.jpg": ("failed", "-1309")} == ends(await outcomes(run_on(session, people)))


async def test_a_picture_that_is_refused_now_was_refused_before(store, ada, run_on):
    """What the service makes nothing of cannot have been added by the lost request."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await session.new_person("person0", ["staff"])
        await crash(network, run_on(session, people), "refuse")
        network.plan = lambda name: -1102 if name == "addface" else ""
        assert {"00.jpg": ("failed", "-1102")} == ends(await outcomes(run_on(session, people)))


# Persons who are created with their only picture


@pytest.mark.parametrize("how", ["refuse", "lose"])
async def test_whether_a_person_was_created_is_found_out(store, ada, run_on, journal, how):
    """With the picture, if it was; the unit has the id of its face."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), how, "newperson")
        assert (how == "lose") == bool(enrolled(store))
        [unit] = [unit for unit in await outcomes(run_on(session, people)) if unit.state is State.DONE]
        assert {"person0": {0: unit.face_id}} == enrolled(store)
        async with verify(session, journal) as differences:
            assert [] == [difference async for difference in differences]


@pytest.mark.parametrize("how", ["refuse", "lose"])
async def test_whose_person_it_is_cannot_be_told_without_the_picture(store, ada, run_on, how):
    """Somebody else may have created the person: nothing is guessed, and the reason says so."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), how, "newperson")
        (people / "person0" / "00.jpg").unlink()
        if how == "refuse":
            await session.new_person("person0", ["staff"], picture(0, 40))
        [unit] = await outcomes(run_on(session, people))
    assert ("failed", "missing") == (unit.state.value, unit.code)
    assert "may have been added" in unit.reason


async def test_a_person_whom_somebody_else_creates_meanwhile_gets_the_picture(store, ada, run_on):
    """The creation was refused or lost; the other one's face is not taken for the picture's."""
    people = ada(1)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "refuse", "newperson")
        other = (await session.new_person("person0", ["staff"], picture(0, 40))).face_id
        [unit] = await outcomes(run_on(session, people))
    assert {"person0": {40: other, 0: unit.face_id}} == enrolled(store)


async def test_a_lost_creation_is_told_from_that_of_somebody_else(store, ada, run_on):
    """In the same run, after an outage: the face is the picture's, and is not added again."""
    people = ada(1)

    def plan(name):
        away = name == "newperson" and network.calls.count("newperson") == 1
        return "lose" if away or (name != "newperson" and network.calls.count("getgroupids") < 3) else ""

    async with serving(store, plan=plan, **ONCE) as (session, network):
        [unit] = await outcomes(run_on(session, people))
    assert 2 == network.calls.count("newperson")
    assert {"person0": {0: unit.face_id}} == enrolled(store)


async def test_a_dry_run_leaves_doubts_as_they_are(store, ada, run_on):
    people = ada(3)
    async with serving(store, **ONCE) as (session, network):
        await crash(network, run_on(session, people), "lose")
        network.calls.clear()
        run = run_on(session, people, dry_run=True)
        units = await outcomes(run)
    assert [] == network.calls
    assert {State.AMBIGUOUS} == {unit.state for unit in units}
    assert 3 == run.summary.ambiguous
