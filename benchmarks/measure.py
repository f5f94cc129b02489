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

from calls import Calls
from clients import PICTURE_URL, Client
from peers import all_clients
from processes import peak, resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_FAILURES = 50


class Slice:
    """One slice of work, as long as its order says, and what it cost."""

    def __init__(self, order: dict[str, Any], items: Iterator[str]) -> None:
        self.times: list[float] = []
        self._least = order["least"]
        self.failures: list[str] = []
        self._until = time.perf_counter() + order["seconds"] if order["seconds"] else float("inf")
        self._items = itertools.islice(items, order["calls"] or sys.maxsize)

    def following(self) -> str | None:
        """Return what to send next, None when it is enough."""
        over = self._least <= 0 and time.perf_counter() >= self._until
        if over or len(self.failures) >= MAX_FAILURES:
            return None
        self._least -= 1
        return next(self._items, None)

    def done(self, seconds: float) -> None:
        """Count a call."""
        self.times.append(seconds)

    def failed(self, error: Exception) -> None:
        """Count a call that failed."""
        self.failures.append(f"{type(error).__name__}: {error}"[:200])

    async def run(self, client: Client, kind: str) -> dict[str, Any]:
        """Do the work, and return what it cost."""
        before, started, memory = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), resident(os.getpid())
        await client.work(kind, self.following, self.done, self.failed)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - started
        return {
            "calls": len(self.times),
            "failures": len(self.failures),
            "failure": next(iter(self.failures), ""),
            "seconds": seconds,
            "times": self.times if client.tells_times else [],
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "growth_mb": (peak(os.getpid()) - memory) / 2**20,
        }


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def stay_on(core: int) -> None:
    """Keep all threads of this process on one core, or on none if it is negative."""
    tasks = Path("/proc/self/task")
    for thread in tasks.iterdir() if CORES and tasks.exists() else ():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), CORES if core < 0 else {core})


def clients() -> dict[str, type[Client]]:
    """Return the clients that are compared with each other, and the one that compares servers."""
    return {**all_clients(), Calls.name: Calls}


async def run(job: dict[str, Any]) -> None:
    """Work as standard input orders."""
    client = clients()[job["client"]](job["base_url"], job["in_flight"])
    items = itertools.cycle(job["pictures"] or [PICTURE_URL])
    loop = asyncio.get_running_loop()
    await client.open()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        stay_on(order["core"])
        print(json.dumps(await Slice(order, items).run(client, job["kind"])), flush=True)
    os._exit(0)  # as it stands: closing is not measured, and some clients take their time for it


def main() -> None:
    """Read the job, do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    job = json.loads(Path(sys.argv[1]).read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if clients()[job["client"]].uvloop:
        from uvloop import new_event_loop  # noqa: PLC0415 - optional

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(job))


if __name__ == "__main__":
    main()
