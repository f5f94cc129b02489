"""Runs with their pictures, their state and their result in object storage, as S3 has it."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import import_module
from itertools import count

import pytest
from fleetkit import environment_of
from ingestkit import write_people
from objectkit import BUCKET, SECRET, contents, environment_of_storage, s3_server, upload
from timing import PATIENCE
from typer.testing import CliRunner

from face_async import FaceSession, Throttle
from face_async.cli._app import app
from face_async.fleet import StateError, claims, enroll, identify, retry_failed, verify, write_failures
from face_async.fleet import objects as fleet_objects
from face_async.fleet.claims import Claim
from face_async.fleet.plan import Plan, bad_rows_of, plan_enrollment, read_plan, rows_of
from face_async.fleet.shard import PartResult, PartTask, enroll_part, publish_result
from face_async.fleet.state import open_state
from face_async.ingest import JournalInUseError, ingest, rebuild_journal
from face_async.ingest.objects import ObjectFolder, ObjectStorageError

pytestmark = pytest.mark.external("moto", "obstore")

DRIVER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from face_async import FaceSession, Throttle
from face_async.fleet import Connection, claims, enroll, objects
objects._COPY_EVERY = 0.1
with ThreadPoolExecutor(2) as executor:
    enroll(sys.argv[1], state=sys.argv[2], connection=Connection.from_env(), executor=executor, group_ids=["staff"],
           shards=4, at_once=2, budget=Throttle(max_concurrency=4, max_rate=20))
"""


