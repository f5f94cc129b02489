"""What this package costs by itself, over a transport that does nothing (P9, P10): a line of JSON for each order."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from clients import APPID, BUCKET, GROUP, PICTURE_URL, SECRET_ID, SECRET_KEY
from measure import stay_on
from report import percentile, tenth

from face_async import Credentials, FaceSession, RetryPolicy, TransportError
from face_async._transports.base import Answer, RequestBody, Timeouts, Transport
from face_async.ingest import ingest
from face_async.ingest.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CALLS, GROUPS, SESSIONS, PERSONS, PICTURE_BYTES = 500, 300, 20, 300, 60_000
MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux has files in memory, and syncing them costs nothing
PAGE_BYTES, SYNCS = 4_096, 100
SYNCS_A_COMMIT = 4
"""What SQLite needs so that a commit outlasts a loss of power, as ``strace -f -y -e fdatasync`` shows: of the old pages
in its rollback journal, of their number, of the new pages in the database, and of the journal's end."""
DATA = {
    "identify": '{"session_id":"s","candidates":[{"person_id":"p","face_id":"f","confidence":99.5,"tag":""}]}',
    "newperson": '{"person_id":"p","suc_group":1,"suc_face":1,"face_id":"f%d","group_ids":["staff"]}',
    "getgroupids": '{"group_ids":["staff"]}',
    "getpersonids": '{"person_ids":[]}',
}


class NoNetwork(Transport):
    """Answers every request at once."""

    connections = 0
    _sent = 0

    async def send(self, url: str, headers: Mapping[str, str], body: RequestBody, timeouts: Timeouts) -> Answer:  # noqa: ARG002
        """Take the body, and answer."""
        if body.in_one_go() is None:
            async for _ in body:
                pass
        self._sent += 1
        data = DATA[url.rpartition("/")[2]].replace("%d", str(self._sent))
        return Answer(200, {}, f'{{"code":0,"message":"OK","data":{data}}}'.encode())

    async def aclose(self) -> None:
        """Do nothing."""


def session_on(base_url: str) -> FaceSession:
    """Return a session on its own connections."""
    credentials, once = Credentials(SECRET_ID, SECRET_KEY), RetryPolicy(max_attempts=1)
    return FaceSession(APPID, BUCKET, credentials, base_url=base_url, http="asyncio", retry=once)


def session_on_nothing() -> FaceSession:
    """Return a session without a network."""
    session = session_on("http://127.0.0.1")
    session._runner.transport = NoNetwork()  # noqa: SLF001 - a transport below httpx is no option of a session
    return session


async def plain_calls() -> None:
    """Make calls one after another."""
    session = session_on_nothing()
    for _ in range(CALLS):
        await session.identify(GROUP, PICTURE_URL)


async def bulk_items() -> None:
    """Make the same calls by the bulk verb."""
    async with session_on_nothing().identify_many([PICTURE_URL] * CALLS, GROUP) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()


async def groups() -> None:
    """Ask many groups for the same picture."""
    await session_on_nothing().identify_in_groups(PICTURE_URL, [f"group{index}" for index in range(GROUPS)])


async def sessions() -> None:
    """Open sessions that speak TLS, each for one call, which is refused at once."""
    for _ in range(SESSIONS):
        async with session_on("https://127.0.0.1:9") as session:
            try:
                await session.get_group_ids()
            except TransportError:
                continue
            raise AssertionError("somebody listens on the port for discarding")


async def cpu_of(slices: int, *acts: tuple[Callable[[], Awaitable[object]], int]) -> list[float]:
    """Return the CPU seconds of one of so many that each act makes: the 10th percentile of slices, taken in turns."""
    found: list[list[float]] = [[] for _ in acts]
    for _ in range(slices):
        for (act, count), seconds in zip(acts, found, strict=True):
            started = time.process_time()
            await act()
            seconds.append((time.process_time() - started) / count)
    return [tenth(seconds) for seconds in found]


async def enrolled_a_second(people: Path, folder: Path, slices: int) -> tuple[float, float]:
    """Return how many persons are enrolled in a second, each with one picture, and how many of them share a commit.

    Args:
        people: Their pictures.
        folder: Where the journals are, one of its own for each run.
        slices: How many runs there are.
    """
    found: list[float] = []
    commits = 0
    transact = Journal._transact  # noqa: SLF001 - a journal does not tell how often it commits

    def counted(journal: Journal, jobs: Any) -> None:
        nonlocal commits
        before = journal._db.total_changes if journal._db else 0  # noqa: SLF001 - as above
        transact(journal, jobs)
        commits += journal._db is not None and journal._db.total_changes > before  # noqa: SLF001 - as above

    with mock.patch.object(Journal, "_transact", counted):
        for number in range(slices):
            started = time.perf_counter()
            run = ingest(session_on_nothing(), people, journal=folder / f"{number}.journal", group_ids=[GROUP])
            async with run:
                summary = await run.finish()
            assert summary.done == PERSONS  # noqa: S101 - else it is no measure of anything
            found.append((time.perf_counter() - started) / PERSONS)
            Path(run.journal).unlink()  # noqa: ASYNC240 - nobody else waits
    return 1 / tenth(found), slices * PERSONS / commits


def syncs_a_second(folder: Path) -> float:
    """Return how often in a second a written page is brought to the disk, one after the other."""
    with (folder / "synced").open("wb", buffering=0) as file:
        file.write(bytes(256 * PAGE_BYTES))
        os.fsync(file.fileno())
        seconds: list[float] = []
        for place in range(SYNCS):
            file.seek(place * PAGE_BYTES)
            file.write(os.urandom(PAGE_BYTES))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return 1 / percentile(seconds, 50)


async def enrolling(people: Path, slices: int) -> dict[str, float]:
    """Return what P10 asks for, and what the disk has to do with it."""
    rate, a_commit = await enrolled_a_second(people, people.parent, slices)
    found = {"enrolled_a_second": rate, "persons_a_commit": a_commit}
    if hasattr(os, "fdatasync"):
        syncs = syncs_a_second(people.parent)
        found |= {"syncs_a_second": syncs, "disk_allows": syncs / SYNCS_A_COMMIT * a_commit}
    if MEMORY.is_dir():  # noqa: ASYNC240 - nobody else waits
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            found["enrolled_in_memory"], _ = await enrolled_a_second(people, Path(folder), slices)
    return found


async def measure(people: Path, slices: int) -> dict[str, float]:
    """Return what P9 and P10 ask for."""
    await sessions()  # certificates are loaded once a process
    plain, item, group, session = await cpu_of(
        slices, (plain_calls, CALLS), (bulk_items, CALLS), (groups, GROUPS), (sessions, SESSIONS)
    )
    return {
        "bulk_item_us": (item - plain) * 1e6,
        "group_us": group * 1e6,
        "session_ms": session * 1e3,
        **await enrolling(people, slices),
    }


def main() -> None:
    """Measure as often as standard input says, on the core that it says."""
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        for number in range(PERSONS):
            (people / str(number)).mkdir(parents=True)
            content = b"\xff\xd8\xff\xe0%d" % number + bytes(PICTURE_BYTES)
            (people / str(number) / "1.jpg").write_bytes(content)
        for line in sys.stdin:
            order = json.loads(line)
            stay_on(order["core"])
            print(json.dumps(asyncio.run(measure(people, order["slices"]))), flush=True)


if __name__ == "__main__":
    main()
