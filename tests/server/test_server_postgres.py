"""PostgreSQL under a storage: away, crashed, full, read-only, locked; nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback

import anyio
import anyio.to_thread
import pytest
from ingestkit import RECOGNIZER, enrolled, finished, write_people
from postgresql import PostgresServer
from serverkit import APPID, BUCKET, CREDENTIALS, ToyRecognizer, calling, picture
from timing import PATIENCE

from face_async import FaceSession
from face_async.ingest import ingest, verify
from face_async.limits import ServiceLimits
from face_async.server import StoreError, create_app, open_storage, serve_in_background
from face_async.server.refusal import Refusal
from face_async.server.storage.names import without_password
from face_async.server.storage.writes import Write

pytestmark = pytest.mark.external("postgres")

TOY = ToyRecognizer()


@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request):
    """Return the loop of the callers; nothing here depends on it."""
    return request.param


@pytest.fixture(scope="module")
def server():
    """A server that only these tests break."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def database(server):
    if not server.is_running():
        server.start()
    return server.url()


@pytest.fixture
def store(database):
    with open_storage(database) as opened:
        yield opened


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_have_all_texts_is_refused_with_what_to_do(server, encoding):
    """As initdb makes it under LC_ALL=C; names would come back as bytes, or not be taken at all."""
    server.execute(f"CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0")
    import psycopg  # noqa: PLC0415 - an extra

    url = server.url_of("-cclient_min_messages=warning", encoding.lower())
    with pytest.raises(
        StoreError, match=rf"{encoding.lower()}.* has the encoding {encoding}.*createdb --encoding=UTF8"
    ):
        open_storage(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1 FROM pg_class WHERE relname = 'face_async_schema'").fetchone() is None


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_texts_are_taken_whatever_encoding_the_environment_names(database, monkeypatch, encoding):
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    with open_storage(database) as store:
        store.add_person(APPID, "张伟", ["组"], name="张", tag="é", face=None, recognizer=TOY, limits=ServiceLimits())
        assert store.person_ids(APPID, "组") == ["张伟"]
        assert store.person(APPID, "张伟").name == "张"


@pytest.fixture
def impatient(monkeypatch):
    """Wait half a second, and not five, for a database that is away."""
    monkeypatch.setattr("face_async.server.storage.postgres.database.WAIT_SECONDS", 0.5)


def enroll(store, person_id, *groups, limits=ServiceLimits(), face=None):
    found = None if face is None else TOY.find_face(picture(face))
    store.add_person(APPID, person_id, groups or ["staff"], name="", tag="", face=found, recognizer=TOY, limits=limits)


def psycopg_connection(database):
    import psycopg  # noqa: PLC0415 - an extra

    return contextlib.closing(psycopg.connect(database, autocommit=True))


# Away and back


@pytest.mark.anyio
async def test_crashes_while_people_are_enrolled_change_nothing(server, database, tmp_path, rng, full):
    """Three of them: the run ends by itself, and every picture is there once."""
    persons, shots = (500, 2) if full else (20, 2)
    people = write_people(tmp_path / "people", persons, shots)
    journal = tmp_path / "enroll.journal"
    moments = sorted(rng.sample(range(1, persons * shots), 3))
    starts = []

    def crash(summary):
        while moments and summary.done >= moments[0]:
            moments.pop(0)
            for start in starts:
                start.join()
            server.crash()
            starts.append(threading.Thread(target=server.start))
            starts[-1].start()

    with open_storage(database) as store:
        app = create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER)
        async with (
            serve_in_background(app) as running,
            FaceSession(APPID, BUCKET, CREDENTIALS, base_url=running.base_url) as session,
        ):
            run = ingest(session, people, journal=journal, group_ids=["staff"], probe_delay=0.05, on_progress=crash)
            summary = await finished(run)
            assert (summary.done, summary.failed, summary.ambiguous) == (persons * shots, 0, 0)
            assert len(starts) == 3
            starts[-1].join()
            async with verify(session, journal) as differences:
                assert [] == [difference async for difference in differences]
        found = {person: set(faces) for person, faces in enrolled(store).items()}
        assert found == {f"person{person}": set(range(shots)) for person in range(persons)}


