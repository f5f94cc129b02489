"""What enroll has beside enrolling: what it does with one journal it does with those of all parts of a run."""

from __future__ import annotations

import csv
import json
import re

import pytest
from fleetkit import environment_of
from ingestkit import APPID, write_people
from typer.testing import CliRunner

from face_async import AuthError
from face_async.cli._app import app
from face_async.fleet import FleetSummary, StateError, enroll, retry_failed, verify, write_failures
from face_async.fleet.plan import rows_of
from face_async.fleet.shard import PartTask, enroll_part
from face_async.fleet.state import open_state

RECORDS = {"a journal": ["--journal", "one.journal"], "parts": ["--state", "run", "--shards", "3"]}


@pytest.fixture
def folder(tmp_path, monkeypatch, connection):
    """Make a folder to work in, with 6 people of 2 pictures each."""
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "people", 6, 2)
    return tmp_path


@pytest.fixture
def options(folder, connection):
    return {"state": folder / "run", "connection": connection}


@pytest.fixture(params=RECORDS)
def run(request, folder):
    """Return a function that enrolls with flags, and returns the exit code, what was printed and what was told."""

    def enroll_with(*flags, source="people"):
        arguments = ["enroll", source, "-g", "staff", *RECORDS[request.param], *flags]
        result = CliRunner().invoke(app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return enroll_with


def failures(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return sorted(tuple(row.values()) for row in csv.DictReader(file))


def a_face_of(meter, person):
    return next(iter(meter.enrolled[person].values()))


def test_what_has_failed_is_told_and_tried_again_when_that_is_asked(folder, run, meter):
    """And only then: the same command without --retry-failed leaves it alone."""
    broken = {folder / "people" / f"person{number}" / "01.jpg": number for number in (0, 3)}
    good = {path: path.read_bytes() for path in broken}
    for path in broken:
        path.write_bytes(b"BMnobody")
    (folder / "people" / "stray.jpg").write_bytes(b"BM")
    code, printed, told = run("--failures", "failed.csv")
    assert (1, True) == (code, printed.startswith("10 of 12 pictures are enrolled, 10 by this run in "))
    assert re.search(r"^ +2  -1101 .*\n +1  row  ", printed, re.MULTILINE)
    assert "wrote failed.csv" in told
    found = failures(folder / "failed.csv")
    assert [("", "row"), ("person0", "-1101"), ("person3", "-1101")] == [(row[0], row[2]) for row in found]
    for path in broken:
        path.write_bytes(good[path])
    (folder / "people" / "stray.jpg").unlink()
    asked = len(meter.paths)
    code, printed, _ = run("--retry-failed", "--failures", "failed.csv", "--verify")
    # The row that is no picture is the listing's, which this does not repeat.
    assert (1, True) == (code, printed.startswith("12 of 12 pictures are enrolled, 2 by this run in "))
    assert [("", "row")] == [(row[0], row[2]) for row in failures(folder / "failed.csv")]
    assert meter.paths[asked:].count("addface") == 2
    assert [2] * 6 == [len(faces) for faces in meter.enrolled.values()]


def test_what_was_not_begun_is_not_tried_again(folder, run):
    code, _, told = run("--retry-failed")
    assert (2, True) == (code, "so nothing has failed yet" in told)
    assert not (folder / "run").exists()


def test_the_service_is_compared_and_repaired(run, meter):
    code, _, told = run("--verify")
    assert (0, True) == (code, "people 6, faces 12: they are the same" in told)
    meter.store.delete_faces(APPID, "person1", [a_face_of(meter, "person1")])
    meter.store.delete_person(APPID, "person2")
    code, printed, told = run("--verify", "--json")
    assert (1, True) == (code, "person1: 1 faces are missing" in told)
    assert "person2: the service does not know this person" in told
    assert {"person1", "person2"} == {found["person_id"] for found in json.loads(printed)["differences"]}
    code, _, told = run("--repair")
    assert (0, True) == (code, "they are the same, before the repair they differed for 2" in told), told
    assert [2] * 6 == [len(faces) for faces in meter.enrolled.values()]


def test_what_does_not_go_together_is_refused(run):
    code, _, told = run("--retry-failed", "--repair")
    assert (2, True) == (code, "use --repair in a run of its own" in told)


def test_failures_are_written_over_nothing_that_is_needed(folder, run):
    assert 0 == run()[0]
    for path in ("people/person1/x.csv", *(("run/units/00000.jsonl",) if (folder / "run").exists() else ())):
        code, _, told = run("--failures", path)
        assert (2, True) == (code, "name another file to write" in told), path


def test_what_ends_a_run_is_told_with_what_is_enrolled_and_has_failed(folder, run, monkeypatch):
    (folder / "people" / "person0" / "01.jpg").write_bytes(b"BMnobody")
    assert 1 == run("--failures", "failed.csv")[0]
    found = failures(folder / "failed.csv")
    for path in folder.glob("run/done/*"):  # as if the run had been killed just before its end
        path.unlink()
    monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "another")
    code, printed, told = run("--failures", "failed.csv", "--verify")
    assert (1, True) == (code, "; the same command goes on from here" in told), told
    assert "compared" not in told
    enrolled, of_all = re.match(r"(\d+) of (\d+) pictures are enrolled", printed).groups()
    assert (True, "12") == (int(enrolled) > 0, of_all)
    assert found == failures(folder / "failed.csv")


def test_a_part_is_verified_and_tried_again_alone(folder, meter):
    """As job of a scheduler that numbers them; rows that are no picture are told by part 0."""
    (folder / "people" / "stray.jpg").write_bytes(b"BM")
    broken = folder / "people" / "person0" / "01.jpg"
    good = broken.read_bytes()
    broken.write_bytes(b"BMnobody")

    def job(rank, *flags):
        arguments = ["enroll", "people", "-g", "staff", "--state", "run", "--shard", f"{rank}/3", "--json", *flags]
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, json.loads(result.stdout), failures(folder / "failed.csv")

    codes = [job(rank, "--failures", "failed.csv") for rank in range(3)]
    [(failed, *_)] = [(rank, row) for rank, (_, _, rows) in enumerate(codes) for row in rows if row[0]]
    assert [1] * (1 + bool(failed)) == [code for code, _, _ in codes if code]
    assert 1 == sum(summary["bad_rows"] for _, summary, _ in codes)
    broken.write_bytes(good)
    code, summary, rows = job(failed, "--retry-failed", "--verify", "--failures", "failed.csv")
    assert (1 if failed == 0 else 0, 0) == (code, summary["failed"])
    assert not [row for row in rows if row[0]]
    assert [2] * 6 == [len(faces) for faces in meter.enrolled.values()]


def test_who_is_killed_while_trying_again_has_nothing_left_out(options, folder, monkeypatch):
    """The part is no longer done, so that the next run goes on with what was to be tried again."""
    broken = folder / "people" / "person0" / "01.jpg"
    good = broken.read_bytes()
    broken.write_bytes(b"BMnobody")
    assert not enroll(folder / "people", group_ids=["staff"], shards=2, **options).complete
    broken.write_bytes(good)
    monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "another")
    with pytest.raises(AuthError):
        retry_failed(**options)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    for name, value in environment_of(options["connection"].base_url).items():
        monkeypatch.setenv(name, value)
    assert enroll(folder / "people", group_ids=["staff"], **options).complete


