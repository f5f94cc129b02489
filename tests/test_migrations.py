"""Databases of every version that was released are opened, with all that is in them, and are of this version then."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from serverkit import APPID, ToyRecognizer, picture

from face_async._version import Migrations
from face_async.ingest import schema as journals
from face_async.ingest.journal import Journal
from face_async.ingest.schema import JournalError, Project
from face_async.limits import ServiceLimits
from face_async.server import Store
from face_async.server.storage.sqlite import schema

DATABASES = Path(__file__).with_name("databases")
TOY = ToyRecognizer()


def restored(path: Path, name: str) -> Path:
    """Write a database as a release left it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((DATABASES / f"{name}.sql").read_text())
    return path


def layout(path: Path) -> tuple[int, set[tuple[str, str]]]:
    """Return a database's version, and its tables and indices."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        made = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    return version, {(name, " ".join(sql.replace("IF NOT EXISTS ", "").split())) for name, sql in made}


@pytest.fixture(params=sorted(path.stem for path in DATABASES.glob("store-*.sql")))
def old_store(request, tmp_path):
    return restored(tmp_path / "faces.db", request.param)


@pytest.fixture(params=sorted(path.stem for path in DATABASES.glob("journal-*.sql")))
def old_journal(request, tmp_path):
    return restored(tmp_path / "enroll.journal", request.param)


def test_a_server_opens_its_database(old_store, tmp_path):
    """Twice: as it was left, and as it has become."""
    for _ in range(2):
        with Store(old_store) as store:
            assert store.group_ids(APPID) == ["staff", "guests"]
            assert store.person_ids(APPID, "staff")[:1] == store.person_ids(APPID, "guests")[:1] == ["ada"]
            ada = store.person(APPID, "ada")
            assert (ada.name, ada.tag, ada.group_ids) == ("name of ada", "t", ["staff", "guests"])
            assert ada.face_ids == ["3646980508252465599", "8338030435951566737"]
            assert store.embeddings(APPID, "ada", TOY).tolist() == [[1.0, 0.0], [5.0, 0.0]]
            assert store.person(APPID, "eve").face_ids == []
            found = store.identify(APPID, ["staff"], TOY.find_face(picture(5)).embedding, TOY, 5)
            assert found[0].face_id == "8338030435951566737"
    with Store(old_store) as store:
        face = TOY.find_face(picture(9))
        store.add_person(APPID, "new", ["staff"], name="", tag="", face=face, recognizer=TOY, limits=ServiceLimits())
        assert store.identify(APPID, ["staff"], face.embedding, TOY, 1)[0].person_id == "new"
    Store(tmp_path / "new.db").close()
    assert layout(old_store) == layout(tmp_path / "new.db")


def test_a_server_remembers_the_signatures_of_before(old_store, tmp_path):
    """Files of them had no version at first."""
    restored(Path(f"{old_store}-signatures"), "signatures-0")
    with Store(old_store) as store, Store(tmp_path / "new.db") as new:
        used = store.used_signatures()
        assert not used.remember("AKID", b"\x01" * 20, 2_000_000_000, 0.0)
        assert used.remember("AKID", b"\x02" * 20, 2_000_000_000, 0.0)
        new.used_signatures()
        assert layout(Path(f"{old_store}-signatures")) == layout(tmp_path / "new.db-signatures")


@pytest.mark.anyio
async def test_ingestion_opens_its_journal(old_journal, tmp_path):
    """With all units and what became of them."""
    async with Journal(old_journal, Project("123456", "test")) as journal:
        states = journal.do_now(lambda db: db.execute("SELECT state, count(*) FROM units GROUP BY state").fetchall())
        assert states == [("done", 4)]
    async with Journal(tmp_path / "new.journal", Project("123456", "test")):
        pass
    assert layout(old_journal) == layout(tmp_path / "new.journal")


NEXT = "\nALTER TABLE persons ADD COLUMN height REAL;\nCREATE INDEX by_height ON persons (height)"


def after(migrations: Migrations, step: str) -> Migrations:
    return Migrations(*migrations._steps, step)


def test_a_step_is_taken_once_and_as_a_whole(old_store):
    """A step that fails leaves the database as it was; the next program that knows better takes it."""
    before = layout(old_store)
    broken = after(schema.MIGRATIONS, NEXT + ";\nCREATE INDEX broken ON persons (weight)")
    with (
        contextlib.closing(sqlite3.connect(old_store, isolation_level=None)) as db,
        pytest.raises(sqlite3.OperationalError, match="no such column"),
    ):
        schema.preparing(broken, table="faces")(db, "it")
    assert layout(old_store) == before
    for _ in range(2):
        with contextlib.closing(sqlite3.connect(old_store, isolation_level=None)) as db:
            schema.preparing(after(schema.MIGRATIONS, NEXT), table="faces")(db, "it")
            assert db.execute("SELECT person_id, height FROM persons").fetchall() == [("ada", None), ("eve", None)]
    assert layout(old_store)[0] == schema.MIGRATIONS.version + 1


@pytest.mark.anyio
async def test_a_journal_takes_steps_and_refuses_what_it_does_not_know(old_journal, monkeypatch):
    """By the same ladder as the server's databases."""
    with monkeypatch.context() as later:
        later.setattr(journals, "MIGRATIONS", after(journals.MIGRATIONS, NEXT))
        async with Journal(old_journal, Project("123456", "test")) as journal:
            heights = journal.do_now(lambda db: db.execute("SELECT height FROM persons").fetchall())
            assert heights == [(None,), (None,)]
    with pytest.raises(JournalError, match=r"newer version of face_async.*update"):
        async with Journal(old_journal, Project("123456", "test")):
            pass
