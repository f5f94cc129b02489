"""What is kept, and where: a database that other threads, other processes and later versions may meet."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serverkit import ToyRecognizer, picture
from timing import PATIENCE

from face_async.limits import ServiceLimits
from face_async.server import Store, StoreError, open_storage  # noqa: F401 - for another process
from face_async.server.refusal import Refusal
from face_async.server.storage.base import Match
from face_async.server.storage.rows import FACE_COLUMNS
from face_async.server.storage.sqlite.schema import MIGRATIONS

APPID = "123456"
TOY = ToyRecognizer()

SCHEMA_1 = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, group_id TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 0,
    UNIQUE (appid, group_id)
);
CREATE TABLE persons (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, person_id TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL,
    UNIQUE (appid, person_id)
);
CREATE TABLE memberships (
    id INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    UNIQUE (grp, person)
);
CREATE INDEX memberships_by_person ON memberships (person);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY, face_id TEXT NOT NULL UNIQUE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    tag TEXT NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, width REAL NOT NULL, height REAL NOT NULL,
    gender INTEGER NOT NULL, age INTEGER NOT NULL, expression INTEGER NOT NULL, glass INTEGER NOT NULL,
    pitch INTEGER NOT NULL, yaw INTEGER NOT NULL, roll INTEGER NOT NULL,
    recognizer TEXT NOT NULL, embedding BLOB NOT NULL
);
CREATE INDEX faces_by_person ON faces (person);
"""
"""The tables of version 1, as its release made them."""


def enroll(store: Store, person_id: str, *groups: str, face: int | None = None) -> str:
    found = None if face is None else TOY.find_face(picture(face))
    return store.add_person(
        APPID, person_id, groups or ["staff"], name="n", tag="t", face=found, recognizer=TOY, limits=ServiceLimits()
    )


def found(store: Store, group: str, face: int = 0) -> list[str]:
    """Return the persons of a group, the one most like ``face`` first."""
    matches = store.identify(APPID, [group], TOY.find_face(picture(face)).embedding, TOY, 1_000)
    return [match.person_id for match in matches]


def test_a_database_keeps_everything(open_one):
    """Closed and opened again, it says the same; floats to the last bit."""
    with open_one() as store:
        face_id = enroll(store, "ada", "staff", "guests", face=3)
        before = store.person(APPID, "ada"), store.face_info(APPID, face_id)
    with open_one() as store:
        assert (store.person(APPID, "ada"), store.face_info(APPID, face_id)) == before
        assert store.embeddings(APPID, "ada", TOY).tolist() == [[3.0, 0.0]]
        (match,) = store.identify(APPID, ["guests"], TOY.find_face(picture(3)).embedding, TOY, 5)
        assert match == Match("ada", face_id, 100.0, "t")


def test_memory_keeps_nothing():
    """And two stores in memory share nothing."""
    with Store() as first, Store() as second:
        enroll(first, "ada")
        assert second.group_ids(APPID) == []
        assert repr(first) == "Store(':memory:')"


