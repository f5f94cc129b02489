"""What enrollment costs in one process and on worker processes: ``python benchmarks/fleet.py --pictures 1000``.

Processor time is what counts: wall time on one machine says how busy it is, and that the server shares its cores. A
projection multiplies the costs of one picture, which were measured here, by the number of pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from processes import computed

from face_async import Credentials, FaceSession, Throttle
from face_async.fleet import Connection, enroll, open_engine
from face_async.ingest import ingest
from face_async.portraits import draw_portrait
from face_async.session import ProjectAccess

if TYPE_CHECKING:
    from collections.abc import Generator

PROJECT = ProjectAccess("123456", "benchmark", Credentials("AKIDbenchmark", "benchmarkSecretKey"))
PROGRAM = "from face_async.cli import main; main()"
AT_ONCE = 16
PROJECTED = 100_000_000


@contextlib.contextmanager
def server(folder: Path) -> Generator[int]:
    """Serve an empty database; yield the process's id, with the environment set for sessions."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base_url = f"http://127.0.0.1:{port}"
    os.environ.update(PROJECT.environment(base_url))
    command = [sys.executable, "-c", PROGRAM, "serve", "--db", str(folder / "faces.db"), "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--recognizer", "fingerprint"], stdout=log, stderr=log)  # noqa: S603 - our own
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_of_children() -> float:
    """Return the processor time of all processes that were begun here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def one_process(people: Path, folder: Path) -> float:
    """Enroll in this process; return its processor time."""

    async def run() -> None:
        throttle = Throttle(max_concurrency=AT_ONCE)
        async with FaceSession.from_env(http="asyncio", throttle=throttle, timeout=60, deadline=300) as session:
            journal = folder / "enroll.journal"
            async with ingest(session, people, journal=journal, group_ids=["staff"], max_at_once=AT_ONCE) as enrolling:
                summary = await enrolling.finish()
        if not summary.complete:
            raise SystemExit(f"not everything was enrolled: {summary}")

    began = time.process_time()
    anyio.run(run)
    return time.process_time() - began


def on_workers(people: Path, folder: Path, workers: int) -> tuple[float, float]:
    """Enroll on worker processes; return the processor time of the parts, and that of the workers as a whole."""
    before = cpu_of_children()
    with open_engine(f"processes:{workers}") as engine:
        summary = enroll(
            people,
            state=folder / "run",
            connection=Connection.from_env(),
            executor=engine.executor,
            group_ids=["staff"],
            shards=4 * workers,
            at_once=workers,
            budget=Throttle(max_concurrency=AT_ONCE),
        )
        if not summary.complete:
            raise SystemExit(f"not everything was enrolled: {summary}")
        engine.executor.shutdown()
    return summary.cpu_seconds, cpu_of_children() - before


def measure(people: Path, pictures: int, workers: int) -> dict[str, float]:
    """Enroll once into a new server; return milliseconds a picture, and pictures a second."""
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as pid:
        began, server_began = time.monotonic(), computed(pid)
        if workers:
            parts, whole = on_workers(people, Path(name), workers)
        else:
            parts = whole = one_process(people, Path(name))
        seconds, served = time.monotonic() - began, computed(pid) - server_began
    return {
        "workers": workers or 1,
        "parts": 1_000 * parts / pictures,
        "whole": 1_000 * whole / pictures,
        "server": 1_000 * served / pictures,
        "pictures_per_second": pictures / seconds,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1_000, help="how many; two of each person")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        people = Path(name) / "people"
        for number in range(options.pictures // 2):
            folder = people / f"person{number:06}"
            folder.mkdir(parents=True)
            for shot in range(2):
                (folder / f"{shot}.jpg").write_bytes(draw_portrait(number, shot=shot, size=120))
        found = [measure(people, options.pictures // 2 * 2, workers) for workers in (0, 2, 4)]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("CPU in ms a picture      parts  with start  server   of one process  pictures/s")
    for one, label in zip(found, ("one process", "2 workers", "4 workers"), strict=True):
        print(
            f"{label:<24}{one['parts']:6.2f}{one['whole']:12.2f}{one['server']:8.2f}"
            f"{one['parts'] / found[0]['parts']:17.2f}{one['pictures_per_second']:12.0f}"
        )
    client, served = found[-1]["parts"], found[-1]["server"]
    days = PROJECTED / 1_000 / 86_400
    print(
        f"{PROJECTED:,} pictures from these costs: {client * days:.1f} core-days of workers, "
        f"{served * days:.1f} of servers without recognition"
    )


if __name__ == "__main__":
    main()
