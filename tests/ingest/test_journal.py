"""The journal's file: one owner, one writer, and sound after whatever happens to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from functools import partial

import anyio
import pytest
from attrs import evolve

from face_async.ingest import JournalError, Row, State, queries
from face_async.ingest.journal import Journal
from face_async.ingest.schema import Project, open_journal

pytestmark = pytest.mark.anyio

OURS = Project("123456", "test")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "enroll.journal"


async def list_rows(journal, *rows):
    listed = [(row, 3, "stamp") for row in rows]
    await journal.do(queries.begin_listing)
    await journal.do(partial(queries.list_rows, rows=listed))


async def pending(journal, state=State.PENDING):
    return await journal.do(partial(queries.unfinished, state=state, after=(0, 0), limit=100))


def photos(*numbers):
    return [Row("ada", f"/{number}.jpg", ("staff",)) for number in numbers]


async def test_the_file_is_for_its_owner_alone(path):
    """Face ids and names are in it."""
    async with Journal(path, OURS):
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_what_is_written_is_durable(path):
    """Rollback journal, and every commit waits for the disk."""
    async with Journal(path, OURS) as journal:
        modes = [await journal.do(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
                 for name in ("journal_mode", "synchronous", "locking_mode")]  # fmt: skip
    assert ["delete", 2, "exclusive"] == modes


async def test_a_second_run_is_refused(path):
    """In the same process and in another one; and it does not take the first one's lock away."""
    program = f"""if True:
        from face_async.ingest.schema import open_journal
        open_journal({str(path)!r}, None)
    """
    async with Journal(path, OURS) as first:
        for _ in range(2):
            with pytest.raises(JournalError, match=r"enroll\.journal is in use by another run"):
                async with Journal(path, OURS):
                    pass
        ran = await anyio.run_process([sys.executable, "-c", program], check=False)
        assert b"is in use by another run" in ran.stderr
        await list_rows(first, *photos(1))
    async with Journal(path, OURS) as second:
        assert 1 == len(await pending(second))


async def test_another_projects_journal_is_refused(path):
    """Another appid, bucket or shard; nothing is changed by trying."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1))
    for other in (Project("1", "test"), Project("123456", "other"), Project("123456", "test", 0, 2)):
        with pytest.raises(JournalError, match="is the journal of appid 123456, bucket test, not of appid"):
            async with Journal(path, other):
                pass
    async with Journal(path, OURS) as journal:
        assert 1 == len(await pending(journal))


async def test_another_database_is_refused(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE precious (thing)")
    db.close()
    with pytest.raises(JournalError, match="is no journal, but some other database"):
        async with Journal(path, OURS):
            pass


async def test_a_journal_that_cannot_be_made_says_why(tmp_path):
    with pytest.raises(JournalError, match="cannot be made: No such file or directory"):
        async with Journal(tmp_path / "no" / "such.journal", OURS):
            pass
    with pytest.raises(JournalError, match="cannot be opened as a journal"):
        async with Journal(tmp_path / "missing.journal", None):
            pass
    with pytest.raises(JournalError, match="cannot be made: File name too long") as caught:
        async with Journal(tmp_path / ("x" * 100_000), OURS):
            pass
    assert len(str(caught.value)) < 1_000


async def test_a_damaged_journal_is_refused(path, rng):
    """Cut short anywhere, or with pages of something else, it says so; it never goes on as if nothing were missing."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(*range(300)))
    whole = path.read_bytes()
    torn = [whole[: rng.randrange(100, len(whole) - 1)] for _ in range(10)]
    torn += [os.urandom(100) + whole[100:], whole[:4096] + bytes(len(whole) - 4096), b"person_id,path\n"]
    for content in torn:
        path.write_bytes(content)
        with pytest.raises(JournalError, match=r"damaged|no journal"):
            async with Journal(path, OURS):
                pass


async def test_a_hot_journal_is_rolled_back(path, tmp_path):
    """What SQLite had half written when the machine died is undone, and all before it is there."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(*range(50)))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")  # so that the transaction spills into the file
    db.execute("BEGIN")
    db.execute("UPDATE units SET state = 'done', reason = hex(randomblob(2000))")
    died = tmp_path / "died.journal"
    shutil.copy(path, died)
    shutil.copy(f"{path}-journal", f"{died}-journal")
    db.execute("ROLLBACK")
    db.close()
    assert died.read_bytes() != path.read_bytes()
    async with Journal(died, OURS) as journal:
        assert 50 == len(await pending(journal))


async def test_intents_of_a_dead_run_are_ambiguous(path):
    """The next one cannot know whether the request was sent."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1, 2))
        first, _ = await pending(journal)
        await journal.do(
            partial(queries.intend, number=first.person, before=["old"], units=[evolve(first, sha256=b"hash")])
        )
    async with Journal(path, OURS) as journal:
        [unit] = await pending(journal, State.AMBIGUOUS)
        person = await journal.do(partial(queries.person, number=unit.person))
    assert (first.id, b"hash", ("old",)) == (unit.id, unit.sha256, person.before)