def test_nobody_else_may_read_the_file(tmp_path):
    """Faces are personal: mode 0600 for the database and its journal."""
    with Store(tmp_path / "faces.db") as store:
        enroll(store, "ada")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["faces.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_a_newer_version_is_refused(tmp_path):
    """With the advice to update; the file is left alone."""
    path = tmp_path / "faces.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {MIGRATIONS.version + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"newer version of face_async.*update"):
        Store(path)


def write_version_1(path):
    """Write a database as the first release did: two people in a group, one of them with a face."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_1)
        db.execute("PRAGMA user_version = 1")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO groups VALUES (1, ?, 'staff', 2)", (APPID,))
        for key, person_id in enumerate(["ada", "bob"], 1):
            db.execute("INSERT INTO persons VALUES (?, ?, ?, 'n', 't')", (key, APPID, person_id))
            db.execute("INSERT INTO memberships (grp, person) VALUES (1, ?)", (key,))
        face = TOY.find_face(picture(3))
        values = [getattr(face, column) for column in FACE_COLUMNS]
        db.execute(
            f"INSERT INTO faces VALUES (7, '1234567890123456789', 1, 't', {'?, ' * len(values)} 'toy', ?)",
            (*values, face.embedding.tobytes()),
        )
    db.close()


def test_a_file_of_version_1_is_taken_over(tmp_path):
    """With all that is in it; after that it is of this version."""
    path = tmp_path / "faces.db"
    write_version_1(path)
    for _ in range(2):
        with Store(path) as store:
            assert store.person(APPID, "ada").face_ids == ["1234567890123456789"]
            assert store.person_ids(APPID, "staff")[:2] == ["ada", "bob"]
            assert found(store, "staff", 3)[0] == "ada"
            assert store.face_info(APPID, "1234567890123456789")["age"] == 37
    with Store(path) as store:
        face_id = enroll(store, "eve", face=9)
        assert found(store, "staff", 9) == ["eve", "ada"]
        store.delete_person(APPID, "ada")
        assert found(store, "staff", 9) == ["eve"]
        assert store.person(APPID, "eve").face_ids == [face_id]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (MIGRATIONS.version,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_snapshot_of_version_1_is_taken_over(tmp_path):
    """As files are."""
    path = tmp_path / "old.db"
    write_version_1(path)
    with sqlite3.connect(path) as db, contextlib.closing(sqlite3.connect(":memory:")) as copy:
        db.backup(copy)
        content = copy.serialize()
    db.close()
    with Store() as store:
        store.restore(content[:18] + b"\x01\x01" + content[20:])
        assert found(store, "staff", 3) == ["ada"]
        enroll(store, "eve", face=9)
        assert found(store, "staff", 9) == ["eve", "ada"]


def test_a_strangers_file_is_refused(tmp_path):
    """Another program's database, a file that is none, and a folder that does not exist."""
    stranger, text = tmp_path / "stranger.db", tmp_path / "notes.txt"
    with sqlite3.connect(stranger) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    text.write_text("dear diary, " * 100)
    before = stranger.read_bytes()
    with pytest.raises(StoreError, match="database of something else"):
        Store(stranger)
    with pytest.raises(StoreError, match="cannot be opened as a database"):
        Store(text)
    with pytest.raises(StoreError, match="No such file"):
        Store(tmp_path / "none" / "faces.db")
    os.mkfifo(tmp_path / "pipe")
    for no_file in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError, match="not a regular file"):
            Store(no_file)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for no_path in (tmp_path / "loop", "null\0"):
        with pytest.raises(StoreError, match="cannot be opened"):
            Store(no_path)
    assert text.read_text().startswith("dear diary")
    assert stranger.read_bytes() == before


def test_a_face_id_is_19_digits_and_unique(store):
    """Text, never a number: it is larger than 64 bits hold."""
    ids = {enroll(store, f"p{number}", face=number) for number in range(50)}
    assert len(ids) == 50
    assert all(len(face_id) == 19 and face_id.isdecimal() and face_id[0] != "0" for face_id in ids)


def test_a_refused_effect_leaves_no_trace(store):
    """The transaction is rolled back whole, and the next one works."""
    tight = ServiceLimits(max_persons_per_group=1)
    enroll(store, "ada")
    with pytest.raises(Refusal, match="-1310"):
        store.add_person(APPID, "bob", ["new", "staff"], name="", tag="", face=None, recognizer=TOY, limits=tight)
    assert store.group_ids(APPID) == ["staff"]
    enroll(store, "bob")


def test_a_closed_store_may_be_closed_again(open_one):
    """As files may; whoever reads or writes after the end is told so."""
    store = open_one()
    store.used_signatures()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        enroll(store, "ada")
    with pytest.raises(StoreError, match="closed"):
        store.group_ids(APPID)


