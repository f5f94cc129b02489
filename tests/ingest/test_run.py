"""A run ends with every picture on the server once, or with a reason why not."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from ingestkit import enrolled, finished, outcomes, serving, told, write_people
from PIL import Image
from serverkit import picture

from face_async import ServiceLimits
from face_async.ingest import Row, State, ingest, retry_failed, write_failures

pytestmark = pytest.mark.anyio


# What it is for


async def test_a_folder_is_enrolled(store, people, run_on):
    """Every person is created once, every picture added once; neighbors share a request."""
    async with serving(store) as (session, network), run_on(session, people) as run:
        units = [unit async for unit in run]
    assert {f"person{number}": set(range(4)) for number in range(3)} == {
        person: set(shots) for person, shots in enrolled(store).items()
    }
    assert enrolled(store) == told(units)
    assert {"newperson": 3, "addface": 3, "getpersonids": 1, "getgroupids": 2} == Counter(network.calls)
    summary = run.summary
    assert ("ended", 12, 12, 12, 12) == (summary.phase, summary.listed, summary.done, summary.added, summary.total)
    assert summary.complete
    assert sum(path.stat().st_size for path in people.rglob("*.jpg")) == summary.added_bytes
    assert summary.faces_per_second == pytest.approx(12 / summary.seconds)


async def test_a_person_is_created_with_their_only_picture(store, tmp_path, run_on):
    """One request a person, and two turns of the journal for all who come together; later pictures are added."""
    people = write_people(tmp_path / "people", 30, 1)
    async with serving(store) as (session, network):
        summary = await finished(run_on(session, people))
        assert (30, 0) == (summary.done, summary.failed)
        assert {"newperson": 30, "getpersonids": 1, "getgroupids": 2} == Counter(network.calls)
        write_people(tmp_path / "more", 30, 2)
        network.calls.clear()
        await finished(run_on(session, tmp_path / "more"))
    assert 0 == network.calls.count("newperson")
    assert {f"person{person}": {0, 1} for person in range(30)} == {
        person: set(shots) for person, shots in enrolled(store).items()
    }


async def test_a_person_whose_only_picture_is_refused_is_created_without(store, tmp_path, run_on):
    """And the unit has the service's reason."""
    people = write_people(tmp_path / "people", 1, 1)
    async with serving(store, plan=lambda _: -1101 if b"filename=" in network.body else "") as (session, network):
        [unit] = await outcomes(run_on(session, people))
        assert ["staff"] == list((await session.get_info("person0")).group_ids)
    assert ("failed", "-1101") == (unit.state.value, unit.code)
    assert 2 == network.calls.count("newperson")


async def test_a_person_who_exists_gets_the_only_picture(store, tmp_path, run_on):
    people = write_people(tmp_path / "people", 1, 1)
    async with serving(store) as (session, _):
        await session.new_person("person0", ["others"], picture(0, 40))
        assert 1 == (await finished(run_on(session, people))).done
    assert {0, 40} == set(enrolled(store)["person0"])


async def test_a_second_run_sends_nothing(store, people, run_on):
    """Nor does it read a picture: dates and sizes tell that nothing has changed. It asks which database it is."""
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        network.calls.clear()
        summary = await finished(run_on(session, people))
    assert ["getgroupids"] == network.calls
    assert (12, 0) == (summary.done, summary.added)


async def test_new_pictures_are_added_to_a_journal_that_is_done(store, people, run_on):
    """A run on a folder that has grown adds what is new."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        (people / "person1" / "new.jpg").write_bytes(picture(1, 9))
        units = await outcomes(run_on(session, people))
    assert [str(people / "person1" / "new.jpg")] == [unit.source for unit in units]
    assert {0, 1, 2, 3, 9} == set(enrolled(store)["person1"])


async def test_a_manifest_says_more_of_persons(store, tmp_path, run_on):
    """Groups, name and tag; pictures with another tag are another request."""
    for shot in range(3):
        (tmp_path / f"{shot}.jpg").write_bytes(picture(7, shot))
    manifest = tmp_path / "people.csv"
    manifest.write_text("person_id,path,group_ids,person_name,tag\n"
                        "ada,0.jpg,a|b,Ada,first\nada,1.jpg,c,,second\nada,2.jpg,,,second\n")  # fmt: skip
    async with serving(store) as (session, network):
        await finished(run_on(session, manifest))
        info = await session.get_info("ada")
        with store._database.reading() as db:
            tags = [tag for (tag,) in db.execute("SELECT tag FROM faces ORDER BY id")]
    assert ("Ada", "first", {"a", "b", "c", "staff"}) == (info.person_name, info.tag, set(info.group_ids))
    assert ["first", "second", "second"] == tags
    assert 2 == network.calls.count("addface")


async def test_persons_who_exist_are_taken_as_they_are(store, people, run_on):
    """Their faces count for the limit, and stay."""
    async with serving(store) as (session, _):
        await session.new_person("person1", ["guests"], picture(1, 50))
        summary = await finished(run_on(session, people))
        info = await session.get_info("person1")
    assert (12, 5, ("guests",)) == (summary.done, len(info.face_ids), info.group_ids)


async def test_without_groups_persons_must_exist(store, people, journal):
    """There would be no group to create them in."""
    async with serving(store) as (session, _):
        await session.new_person("person1", ["guests"])
        units = await outcomes(ingest(session, people, journal=journal))
    assert {("person0", "-1303"), ("person1", None), ("person2", "-1303")} == {
        (unit.person_id, unit.code) for unit in units
    }


async def test_without_packing_every_picture_is_sent_alone(store, people, run_on):
    async with serving(store) as (session, network):
        await finished(run_on(session, people, pack=False))
    assert 12 == network.calls.count("addface")
    assert 12 == sum(map(len, enrolled(store).values()))


async def test_packs_keep_within_a_request(store, tmp_path, run_on):
    """Planned by the files' sizes, and never more than the limits say."""
    people = write_people(tmp_path / "people", 1, 0)
    for shot in range(6):
        (people / "person0" / f"{shot}.jpg").write_bytes(picture(0, shot) + b" " * 60_000)
    limits = ServiceLimits(max_request_bytes=150_000, planned_request_bytes=140_000)
    async with serving(store, limits=limits) as (session, network):
        summary = await finished(run_on(session, people))
    assert 3 == network.calls.count("addface")
    assert 6 == summary.done


