"""Runs on Dask and Ray: real clusters on this machine, which are searched for the key to the service."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from doubles import CREDENTIALS
from fleetkit import RAY, RAY_VARIABLES, Recorded, command_of
from ingestkit import write_people
from timing import PATIENCE

from face_async import Throttle
from face_async.fleet import enroll, open_engine

# Packages that are not ours warn of each other.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.xdist_group("engines")]

SECRETS = CREDENTIALS.secret_key, CREDENTIALS.secret_id
DASK = """
import sys
from distributed import LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / "people", 200, 1)


@contextlib.contextmanager
def cluster(program, log, *arguments):
    """Run a cluster in a process of its own, which ends when its input does; yield its address."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **RAY_VARIABLES},
        ) as process,
    ):
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def killer(is_worker, after=2):
    """Return a function that kills one process that is a worker, once so many parts are done."""
    killed = []

    def kill(summary):
        if summary.parts_done >= after and not killed:
            found = [path.name for path in Path("/proc").glob("[0-9]*") if is_worker(path)]
            if found:
                os.kill(int(found[0]), signal.SIGKILL)
                killed.append(found[0])

    return kill, killed


def options_of(tmp_path, connection, engine, on_progress):
    return {
        "state": tmp_path / "run",
        "connection": connection,
        "executor": engine.executor,
        "group_ids": ["staff"],
        "shards": 10,
        "at_once": engine.workers,
        "budget": Throttle(max_concurrency=8, max_rate=60),
        "on_progress": on_progress,
    }


@pytest.mark.external("distributed")
def test_a_run_on_dask_outlives_its_workers_and_keeps_its_secrets(people, tmp_path, meter, connection):
    """A scheduler has seen every task, and a worker was killed: the end is exact, and nothing there has the key."""
    seen = []
    with cluster(DASK, tmp_path / "log") as address, open_engine(address.replace("tcp://", "dask://")) as engine:
        client = import_module("distributed").default_client()
        kill, killed = killer(lambda path: b"spawn_main" in command_of(path.name) and environ_has(path, meter.base_url))

        def look(summary):
            kill(summary)
            dump = client.run_on_scheduler(
                lambda dask_scheduler: [pickle.dumps(task.run_spec) for task in dask_scheduler.tasks.values()]
            )
            seen.extend(dump)

        summary = enroll(people, **options_of(tmp_path, connection, engine, look))
        logs = repr(client.get_scheduler_logs()) + repr(client.get_worker_logs(nanny=True))
    assert killed
    assert (200, True) == (summary.done, summary.complete)
    assert [1] * 200 == [len(faces) for faces in meter.enrolled.values()]
    assert meter.most <= 8
    assert any(meter.base_url.encode() in task for task in seen)  # guard: they are the tasks
    texts = [logs, (tmp_path / "log").read_text(), *(task.decode("latin-1") for task in seen)]
    assert not [secret for secret in SECRETS for text in texts if secret in text]


@pytest.mark.external("ray")
def test_a_run_on_ray_outlives_its_workers_and_keeps_its_secrets(people, tmp_path, meter, connection, monkeypatch):
    """All that its scheduler keeps, and every file and log of the cluster, was searched: nothing there has the key."""
    ray = import_module("ray")
    for name, value in RAY_VARIABLES.items():
        monkeypatch.setenv(name, value)
    with (
        TemporaryDirectory(prefix="ray") as folder,
        cluster(RAY, tmp_path / "log", folder) as address,
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with open_engine("ray://auto") as engine:
            kill, killed = killer(lambda path: command_of(path.name).startswith(b"ray::attempt"))
            recorded = Recorded(engine.executor, ray.cloudpickle.dumps)
            options = {**options_of(tmp_path, connection, engine, kill), "executor": recorded}
            summary = enroll(people, **options)
            kept = [*kept_by_scheduler(), repr(ray.timeline()).encode()]
        written = [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
    assert killed
    assert (200, True) == (summary.done, summary.complete)
    assert [1] * 200 == [len(faces) for faces in meter.enrolled.values()]
    assert any(meter.base_url.encode() in task for task in recorded.sent)  # guards: they are the tasks, and the logs
    assert any(b"attempt" in content for content in kept)
    assert any(b"raylet" in content for content in written)
    texts = [*kept, *written, *recorded.sent, (tmp_path / "log").read_bytes()]
    assert not [secret for secret in SECRETS for text in texts if secret.encode() in text]


def kept_by_scheduler():
    """Return all keys and values that the head of a Ray cluster keeps: functions, jobs, and what else there is."""
    kv = import_module("ray.experimental.internal_kv")
    spaces = (None, b"fun", b"job", b"session", b"cluster", b"workflow", b"healthcheck", b"dashboard")
    keys = [(space, key) for space in spaces for key in kv._internal_kv_list(b"", namespace=space)]
    return [content for space, key in keys for content in (key, kv._internal_kv_get(key, namespace=space) or b"")]


def environ_has(path, text):
    try:
        return text.encode() in (path / "environ").read_bytes()
    except OSError:
        return False
