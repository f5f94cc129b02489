"""Reads and writes beside each other, beside other processes, and when the file fails them."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

import anyio
import pytest
from serverkit import ToyRecognizer, calling, part, picture

from face_async.images import decoding
from face_async.limits import ServiceLimits
from face_async.server import Store, StoreError
from face_async.server.recognition.base import decode_or_refuse
from face_async.server.refusal import Refusal
from face_async.server.storage import failures
from face_async.server.storage.failures import FailureLog
from face_async.server.storage.signatures import UsedSignatures
from face_async.server.storage.sqlite import database
from face_async.server.storage.sqlite.database import Database

APPID = "123456"
TOY = ToyRecognizer()


def enroll(store, person_id, limits=ServiceLimits(), group="staff"):
    store.add_person(APPID, person_id, [group], name="", tag="", face=None, recognizer=TOY, limits=limits)


class Foreign:
    """Another program with the file's lock in its hand."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("BEGIN IMMEDIATE")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.db.close()


def in_threads(*functions):
    """Run each function in a thread; return what they returned or raised, and after how many seconds."""
    ends = [None] * len(functions)
    began = time.monotonic()

    def run(index):
        try:
            result = functions[index]()
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            result = error
        ends[index] = (result, time.monotonic() - began)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


# Locks


def test_reads_do_not_wait_for_the_files_lock_and_writes_wait_together(tmp_path, monkeypatch, full):
    """Four writes beside a program that keeps the lock all fail when the time is up, not one after the other."""
    seconds = database.BUSY_SECONDS if full else 2.0
    monkeypatch.setattr(database, "BUSY_SECONDS", seconds)
    with Store(tmp_path / "faces.db") as store:
        enroll(store, "ada")
        times = []

        def write():
            store.set_info(APPID, "ada", name="x", tag=None)

        def read():
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                began = time.perf_counter()
                store.person(APPID, "ada")
                times.append(time.perf_counter() - began)

        with Foreign(tmp_path / "faces.db"):
            *writes, _ = in_threads(write, write, write, write, read)
        assert statistics.median(times) < 0.05
        for error, after in writes:
            assert isinstance(error, StoreError)
            assert "locked" in str(error)
            assert after >= seconds
        ends = [after for _, after in writes]
        assert max(ends) - min(ends) < seconds / 2
        assert store.person(APPID, "ada").name == ""
        write()
        assert store.person(APPID, "ada").name == "x"


def test_a_store_is_opened_and_compared_with_beside_a_lock(tmp_path, monkeypatch):
    """Whoever only reads needs no lock from the start."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.3)
    with Store(tmp_path / "faces.db") as store:
        face = TOY.find_face(picture(1))
        store.add_person(APPID, "ada", ["staff"], name="", tag="", face=face, recognizer=TOY, limits=ServiceLimits())
    with Foreign(tmp_path / "faces.db"), Store(tmp_path / "faces.db") as store:
        (match,) = store.identify(APPID, ["staff"], face.embedding, TOY, 5)
        assert match.person_id == "ada"
        with pytest.raises(StoreError, match="locked"):
            enroll(store, "bob")


def test_writes_go_on_when_the_lock_is_given_back(tmp_path):
    """All those that have waited."""
    with Store(tmp_path / "faces.db") as store:
        enroll(store, "ada")
        with Foreign(tmp_path / "faces.db") as foreign:
            waiting = [lambda n=n: enroll(store, f"p{n}") for n in range(4)]
            ends = in_threads(*waiting, lambda: time.sleep(0.3) or foreign.db.rollback())
        assert [result for result, _ in ends] == [None] * 5
        assert len(store.person_ids(APPID, "staff")) == 5


@pytest.mark.anyio
async def test_requests_that_read_are_answered_while_many_that_write_wait(tmp_path, monkeypatch):
    """More of them than a thread pool has threads: each kind of work has its own."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 4.0)
    with Store(tmp_path / "faces.db") as store:
        async with calling(store) as caller:
            await caller.new_person("ada")
            codes = []

            async def write():
                codes.append((await caller.json("setinfo", person_id="ada", tag="x"))[0])

            with Foreign(tmp_path / "faces.db"):
                async with anyio.create_task_group() as tasks:
                    for _ in range(100):
                        tasks.start_soon(write)
                    await anyio.sleep(0.5)
                    assert (await caller.ok("getinfo", person_id="ada"))["tag"] == ""
                    assert codes == []
            assert codes == [-1200] * 100