def test_writes_go_on_when_a_process_of_the_server_is_killed(server, store):
    """All transactions end then; those that were not committed start again, and none is doubled."""
    for number in range(10):
        enroll(store, f"before{number}")
    told = []

    def write(thread):
        for number in range(50):
            try:
                enroll(store, f"{thread}-{number}")
            except StoreError:
                told.append(("in doubt", f"{thread}-{number}"))
            else:
                told.append(("done", f"{thread}-{number}"))

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while len(told) < 20:
        time.sleep(0.01)
    server.kill_a_backend()
    for thread in threads:
        thread.join()
    kept = store.person_ids(APPID, "staff")
    assert len(kept) == len(set(kept))
    done = {person_id for end, person_id in told if end == "done"}
    assert len(done) >= 190  # only those whose commit was under way are in doubt
    assert done <= set(kept)


@pytest.mark.anyio
async def test_a_database_that_is_away_is_minus_1200_until_it_is_back(server, store, impatient, caplog):
    """Within the time that a request waits; logged once, and all goes on by itself."""
    async with calling(store) as caller:
        await caller.new_person("ada")
        server.crash()
        codes = []
        async with anyio.create_task_group() as tasks:

            async def ask(name, **fields):
                codes.append((await caller.json(name, **fields))[0])

            for number in range(10):
                tasks.start_soon(lambda n=number: ask("newperson", person_id=f"p{n}", group_ids=["staff"]))
                tasks.start_soon(lambda: ask("getinfo", person_id="ada"))
        assert codes == [-1200] * 20
        ours = [record.getMessage() for record in caplog.records if record.name == "face_async.server"]
        assert 1 <= len(ours) <= 4
        assert all("the database failed: postgresql://tests@/postgres" in line for line in ours)
        await anyio.to_thread.run_sync(server.start)
        began = time.monotonic()
        while (await caller.json("newperson", person_id="eve", group_ids=["staff"]))[0] == -1200:
            assert time.monotonic() - began < PATIENCE
        assert (await caller.ok("getpersonids", group_id="staff"))["person_ids"] == ["ada", "eve"]


def test_what_cannot_be_reached_says_so(server, tmp_path):
    """When it is opened, in one line, and without a password."""
    url = f"postgresql://ada:secret@/faces?host={tmp_path}&password=secret"
    with pytest.raises(StoreError, match="No such file") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("postgresql://ada:p@ss:w/d@host:5/faces", "postgresql://ada@host:5/faces"),
        ("postgres://ada@host/faces?password=x&sslmode=require", "postgres://ada@host/faces?sslmode=require"),
        ("postgresql:///faces?sslmode=require&password=x", "postgresql:///faces?sslmode=require&"),
        ("postgresql://ada:p?ss@host/faces?sslmode=require", "postgresql://ada@host/faces?sslmode=require"),
        ("postgresql://ada:p?s/s=@host/faces", "postgresql://ada@host/faces"),
        ("postgresql://host:5/faces?user=ada@host", "postgresql://host:5/faces?user=ada@host"),
        ("postgresql:///faces?password=a&b&sslmode=require", "postgresql:///faces?sslmode=require"),
        ("a:b@c.db", "a:b@c.db"),
    ],
)
def test_a_password_is_not_shown(name, shown):
    """Wherever it stands."""
    assert without_password(name) == shown


