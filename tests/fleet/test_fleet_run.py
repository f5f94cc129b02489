"""Whole runs on worker processes: killed as often as one likes, they come to the exact end within their budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from importlib import import_module

import anyio
import pytest
from attrs import evolve
from doubles import CREDENTIALS
from fleetkit import PROGRAM, Recorded, environment_of, kill_some, workers_below
from ingestkit import APPID, write_people
from timing import PATIENCE
from typer.testing import CliRunner

from face_async import AuthError, ShardedGroup, Throttle
from face_async.cli._app import app
from face_async.cli.fleet import FleetDisplay, FleetOptions
from face_async.fleet import ProcessExecutor, StateError, enroll, identify, write_failures
from face_async.fleet.plan import Plan, plan_identification
from face_async.fleet.run import refused_probes
from face_async.fleet.state import open_state
from face_async.ingest import BadRow

PLANNER = """
import sys, time
from face_async.fleet import Connection, enroll
from face_async.ingest import Row

def rows():
    yield Row("ada", "1.jpg", ("staff",))
    print(flush=True)
    time.sleep(1_000)

enroll(rows(), state=sys.argv[1], connection=Connection("1", "b", "http://127.0.0.1:1"))
"""


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / "people", 40, 2)


class Deadly(Executor):
    """An engine on which every worker dies at once."""

    def submit(self, fn, *args, **kwargs):
        future = Future()
        future.set_exception(RuntimeError("the worker is gone"))
        return future


class Failing(Executor):
    """An engine that cannot be handed anything."""

    def submit(self, fn, *args, **kwargs):
        raise RuntimeError("the worker is gone")


def counts(meter):
    return sorted(len(faces) for faces in meter.enrolled.values())


def test_a_run_on_processes_keeps_its_budget_and_its_secrets(people, tmp_path, meter, connection, capfd):
    """Neither tasks nor the state nor what workers print has the key; what workers need is in their environment."""
    budget = Throttle(max_concurrency=6, max_rate=60)
    seen = []
    with ProcessExecutor(3) as executor:
        recorded = Recorded(executor)
        summary = enroll(
            people,
            state=tmp_path / "run",
            connection=connection,
            executor=recorded,
            group_ids=["staff"],
            shards=6,
            at_once=3,
            budget=budget,
            on_progress=seen.append,
        )
    assert [2] * 40 == counts(meter)
    assert (80, 80, 6, True) == (summary.rows, summary.done, summary.parts_done, summary.complete)
    assert summary == seen[-1]
    assert meter.most <= 6
    busiest = max(sum(begin <= other < begin + 10 for other in meter.times) for begin in meter.times)
    assert busiest <= 1.05 * 10 * 60 + 6
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    printed = "".join(capfd.readouterr()).encode()
    secrets = CREDENTIALS.secret_key.encode(), CREDENTIALS.secret_id.encode()
    assert written
    assert recorded.sent
    assert not [secret for secret in secrets for text in (*written, *recorded.sent, printed) if secret in text]


def test_workers_may_be_killed_at_any_moment(people, tmp_path, meter, connection, rng, full):  # noqa: PLR0917
    """In the run itself their parts are begun again, and it comes to the exact end."""
    kills = 0
    goal = 20 if full else 3
    with ProcessExecutor(3) as executor:

        def kill(_):
            nonlocal kills
            if kills < goal and rng.random() < 0.6:
                kills += kill_some(os.getpid(), rng)

        summary = enroll(
            write_people(people, 200 if full else 20, 2, first=100),
            state=tmp_path / "run",
            connection=connection,
            executor=executor,
            group_ids=["staff"],
            shards=12,
            at_once=3,
            budget=Throttle(max_concurrency=6, max_rate=40),
            on_progress=kill,
        )
    assert kills >= min(goal, 2)
    assert {2} == set(counts(meter))
    assert summary.complete
    assert summary.done == summary.rows == sum(counts(meter))
    assert 1 <= summary.losses <= kills


@pytest.mark.parametrize("end", ["a kill", "Ctrl-C"])
def test_the_driver_may_end_too(people, tmp_path, meter, end):
    """Its workers end with it, and the same command goes on from there; Ctrl-C reaches the workers, too."""
    state = tmp_path / "run"
    arguments = ["enroll", people, "--group", "staff", "--state", state, "--cluster", "processes:2", "--shards", "8"]
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--max-rate", "30"]
    environment = {**os.environ, **environment_of(meter.base_url)}
    first = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(meter.times) < 20:
        assert first.poll() is None
        time.sleep(0.02)
    workers = workers_below(first.pid)
    began = time.monotonic()
    if end == "a kill":
        first.kill()
        expected = -signal.SIGKILL, "", ""
    else:
        os.killpg(first.pid, signal.SIGINT)
        expected = 130, "", f"face-async: stopped; the same command goes on from here (state {state})\n"
    assert expected == (first.wait(PATIENCE), *first.communicate(timeout=PATIENCE))
    assert time.monotonic() - began < 5
    assert workers
    done = subprocess.run(
        [*command[:-2], "--json", "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 4,
    )
    assert (0, "") == (done.returncode, done.stderr)
    summary = json.loads(done.stdout)
    assert (80, 80, 8) == (summary["rows"], summary["done"], summary["parts_done"])
    assert [2] * 40 == counts(meter)


def test_what_a_driver_has_left_that_was_killed_while_planning_is_cleared_away(people, tmp_path, connection):
    """But not what one writes that is alive: the run is its own."""
    state = tmp_path / "run"
    options = {"state": state, "connection": connection, "group_ids": ["staff"], "shards": 2}
    with subprocess.Popen([sys.executable, "-c", PLANNER, state], stdout=subprocess.PIPE) as planner:
        planner.stdout.readline()
        with pytest.raises(StateError, match="in use by another driver"):
            enroll(people, **options)
        assert 1 == len(list(state.glob(".*")))
        planner.kill()
    assert 1 == len(list(state.glob(".*")))
    assert enroll(people, **options).complete
    assert [] == list(state.glob(".*"))


def test_a_run_tells_what_it_waits_for(people, tmp_path, connection):
    """Each part waits for a service that is away; the run says so, and why."""

    class SeenError(Exception):
        pass

    def look(summary):
        if summary.away is not None:
            raise SeenError(summary.away)

    away = evolve(connection, base_url="http://127.0.0.1:9")
    executor = ProcessExecutor(1)
    with pytest.raises(SeenError, match="cannot connect"):
        enroll(
            people, state=tmp_path / "run", connection=away, executor=executor, group_ids=["staff"], shards=1,
            on_progress=look,
        )  # fmt: skip
    executor.shutdown(cancel_futures=True)


def test_any_executor_will_do(people, tmp_path, connection, meter):
    with ProcessPoolExecutor(2) as executor:
        options = {"connection": connection, "executor": executor, "group_ids": ["staff"], "shards": 4, "at_once": 2}
        assert enroll(people, state=tmp_path / "run", **options).complete
        asked = len(meter.times)
        assert enroll(people, state=tmp_path / "run", **options).complete  # there is nothing left to do
    assert len(meter.times) == asked
    assert [2] * 40 == counts(meter)


def test_more_persons_than_a_group_may_have_are_spread(people, tmp_path, connection, meter):
    """Over numbered groups, which are one population for whoever opens them by their common name."""
    with ProcessExecutor(2) as executor:
        options = {"connection": connection, "executor": executor, "group_ids": ["staff"], "shards": 4, "at_once": 2}
        summary = enroll(people, state=tmp_path / "run", spread=4, **options)
        with pytest.raises(StateError, match="spread 4, not 5"):
            enroll(people, state=tmp_path / "run", spread=5, **options)
        with pytest.raises(ValueError, match="0 to 5,000"):
            enroll(people, state=tmp_path / "run", spread=5_001, **options)
    assert summary.complete
    assert [f"staff-{number:04}" for number in range(4)] == sorted(meter.store.group_ids(APPID))

    async def opened():
        async with connection.open(Throttle()) as session:
            return [person_id async for person_id in ShardedGroup(session, "staff").person_ids()]

    assert sorted(f"person{number}" for number in range(40)) == sorted(anyio.run(opened))


def test_what_ends_a_part_ends_the_run_and_says_where(people, tmp_path, connection, monkeypatch):
    monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "another")
    with ProcessExecutor(2) as executor, pytest.raises(AuthError) as raised:
        enroll(
            people,
            state=tmp_path / "run",
            connection=connection,
            executor=executor,
            group_ids=["staff"],
            shards=4,
            at_once=1,
        )
    assert ["in part 0 of 4; the same call goes on from here"] == raised.value.__notes__


def test_a_part_that_kills_its_workers_is_given_up(people, tmp_path, connection):
    with pytest.raises(StateError, match="20 workers have died with part 0: the worker is gone"):
        enroll(
            people, state=tmp_path / "run", connection=connection, executor=Deadly(), group_ids=["staff"], shards=2,
            at_once=1,
        )  # fmt: skip


def test_more_parts_at_once_than_calls_are_refused(people, tmp_path, connection):
    with pytest.raises(ValueError, match="1 to max_concurrency, which is 2"):
        enroll(
            people,
            state=tmp_path / "run",
            connection=connection,
            executor=Deadly(),
            group_ids=["staff"],
            at_once=3,
            budget=Throttle(max_concurrency=2),
        )


@pytest.mark.external("pyarrow")
def test_what_is_found_becomes_a_data_set(people, tmp_path, connection, meter):
    """Every probe is in it once, with all its candidates or with what went wrong."""
    dataset = import_module("pyarrow.dataset")
    probes = sorted(str(path) for path in people.rglob("0?.jpg"))
    nobody = tmp_path / "nobody.jpg"
    with ProcessExecutor(2) as executor:
        options = {"connection": connection, "executor": executor, "group_ids": ["staff"], "at_once": 2}
        enroll(people, state=tmp_path / "run", shards=4, **options)
        summary = identify([*probes, str(nobody)], out=tmp_path / "found", shards=3, **options)
    assert (81, 81) == (summary.rows, summary.done)
    rows = dataset.dataset(tmp_path / "found").to_table().to_pylist()
    best = {row["source"]: row for row in rows if row["rank"] == 0}
    assert set(best) == {*probes, str(nobody)}
    assert all(best[probe]["person_id"] == probe.split("/")[-2] for probe in probes)
    assert best[str(nobody)]["person_id"] is None
    assert "nobody.jpg" in best[str(nobody)]["code"]


PROBES = ["/probes/1.jpg", "http://pictures/2.jpg", "/probes/1.jpg", BadRow("/probes/\udcff.jpg", 0, "it is a link")]


@pytest.mark.parametrize(
    "others",
    [
        PROBES[:-1],
        [*PROBES, "/probes/3.jpg"],
        [*PROBES, PROBES[0]],
        ["/probes/2.jpg", *PROBES[1:]],
        [PROBES[0]],
        [],
    ],
)
def test_other_probes_are_another_run(tmp_path, connection, others):
    """So what was looked at is what was asked for, or nothing is said of it."""
    plan_identification(open_state(tmp_path / "found" / "_run"), PROBES, Plan("identify", "", 64, ("staff",)))
    with pytest.raises(StateError, match=r"the state is of a run with source .* name another state"):
        identify(iter(others), out=tmp_path / "found", connection=connection, group_ids=["staff"])


def test_a_source_that_is_named_tells_probes_from_others(tmp_path, connection):
    """Without reading them again, which may take as long as walking a folder of millions."""

    def unread():
        raise AssertionError("they were read")
        yield

    plan_identification(open_state(tmp_path / "found" / "_run"), PROBES, Plan("identify", "probes", 64, ("staff",)))
    options = {"out": tmp_path / "found", "connection": connection, "group_ids": ["staff"]}
    with pytest.raises(StateError, match="with source 'probes', not 'prbes'; name another state"):
        identify(unread(), source="prbes", **options)
    with pytest.raises(RuntimeError, match="the worker is gone"):  # so it has begun
        identify(unread(), source="probes", executor=Failing(), **options)


@pytest.mark.external("pyarrow")
def test_the_same_probes_in_any_order_go_on_and_those_not_to_be_sent_are_counted(tmp_path, connection, meter):
    dataset = import_module("pyarrow.dataset")
    options = {"out": tmp_path / "found", "connection": connection, "group_ids": ["staff"], "shards": 2}
    for probes in (PROBES, PROBES[::-1], iter(PROBES)):
        summary = identify(probes, **options)
        assert (3, 3, 1, False) == (summary.rows, summary.done, summary.bad_rows, summary.complete)
    found = dataset.dataset(tmp_path / "found").to_table().to_pylist()
    assert sorted(probe for probe in PROBES if isinstance(probe, str)) == sorted(row["source"] for row in found)
    assert 1 == write_failures(tmp_path / "found" / "_run", tmp_path / "failures.csv")
    assert "it is a link" in (tmp_path / "failures.csv").read_text()


@pytest.mark.external("pyarrow")
def test_a_name_that_is_not_utf_8_is_wrong_with_its_picture_alone(tmp_path, connection, meter):
    summary = identify(
        ["a.jpg", "\udcff.jpg"], out=tmp_path / "found", connection=connection, group_ids=["staff"], shards=1
    )
    assert (1, 1, 1) == (summary.rows, summary.done, summary.bad_rows)
    assert ["\udcff.jpg"] == [row.file for row in refused_probes(tmp_path / "found")]


def test_sigterm_does_what_an_interrupt_does():
    before = signal.getsignal(signal.SIGTERM)
    options = FleetOptions(
        cluster=None, shards=None, max_concurrency=1, max_rate=None, base_url=None, fit=False, quiet=True, json=False
    )
    with pytest.raises(KeyboardInterrupt), options.engine(FleetDisplay("enrolling", quiet=True)):
        signal.raise_signal(signal.SIGTERM)
    assert before == signal.getsignal(signal.SIGTERM)


def test_a_part_says_that_it_waits_for_the_plan(people, tmp_path, connection, monkeypatch):
    monkeypatch.setattr("face_async.fleet.run._PLAN_PATIENCE", -1.0)
    arguments = ["enroll", str(people), "-g", "staff", "--state", str(tmp_path / "run"), "--shard", "17/256"]
    result = CliRunner().invoke(app, arguments)
    assert 2 == result.exit_code
    assert "which --shard 0/256 makes" in result.stderr
    assert "has no plan yet" in result.stderr


def test_the_command_line_says_what_goes_with_what(people, tmp_path, meter, monkeypatch):
    for name, value in environment_of(meter.base_url).items():
        monkeypatch.setenv(name, value)
    enrolling, state = ["enroll", str(people), "-g", "staff"], str(tmp_path / "run")
    wrong = {
        ("--cluster", "processes:2"): "--cluster needs --state",
        ("--cluster", "x", "--state", state): "must be processes:N",
        ("--cluster", "processes:2", "--state", state, "--shard", "0/2"): "--cluster does all parts",
        ("--state", state, "--shard", "0/2", "--dry-run"): "go with no --journal",
        ("--state", state, "--shard", "2/2"): "0 to 1",
    }
    for arguments, message in wrong.items():
        result = CliRunner().invoke(app, [*enrolling, *arguments])
        assert 2 == result.exit_code, arguments
        assert message in result.stderr
    for cluster, module, extra in (("dask://x:1", "distributed", "dask"), ("ray://x:1", "ray", "ray")):
        monkeypatch.setitem(sys.modules, module, None)
        result = CliRunner().invoke(app, [*enrolling, "--state", state, "--cluster", cluster])
        assert (2, True) == (result.exit_code, f"{module} is missing; install 'face_async[{extra}]'" in result.stderr)
    for rank in range(2):
        result = CliRunner().invoke(app, [*enrolling, "--state", state, "--shard", f"{rank}/2", "--json"])
        assert 0 == result.exit_code, result.stderr
        assert json.loads(result.stdout)["parts_done"] == 1
    assert [2] * 40 == counts(meter)
    result = CliRunner().invoke(app, ["identify", str(people), "-g", "staff", "--out", "found"])
    assert (2, True) == (result.exit_code, "--cluster and --out go together" in result.stderr)
