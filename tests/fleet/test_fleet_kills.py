"""Runs whose workers and drivers are killed again and again, on every engine: they come to the exact end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fleetkit import PROGRAM, RAY, RAY_VARIABLES, command_of, environment_of, workers_below
from ingestkit import write_people
from timing import PATIENCE

SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = "from distributed.cli.dask_worker import main; main()"


class Processes:
    """Worker processes of the driver's own."""

    kinds = ("worker", "worker", "driver")

    def __init__(self, environment, log):
        self.environment, self.cluster = environment, "processes:4"

    def close(self):
        pass

    def workers(self, driver):
        return workers_below(driver)


class Dask:
    """A scheduler, and four nannies with a worker each; a nanny that was killed is replaced."""

    kinds = ("worker", "worker", "nanny", "driver")

    def __init__(self, environment, log):
        self.environment, self.log = environment, log
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.cluster = f"dask://127.0.0.1:{port}"
        self.scheduler = self._start(SCHEDULER, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.nannies = [self._nanny() for _ in range(4)]
        with import_module("distributed").Client(self.cluster.replace("dask://", "tcp://"), timeout=PATIENCE) as client:
            client.wait_for_workers(4, timeout=PATIENCE)

    def _start(self, program, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], env=self.environment, stdout=self.log, stderr=self.log
        )

    def _nanny(self):
        address = self.cluster.replace("dask://", "tcp://")
        return self._start(WORKER, address, "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard")

    def kill_nanny(self, rng):
        place = rng.randrange(4)
        self.nannies[place].kill()
        self.nannies[place].wait()
        self.nannies[place] = self._nanny()

    def workers(self, driver):
        return [pid for nanny in self.nannies for pid in children_of(nanny.pid) if b"spawn_main" in command_of(pid)]

    def close(self):
        for process in (*self.nannies, self.scheduler):  # not by SIGTERM, for which one may take a minute
            process.kill()
            process.wait()


class Ray:
    """A local cluster of four workers."""

    kinds = ("worker", "worker", "driver")

    def __init__(self, environment, log):
        self.folder = TemporaryDirectory(prefix="ray")  # with a short name, as that of a socket must be
        self.process = subprocess.Popen(
            [sys.executable, "-c", RAY, self.folder.name],
            env={**environment, **RAY_VARIABLES},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        address = self.process.stdout.readline().strip()
        self.environment, self.cluster = {**environment, **RAY_VARIABLES, "RAY_ADDRESS": address}, "ray://auto"

    def workers(self, driver):
        return [
            int(path.name) for path in Path("/proc").glob("[0-9]*") if command_of(path.name).startswith(b"ray::attempt")
        ]

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.folder.cleanup()


def children_of(pid):
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


ENGINES = [
    Processes,
    pytest.param(Dask, marks=pytest.mark.external("distributed")),
    pytest.param(Ray, marks=pytest.mark.external("ray")),
]


@pytest.mark.filterwarnings("default")  # of packages that are not ours
@pytest.mark.parametrize("kind", ENGINES)
def test_kills_of_every_kind_change_nothing(kind, tmp_path, meter, rng, full, capfd):  # noqa: PLR0917 - fixtures
    """Persons, faces and what is told of them are those of the source, and the budget is kept all the time."""
    persons, goal, rate = (1_500, 20, 30.0) if full else (60, 2, 30.0)
    people, state = write_people(tmp_path / "people", persons, 2), tmp_path / "run"
    environment = {**os.environ, **environment_of(meter.base_url)}
    kills = Counter()
    with (tmp_path / "log").open("w") as log, contextlib.closing(kind(environment, log)) as engine:
        command = [sys.executable, "-c", PROGRAM, "enroll", str(people), "-g", "staff", "--state", str(state)]
        command += ["--cluster", engine.cluster, "--shards", "48" if full else "8", "--max-concurrency", "16"]
        command += ["--max-rate", str(rate), "--json"]
        driver = None
        total = 0
        while driver is None or driver.poll() is None:
            if driver is None:
                driver = subprocess.Popen(
                    command, env=engine.environment, stdout=subprocess.PIPE, stderr=log, text=True
                )
            time.sleep(rng.uniform(0.5, 1.5) * (5 if full else 1))
            wanted = (total + 1) * persons * 2 // (goal + 2)
            stored = sum(map(len, meter.enrolled.values())) if meter.times else 0
            if total == goal or stored < wanted or driver.poll() is not None:
                continue
            what = rng.choice(engine.kinds)
            if what == "driver":
                driver.kill()
                driver.communicate()
                driver = None
            elif what == "nanny":
                engine.kill_nanny(rng)
            elif found := engine.workers(driver.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(found), signal.SIGKILL)
            else:
                continue
            kills[what] += 1
            total += 1
        printed = driver.communicate()[0]
    with capfd.disabled():
        print(  # noqa: T201 - the figures are to be seen in every run
            f"\n{kind.__name__}: kills {dict(kills)}, most in flight {meter.most}, {len(meter.times):,} requests, "
            f"{busiest(meter.times, 10.0)} in the busiest 10 s"
        )
    assert 0 == driver.returncode, (tmp_path / "log").read_text()[-3000:]
    summary = json.loads(printed)
    assert total == goal
    faces = {person: set(found.values()) for person, found in meter.enrolled.items()}
    assert {f"person{number}": 2 for number in range(persons)} == {one: len(found) for one, found in faces.items()}
    units = [json.loads(line) for path in (state / "units").iterdir() for line in path.read_text().splitlines()]
    assert {"done": 2 * persons} == Counter(unit["state"] for unit in units)
    assert faces == {one: {unit["face_id"] for unit in units if unit["person_id"] == one} for one in faces}
    assert (2 * persons, 2 * persons) == (summary["rows"], summary["done"])
    assert meter.most <= 16
    assert busiest(meter.times, 10.0) <= 1.05 * 10 * rate


def busiest(times, seconds):
    """Return the most requests in any so many seconds."""
    most = begin = 0
    for end, moment in enumerate(times):
        while times[begin] <= moment - seconds:
            begin += 1
        most = max(most, end - begin + 1)
    return most