NUMBERS = count()


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """Return a URL below which a test is alone."""
    for name, value in environment_of_storage(endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/test{next(NUMBERS)}"


@pytest.fixture
def people(tmp_path, bucket):
    """Return a prefix with 30 persons of 2 pictures each."""
    upload(write_people(tmp_path / "people", 30, 2), f"{bucket}/people")
    return f"{bucket}/people"


@pytest.fixture(autouse=True)
def often_renewed(monkeypatch):
    """Claims last as long as they do, however busy the machine is, but show in an instant that their holder lives."""
    monkeypatch.setattr(claims, "_RENEWALS", 100)


def let_lapse(url):
    """Make all claims below a URL ones that lapse soon if nobody renews them."""
    folder = ObjectFolder(url)
    for name, content in contents(url).items():
        if name.startswith("claims/"):
            folder.put(name, json.dumps({**json.loads(content), "seconds": 0.5}).encode())


@pytest.fixture
def task(people, bucket, connection, budget):
    """Return the task of the only part of a run that is planned."""
    plan_enrollment(open_state(f"{bucket}/run"), people, Plan("enroll", people, 1, ("staff",)))
    return PartTask(f"{bucket}/run", 0, connection, budget)


class Sent(Executor):
    """Hands tasks on to an executor, and keeps what they would be on a network."""

    def __init__(self, executor):
        self.executor = executor
        self.tasks = []

    def submit(self, fn, *args, **kwargs):
        self.tasks.append(pickle.dumps((fn, args, kwargs)))
        return self.executor.submit(fn, *args, **kwargs)


def exact(meter, persons, shots):
    return {f"person{number}": shots for number in range(persons)} == {
        person: len(faces) for person, faces in meter.enrolled.items()
    }


def face_ids_published(state):
    """Return what the published units say: of every person the faces."""
    told = {}
    for name, content in contents(state).items():
        for unit in map(json.loads, content.splitlines() if name.startswith("units/") else ()):
            assert unit["state"] == "done"
            told.setdefault(unit["person_id"], set()).add(unit["face_id"])
    return told


def face_ids_stored(meter):
    return {person: set(faces.values()) for person, faces in meter.enrolled.items()}


def test_a_run_needs_no_shared_disk(people, bucket, connection, meter):  # and tells nobody the storage's secret
    with ThreadPoolExecutor(2) as executor:
        sent = Sent(executor)
        options = {"connection": connection, "executor": sent, "group_ids": ["staff"], "at_once": 2}
        summary = enroll(people, state=f"{bucket}/run", shards=4, budget=Throttle(max_concurrency=8), **options)
        asked = len(meter.times)
        again = enroll(people, state=f"{bucket}/run", shards=4, **options)  # there is nothing left to do
        found = identify([f"{people}/", f"{people}/gone.jpg"], out=f"{bucket}/found", shards=2, **options)
    assert (60, 60, 4, True) == (summary.rows, summary.done, summary.parts_done, summary.complete)
    assert (summary.done, asked) == (again.done, asked)
    assert exact(meter, 30, 2)
    assert face_ids_stored(meter) == face_ids_published(f"{bucket}/run")
    assert (61, 61) == (found.rows, found.done)
    rows = [row for name, table in contents(f"{bucket}/found").items() if name[:5] == "part-" for row in read(table)]
    best = {row["source"]: row for row in rows if row["rank"] == 0}
    assert "it is not there" in best.pop(f"{people}/gone.jpg")["code"]
    assert {url: url.split("/")[-2] for url in best} == {url: row["person_id"] for url, row in best.items()}
    assert 60 == len(best)
    texts = [*sent.tasks, *contents(bucket).values()]
    assert sent.tasks
    assert not [text for text in texts if SECRET.encode() in text]


def test_a_prefix_without_pictures_is_nothing_to_identify(bucket, connection):
    with pytest.raises(ValueError, match=r"'s3://.*/mistyped/' has no pictures in it"):
        identify([f"{bucket}/mistyped/"], out=f"{bucket}/found", connection=connection, group_ids=["staff"])
    assert read_plan(open_state(f"{bucket}/found/_run")) is None


def read(table):
    return import_module("pyarrow.parquet").read_table(io.BytesIO(table)).to_pylist()


def test_a_run_goes_on_after_its_driver_was_killed(people, bucket, meter, connection):
    """With all its workers: what their journals knew is gone but for a copy, and the end is exact all the same."""
    environment = {**os.environ, **environment_of(meter.base_url)}
    state = f"{bucket}/run"
    first = subprocess.Popen([sys.executable, "-c", DRIVER, people, state], env=environment)
    folder = ObjectFolder(state)
    while len(meter.times) < 20 or not any(folder.names("journals")):
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait(PATIENCE)
    assert 0 < sum(map(len, meter.enrolled.values())) < 60
    assert not any(folder.names("done"))
    let_lapse(state)
    with ThreadPoolExecutor(2) as executor:
        summary = enroll(
            people, state=state, connection=connection, executor=executor, group_ids=["staff"], shards=4, at_once=2
        )
    assert (60, {}, True) == (summary.done, summary.codes, summary.complete)
    assert exact(meter, 30, 2)
    assert face_ids_stored(meter) == face_ids_published(state)


def test_what_has_failed_is_tried_again_and_all_is_compared(people, bucket, meter, connection, tmp_path):
    """From the published results and copies alone: no journal is kept on this machine."""
    folder, name = ObjectFolder(people), "person0/01.jpg"
    good = folder.get(name)
    folder.put(name, b"BMnobody")
    state = f"{bucket}/run"
    with ThreadPoolExecutor(2) as executor:
        options = {"state": state, "connection": connection, "executor": executor, "at_once": 2}
        assert {"-1101": 1} == enroll(people, group_ids=["staff"], shards=4, **options).codes
        assert 1 == write_failures(state, tmp_path / "failed.csv")
        folder.put(name, good)
        summary = retry_failed(**options)
        assert (60, 1, {}, True) == (summary.done, summary.added, summary.codes, summary.complete)
        assert 0 == write_failures(state, tmp_path / "failed.csv")
        found = verify(**options)
    assert (30, 60, ()) == (found.persons, found.faces, found.differences)
    assert exact(meter, 30, 2)
    assert face_ids_stored(meter) == face_ids_published(state)


def test_of_two_workers_that_publish_a_part_one_wins_and_both_agree(bucket):
    state = open_state(f"{bucket}/run")
    together = threading.Barrier(8)
    results = [PartResult(0, number, None, 1.0, 1.0, number) for number in range(8)]

    def publish(result):
        together.wait()
        return publish_result(state, result)

    with ThreadPoolExecutor(8) as workers:
        agreed = list(workers.map(publish, results))
    assert 1 == len(set(agreed))
    assert agreed[0] in results
    plans = [Plan("enroll", f"{number}", 1, ("staff",)) for number in range(8)]
    with ThreadPoolExecutor(8) as workers:
        planned = list(workers.map(lambda plan: plan_enrollment(state, iter(()), plan), plans))
    assert {read_plan(state)} == set(planned)


def test_one_driver_at_a_time_has_a_run(bucket):
    state = open_state(f"{bucket}/run")
    with state.driving() as check:
        with pytest.raises(StateError, match="in use by another driver") as raised, state.driving():
            pass
        assert f":{os.getpid()})" in str(raised.value)
        check()
    with state.driving():  # which the first one has given back
        pass


def test_a_driver_that_was_taken_over_ends(people, bucket, meter, connection):
    """And leaves the run to the other one."""
    state = f"{bucket}/run"

    def take_over(summary):
        ObjectFolder(state).put("claims/driver", b"{}")

    with ThreadPoolExecutor(1) as executor, pytest.raises(StateError, match="another driver has taken it over"):
        enroll(
            people,
            state=state,
            connection=connection,
            executor=executor,
            group_ids=["staff"],
            at_once=1,
            budget=Throttle(max_rate=20),
            on_progress=take_over,
        )
    assert b"{}" == ObjectFolder(state).get("claims/driver")


def test_a_claim_of_the_dead_is_taken_over_once(bucket, monkeypatch):
    """By one of all who wait for it, and not before it has lapsed."""
    folder = ObjectFolder(bucket)
    dead = Claim(folder, "claim")
    dead.note = "left behind"
    with monkeypatch.context() as patch:
        patch.setattr(claims, "LEASE", 1.0)
        assert "nobody" == dead.take()
        dead.abandon()
    began = time.monotonic()
    heirs = [Claim(folder, "claim") for _ in range(8)]
    taken = []

    def wait(heir):
        while not taken:
            if heir.take() is not None:
                taken.append((heir, time.monotonic() - began))
            time.sleep(0.05)

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(wait, heirs))
    assert 1 == len(taken)
    [(heir, seconds)] = taken
    assert seconds >= 1.0
    assert ("left behind", True, False) == (heir.note, heir.is_held, dead.is_held)
    heir.release()
    assert "released" == dead.take()
    dead.release()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"released": false}'])