# Commits


def versions(path):
    """Return a function that says how many commits others have made."""
    db = sqlite3.connect(path)
    return db, lambda: db.execute("PRAGMA data_version").fetchone()[0]


def test_writes_that_wait_at_the_same_time_share_a_commit(tmp_path):
    """One sync of the disk for all of them; each is there, in the order in which it came."""
    with Store(tmp_path / "faces.db") as store:
        db, version = versions(tmp_path / "faces.db")
        before = version()
        with store._database.exclusively():
            threads = [threading.Thread(target=enroll, args=(store, f"p{number}")) for number in range(20)]
            for number, thread in enumerate(threads):
                thread.start()
                while len(store._database._queue.waiting) < number + 1:
                    time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert version() == before + 1
        assert store.person_ids(APPID, "staff") == [f"p{number}" for number in range(20)]
        db.close()


def together(store, *functions):
    """Let writes wait until all of them do; return what each returned or raised."""

    def release():
        with store._database.exclusively():
            while len(store._database._queue.waiting) < len(functions):
                time.sleep(0.001)

    return [result for result, _ in in_threads(release, *functions)][1:]


def test_a_refused_write_undoes_nothing_of_those_beside_it(tmp_path):
    """And leaves nothing of its own, though it had begun to write."""
    tight = ServiceLimits(max_persons_per_group=1)
    with Store(tmp_path / "faces.db") as store:
        enroll(store, "ada")
        ends = together(
            store,
            lambda: enroll(store, "bob", group="new"),
            lambda: enroll(store, "eve", tight),
            lambda: store._database.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)")),
            lambda: enroll(store, "dan", group="new"),
        )
        assert [type(end) for end in ends] == [type(None), Refusal, StoreError, type(None)]
        assert set(store.person_ids(APPID, "new")) == {"bob", "dan"}
        assert store.person_ids(APPID, "staff") == ["ada"]


def test_when_a_commit_fails_all_that_shared_it_fail(tmp_path):
    """Refusals too: what they rested on may be undone. Nothing of it stays."""
    with Store(tmp_path / "faces.db") as store:
        enroll(store, "ada")

        def breaks():
            def work(db):
                db.rollback()  # as SQLite does by itself when the disk is full
                raise sqlite3.OperationalError("database or disk is full")

            store._database.write(work)

        ends = together(store, lambda: enroll(store, "bob"), breaks, lambda: enroll(store, "ada"))
        assert {str(end) for end in ends} == {"database or disk is full"}
        assert store.person_ids(APPID, "staff") == ["ada"]
        enroll(store, "bob")


def test_closing_loses_nothing(tmp_path):
    """Writes that wait are finished first; who comes too late is told so, and has written nothing."""
    path = tmp_path / "faces.db"
    store = Store(path)

    def close():
        with store._database.exclusively():
            # Those who wait, and not one who is about to: that one may come too late.
            while store._database._queue._threads._work_queue.qsize() < 10:
                time.sleep(0.001)
        store.close()

    _, *ends = in_threads(close, *(lambda n=n: enroll(store, f"p{n}") for n in range(20)))
    done = {f"p{number}" for number, (result, _) in enumerate(ends) if result is None}
    assert {type(result) for result, _ in ends} <= {type(None), StoreError}
    assert len(done) >= 10
    with Store(path) as again:
        assert set(again.person_ids(APPID, "staff")) == done
    assert [file.name for file in tmp_path.iterdir()] == ["faces.db"]


# Failures


