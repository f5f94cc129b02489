"""Beside the run itself: trying without sending, trying again, dividing a run, and holding it against the server."""

from __future__ import annotations

import gc
import os
import pickle
import stat
from collections import Counter
from pathlib import Path

import pytest
from ingestkit import enrolled, finished, outcomes, serving, write_people
from serverkit import picture

from face_async import NotFoundError
from face_async.ingest import (
    Difference,
    JournalError,
    Shard,
    State,
    ingest,
    merge_journals,
    retry_failed,
    verify,
)

pytestmark = pytest.mark.anyio


async def differences_of(session, journal):
    async with verify(session, journal) as differences:
        return [difference async for difference in differences]


async def test_a_run_that_is_not_entered_warns_and_one_that_was_ends(store, people, run_on, journal):
    """Whatever runs as a block can be forgotten, or begun twice: enrolling, and holding it against the server."""
    async with serving(store) as (session, _):
        run = run_on(session, people)
        assert 12 == len(await outcomes(run))
        for make in (run_on, verify):
            make(session, people)
            with pytest.warns(RuntimeWarning, match="never entered"):
                gc.collect()
        with pytest.raises(RuntimeError, match="entered once"):
            await outcomes(run)
        differences = verify(session, journal)
        with pytest.raises(RuntimeError, match="async with verify"):
            await anext(differences)
        async with differences:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            await differences.__aenter__()


# A dry run


async def test_a_dry_run_says_what_would_be_sent(store, people, run_on, journal):
    """It reads and compares all pictures, asks the server nothing, and leaves no journal behind."""
    (people / "person0" / "copy.jpg").write_bytes(picture(0, 0))
    (people / "person0" / "x.gif").write_bytes(b"GIF89a")
    for shot in range(4, 22):
        (people / "person1" / f"{shot}.jpg").write_bytes(picture(1, shot))
    async with serving(store) as (session, network):
        run = run_on(session, people, dry_run=True)
        units = await outcomes(run)
    assert [] == network.calls
    assert not journal.exists()
    assert {State.PENDING: 28, State.FAILED: 3, State.COLLAPSED: 1} == Counter(unit.state for unit in units)
    assert (28, 3, 1) == (run.summary.pending, run.summary.failed, run.summary.collapsed)
    assert {"refused": 1, "-1309": 2} == run.summary.codes