def test_a_claim_that_is_damaged_is_named(bucket, content):
    ObjectFolder(bucket).put("claim", content)
    with pytest.raises(StateError, match=f"{bucket}.*: claim is damaged.*; remove claim and run again$"):
        Claim(ObjectFolder(bucket), "claim").take()


def test_a_holder_that_cannot_renew_its_claim_gives_up_before_another_may_have_it(bucket, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.5)
    monkeypatch.setattr(Claim, "_renew", lambda self, ended: None)
    holder, heir = Claim(ObjectFolder(bucket), "claim"), Claim(ObjectFolder(bucket), "claim")
    began = time.monotonic()
    assert "nobody" == holder.take()
    assert holder._trusted_until < time.monotonic() + 0.5
    while holder.is_held:
        time.sleep(0.01)
    assert time.monotonic() > began + 0.25
    holder.release()  # which is not its own any more
    while heir.take() is None:
        time.sleep(0.01)
    assert time.monotonic() > began + 0.5


def test_a_worker_that_only_seemed_to_be_dead_sends_nothing_more(task, meter, bucket, monkeypatch):
    """Its successor goes on with the copy that it has left, and what the first one does later spoils nothing."""
    monkeypatch.setattr(fleet_objects, "_COPY_EVERY", 0.0)
    slow = PartTask(task.state, 0, task.connection, Throttle(max_concurrency=2, max_rate=15, burst=1))
    restored = []
    monkeypatch.setattr("face_async.fleet.shard.rebuild_journal", keeping(rebuild_journal, restored))
    with ThreadPoolExecutor(2) as workers:
        first = workers.submit(enroll_part, slow)
        while b'.journal"' not in contents(f"{task.state}/claims").get("00000", b""):
            time.sleep(0.02)
        let_lapse(task.state)
        second = workers.submit(enroll_part, task)
        results = first.result(PATIENCE), second.result(PATIENCE)
    assert results[0] == results[1]
    assert [True] == [copy is not None for copy in restored]
    assert (60, {}) == (results[0].summary.done, results[0].summary.codes)
    assert exact(meter, 30, 2)
    assert face_ids_stored(meter) == face_ids_published(task.state)