async def test_pictures_that_are_too_large_are_made_to_fit_on_demand(store, tmp_path, run_on):
    """What is sent is smaller; what is noted is the file, so that the next run knows it."""
    people = write_people(tmp_path / "people", 1, 0)
    noise = np.random.default_rng(1).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(people / "person0" / "large.png")
    async with serving(store) as (session, network):
        units = await outcomes(run_on(session, people))
        assert ["23"] == [unit.code for unit in units]
        async with retry_failed(session, journal=run_on.keywords["journal"], fit=True) as run:
            units = [unit async for unit in run]
        assert [State.DONE] == [unit.state for unit in units]
        assert len(network.body) < 1_500_000 < (people / "person0" / "large.png").stat().st_size
        assert sha256((people / "person0" / "large.png").read_bytes()).digest() == units[0].sha256
        assert [] == await outcomes(run_on(session, people))


async def test_urls_are_left_to_the_server(store, run_on):
    """The same URL is sent once for a person, whatever the number of rows."""
    rows = [Row("ada", f"https://example.com/{number}.jpg") for number in (1, 2, 1)]
    async with serving(store) as (session, network):
        units = await outcomes(run_on(session, rows))
    assert ["-1308", "-1308"] == [unit.code for unit in units]
    assert 1 == network.calls.count("addface")


# What is not added, and why


async def test_the_same_picture_twice_is_one(store, people, run_on):
    """Copies under another name collapse, within a request and beyond; other persons may have the same picture."""
    for name in ("copy.jpg", "zcopy.jpg"):
        shutil.copy(people / "person0" / "01.jpg", people / "person0" / name)
    shutil.copy(people / "person0" / "01.jpg", people / "person1" / "copy.jpg")
    async with serving(store) as (session, _):
        summary = await finished(run_on(session, people))
        again = await finished(run_on(session, people))
    assert (13, 2, 0) == (summary.done, summary.collapsed, summary.failed)
    assert (13, 2, 0) == (again.done, again.collapsed, again.added)


async def test_almost_the_same_face_is_a_failure_of_the_second(store, people, run_on):
    """Other bytes with the same face: the server's -1312 is not lost."""
    (people / "person0" / "04.jpg").write_bytes(b"BM\0another picture of person 0")  # to the toy: shot 0
    async with serving(store) as (session, _):
        units = await outcomes(run_on(session, people))
    [failed] = [unit for unit in units if unit.state is State.FAILED]
    assert ("04.jpg", "-1312") == (Path(failed.source).name, failed.code)
    assert "almost the same face" in failed.reason
    assert 4 == len(enrolled(store)["person0"])


async def test_pictures_that_cannot_be_sent_fail_alone(store, people, run_on, tmp_path):
    """A GIF, an empty file, one that is too large, one that is missing, and what the server makes nothing of."""
    bad = {"a.gif": b"GIF89a", "b.jpg": b"", "c.jpg": b"x" * 1_600_000, "d.jpg": b"BMnobody", "e.jpg": b"BMbroken"}
    for name, content in bad.items():
        (people / "person1" / name).write_bytes(content)
    (people / "person1" / "f.jpg").symlink_to("nowhere.jpg")
    async with serving(store) as (session, _), run_on(session, people) as run:
        units = [unit async for unit in run]
        rows = await run.write_failures(tmp_path / "failures.csv")
    codes = {Path(unit.source).name: unit.code for unit in units if unit.state is State.FAILED}
    assert {"a.gif": "refused", "b.jpg": "refused", "c.jpg": "23", "d.jpg": "-1101", "e.jpg": "-1102",
            "f.jpg": "missing"} == codes  # fmt: skip
    assert (12, 6) == (run.summary.done, run.summary.failed)
    assert Counter(codes.values()) == run.summary.codes
    with (tmp_path / "failures.csv").open(newline="", encoding="utf-8-sig") as file:
        found = list(csv.DictReader(file))
    assert codes == {Path(row["source"]).name: row["code"] for row in found}
    assert rows == len(found) == 6
    assert {"person1"} == {row["person_id"] for row in found}