async def test_the_same_bytes_are_one_unit(path):
    """Within a request and over all of them."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1, 2, 3))
        one, two, three = await pending(journal)
        fresh = [
            await journal.do(partial(queries.intend, number=one.person, before=[], units=units))
            for units in ([evolve(one, sha256=b"x"), evolve(two, sha256=b"x")], [evolve(three, sha256=b"x")])
        ]
        tally = await journal.do(lambda db: list(queries.count_units(db)))
    assert [[State.INTENT, State.COLLAPSED], [State.COLLAPSED]] == [[unit.state for unit in units] for units in fresh]
    assert {State.INTENT: 1, State.COLLAPSED: 2} == {state: count for state, _, count in tally}


async def test_listing_again_starts_from_what_is_known(path):
    """Rows that are gone are not sent, rows that are done are not sent again, persons' groups are the new ones."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1, 2, 3))
        one, _, _ = await pending(journal)
        await journal.do(partial(queries.record, units=[evolve(one, state=State.DONE)]))
        rows = [Row("ada", "/1.jpg", ("guests",)), Row("ada", "/3.jpg", ("vip",)), Row("ada", "/1.jpg", ("vip",))]
        await list_rows(journal, *rows)
        [left] = await pending(journal)
        person = await journal.do(partial(queries.person, number=left.person))
    assert ("/3.jpg", ("guests", "vip")) == (left.source, person.group_ids)


async def test_what_failed_and_is_to_be_tried_again_stays_so(path):
    """Also when a retry is killed and another source is listed before it goes on."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1, 2))
        one, _ = await pending(journal)
        await journal.do(partial(queries.record, units=[evolve(one, state=State.FAILED, code="-1101")]))
        await journal.do(queries.reopen_failed)
        await list_rows(journal, *photos(3))
        assert ["/1.jpg", "/3.jpg"] == [unit.source for unit in await pending(journal)]
        again = partial(queries.unfinished, state=State.PENDING, after=(0, 0), limit=9, failed_only=True)
        assert ["/1.jpg"] == [unit.source for unit in await journal.do(again)]


async def test_faces_that_were_added_are_known_to_whoever_settles(path):
    """A request that was divided may be done in part when the run dies."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1, 2))
        one, two = await pending(journal)
        units = [evolve(one, sha256=b"1"), evolve(two, sha256=b"2")]
        await journal.do(partial(queries.intend, number=one.person, before=["old"], units=units))
        await journal.do(partial(queries.record, units=[evolve(one, state=State.DONE, face_id="new")]))
        person = await journal.do(partial(queries.person, number=one.person))
    assert (("old", "new"), True) == (person.before, person.in_doubt)


async def test_many_tasks_share_a_transaction(path):
    """What waits while one transaction is written is all part of the next one."""
    begun = []
    async with Journal(path, OURS) as journal:
        journal.do_now(lambda db: db.set_trace_callback(lambda text: begun.append(text) if text == "BEGIN" else None))

        async def work(number):
            assert number == await journal.do(lambda db: db.execute("SELECT ?", (number,)).fetchone()[0])

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(work, number)
        journal.do_now(lambda db: db.set_trace_callback(None))
    assert len(begun) < 20


async def test_a_full_disk_is_the_end_of_the_journals_use(path):
    """Nothing is half written; with room again, the same file is good."""
    async with Journal(path, OURS) as journal:
        await list_rows(journal, *photos(1))
        journal.do_now(lambda db: db.execute("PRAGMA max_page_count = 1"))
        with pytest.raises(JournalError, match=r"cannot be written: database or disk is full; free some space"):
            await journal.do(partial(queries.list_rows, rows=[(row, 3, "") for row in photos(*range(5_000))]))
        with pytest.raises(JournalError, match="disk is full"):
            await pending(journal)
    async with Journal(path, OURS) as journal:
        assert ["/1.jpg"] == [unit.source for unit in await pending(journal)]


def test_the_lock_dies_with_its_process(path):
    """A killed run leaves no lock behind."""
    program = f"""if True:
        import time
        from face_async.ingest.schema import Project, open_journal
        db = open_journal({str(path)!r}, Project("123456", "test"))
        print("open", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert b"open\n" == holder.stdout.readline()
        open_and_close = partial(open_journal, str(path), OURS)
        with pytest.raises(JournalError, match="in use"):
            open_and_close()
        holder.kill()
        holder.wait()
        open_and_close().close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_journal_is_a_regular_file(tmp_path):
    """A named pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JournalError, match="is no regular file"):
        open_journal(str(tmp_path / "pipe"), OURS)