@pytest.fixture
def full_disk(monkeypatch):
    """Let stores that are opened now find no room beyond so many pages; return how to make room."""
    opened = []
    connect = Database._open_writer

    def small(self):
        db = connect(self)
        opened.append(db)
        return db

    monkeypatch.setattr(Database, "_open_writer", small)

    def limit(pages):
        for db in opened:
            db.execute(f"PRAGMA max_page_count = {pages}")

    return limit


@pytest.mark.anyio
async def test_a_full_disk_is_logged_once_and_reads_go_on(tmp_path, full_disk, caplog):
    """Whatever number of requests fails; with room again all goes on by itself, and nothing refused is there."""
    with Store(tmp_path / "faces.db") as store:
        async with calling(store) as caller:
            await caller.new_person("ada")
            full_disk(1)
            codes = []
            async with anyio.create_task_group() as tasks:
                for number in range(50):

                    async def add(number=number):
                        answer = await caller.json(
                            "newperson", person_id=f"p{number}", group_ids=["staff"], tag="x" * 200
                        )
                        codes.append(answer[0])

                    tasks.start_soon(add)
            assert -1200 in codes
            assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff"]
            full_disk(1_000_000)
            await caller.new_person("bob")
            persons = (await caller.ok("getpersonids", group_id="staff"))["person_ids"]
            assert len(persons) == 2 + codes.count(0)
    (line,) = caplog.records
    assert "newperson: the database failed: database or disk is full" in line.getMessage()
    assert line.exc_info is None


