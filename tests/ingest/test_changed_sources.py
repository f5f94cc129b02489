"""A source that has changed since it was listed: moved, touched, mended; what it names counts, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ingestkit import enrolled, finished, serving, write_people
from serverkit import picture

from face_async.ingest import Row, State, retry_failed, verify

pytestmark = pytest.mark.anyio


def touch(people):
    for path in people.rglob("*.jpg"):
        os.utime(path, (1, 1))
    return people


def rename(people):
    for path in list(people.rglob("*.jpg")):
        path.rename(path.with_name(f"renamed-{path.name}"))
    return people


def move(people):
    return Path(shutil.move(people, people.with_name("elsewhere")))


def drop_originals(people):
    """Leave the copies that were there from the beginning."""
    for path in people.rglob("0?.jpg"):
        path.unlink()
    return people


def mend_manifest(people, manifest, person_id, name):
    manifest.write_text(f"person_id,path\nperson1,{people}/person1/00.jpg\n{person_id},{name}\n")


async def repaired(session, journal):
    async with verify(session, journal, repair=True) as differences:
        return [difference async for difference in differences]


@pytest.mark.parametrize("listed_between", [True, False])
@pytest.mark.parametrize("change", [touch, rename, move, drop_originals])
async def test_what_a_repair_makes_pending_is_sent_wherever_it_is_now(  # noqa: PLR0917 - fixtures
    store, people, run_on, journal, change, listed_between
):
    """And nobody is taken for the same who is not there any more."""
    for path in list(people.rglob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        before = {person_id: set(shots) for person_id, shots in enrolled(store).items()}
        people = change(people)
        if listed_between:
            assert 0 == (await finished(run_on(session, people))).added
        await session.del_person("person0")
        await session.del_face("person1", (await session.get_face_ids("person1"))[:2])
        assert ["person0", "person1"] == sorted(one.person_id for one in await repaired(session, journal))
        summary = await finished(run_on(session, people))
        assert summary.complete
        assert (12, 6) == (summary.done, summary.added)
        assert [] == await repaired(session, journal)
    assert before == {person_id: set(shots) for person_id, shots in enrolled(store).items()}


async def test_what_failed_and_was_taken_out_of_a_folder_is_forgotten(store, people, run_on):
    """With its copies, which had failed for it; and what is there still stays failed, and is not sent again."""
    for name in ("bad.jpg", "bad-copy.jpg"):
        (people / "person0" / name).write_bytes(b"BMnobody")
    (people / "person1" / "bad.jpg").write_bytes(b"BMbroken")
    async with serving(store) as (session, network):
        first = await finished(run_on(session, people))
        assert (2, 1) == (first.failed, first.collapsed)
        network.calls.clear()
        (people / "person0" / "bad-copy.jpg").unlink()
        second = await finished(run_on(session, people))  # the copy is a picture of its own now
        assert (2, 0, {"-1101": 1, "-1102": 1}) == (second.failed, second.collapsed, second.codes)
        assert 1 == network.calls.count("addface")
        (people / "person0" / "bad.jpg").unlink()
        (people / "person1" / "bad.jpg").unlink()
        third = await finished(run_on(session, people))
    assert third.complete
    assert (12, 0, {}) == (third.done, third.failed, third.codes)


@pytest.mark.parametrize(("person_id", "name"), [("person0", "00.jpg"), ("nobody", "none.jpg"), ("person1", "")])
async def test_a_manifest_that_was_mended_is_complete(store, people, run_on, tmp_path, person_id, name):  # noqa: PLR0917 - fixtures
    """Whether the row names another picture now, or another person, or is gone."""
    manifest = tmp_path / "people.csv"
    (people / "person0" / "bad.jpg").write_bytes(b"BMnobody")
    mend_manifest(people, manifest, "person0", f"{people}/person0/bad.jpg")
    async with serving(store) as (session, _):
        assert 1 == (await finished(run_on(session, manifest, allow_outside=True))).failed
        if name == "":
            manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
        else:
            (people / "nobody").mkdir()
            (people / "nobody" / "none.jpg").write_bytes(picture(7, 7))
            mend_manifest(people, manifest, person_id, f"{people}/{person_id}/{name}")
        summary = await finished(run_on(session, manifest, allow_outside=True))
    assert summary.complete
    assert 0 == summary.failed


async def test_what_failed_of_one_source_is_not_forgotten_with_another(store, people, run_on, tmp_path, journal):
    """One journal may be for several folders, and for rows that a program makes."""
    (people / "person0" / "bad.jpg").write_bytes(b"BMnobody")
    others = write_people(tmp_path / "others", 2, 1, first=5)
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        for source in (others, others, [Row("person9", str(others / "person5" / "00.jpg"), ("staff",))]):
            summary = await finished(run_on(session, source))
            assert (1, {"-1101": 1}) == (summary.failed, summary.codes)
        (people / "person0" / "bad.jpg").write_bytes(picture(0, 50))
        assert (await finished(retry_failed(session, journal=journal))).complete
    assert 50 in enrolled(store)["person0"]


async def test_a_listing_that_was_stopped_forgets_nothing_that_failed(store, people, run_on):
    """As it has not seen all of the source."""
    (people / "person0" / "bad.jpg").write_bytes(b"BMnobody")
    async with serving(store) as (session, _):
        await finished(run_on(session, people))

        async with run_on(session, people) as run:
            run.stop()
            stopped = await run.finish()
    assert (1, {"-1101": 1}) == (stopped.failed, stopped.codes)


async def test_what_failed_is_tried_again_where_a_moved_folder_has_it(store, people, run_on, tmp_path):
    """Its journal is moved with it; what it had failed of may be over."""
    home = tmp_path / "disk1"
    home.mkdir()
    full = write_people(home / "people", 1, 21)
    async with serving(store) as (session, _):
        first = await finished(run_on(session, full, journal=home / "people.journal"))
        assert {"-1309": 1} == first.codes
        await session.del_face("person0", (await session.get_face_ids("person0"))[:1])
        moved = Path(shutil.move(home, tmp_path / "disk2"))
        run = run_on(session, moved / "people", journal=moved / "people.journal")
        async with run:
            units = [unit async for unit in run]
    assert [State.DONE] == [unit.state for unit in units if unit.state is not State.COLLAPSED]
    assert (0, {}) == (run.summary.failed, run.summary.codes)
    assert 20 == len(enrolled(store)["person0"])