def keeping(function, copies):
    def rebuild(*args, copy, **options):
        copies.append(copy)
        function(*args, copy=copy, **options)

    return rebuild


def test_a_part_that_ended_with_an_error_goes_on_where_it_was(task, people, meter, monkeypatch):
    """Its journal is complete: nothing is in doubt, and nothing is sent again."""
    with monkeypatch.context() as patch:
        patch.setattr("face_async.fleet.shard.read_units", broken)
        with pytest.raises(OSError, match="no space"):
            enroll_part(task)
    asked = len(meter.times)
    result = enroll_part(task)
    assert (60, True) == (result.summary.done, result.summary.complete)
    assert len(meter.times) - asked <= 2  # by which a server states the identity of its database


def broken(journal):
    raise OSError("no space")


def test_a_part_in_use_is_waited_for(task):
    state = open_state(task.state)
    first, second = state.journal(0), state.journal(0)
    with first.holding():
        with pytest.raises(JournalInUseError, match="another worker has part 0"), second.holding():
            pass
        assert first.is_held
    assert not first.is_held
    with second.holding() as journal:
        assert (False, (False, None)) == (journal.exists(), second.lost())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifests_in_object_storage_name_pictures_beside_them(bucket, suffix):
    """By path or URL; what lies elsewhere is read only if that is allowed."""
    elsewhere = f"s3://{BUCKET}/elsewhere/1.jpg"
    rows = [("ada", "in/1.jpg", None), ("bob", None, f"{bucket}/in/2.jpg"), ("cid", None, "https://pictures/3.jpg")]
    outside = [("dan", None, elsewhere), ("eve", "../5.jpg", None)]
    source = f"{bucket}/people{suffix}"
    for allowed in (False, True):
        ObjectFolder(bucket).put(f"people{suffix}", manifest([*rows, *outside] if allowed else rows, suffix))
        state = open_state(f"{bucket}/run{allowed}")
        wanted = Plan("enroll", source, 1, ("staff",), allow_outside=allowed)
        plan = plan_enrollment(state, source, wanted)
        assert (5 if allowed else 3, 0) == (plan.rows, plan.bad_rows)
        found = [(row.person_id, row.source) for row in rows_of(state, 0)][:4]
        assert [
            ("ada", f"{bucket}/in/1.jpg"),
            ("bob", f"{bucket}/in/2.jpg"),
            ("cid", "https://pictures/3.jpg"),
            ("dan", elsewhere),
        ][: 3 + allowed] == found


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_lies_outside_of_a_prefix_is_not_read(bucket, suffix):
    source = f"{bucket}/people{suffix}"
    for number, url in enumerate([f"s3://{BUCKET}/elsewhere/1.jpg", f"{bucket}/../1.jpg", "/etc/passwd"]):
        ObjectFolder(bucket).put(f"people{suffix}", manifest([("dan", None, url)], suffix))
        state = open_state(f"{bucket}/run{number}")
        plan_enrollment(state, source, Plan("enroll", source, 1, ("staff",)))
        (bad,) = [*bad_rows_of(state), *rows_of(state, 0)]
        assert source == bad.file
        assert re.search(r"lies outside|must begin with http", bad.reason)


def manifest(rows, suffix):
    records = [dict(zip(("person_id", "path", "url"), row, strict=True)) for row in rows]
    if suffix == ".csv":
        return "\n".join(["person_id,path,url", *(",".join(cell or "" for cell in row) for row in rows)]).encode()
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, records)).encode()
    pa, output = import_module("pyarrow"), io.BytesIO()
    schema = pa.schema([(name, pa.string()) for name in ("person_id", "path", "url")])
    import_module("pyarrow.parquet").write_table(pa.Table.from_pylist(records, schema), output)
    return output.getvalue()


def test_a_folder_of_parquet_files_is_a_source(bucket):
    for number in range(2):
        content = manifest([(f"p{number}", f"{number}.jpg", None)], ".parquet")
        ObjectFolder(f"{bucket}/people").put(f"{number}.parquet", content)
    state = open_state(f"{bucket}/run")
    assert 2 == plan_enrollment(state, f"{bucket}/people/", Plan("enroll", f"{bucket}/people", 1, ("staff",))).rows
    assert [f"{bucket}/people/{number}.jpg" for number in range(2)] == [row.source for row in rows_of(state, 0)]


