"""A run's parts, without any engine: the plan, and work that may be begun again anywhere."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import re
import threading
import time

import anyio
import pytest
from fleetkit import all_rows
from ingestkit import APPID, BUCKET, write_people
from timing import PATIENCE

from face_async import LimitLedger, Throttle
from face_async.fleet import Connection, FleetSummary, StateError, enroll
from face_async.fleet.plan import Plan, plan_enrollment, read_plan
from face_async.fleet.shard import PartTask, enroll_part, failures_of_part, read_progress
from face_async.fleet.state import open_state
from face_async.ingest import JournalError, JournalInUseError, Row, Shard, State, read_source, read_units
from face_async.ingest.parts import part_of
from face_async.ingest.schema import Project, open_journal

WANTED = Plan("enroll", "people", 8, ("staff",))


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / "people", 30, 2)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def task(state, people, connection, budget):
    """Return the task of the only part of a run that is planned."""
    plan_enrollment(open_state(state), people, Plan("enroll", "people", 1, ("staff",)))
    return PartTask(str(state), 0, connection, budget)


def face_ids_told(state):
    """Return what the published units say: of every person the faces."""
    told = {}
    for path in (state / "units").iterdir():
        for unit in map(json.loads, path.read_text().splitlines()):
            if unit["state"] == "done":
                told.setdefault(unit["person_id"], set()).add(unit["face_id"])
    return told


def face_ids_stored(meter):
    return {person: set(faces.values()) for person, faces in meter.enrolled.items()}


def test_every_row_is_in_one_part_and_all_of_a_person_in_the_same(people, state):
    plan = plan_enrollment(open_state(state), people, WANTED)
    parts = all_rows(state)
    assert sorted(row.source for part in parts for row in part) == sorted(
        row.source for row in read_source(people, group_ids=["staff"])
    )
    assert (60, 0) == (plan.rows, plan.bad_rows)
    persons = [{row.person_id for row in part} for part in parts]
    assert sum(map(len, persons)) == 30


@pytest.mark.parametrize("person_id", ["", "ada", "Ä\udcff", "x" * 300])
def test_parts_are_those_of_enrollments_with_shards(person_id):
    """So that the journal of a part refuses the persons of any other."""
    assert [part_of(person_id, 7)] == [rank for rank in range(7) if Shard(rank, 7).has(person_id)]


def test_a_row_is_read_from_the_plan_as_it_was_in_the_source(state):
    rows = [Row("ada", "http://pictures/1.jpg", ("staff", "ä|b"), 'Ada "A"\n', "\t"), Row("bob", "/x/Ö.jpg", ("g",))]
    plan_enrollment(open_state(state), rows, WANTED)
    assert sorted(rows, key=repr) == sorted((row for part in all_rows(state) for row in part), key=repr)


def test_a_plan_that_was_not_made_to_its_end_is_none(state):
    def broken():
        yield Row("ada", "1.jpg", ("staff",))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        plan_enrollment(open_state(state), broken(), WANTED)
    assert read_plan(open_state(state)) is None
    assert [] == list(state.iterdir())


@pytest.mark.parametrize(
    "other",
    [Plan("enroll", "others", 8, ("staff",)), Plan("enroll", "people", 9, ("staff",)), Plan("enroll", "people", 8, ())],
)
def test_a_state_is_of_one_run(other):
    WANTED.check_same(WANTED)
    with pytest.raises(StateError, match="name another state"):
        WANTED.check_same(other)


def test_a_full_disk_says_which_file_it_has_cut_short(state):
    opened = open_state(state)
    for name, writing in (
        ("done/00001.json", opened.writing("done/00001.json")),
        ("plan", opened.writing_parts("plan")),
    ):
        with pytest.raises(OSError, match=f"No space left on device: '{state / name}'"), writing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [] == [path for path in state.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"kind": 1}', b"\xff"])
def test_a_plan_that_cannot_be_read_says_so(state, content):
    open_state(state).publish("plan.json", content)
    with pytest.raises(StateError, match="damaged"):
        read_plan(open_state(state))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
@pytest.mark.parametrize("name", ["plan.json", "plan/00001.jsonl", "done/00001.json"])
def test_a_run_with_anything_damaged_says_what_to_remove_and_then_comes_to_its_end(  # noqa: PLR0917 - fixtures
    people, state, connection, meter, name, content
):
    def run():
        return enroll(people, state=state, connection=connection, group_ids=["staff"], shards=2)

    whole = run()
    assert whole.complete
    (state / name).write_bytes(content)
    if name.startswith("plan/"):
        (state / "done" / "00001.json").unlink()  # for the part to be read once more
    with pytest.raises(StateError, match=f"{name} is damaged") as raised:
        run()
    (what,) = re.findall(r"; remove (\S+) and run again$", str(raised.value))
    (state / what).unlink()
    enrolled = copy.deepcopy(meter.enrolled)
    assert (run().done, run().complete) == (whole.done, True)
    assert enrolled == meter.enrolled


def test_a_part_that_has_lost_its_rows_is_not_taken_for_done(people, state, connection):
    """As when a machine loses power: the plan knows how many there are."""
    plan = plan_enrollment(open_state(state), people, Plan("enroll", str(people), 2, ("staff",)))
    (state / "plan" / "00001.jsonl").write_bytes(b"")
    summary = enroll(people, state=state, connection=connection, group_ids=["staff"], shards=2)
    assert not summary.complete
    assert (plan.rows, True) == (summary.done + summary.pending, summary.pending > 0)


def test_failures_that_are_damaged_are_named(state):
    opened = open_state(state)
    for content in (b"{", b'["alice"]', b"\xff"):
        opened.publish("failures/00001.jsonl", content)
        with pytest.raises(StateError, match=r"is damaged.*; remove failures/00001.jsonl and run again$"):
            list(failures_of_part(opened, 1))


def test_progress_that_is_damaged_is_not_known(state):
    open_state(state).publish("progress/00001.json", b"")
    assert read_progress(open_state(state), 1) is None


def test_a_part_that_is_done_is_not_begun_again(task, meter):
    first = enroll_part(task)
    asked = len(meter.paths)
    assert first == enroll_part(task)
    assert len(meter.paths) == asked
    assert (60, 60, True) == (first.rows, first.summary.done, first.summary.complete)


def test_a_part_lists_no_whole_groups(task, meter):
    """Every part of a run would ask for the 10,000 persons of a group, while the others fill it."""
    enroll_part(task)
    assert "getpersonids" not in meter.paths
    assert meter.paths.count("getgroupids") <= 1  # by which a server states the identity of its database


def test_a_part_says_of_every_picture_which_face_it_became(task, meter, state):
    enroll_part(task)
    assert face_ids_stored(meter) == face_ids_told(state)


def test_a_part_waits_for_whoever_may_only_seem_to_be_dead(task, state):
    (state / "journals").mkdir()
    lock = open_journal(str(state / "journals" / "00000.journal"), Project(APPID, BUCKET))
    worker = threading.Thread(target=enroll_part, args=(task,))
    worker.start()
    time.sleep(1)
    assert worker.is_alive()
    assert not (state / "done").exists()
    lock.close()
    worker.join()
    assert (state / "done" / "00000.json").exists()


@pytest.mark.parametrize("left", [0, 1, 25])
def test_a_lost_journal_ends_exact_with_all_face_ids(state, connection, budget, meter, tmp_path, left):  # noqa: PLR0917
    """Whatever of it was done before: also for persons with as many faces as one may have."""
    people = write_people(tmp_path / "some", 6, 3)
    write_people(people, 2, 20, first=100)
    plan = Plan("enroll", "people", 1, ("staff",))
    plan_enrollment(open_state(state), people, plan)
    task = PartTask(str(state), 0, connection, budget)
    enroll_part(task)
    for number, path in enumerate(sorted(people.rglob("*.jpg"))):
        if number < left:  # as if the lost run had not come so far
            shot = meter.enrolled[path.parent.name].get(int(path.stem))
            meter.store.delete_faces(APPID, path.parent.name, [shot])
    for name in ("journals/00000.journal", "done/00000.json", "units/00000.jsonl"):
        (state / name).unlink()
    result = enroll_part(task)
    assert (58, {}) == (result.summary.done, result.summary.codes)
    assert face_ids_stored(meter) == face_ids_told(state)
    assert 58 == sum(map(len, face_ids_told(state).values()))


def test_a_lost_journal_is_made_again_beside_what_can_never_be_read(people, state, connection, budget):
    """A pipe gives nothing, as long as one waits; and what is larger than any picture is not read at all."""
    os.mkfifo(people / "person0" / "pipe.jpg")
    with (people / "person1" / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    plan_enrollment(open_state(state), people, Plan("enroll", str(people), 1, ("staff",)))
    task = PartTask(str(state), 0, connection, budget)
    first = enroll_part(task).summary
    for name in ("journals/00000.journal", "done/00000.json"):
        (state / name).unlink()
    found = []
    worker = threading.Thread(target=lambda: found.append(enroll_part(task).summary), daemon=True)
    worker.start()
    worker.join(5 * PATIENCE)
    (again,) = found
    assert (60, 2, {"refused": 1, "23": 1}) == (first.done, first.failed, first.codes)
    assert (first.done, first.failed, first.codes) == (again.done, again.failed, again.codes)


def test_single_parts_come_to_the_end_of_the_whole(people, state, connection, meter):
    """As jobs of a scheduler that numbers them: whichever is first, the plan is made once."""
    options = {"state": state, "connection": connection, "group_ids": ["staff"], "shards": 3}
    late = threading.Thread(target=enroll, args=(people,), kwargs={"part": 2, **options})
    late.start()
    done = [enroll(people, part=rank, **options) for rank in (0, 1)]
    late.join()
    assert all(isinstance(one, FleetSummary) and one.complete for one in done)
    assert {f"person{number}": 2 for number in range(30)} == {one: len(them) for one, them in meter.enrolled.items()}
    with pytest.raises(ValueError, match="0 to 2"):
        enroll(people, part=3, **options)


def test_what_travels_can_be_pickled(task):
    result = enroll_part(task)
    assert (task, result) == pickle.loads(pickle.dumps((task, result)))


def test_a_worker_of_another_project_enrolls_nobody(connection, monkeypatch, budget):
    monkeypatch.setenv("FACE_ASYNC_BUCKET", "another")
    with pytest.raises(ValueError, match="another"):
        connection.open(budget)
    for name in ("APPID", "BUCKET", "SECRET_ID", "SECRET_KEY"):
        monkeypatch.delenv(f"FACE_ASYNC_{name}")
    with pytest.raises(ValueError, match="on every worker"):
        connection.open(budget)
    with pytest.raises(ValueError, match="on every worker"):
        Connection.from_env()


def test_a_throttle_is_divided_into_shares_that_together_keep_it():
    whole = Throttle(max_concurrency=10, max_rate=30, max_bytes_in_flight=3_000)
    assert Throttle(max_concurrency=3, max_rate=10, burst=1, max_bytes_in_flight=1_000) == whole.divided(3)
    assert Throttle(max_concurrency=64, burst=1) == Throttle().divided(1)
    for parts in (0, 11):
        with pytest.raises(ValueError, match="1 to max_concurrency, which is 10"):
            whole.divided(parts)


def test_a_journal_in_use_is_told_from_any_other_error(tmp_path):
    path = str(tmp_path / "journal")
    first = open_journal(path, Project(APPID, BUCKET))
    with pytest.raises(JournalInUseError, match="in use"):
        list(read_units(path))
    first.close()
    assert [] == list(read_units(path))
    (tmp_path / "journal").write_bytes(b"no journal")
    with pytest.raises(JournalError, match="damaged") as raised:
        list(read_units(path))
    assert not isinstance(raised.value, JournalInUseError)


def test_the_units_of_a_journal_can_be_read(task, state, people):
    enroll_part(task)
    units = list(read_units(state / "journals" / "00000.journal"))
    assert {str(path) for path in people.rglob("*.jpg")} == {unit.source for unit in units}
    assert {State.DONE} == {unit.state for unit in units}


def test_room_that_is_assumed_is_not_asked_for():
    class Silent:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was called")

    async def run():
        ledger = LimitLedger(Silent())
        ledger.assume_room(["staff", "guests"])
        with await ledger.person(["staff", "guests"]) as reservation:
            reservation.commit(1)

    anyio.run(run)