def test_only_parts_in_which_something_has_failed_are_worked_on(options, folder):
    broken = folder / "people" / "person0" / "01.jpg"
    broken.write_bytes(b"BMnobody")
    enroll(folder / "people", group_ids=["staff"], shards=3, **options)
    done = {path: path.stat().st_mtime_ns for path in (folder / "run" / "done").iterdir()}
    summary = retry_failed(**options)
    assert (11, 1, 0) == (summary.done, summary.failed, summary.added)
    assert 1 == sum(before != path.stat().st_mtime_ns for path, before in done.items())


def test_what_was_never_sent_is_not_sent_by_another_try(options, folder, meter, budget):
    """Parts that were not begun are left out, as what has not failed is in one journal."""
    broken = folder / "people" / "person0" / "01.jpg"
    good = broken.read_bytes()
    broken.write_bytes(b"BMnobody")
    enroll(folder / "people", group_ids=["staff"], shards=3, part=0, **options)
    state = open_state(folder / "run")
    [mine] = [rank for rank in range(3) if "person0" in {row.person_id for row in rows_of(state, rank)}]
    enroll_part(PartTask(str(folder / "run"), mine, options["connection"], budget))
    broken.write_bytes(good)
    known = set(meter.enrolled)
    summary = retry_failed(**options)
    assert set(meter.enrolled) == known
    assert (0, False) == (summary.failed, summary.complete)
    assert summary.pending == 12 - summary.done > 0


def test_a_part_whose_journal_was_lost_is_compared_all_the_same(options, folder, meter):
    enroll(folder / "people", group_ids=["staff"], shards=2, **options)
    meter.store.delete_person(APPID, "person1")
    for path in (folder / "run" / "journals").iterdir():
        path.unlink()
    found = verify(**options)
    assert (6, 12, ()) == (found.persons, found.faces, found.differences)
    assert [2] * 6 == [len(faces) for faces in meter.enrolled.values()]


def test_a_comparison_that_finds_nothing_leaves_a_part_done(options, folder):
    enroll(folder / "people", group_ids=["staff"], shards=2, **options)
    done = {path.name: path.read_bytes() for path in (folder / "run" / "done").iterdir()}
    assert not verify(repair=True, **options).differences
    assert done == {path.name: path.read_bytes() for path in (folder / "run" / "done").iterdir()}


def test_without_a_run_there_is_nothing_to_compare_or_to_write(options, folder):
    for ask in (verify, retry_failed):
        with pytest.raises(StateError, match="has no plan"):
            ask(**options)
    with pytest.raises(StateError, match="has no plan"):
        write_failures(folder / "run", folder / "failed.csv")


def test_the_parts_of_a_run_are_those_that_it_was_begun_with(options, folder):
    """Who does not say how many there are goes on with them."""
    first = enroll(folder / "people", group_ids=["staff"], shards=2, **options)
    again = enroll(folder / "people", group_ids=["staff"], **options)
    assert isinstance(again, FleetSummary)
    assert (2, 2, 0) == (first.parts, again.parts, again.added)
    with pytest.raises(StateError, match="shards 2, not 5"):
        enroll(folder / "people", group_ids=["staff"], shards=5, **options)