@pytest.mark.parametrize("place", ["postgresql://ada:{}@[::1]:1/faces", "postgresql://ada@[::1]:1/faces?password={}"])
@pytest.mark.parametrize(
    "password",
    [
        "secret",
        "secret%zz",
        "secret%00",
        "p@secret",
        "p@secret:y/x",
        "p/secret",
        "p?s/secret",
        "p&secret",
        "p&secret&x",
    ],
)
def test_no_error_shows_a_part_of_a_password(place, password):
    """Whatever libpq takes it for: a token, an option, a host or a port; nor does the traceback."""
    with pytest.raises(StoreError) as caught:
        open_storage(place.format(password))
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_what_libpq_cannot_read_is_told_how_to_write_a_password():
    """In the URL, and where else."""
    with pytest.raises(StoreError, match=r"^postgresql://ada@host/faces is no URL .* % as %25.*PGPASSWORD"):
        open_storage("postgresql://ada:secret%zz@host/faces")


def test_an_error_that_quotes_no_password_is_shown():
    """Such as that of an option that does not exist."""
    with pytest.raises(StoreError, match='"sslmod"'):
        open_storage("postgresql://ada:secret%25@host/faces?sslmod=require")


# Commits


def test_a_transaction_that_breaks_before_its_commit_starts_again(server, store):
    """Its connection is killed in the middle: the effect is there once."""
    begun = []

    def work(db):
        (pid,) = db.execute("SELECT pg_backend_pid()").fetchone()
        begun.append(pid)
        db.execute("INSERT INTO groups (appid, group_id) VALUES (?, 'g')", (APPID,))
        if len(begun) == 1:
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        return db.execute("SELECT 1").fetchone()

    assert store.write(work) == (1,)
    assert len(begun) == 2
    assert store.group_ids(APPID) == ["g"]


def test_a_commit_that_breaks_is_not_repeated(server, store):
    """It may have happened: whoever asked is told so, and looks."""
    begun = []

    def work(db):
        (pid,) = db.execute("SELECT pg_backend_pid()").fetchone()
        begun.append(pid)
        db.execute("INSERT INTO groups (appid, group_id) VALUES (?, 'g')", (APPID,))
        server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")

    with pytest.raises(StoreError):
        store.write(work)
    assert len(begun) == 1
    assert store.group_ids(APPID) == []