async def test_a_dry_run_knows_what_was_sent(store, people, run_on, journal):
    """It works on a copy of the journal, which stays as it is."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        (people / "person1" / "new.jpg").write_bytes(picture(1, 9))
        before = journal.read_bytes()
        units = await outcomes(run_on(session, people, dry_run=True))
    assert before == journal.read_bytes()
    assert [(State.PENDING, "new.jpg")] == [(unit.state, Path(unit.source).name) for unit in units]


# Trying again


async def test_what_failed_is_tried_again_and_nothing_else(store, people, run_on, journal):
    """Mended files are added; what is only pending waits for a run of its own."""
    broken = people / "person1" / "02.jpg"
    broken.write_bytes(b"BMbroken")
    async with serving(store) as (session, network):
        async with run_on(session, people, max_at_once=1) as run:
            async for unit in run:
                if unit.state is State.FAILED:
                    run.stop()
        assert (1, 4) == (run.summary.failed, run.summary.pending)
        broken.write_bytes(picture(1, 2))
        network.calls.clear()
        units = await outcomes(retry_failed(session, journal=journal))
        assert [(str(broken), State.DONE)] == [(unit.source, unit.state) for unit in units]
        assert ["getgroupids", "getfaceids", "addface"] == network.calls
        assert 4 == (await finished(run_on(session, people))).added


async def test_what_fails_again_keeps_its_reason(store, people, run_on, journal):
    (people / "person1" / "02.jpg").write_bytes(b"BMbroken")
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
        for _ in range(2):
            summary = await finished(retry_failed(session, journal=journal))
    assert ({"-1102": 1}, 11, 1) == (summary.codes, summary.done, summary.failed)


async def test_a_run_may_go_on_without_its_source(store, people, run_on):
    """With what the journal knows."""
    async with serving(store) as (session, _):
        async with run_on(session, people, max_at_once=1) as run:
            async for _ in run:
                run.stop()
        assert 12 == (await finished(run_on(session, None))).done


async def test_what_was_added_under_its_own_name_meanwhile_is_not_tried_again(store, people, run_on, journal):
    """The journal knows the mended file already: a run had found it."""
    broken = people / "person1" / "02.jpg"
    good = picture(1, 2)
    broken.write_bytes(good)
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        status = broken.stat()
        broken.write_bytes(b"BMbroken")
        assert 1 == (await finished(run_on(session, people))).failed
        broken.write_bytes(good)
        os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
        network.calls.clear()
        summary = await finished(retry_failed(session, journal=journal))
    assert (["getgroupids"], 12, 0) == (network.calls, summary.done, summary.failed)


# Shards


async def test_shards_share_the_persons(store, tmp_path):
    """Each person belongs to one, the same in every run; merged, their journals are those of one run."""
    people = write_people(tmp_path / "people", 12, 2)
    journals = [tmp_path / f"{rank}.journal" for rank in range(3)]
    merged = tmp_path / "all.journal"
    async with serving(store) as (session, network):
        for rank, journal in enumerate(journals):
            summary = await finished(ingest(session, people, journal=journal, group_ids=["staff"], shard=(rank, 3)))
            assert 0 < summary.done < 24
        assert 24 == sum(map(len, enrolled(store).values()))
        merge_journals(journals, merged)
        assert 0o600 == stat.S_IMODE(merged.stat().st_mode)
        assert [] == await differences_of(session, merged)
        network.calls.clear()
        summary = await finished(ingest(session, people, journal=merged, group_ids=["staff"]))
    assert (["getgroupids"], 24) == (network.calls, summary.done)


def test_a_shard_is_told_by_the_person_alone():
    """By a hash that is the same on every machine."""
    assert [2, 1, 1, 1] == [
        next(rank for rank in range(3) if Shard(rank, 3).has(person)) for person in ("ada", "bob", "person0", "王")
    ]
    for wrong in ((3, 3), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"rank|world"):
            Shard(*wrong)


async def test_a_shards_journal_is_for_that_shard(store, people, run_on):
    """Two shards on one journal would be two runs that do not know of each other."""
    async with serving(store) as (session, _):
        await finished(run_on(session, people, shard=(0, 2)))
        with pytest.raises(JournalError, match=r"part 0 of 2, not of .* part 1 of 2"):
            await finished(run_on(session, people, shard=(1, 2)))


async def test_merging_takes_whoever_is_further(store, people, run_on, journal, tmp_path):
    """The same picture may be known to two journals; and only journals of one project are merged."""
    early, merged = tmp_path / "early.journal", tmp_path / "merged.journal"
    broken = people / "person1" / "02.jpg"
    broken.write_bytes(b"BMbroken")
    async with serving(store) as (session, _):
        async with run_on(session, people, max_at_once=1) as run:
            async for _ in run:
                run.stop()
        early.write_bytes(journal.read_bytes())
        await finished(run_on(session, people))
        for order in ([early, journal], [journal, early]):
            merge_journals(order, merged)
            summary = await finished(ingest(session, None, journal=merged))
            assert (11, 1, 0, 0) == (summary.done, summary.failed, summary.pending, summary.added)
            merged.unlink()
        other = tmp_path / "other.journal"
        with pytest.raises(ValueError, match="at least one"):
            merge_journals([], merged)
        with pytest.raises(JournalError, match="is there already"):
            merge_journals([early], journal)
        with pytest.raises(JournalError, match="cannot be opened"):
            merge_journals([early, other], merged)
    assert not merged.exists()


# Against the server


async def test_verifying_finds_what_differs(store, people, run_on, journal):
    """Faces that are gone, faces that nobody added, persons who are gone, groups that they are not in."""
    async with serving(store) as (session, _):
        await session.new_person("person2", ["guests"])
        units = await outcomes(run_on(session, people))
        assert [Difference("person2", missing_groups=("staff",))] == await differences_of(session, journal)
        ids = {(unit.person_id, Path(unit.source).name): unit.face_id for unit in units}
        await session.del_face("person2", [ids["person2", "01.jpg"]])
        extra = (await session.add_face("person2", [picture(2, 30)])).face_ids
        await session.del_person("person0")
        async with verify(session, journal) as differences:
            found = {difference.person_id: difference async for difference in differences}
    assert (3, 12) == (differences.persons, differences.faces)
    assert {
        "person0": Difference("person0", absent=True),
        "person2": Difference("person2", missing=(ids["person2", "01.jpg"],), extra=extra, missing_groups=("staff",)),
    } == found


async def test_verifying_needs_the_projects_own_journal(store, people, run_on, journal):
    async with serving(store) as (session, _):
        await finished(run_on(session, people))
    async with serving(store, appid="654321") as (session, _):
        with pytest.raises(JournalError, match="appid 123456, bucket test, not of appid 654321"):
            await differences_of(session, journal)


async def test_verifying_raises_what_the_server_answers(store, people, run_on, journal):
    async with serving(store) as (session, network):
        await finished(run_on(session, people))
        network.plan = lambda name: 16
        with pytest.raises(NotFoundError):
            await differences_of(session, journal)


# What a caller sees


async def test_progress_is_told_step_by_step(store, people, run_on):
    """Every summary adds up; the last one is the run's."""
    seen = []
    async with serving(store) as (session, _), run_on(session, people, on_progress=seen.append) as run:
        await run.finish()
    assert ["listing", "sending", "ended"] == list(dict.fromkeys(summary.phase for summary in seen))
    assert {12} == {summary.total for summary in seen if summary.phase == "sending"}
    assert sorted(summary.done for summary in seen) == [summary.done for summary in seen]
    assert run.summary == seen[-1]


async def test_a_file_of_failures_that_cannot_be_written_harms_no_run(store, people, run_on, tmp_path):
    """It is the caller's error; the run goes on beside it."""
    async with serving(store) as (session, _), run_on(session, people, max_at_once=1) as run:
        async for _ in run:
            with pytest.raises(FileNotFoundError):
                await run.write_failures(tmp_path / "no" / "such.csv")
    assert run.summary.complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_at_once": 0}, "max_at_once"),
        ({"max_at_one": 3}, "max_at_one"),
        ({"shard": (2, 2)}, "rank"),
        ({"group_ids": "staff"}, "list of str"),
    ],
)
async def test_wrong_arguments_are_refused_at_once(store, people, run_on, options, message):
    async with serving(store) as (session, _):
        with pytest.raises((TypeError, ValueError), match=message):
            run_on(session, people, **options)


async def test_a_source_that_is_none_ends_the_run(store, tmp_path, run_on):
    async with serving(store) as (session, _):
        with pytest.raises(FileNotFoundError, match="missing"):
            await finished(run_on(session, tmp_path / "missing"))
        (tmp_path / "people.xlsx").touch()
        with pytest.raises(ValueError, match="must be a folder"):
            await finished(run_on(session, tmp_path / "people.xlsx"))


def test_a_journal_error_pickles():
    error = JournalError("enroll.journal is in use")
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