def test_pictures_that_cannot_be_read_are_told(bucket, connection, budget, tmp_path):
    """What is missing, and what is no picture; not what systems leave behind, or a folder's marker."""
    target = ObjectFolder(f"{bucket}/people")
    for name in ("ada/1.txt", "ada/.DS_Store", "ada/thumbs/1.jpg", "ada/empty", "notes.txt"):
        target.put(name, b"" if name == "ada/empty" else b"no picture")
    state = open_state(f"{bucket}/run")
    plan = plan_enrollment(state, f"{bucket}/people", Plan("enroll", "people", 1, ("staff",)))
    assert (1, 1) == (plan.rows, plan.bad_rows)
    ObjectFolder(f"{bucket}/people").delete("ada/1.txt")
    result = enroll_part(PartTask(state.location, 0, connection, budget))
    assert {"missing": 1} == result.summary.codes
    with pytest.raises(ValueError, match="a prefix for each person"):
        plan_enrollment(open_state(f"{bucket}/other"), f"{bucket}/nothing", Plan("enroll", "x", 1, ("staff",)))


def test_no_bucket_and_no_network_are_told_at_once(bucket, endpoint, connection, monkeypatch):
    with ThreadPoolExecutor(1) as executor:
        options = {"connection": connection, "executor": executor, "group_ids": ["staff"]}
        with pytest.raises(ObjectStorageError, match="s3://nobody is not there: create the bucket"):
            enroll("s3://nobody/people", state=f"{bucket}/run", **options)
        with pytest.raises(ObjectStorageError, match="s3://nobody is not there: create the bucket"):
            enroll("people", state="s3://nobody/run", **options)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(ObjectStorageError, match="check the network, and what the environment sets by AWS_ACCESS"):
            enroll(f"{bucket}/people", state=f"{bucket}/run", **options)


@pytest.mark.anyio
async def test_an_enrollment_with_one_journal_takes_a_prefix_too(people, connection, meter, tmp_path):
    async with FaceSession.from_env() as session:
        async with ingest(session, people, journal=tmp_path / "journal", group_ids=["staff"]) as run:
            summary = await run.finish()
        asked = len(meter.times)
        async with ingest(session, people, journal=tmp_path / "journal", group_ids=["staff"]) as run:
            again = await run.finish()
    assert (60, 0, True) == (summary.added, again.added, again.complete)
    assert len(meter.times) <= asked + 1  # by which a server states the identity of its database
    assert exact(meter, 30, 2)


def test_in_a_forked_process_it_is_said_what_to_do(bucket):
    """Where obstore would wait for ever."""
    folder = ObjectFolder(bucket)
    folder.put("a", b"1")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            ObjectFolder(bucket)
        except ObjectStorageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert b'by "spawn"' in said.read()
    assert (child, 0) == os.waitpid(child, 0)


def test_the_command_line_takes_urls(people, bucket, meter, monkeypatch):
    for name, value in environment_of(meter.base_url).items():
        monkeypatch.setenv(name, value)
    run = ["--state", f"{bucket}/run", "--shards", "2", "--quiet"]
    cluster = ["--cluster", "processes:1", "--quiet"]
    for arguments in (
        ["enroll", people, "-g", "staff", *run, *cluster, "--verify"],
        ["identify", f"{people}/", "-g", "staff", "--out", f"{bucket}/found", "--shards", "2", *cluster],
    ):
        result = CliRunner().invoke(app, arguments)
        assert (0, "") == (result.exit_code, result.output)
    assert exact(meter, 30, 2)
    assert ObjectFolder(f"{bucket}/found").has("part-00000.parquet")
    result = CliRunner().invoke(app, ["enroll", people, *run])
    assert (2, True) == (result.exit_code, "say --group GROUP" in result.stderr)
    result = CliRunner().invoke(app, ["enroll", "s3://nobody/people", "-g", "staff", *run])
    assert (2, True) == (result.exit_code, "create the bucket" in result.stderr), result
