"""One measurement of one client, in a process of its own: one JSON object in, one out.

A thread keeps the time, since an event loop that is overwhelmed cannot: it waits until the connections are warm, notes
the CPU time, lets the calls run, notes it again, and ends the process as it stands.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from clients import PICTURE_URL, Client
from peers import all_clients

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FAILURES = 50


class Meter:
    """Hands out the work, counts what became of it, and reports."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.latencies: list[float] = []  # appending is one step, also between threads
        self.failures: list[str] = []
        self.finished = threading.Event()
        pictures = job["pictures"] or [PICTURE_URL]
        self._items = itertools.islice(itertools.cycle(pictures), job["total"] or sys.maxsize)

    def following(self) -> str | None:
        """Return what to send next, None when it is enough."""
        return None if len(self.failures) >= MAX_FAILURES else next(self._items, None)

    def failed(self, error: Exception) -> None:
        """Count a call that failed."""
        self.failures.append(f"{type(error).__name__}: {error}"[:200])

    def run(self) -> NoReturn:
        """Watch over the measurement, print what came out, and end the process."""
        try:
            result = self._measure()
        except BaseException:  # noqa: BLE001 - a thread's exception would be lost
            result = {"failure": traceback.format_exc()}
        print(json.dumps(result), flush=True)
        os._exit(0)

    def _measure(self) -> dict[str, Any]:
        job = self.job
        start = 0, cpu_seconds(), time.perf_counter()
        warm_until = time.monotonic() + job["warm_seconds"]
        while len(self.latencies) < job["warm"] and time.monotonic() < warm_until and not self.finished.is_set():
            time.sleep(0.01)
        before_rss = resident()
        server = self._server()
        # What is not warmed up is measured from its start: a short bulk may be over by now.
        now = len(self.latencies), cpu_seconds(), time.perf_counter()
        before, cpu_before, began = now if job["warm"] else start
        self.finished.wait(job["seconds"])
        while len(self.latencies) - before < job["min_calls"] and not self.finished.is_set():
            if self.finished.wait(0.05) or time.perf_counter() - began > job["limit"]:
                break
        elapsed = time.perf_counter() - began
        cpu, calls = cpu_seconds() - cpu_before, len(self.latencies) - before
        served = self._server()
        latencies = sorted(self.latencies[before:])
        return {
            "calls": calls,
            "failures": len(self.failures),
            "failure": self.failures[0] if self.failures else ("" if calls else f"no call ended in {elapsed:.0f} s"),
            "seconds": elapsed,
            "rate": calls / elapsed,
            "cpu_ms": cpu / calls * 1000 if calls else None,
            "client_busy": cpu / elapsed,
            "p99_ms": latencies[calls * 99 // 100] * 1000 if calls and latencies[-1] else None,
            "peak_mb": peak() / 2**20,
            "growth_mb": (peak() - before_rss) / 2**20,
            "server_busy": (served["cpu_seconds"] - server["cpu_seconds"]) / elapsed,
            "server_us": (served["cpu_seconds"] - server["cpu_seconds"]) / calls * 1e6 if calls else None,
        }

    def _server(self) -> dict[str, float]:
        """Ask the server what it has used so far."""
        parts = urlsplit(self.job["base_url"])
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            connection.sendall(b"GET /stats HTTP/1.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
        stats: dict[str, float] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return stats


def cpu_seconds() -> float:
    """Return the CPU time of this process with all its threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak() -> float:
    """Return the most memory that was ever resident, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure is inherited from whoever started us
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> float:
    """Return the memory resident now, in bytes; the most ever where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else peak()


async def run(job: dict[str, Any], client: Client, meter: Meter) -> None:
    """Make the calls; the meter ends it."""
    await client.open()
    if job["total"]:
        await client.ask(PICTURE_URL)  # so that imports and the like are done; otherwise the first calls see to it
    threading.Thread(target=meter.run).start()
    await client.work(job["kind"], meter.following, meter.latencies.append, meter.failed)
    meter.finished.set()


def main() -> None:
    """Read the job, do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    job = json.loads(Path(sys.argv[1]).read_text())
    if job["core"] >= 0:
        os.sched_setaffinity(0, {job["core"]})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = all_clients()[job["client"]](job["base_url"], job["in_flight"])
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if job["uvloop"] or client.uvloop:
        from uvloop import new_event_loop  # noqa: PLC0415 - optional

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(job, client, Meter(job)))


if __name__ == "__main__":
    main()
