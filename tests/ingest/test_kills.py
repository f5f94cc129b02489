"""Processes killed at any moment, client and server: the end is that of a run in which nothing happened."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from functools import partial

import anyio
import anyio.to_thread
import pytest
from doubles import CREDENTIALS
from ingestkit import APPID, BUCKET, RECOGNIZER, enrolled, finished, write_people
from ingestprocesses import client, server

from face_async import FaceSession
from face_async.ingest import ingest, verify
from face_async.server import Store, create_app, serve_in_background

pytestmark = pytest.mark.anyio

# Children are forked from a process that has imported everything: a new interpreter for each would take seconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ingestprocesses", "uvicorn", "trio"])


@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request):
    """Return the loop of the process that is not killed; nothing here depends on it."""
    return request.param


def started(target, *args):
    process = processes.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def kept_port(rng):
    """Return a port that nobody takes while its server is away: none of those that the system gives to clients."""
    for port in rng.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Assassin:
    """An application that can kill a client in one of its requests: before it is looked at, or before the answer."""

    def __init__(self, app):
        self.app = app
        self.victim = None
        self.left = 0
        self.moment = ""

    async def __call__(self, scope, receive, send):
        self.left -= 1
        mine = self.left == 0

        async def at_the_answer(message):
            if mine and self.moment == "answer":
                os.kill(self.victim.pid, signal.SIGKILL)
            await send(message)

        if mine and self.moment == "request":
            os.kill(self.victim.pid, signal.SIGKILL)
        await self.app(scope, receive, at_the_answer)

    async def kill(self, victim, number, moment):
        """Kill a process in the middle of its so manieth request, unless it ends before."""
        self.victim, self.left, self.moment = victim, number, moment
        victim.start()
        await anyio.to_thread.run_sync(victim.join)
        assert victim.exitcode in {-signal.SIGKILL, 0}


async def test_a_client_may_be_killed_at_any_moment(rng, full, tmp_path, store):
    """Again and again, in any of its requests; the run after that comes to the exact end."""
    killer = Assassin(create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER))
    async with (
        serve_in_background(killer) as running,
        FaceSession(APPID, BUCKET, CREDENTIALS, base_url=running.base_url) as session,
    ):
        for schedule in range(200 if full else 2):
            folder = tmp_path / str(schedule)
            persons, shots = rng.randrange(1, 6), rng.randrange(1, 25)
            people = write_people(folder / "people", persons, shots, first=10 * schedule)
            journal = folder / "enroll.journal"
            for _ in range(rng.randrange(1, 4)):
                victim = processes.Process(target=client, args=(running.base_url, people, journal), daemon=True)
                await killer.kill(victim, rng.randrange(1, 16), rng.choice(["request", "answer"]))
            summary = await finished(ingest(session, people, journal=journal, group_ids=["staff"]))
            async with verify(session, journal) as differences:
                assert [] == [difference async for difference in differences], f"schedule {schedule}"
            found = {person: len(faces) for person, faces in enrolled(store).items() if (people / person).exists()}
            assert {path.name: min(20, shots) for path in people.iterdir()} == found, f"schedule {schedule}"
            assert (persons * min(20, shots), 0) == (summary.done, summary.ambiguous), f"schedule {schedule}"
            assert summary.codes.keys() <= {"-1309"}, f"schedule {schedule}"


async def test_a_server_may_be_killed_at_any_moment(rng, full, tmp_path):
    """The run waits for its successor, and goes on."""
    port = kept_port(rng)
    for schedule in range(100 if full else 1):
        folder = tmp_path / str(schedule)
        people = write_people(folder / "people", 6, rng.randrange(1, 12))
        total = len(list(people.rglob("*.jpg")))
        db = str(folder / "faces.db")
        running = [started(server, db, port)]
        moments = set(rng.sample(range(1, total + 1), min(total, 2)))

        def kill(summary, moments=moments, running=running, db=db):
            if summary.done and moments and summary.done >= min(moments):
                moments.remove(min(moments))
                running[-1].kill()
                running[-1].join()
                running.append(started(server, db, port))

        base_url = f"http://127.0.0.1:{port}"
        try:
            async with FaceSession(APPID, BUCKET, CREDENTIALS, base_url=base_url) as session:
                make = partial(ingest, session, people, journal=folder / "enroll.journal", group_ids=["staff"])
                summary = await finished(make(max_at_once=3, probe_delay=0.02, on_progress=kill))
        finally:
            running[-1].kill()
            running[-1].join()
        with Store(db) as store:
            assert total == sum(map(len, enrolled(store).values())), f"schedule {schedule}"
        assert (total, 0) == (summary.done, summary.failed), f"schedule {schedule}"
        assert len(running) >= 2


MEMORY = """if True:
    import json, resource, sys
    import anyio, httpx
    from doubles import CREDENTIALS
    from face_async import FaceSession, ServiceLimits
    from face_async.ingest import ingest

    class Service(httpx.AsyncBaseTransport):
        faces = 0
        async def handle_async_request(self, request):
            sent = json.loads(await request.aread())
            data = {"group_ids": [], "face_ids": [], "person_ids": []}
            if request.url.path == "/face/newperson":
                data = {"person_id": sent["person_id"], "suc_group": 1, "suc_face": 0, "group_ids": ["staff"]}
            if request.url.path == "/face/addface":
                count = len(sent["urls"])
                Service.faces += count
                ids = [str(10**18 + Service.faces - place) for place in range(count)]
                data = {"added": count, "face_ids": ids, "ret_codes": [0] * count}
            return httpx.Response(200, json={"code": 0, "message": "OK", "data": data})

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

    async def main(manifest, journal, rows, most):
        samples = []
        def note(summary):
            samples.append(resident())
            if summary.done >= most:
                run.stop()
        limits = ServiceLimits(max_persons_per_group=rows)
        async with FaceSession("123456", "test", CREDENTIALS, transport=Service(), limits=limits) as session:
            run = ingest(session, manifest, journal=journal, group_ids=["staff"], on_progress=note)
            async with run:
                await run.finish()
        half = max(samples[:len(samples) // 2])
        print(json.dumps([run.summary.listed, run.summary.done, half, max(samples), run.summary.seconds]))

    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_manifest_of_any_length_takes_the_same_memory(full, tmp_path):
    """A million rows: at most 150 MiB, and no more in the second half than in the first."""
    rows, most = (1_000_000, 1_000_000) if full else (10_000, 1_000)
    manifest = tmp_path / "people.csv"
    with manifest.open("w") as file:
        file.write("person_id,url\n")
        file.writelines(f"person{row // 20},https://example.com/pictures/{row}.jpg\n" for row in range(rows))
    arguments = [manifest, tmp_path / "enroll.journal", str(rows), str(most)]
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    listed, done, half, peak, seconds = json.loads(ran.stdout)
    print(f"{rows:,} rows: {peak / 2**20:.0f} MiB, {half / 2**20:.0f} in the first half; {done / seconds:,.0f} rows/s")  # noqa: T201
    assert rows == listed
    assert done >= most
    assert peak <= 150 * 2**20
    assert peak - half <= 24 * 2**20