def test_texts_may_have_any_characters(store):
    """Those that databases take for an end or an escape, too."""
    texts = ["\x00", "\x1a", "a\x00\x1a0\x1a\x1a\x00b", "\x1a0", "%s ? \\ ' \"", "Ж\U0001f600", ""]
    for number, text in enumerate(texts):
        store.add_person(
            APPID, f"p{number}", ["g"], name=text, tag=text, face=None, recognizer=TOY, limits=ServiceLimits()
        )
        record = store.person(APPID, f"p{number}")
        assert (record.name, record.tag) == (text, text)


def test_two_stores_on_one_database_see_each_others_work(open_one):
    """Galleries in memory included: a group's version and its changes are in the database."""
    with open_one() as first, open_one() as second:
        enroll(first, "ada", face=1)
        assert found(second, "staff") == ["ada"]
        enroll(first, "bob", face=2)
        assert found(second, "staff") == ["ada", "bob"]
        second.delete_person(APPID, "ada")
        assert found(first, "staff") == ["bob"]


def test_a_second_store_gives_up_no_lock_of_the_first(tmp_path):
    """Locks belong to a process and a file: opening and closing it once more must not lose them."""
    path = tmp_path / "faces.db"
    with Store(path) as first:
        enroll(first, "ada")
        before = locks_on(path)
        assert before
        with Store(path) as second:
            enroll(second, "bob")
            assert locks_on(path) >= before
        with pytest.raises(StoreError):
            Store(path / "nowhere")
        enroll(first, "eve")


def locks_on(path):
    """Return this process's locks on a file, as the kernel lists them."""
    inode = path.stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return len([line for line in lines if f":{inode} " in line and f" {os.getpid()} " in line])


def test_threads_share_a_store(store):
    """Every effect of every thread is there in the end."""

    def work(thread: int) -> None:
        for number in range(25):
            enroll(store, f"t{thread}p{number}", f"g{thread}", "all", face=number)
            found(store, "all")

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.person_ids(APPID, "all")) == len(found(store, "all")) == 100


def test_processes_share_a_database(database, open_one):
    """Three that open a new one at once and write to it: none fails, nothing is lost."""
    script = (
        "import sys\n"
        "import test_server_store as t\n"
        "with t.open_storage(sys.argv[1]) as store:\n"
        "    for number in range(10): t.enroll(store, f'{sys.argv[2]}-{number}', face=number)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    running = [
        subprocess.Popen([sys.executable, "-c", script, database, str(number)], env=environment) for number in range(3)
    ]
    assert [process.wait(timeout=PATIENCE) for process in running] == [0, 0, 0]
    with open_one() as store:
        assert len(store.person_ids(APPID, "staff")) == 30


@pytest.mark.parametrize("source", ["file", "memory"])
@pytest.mark.parametrize("target", ["file", "memory"])
def test_a_snapshot_is_the_whole_content_of_a_moment(tmp_path, source, target):
    """In files and in memory, and from one to the other; what came later is gone."""
    paths = {"file": tmp_path / f"{source}-{target}.db", "memory": ":memory:"}
    with Store(paths[source]) as store:
        enroll(store, "ada", face=3)
        content = store.snapshot()
        ada = store.person(APPID, "ada")
    with Store(paths[target]) as store:
        for _ in range(2):
            store.restore(content)
            assert store.person(APPID, "ada") == ada
            assert store.person_ids(APPID, "staff") == ["ada"]
            enroll(store, "bob", face=4)
            assert found(store, "staff", 3) == ["ada", "bob"]
    if target == "file":
        with Store(paths[target]) as store:
            assert store.person_ids(APPID, "staff") == ["ada", "bob"]


def test_what_is_no_snapshot_replaces_nothing():
    """Be it damaged, something else's, or of a later version."""
    later = sqlite3.connect(":memory:")
    later.execute(f"PRAGMA user_version = {MIGRATIONS.version + 1}")
    with Store() as store:
        enroll(store, "ada", face=3)
        content = store.snapshot()
        for wrong in (b"", b"x", content[: len(content) // 2], content[:100] + bytes(8_000), later.serialize()):
            with pytest.raises(StoreError, match="snapshot"):
                store.restore(wrong)
        assert store.person_ids(APPID, "staff") == ["ada"]
    later.close()
