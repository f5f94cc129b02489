"""One client in a process of its own, which works in slices: a line of JSON in, a slice of work, a line of JSON out.

The clients of a comparison take turns in slices, so that whatever else the machine does falls on all of them alike; and
the lowest tenth of many short slices is what they cost when nobody disturbed them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients import PICTURE_URL, Client
from peers import all_clients

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FAILURES = 50


class Slice:
    """One slice of work, as long as its order says, and what it cost."""

    def __init__(self, order: dict[str, Any], pictures: list[str]) -> None:
        self.calls = 0
        self._least = order["least"]
        self.failures: list[str] = []
        self._until = time.perf_counter() + order["seconds"] if order["seconds"] else float("inf")
        self._items = itertools.islice(itertools.cycle(pictures or [PICTURE_URL]), order["calls"] or sys.maxsize)

    def following(self) -> str | None:
        """Return what to send next, None when it is enough."""
        over = self._least <= 0 and time.perf_counter() >= self._until
        if over or len(self.failures) >= MAX_FAILURES:
            return None
        self._least -= 1
        return next(self._items, None)

    def done(self, seconds: float) -> None:  # noqa: ARG002 - what the clients tell
        """Count a call."""
        self.calls += 1

    def failed(self, error: Exception) -> None:
        """Count a call that failed."""
        self.failures.append(f"{type(error).__name__}: {error}"[:200])

    async def run(self, client: Client, kind: str) -> dict[str, Any]:
        """Do the work, and return what it cost."""
        before, started, memory = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), resident()
        await client.work(kind, self.following, self.done, self.failed)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - started
        return {
            "calls": self.calls,
            "failures": len(self.failures),
            "failure": next(iter(self.failures), ""),
            "seconds": seconds,
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "growth_mb": (peak() - memory) / 2**20,
        }


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


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def stay_on(core: int) -> None:
    """Keep all threads of this process on one core, or on none if it is negative."""
    tasks = Path("/proc/self/task")
    for thread in tasks.iterdir() if CORES and tasks.exists() else ():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), CORES if core < 0 else {core})


async def run(job: dict[str, Any]) -> None:
    """Work as standard input orders."""
    client = all_clients()[job["client"]](job["base_url"], job["in_flight"])
    loop = asyncio.get_running_loop()
    await client.open()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        stay_on(order["core"])
        print(json.dumps(await Slice(order, job["pictures"]).run(client, job["kind"])), flush=True)
    os._exit(0)  # as it stands: closing is not measured, and some clients take their time for it


def main() -> None:
    """Read the job, do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    job = json.loads(Path(sys.argv[1]).read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if all_clients()[job["client"]].uvloop:
        from uvloop import new_event_loop  # noqa: PLC0415 - optional

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(job))


if __name__ == "__main__":
    main()