def test_transactions_that_lock_each_other_out_start_again(store):
    """Each has what the other one wants: one is undone, and done after the other."""
    enroll(store, "ada")
    enroll(store, "bob")
    both = threading.Barrier(2, timeout=PATIENCE)
    writes = []

    def renaming(*persons):
        met = []

        def work(db):
            for person in persons:
                db.execute("UPDATE persons SET tag = tag || ? WHERE person_id = ?", (persons[0], person))
                if not met:
                    met.append(both.wait())

        writes.append(Write(work))
        return threading.Thread(target=store._database._perform, args=([writes[-1]],))

    threads = [renaming("ada", "bob"), renaming("bob", "ada")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [write.outcome.result() for write in writes] == [None, None]
    assert {store.person(APPID, "ada").tag, store.person(APPID, "bob").tag} <= {"adabob", "bobada"}


def test_a_refused_write_undoes_nothing_of_those_beside_it(store):
    """In the same transaction if it had changed nothing yet, and otherwise each by itself."""
    enroll(store, "ada")
    tight = ServiceLimits(max_persons_per_group=1)

    def write(*args, **options):
        waiting, added = [], store._database._queue.wait_for
        store._database._queue.wait_for = waiting.append
        try:
            enroll(store, *args, **options)
        finally:
            store._database._queue.wait_for = added
        return Write(waiting[0])

    together = [write("bob", "new", face=1), write("ada", "new"), write("eve", "new", face=2)]
    assert store._database._perform(together)
    assert isinstance(together[1].outcome.exception(), Refusal)
    assert store.person_ids(APPID, "new") == ["bob", "eve"]
    found = store.identify(APPID, ["new"], TOY.find_face(picture(2)).embedding, TOY, 5)
    assert [match.person_id for match in found] == ["eve", "bob"]

    apart = [write("dan", "new"), write("kim", "staff", limits=tight)]
    assert not store._database._perform(apart)
    assert store.person_ids(APPID, "new") == ["bob", "eve"]
    assert all(store._database._perform([one]) for one in apart)
    assert store.person_ids(APPID, "new") == ["bob", "eve", "dan"]
    assert store.person_ids(APPID, "staff") == ["ada"]


def test_who_waits_for_a_frozen_process_gives_up_and_nobody_else_waits(database, monkeypatch):
    """A person's row is locked and stays so: others are read and written."""
    monkeypatch.setattr("face_async.server.storage.postgres.database._LOCK_SECONDS", 1)
    with open_storage(database) as store, psycopg_connection(database) as frozen:
        enroll(store, "ada")
        enroll(store, "bob")
        frozen.execute("BEGIN")
        frozen.execute("SELECT 1 FROM persons WHERE person_id = 'ada' FOR UPDATE")
        waiting = threading.Thread(target=store.set_info, args=(APPID, "bob"), kwargs={"name": "x", "tag": None})
        with pytest.raises(StoreError, match="lock timeout"):
            store.set_info(APPID, "ada", name="x", tag=None)
        waiting.start()
        waiting.join(PATIENCE)
        assert (store.person(APPID, "ada").name, store.person(APPID, "bob").name) == ("", "x")
        frozen.execute("ROLLBACK")
        store.set_info(APPID, "ada", name="x", tag=None)


# Full and read-only


@pytest.mark.anyio
async def test_a_full_disk_refuses_writes_and_reads_go_on(server, store, caplog):
    """With room again all goes on by itself, and nothing refused is there."""
    async with calling(store) as caller:
        await caller.new_person("ada")
        filling = [("other", f"p{number}", "x" * 800, "") for number in range(2_250)]
        store.write(lambda db: db.insert("persons", ("appid", "person_id", "name", "tag"), filling))
        server.crash()
        await anyio.to_thread.run_sync(server.start, 2 * 1_048_576)
        codes = []
        for number in range(2_000):
            fields = {"person_id": f"p{number}", "group_ids": ["staff"], "person_name": "x" * 800}
            codes.append((await caller.json("newperson", **fields))[0])
            if codes.count(-1200) == 3:
                break
        assert codes.count(-1200) == 3
        assert "could not extend file" in caplog.text
        assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff"]
        persons = (await caller.ok("getpersonids", group_id="staff"))["person_ids"]
        assert len(persons) == 1 + codes.count(0)
        server.crash()
        await anyio.to_thread.run_sync(server.start)
        await caller.new_person("bob")
        assert (await caller.ok("getpersonids", group_id="staff"))["person_ids"] == [*persons, "bob"]


@pytest.mark.anyio
async def test_a_read_only_database_is_read_and_opened(server, database, store):
    """Such as one that is being moved: writes get -1200 until it is over."""
    async with calling(store, replay_protection=False) as caller:
        await caller.new_person("ada", image=picture(1))
        server.set("default_transaction_read_only", "on")
        try:
            assert (await caller.json("newperson", person_id="bob", group_ids=["staff"]))[0] == -1200
            assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["staff"]
            with open_storage(database) as again:
                assert again.person_ids(APPID, "staff") == ["ada"]
        finally:
            server.set("default_transaction_read_only", "off")
        await caller.new_person("bob")


# Versions


def test_a_database_of_something_else_or_of_a_newer_version_is_refused(server, database):
    """And left as it was."""
    with psycopg_connection(database) as connection:
        connection.execute("CREATE TABLE faces (theirs integer)")
        with pytest.raises(StoreError, match="tables of something else"):
            open_storage(database)
        connection.execute("DROP TABLE faces")
        open_storage(database).close()
        connection.execute("UPDATE face_async_schema SET version = version + 1")
        with pytest.raises(StoreError, match=r"newer version of face_async.*update"):
            open_storage(database)