def test_a_failure_is_logged_once_a_minute_with_how_many_there_were(monkeypatch, caplog):
    """Each kind of failure by itself."""
    clock = itertools.count(0.0, 20.0)
    monkeypatch.setattr(failures.time, "monotonic", lambda: next(clock))
    log = FailureLog()
    for _ in range(7):
        log.report("setinfo", "s", sqlite3.OperationalError("disk I/O error"))
    log.report("setinfo", "s", sqlite3.OperationalError("database is locked"))
    assert [record.getMessage() for record in caplog.records] == [
        "setinfo: the database failed: disk I/O error (session s)",
        "setinfo: the database failed: disk I/O error (session s); 2 more requests since this was logged last",
        "setinfo: the database failed: disk I/O error (session s); 2 more requests since this was logged last",
        "setinfo: the database failed: database is locked (session s)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


@pytest.mark.anyio
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_database_that_is_deleted_in_use_is_noticed(tmp_path, replaced, caplog):
    """Nothing is written to where nobody would find it, nor to whatever lies there now."""
    path = tmp_path / "faces.db"
    with Store(path) as store:
        async with calling(store) as caller:
            await caller.new_person("ada")
            path.unlink()
            if replaced:
                path.write_text("notes")
            for name in ("bob", "eve"):
                code, _ = await caller.json("newperson", person_id=name, group_ids=["staff"])
                assert code == -1200
            (line,) = caplog.records
            assert f"{path} was deleted or replaced while it was in use" in line.getMessage()
            answers = []
            async with anyio.create_task_group() as tasks:
                for _ in range(20):  # so that more connections are opened
                    tasks.start_soon(lambda: remember(answers, caller.json("getinfo", person_id="ada")))
            assert {code for code, _ in answers} <= {0, -1200}
    assert path.exists() == replaced
    assert not replaced or path.read_text() == "notes"


async def remember(answers, call):
    answers.append(await call)


@pytest.mark.anyio
async def test_too_little_memory_is_an_error_of_the_server(store):
    """Code 213, never a damaged picture."""

    class Greedy(ToyRecognizer):
        def find_face(self, picture):
            raise MemoryError

    async with calling(store, recognizer=Greedy()) as caller:
        code, _ = await caller.multipart(
            "newperson", part("person_id", "ada"), part("group_ids[0]", "staff"), part("image", picture(1))
        )
        assert code == 213
        assert (await caller.json("getinfo", person_id="ada"))[0] == -1303


def test_a_decoder_without_memory_says_nothing_about_the_picture(monkeypatch):
    """Whatever format it is."""

    def no_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setitem(decoding._PLUGINS, "JPEG", no_memory)
    with pytest.raises(MemoryError):
        decode_or_refuse(b"\xff\xd8\xff", longest_side=8)


# Signatures


def test_a_signature_is_good_once(open_one):
    """In all stores on a database, and after they are closed and opened again."""
    with open_one() as first, open_one() as second:
        assert first.used_signatures().remember("a", b"1", 100, 0.0)
        assert not second.used_signatures().remember("a", b"1", 100, 0.0)
        assert second.used_signatures().remember("a", b"2", 100, 0.0)
    with open_one() as store:
        assert not store.used_signatures().remember("a", b"1", 100, 100.0)
        assert not store.used_signatures().remember("a", b"2", 100, 0.0)


def test_a_signature_is_good_once_by_whatever_name_the_file_is_opened(tmp_path, monkeypatch):
    """Through a symbolic link, and by a relative name in whatever folder the process is later."""
    (tmp_path / "link.db").symlink_to(tmp_path / "faces.db")
    monkeypatch.chdir(tmp_path)
    with Store("faces.db") as first, Store("link.db") as second:
        monkeypatch.chdir("/")
        assert first.used_signatures().remember("a", b"1", 100, 0.0)
        assert not second.used_signatures().remember("a", b"1", 100, 0.0)


def test_the_file_of_signatures_is_as_private_as_the_database(tmp_path):
    """And there is none beside a database in memory."""
    with Store(tmp_path / "faces.db") as store:
        store.used_signatures()
        assert (tmp_path / "faces.db-signatures").stat().st_mode & 0o777 == 0o600
    with Store() as store:
        assert store.used_signatures().remember("a", b"1", 100, 0.0)
        assert not store.used_signatures().remember("a", b"1", 100, 0.0)


@pytest.fixture
def signatures(open_one):
    """Open the memory of signatures of an empty storage, with room for so many for each account."""
    with open_one() as store:
        yield lambda capacity=None: UsedSignatures(store.used_signatures()._database, capacity)


def test_accounts_divide_the_memory_of_signatures(signatures):
    """What one fills up is refused to it alone; none is forgotten while it is good, and room comes back with time."""
    used = signatures(10)
    taken = [used.remember("greedy", bytes([number]), 100 + number, 0.0) for number in range(20)]
    assert taken == [True] * 10 + [False] * 10
    assert used.remember("modest", bytes([0]), 100, 0.0)
    assert not used.remember("greedy", bytes([0]), 100, 0.0)
    assert not used.remember("greedy", b"new", 900, 100.0)
    assert used.remember("greedy", b"new", 900, 101.0)
    assert [used.remember("greedy", bytes([number]), 900, 105.0) for number in range(1, 5)] == [True] * 4
    assert not used.remember("greedy", b"another", 900, 105.0)
    assert not used.remember("greedy", bytes([5]), 105, 105.0)


def test_what_has_expired_does_not_add_up(signatures):
    """The memory is as large as what is good at a time."""
    used = signatures()
    for number in range(500):
        assert used.remember("a", str(number).encode(), number + 10, float(number))
    with used._database.reading() as db:
        assert db.execute("SELECT count(*) FROM signatures").fetchone()[0] < 20
        assert db.execute("SELECT used FROM accounts").fetchone()[0] < 20


def test_of_many_at_the_same_time_one_is_let_in(database, open_one):
    """Threads and processes: each of 20 signatures once in all."""
    script = (
        "import sys\n"
        "from face_async.server import open_storage\n"
        "with open_storage(sys.argv[1]) as store:\n"
        "    used = store.used_signatures()\n"
        "    print(sum(used.remember('a', bytes([n]), 100, 0.0) for n in range(20)))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, database], stdout=subprocess.PIPE) for _ in range(3)]
    with open_one() as store:
        used = store.used_signatures()
        ends = in_threads(*[lambda: [used.remember("a", bytes([n]), 100, 0.0) for n in range(20)]] * 4)
    here = sum(sum(result) for result, _ in ends)
    assert here + sum(int(process.communicate(timeout=60)[0]) for process in running) == 20
    assert all(process.returncode == 0 for process in running)
