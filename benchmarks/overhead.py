"""What this package costs by itself, over a transport that does nothing (P9, P10): a line of JSON for each order."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clients import APPID, BUCKET, GROUP, PICTURE_URL, SECRET_ID, SECRET_KEY
from measure import stay_on
from report import tenth

from face_async import Credentials, FaceSession, RetryPolicy, TransportError
from face_async._transports.base import Answer, RequestBody, Timeouts, Transport
from face_async.ingest import ingest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CALLS, GROUPS, SESSIONS, PERSONS, PICTURE_BYTES = 500, 300, 20, 300, 60_000
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


async def enrolled_a_second(people: Path, slices: int) -> float:
    """Return how many persons are enrolled in a second, each with one picture and a journal of its own for each run."""
    found: list[float] = []
    for number in range(slices):
        started = time.perf_counter()
        run = ingest(session_on_nothing(), people, journal=people.parent / f"{number}.journal", group_ids=[GROUP])
        async with run:
            summary = await run.finish()
        assert summary.done == PERSONS  # noqa: S101 - else it is no measure of anything
        found.append((time.perf_counter() - started) / PERSONS)
        Path(run.journal).unlink()  # noqa: ASYNC240 - nobody else waits
    return 1 / tenth(found)


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
        "enrolled_a_second": await enrolled_a_second(people, slices),
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