async def test_a_picture_that_makes_the_server_refuse_all_fails_alone(store, people, run_on):
    """A server may refuse a whole request for one picture's sake: the others are sent without it."""

    def plan(name):
        return -1101 if name == "addface" and b"person 1 shot 2" in network.body else ""

    async with serving(store, plan=plan) as (session, network):
        units = await outcomes(run_on(session, people))
    assert {("02.jpg", "-1101")} == {(Path(unit.source).name, unit.code) for unit in units if unit.code}
    assert {0, 1, 3} == set(enrolled(store)["person1"])
    assert enrolled(store) == told(units)


async def test_bad_rows_are_reported_and_not_the_end(store, people, run_on, journal, tmp_path):
    """With file and line; once the manifest is mended they are gone."""
    manifest = people / "people.csv"
    manifest.write_text("person_id,path\nperson0,person0/00.jpg\nperson 0,person0/01.jpg\n")
    async with serving(store) as (session, _):
        summary = await finished(run_on(session, manifest))
        assert (1, 1, False) == (summary.done, summary.bad_rows, summary.complete)
        await write_failures(journal, tmp_path / "failures.csv")
        assert f",{manifest}:3,row," in (tmp_path / "failures.csv").read_text("utf-8")
        manifest.write_text(manifest.read_text().replace("person 0", "person0"))
        assert (await finished(run_on(session, manifest))).complete


async def test_a_file_that_changes_after_it_was_listed_fails(store, people, run_on):
    """Neither the old nor the new picture is sent, nor a mixture; the next run takes the folder as it is then."""
    changing, vanishing = people / "person2" / "02.jpg", people / "person2" / "03.jpg"

    def change(summary):
        if summary.phase == "sending" and vanishing.exists():
            changing.write_bytes(picture(2, 77) + b" ")
            vanishing.unlink()

    async with serving(store) as (session, _):
        units = await outcomes(run_on(session, people, on_progress=change))
        failed = {Path(unit.source).name: unit.code for unit in units if unit.state is State.FAILED}
        assert {"02.jpg": "changed", "03.jpg": "missing"} == failed
        assert {0, 1} == set(enrolled(store)["person2"])
        summary = await finished(run_on(session, people))
    assert {0, 1, 77} == set(enrolled(store)["person2"])
    assert (11, 0, {}) == (summary.done, summary.failed, summary.codes)


async def test_a_picture_that_changes_after_it_was_added_is_another_one(store, people, run_on):
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        (people / "person2" / "02.jpg").write_bytes(picture(2, 77))
        units = await outcomes(run_on(session, people))
    assert [State.DONE] == [unit.state for unit in units]
    assert {0, 1, 2, 3, 77} == set(enrolled(store)["person2"])


async def test_nobody_gets_more_faces_than_a_person_may_have(store, tmp_path, run_on):
    """Of 25 pictures 20 are added and 5 fail, in order; and nothing is sent in vain."""
    people = write_people(tmp_path / "people", 2, 25)
    async with serving(store) as (session, network):
        units = await outcomes(run_on(session, people))
    assert {"person0": set(range(20)), "person1": set(range(20))} == {
        person: set(shots) for person, shots in enrolled(store).items()
    }
    failed = [unit for unit in units if unit.state is State.FAILED]
    assert {"-1309": 10} == Counter(unit.code for unit in failed)
    assert 2 == network.calls.count("addface")


async def test_nobody_is_put_into_a_full_group(store, people, run_on):
    """The ledger knows; the pictures of those who do not fit fail with the limit's code."""
    limits = ServiceLimits(max_persons_per_group=2)
    async with serving(store, limits=limits) as (session, network):
        units = await outcomes(run_on(session, people, max_at_once=1))
    assert {"-1310": 4} == Counter(unit.code for unit in units if unit.state is State.FAILED)
    assert 2 == network.calls.count("newperson")


async def test_another_writer_may_fill_a_person(store, tmp_path, run_on):
    """Then the server's own refusal counts."""
    people = write_people(tmp_path / "people", 1, 10)
    filled = []

    async def fill(name):
        if name == "addface" and not filled:
            filled.append(name)
            await session.add_face("person0", [picture(0, shot) for shot in range(40, 55)])

    async with serving(store, plan=fill) as (session, _):
        units = await outcomes(run_on(session, people))
    assert Counter({"-1309": 5}) == Counter(unit.code for unit in units if unit.state is State.FAILED)
    assert 20 == len(enrolled(store)["person0"])
