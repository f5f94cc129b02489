"""Several processes on one port and one database: exact, killed and replaced, stopped."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from ingestkit import finished
from PIL import Image
from serverkit import APPID, BUCKET, CREDENTIALS, Caller, authorization
from timing import PATIENCE

from face_async import FaceSession
from face_async.ingest import ingest, verify
from face_async.limits import ServiceLimits
from face_async.server import (
    AccountsFile,
    ConnectionLimits,
    ServerSettings,
    create_app_from_env,
    processes,
    serve_workers,
)

ACCOUNT = {
    "FACE_ASYNC_APPID": APPID,
    "FACE_ASYNC_BUCKET": BUCKET,
    "FACE_ASYNC_SECRET_ID": CREDENTIALS.secret_id,
    "FACE_ASYNC_SECRET_KEY": CREDENTIALS.secret_key,
}


@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request):
    """Return the loop of the clients; the servers choose their own."""
    return request.param


PROGRAM = "from face_async.cli import main; main()"

# One of several processes: effects of 16 threads that together would pass every limit.
EFFECTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from face_async.limits import ServiceLimits
from face_async.server import open_storage
from face_async.server.refusal import Refusal
from PIL import Image
from serverkit import APPID, ToyRecognizer, picture
toy, limits = ToyRecognizer(), ServiceLimits(max_groups_per_appid=5, max_persons_per_group=10, max_faces_per_person=20)
mine, calls = int(sys.argv[2]), 64
with open_storage(sys.argv[1]) as store, ThreadPoolExecutor(16) as threads:
    def add_face(number):
        face = toy.find_face(picture(100 * mine + number))
        (addition,) = store.add_faces(APPID, "ada", [face], tag="", recognizer=toy, max_faces=20)
        return addition.code
    def add_person(number, *groups):
        person_id = f"{mine}-{number}-{groups[0]}"
        store.add_person(APPID, person_id, groups, name="", tag="", face=None, recognizer=toy, limits=limits)
    def codes(effect, *numbers):
        def code(number):
            try:
                return effect(number) or 0
            except Refusal as refusal:
                return int(refusal.code)
        return list(threads.map(code, numbers))
    added = codes(add_face, *range(calls))
    joined = codes(lambda number: add_person(number, "staff", "guests"), *range(calls))
    made = codes(lambda number: add_person(number, f"new-{mine}-{number}"), *range(calls))
    print(added.count(0), joined.count(0), made.count(0), sorted({*added, *joined, *made}))
"""


def test_limits_are_exact_for_four_processes_with_64_calls_each(database, open_one):
    """Faces of a person, persons of a group and groups of an appid: as many as there may be, and none more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open_one() as store:
        store.add_person(APPID, "ada", ["staff"], name="", tag="", face=None, recognizer=None, limits=ServiceLimits())
        running = [
            subprocess.Popen(
                [sys.executable, "-c", EFFECTS, database, str(number)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        said = [process.communicate(timeout=PATIENCE)[0].split(maxsplit=3) for process in running]
        assert [sum(int(one[place]) for one in said) for place in range(3)] == [20, 9, 3]
        assert {one[3].strip() for one in said} <= {"[-1311, -1310, -1309, 0]", "[-1311, -1310, -1309]"}
        assert len(store.face_ids(APPID, "ada")) == 20
        assert len(store.person_ids(APPID, "staff")) == 10
        assert len(store.person_ids(APPID, "guests")) == 9
        assert len(store.group_ids(APPID)) == 5


class Server:
    """``face-async serve`` in several processes."""

    def __init__(self, database, workers, *options, port=0):
        command = ["serve", "--db", database, "--workers", str(workers), "--recognizer", "fingerprint"]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *command, "--port", str(port), *options],
            env={**os.environ, **ACCOUNT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.base_url = line.strip().rpartition("=")[2]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def workers(self):
        """Return the processes that serve."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                with contextlib.suppress(FileNotFoundError):
                    if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
        return found

    def stop(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.anyio
async def test_a_signature_is_good_once_and_a_write_is_read_at_once_at_every_process(database):
    """Each request on a connection of its own, so that all processes get some."""
    with Server(database, 2, "--replay-protection") as server:

        async def post(name, value, **fields):
            async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client:
                caller = Caller(client)
                caller.sign = lambda: value
                return await caller.json(name, **fields)

        same, codes = authorization(), []
        async with anyio.create_task_group() as tasks:

            async def again():
                codes.append((await post("getgroupids", same))[0])

            for _ in range(40):
                tasks.start_soon(again)
        assert sorted(codes) == [0] + [13] * 39
        for number in range(30):
            made = await post("newperson", authorization(), person_id=f"p{number}", group_ids=["staff"])
            assert made[0] == 0
            assert (await post("getinfo", authorization(), person_id=f"p{number}"))[0] == 0


def portraits(folder, count):
    """Write pictures of so many persons, two of each."""
    for number in range(count):
        person = folder / f"person{number}"
        person.mkdir(parents=True)
        for shot in range(2):
            (person / f"{shot}.jpg").write_bytes(noise(2 * number + shot))
    return folder


def noise(seed):
    """Return a picture that the fingerprint recognizer takes for nobody else's."""
    rng = random.Random(seed)
    small = Image.frombytes("L", (8, 8), rng.randbytes(64))
    content = io.BytesIO()
    small.resize((120, 120), Image.Resampling.BICUBIC).convert("RGB").save(content, "JPEG")
    return content.getvalue()


@pytest.mark.anyio
async def test_workers_are_killed_while_people_are_enrolled(database, tmp_path, rng, full):
    """Another one takes each one's place, and in the end every picture is there once."""
    count = 200 if full else 12
    people = portraits(tmp_path / "people", count)
    journal = tmp_path / "enroll.journal"
    with Server(database, 2) as server:
        first = set(server.workers())
        moments = sorted(rng.sample(range(1, 2 * count), 3))

        def kill(summary):
            if moments and summary.done >= moments[0]:
                moments.pop(0)
                if workers := server.workers():
                    os.kill(rng.choice(workers), signal.SIGKILL)

        async with FaceSession(APPID, BUCKET, CREDENTIALS, base_url=server.base_url) as session:
            run = ingest(session, people, journal=journal, group_ids=["staff"], probe_delay=0.05, on_progress=kill)
            summary = await finished(run)
            assert (summary.done, summary.failed, summary.ambiguous) == (2 * count, 0, 0)
            assert not moments
            async with verify(session, journal) as differences:
                assert [] == [difference async for difference in differences]
            for number in range(count):
                assert len(await session.get_face_ids(f"person{number}")) == 2
        await anyio.to_thread.run_sync(wait_until, lambda: len(set(server.workers()) - first) >= 1)
        status, _, log = server.stop(signal.SIGTERM)
        assert status == 0
        assert log.count("ended: by exit code -9; starting another") >= 1


def test_the_page_s_link_is_good_once_and_its_session_at_every_process(tmp_path):
    """Each request is on a connection of its own, so that all processes get some, also one that was started later."""
    with Server(str(tmp_path / "faces.db"), 2, "--ui") as server:

        def told_link():
            return next(line.split()[-1] for line in server.process.stderr if "/ui/?token=" in line)

        def statuses(url, count=16, **options):
            with ThreadPoolExecutor(count) as threads:
                answers = list(threads.map(lambda _: httpx.get(url, trust_env=False, **options), range(count)))
            return sorted(answer.status_code for answer in answers)

        first, page = told_link(), f"{server.base_url}/ui/identify"
        assert statuses(first) == [200] + [401] * 15
        cookies = httpx.get(told_link(), trust_env=False).cookies
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2)
        assert statuses(page, cookies=cookies) == [200] * 16
        assert statuses(page) == [401] * 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_processes_stop_together(tmp_path, number):
    """Quietly, with the database closed."""
    with Server(str(tmp_path / "faces.db"), 2) as server:
        workers = server.workers()
        assert len(workers) == 2
        status, _, log = server.stop(number)
        assert status == 0
        assert "Traceback" not in log, log
        assert log.endswith("face-async: stopped\n")
        assert all(is_gone(worker) for worker in workers)
    assert [path.name for path in tmp_path.iterdir()] == ["faces.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_are_still_starting_stop_as_quietly(tmp_path, number):
    """As when Ctrl-C, which all of them get, comes right after the command."""
    server = Server(str(tmp_path / "faces.db"), 2)
    try:
        wait_until(lambda: len(server.workers()) == 2)
        for worker in server.workers():
            os.kill(worker, number)
        status, _, log = server.stop(number)
    finally:
        server.__exit__()
    assert status == 0
    assert "Traceback" not in log, log
    assert log.endswith("face-async: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.db"]


def test_a_log_that_processes_have_left_is_emptied(tmp_path):
    """As by two that close the database at the same moment, or one that was killed; a missing file is not made."""
    path = tmp_path / "faces.db"
    ServerSettings(str(path), ()).empty_log()
    assert not path.exists()
    program = f"import os; from face_async.server import Store; store = Store({str(path)!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
    assert Path(f"{path}-wal").exists()
    ServerSettings(str(path), ()).empty_log()
    assert [path] == list(tmp_path.iterdir())


def test_a_signal_that_a_library_s_thread_takes_waits_until_a_worker_is_started():
    """Otherwise the process that is being started would get half of what it is given, and end with a traceback."""
    ended, steps = threading.Event(), []
    thread = threading.Thread(target=ended.wait)  # in which no signal is blocked
    thread.start()

    def start():
        with processes._undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            steps.append("started")
        steps.append("went on")

    try:
        with processes._interruptible(), pytest.raises(KeyboardInterrupt):
            start()
    finally:
        ended.set()
        thread.join()
    assert steps == ["started"]


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    """And their port is free."""
    with Server(str(tmp_path / "faces.db"), 2) as server:
        workers = server.workers()
        server.process.kill()
        wait_until(lambda: all(map(is_gone, workers)))
        with socket.create_server(("127.0.0.1", int(server.base_url.rpartition(":")[2]))):
            pass


def test_workers_that_cannot_serve_say_why(tmp_path):
    """In one line, and nothing goes on: a port in use, a database that cannot be opened."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(str(tmp_path / "faces.db"), 2, port=taken.getsockname()[1])
        out, err = server.process.communicate(timeout=PATIENCE)
        assert (server.process.returncode, out) == (2, "")
        assert "in use" in err
    server = Server(str(tmp_path / "none" / "faces.db"), 2)
    out, err = server.process.communicate(timeout=PATIENCE)
    assert (server.process.returncode, out, len(err.splitlines())) == (2, "", 1)
    assert "No such file" in err


@pytest.mark.anyio
async def test_an_application_is_made_from_the_environment(database, monkeypatch):
    """For any ASGI server; what it makes it closes."""
    for name, value in {**ACCOUNT, "FACE_ASYNC_DB": database, "FACE_ASYNC_RECOGNIZER": "fingerprint"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FACE_ASYNC_REPLAY_PROTECTION", "1")
    app = create_app_from_env()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        caller = Caller(client)
        await caller.new_person("ada")
        value = authorization()
        caller.sign = lambda: value
        assert [(await caller.json("getinfo", person_id="ada"))[0] for _ in range(2)] == [0, 13]
        caller.sign = lambda: authorization("777")
        assert (await caller.json("getgroupids"))[0] == 10


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FACE_ASYNC_SECRET_KEY", "", "set the environment variables FACE_ASYNC_SECRET_KEY"),
        ("FACE_ASYNC_STRICT", "perhaps", "FACE_ASYNC_STRICT must be 1 or 0, not 'perhaps'"),
        ("FACE_ASYNC_GALLERY_MEMORY", "1G", "FACE_ASYNC_GALLERY_MEMORY must be a number of megabytes, not '1g'"),
        ("FACE_ASYNC_RECOGNIZER", "eyes", "eyes"),
    ],
)
def test_an_environment_that_says_nothing_sensible_is_refused(tmp_path, monkeypatch, name, value, reason):
    """By the name of the variable, and without a database left open."""
    for each, good in {**ACCOUNT, "FACE_ASYNC_DB": str(tmp_path / "faces.db")}.items():
        monkeypatch.setenv(each, good)
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"(?i){reason}"):
        create_app_from_env()


@pytest.mark.parametrize("content", ["{broken", None], ids=repr)
def test_a_worker_does_not_start_with_accounts_that_were_read_before_it(tmp_path, monkeypatch, content):
    """A key that was taken out since would be good again: it fails, which is told, and is started anew."""
    path = tmp_path / "accounts.json"
    path.touch(0o600)
    account = {"appid": APPID, "buckets": [BUCKET], "secret_id": "AKIDold", "secret_key": "oldKey"}
    path.write_text(json.dumps([account]))
    settings = ServerSettings(str(tmp_path / "faces.db"), AccountsFile(path), recognizer="fingerprint")
    path.unlink() if content is None else path.write_text(content)
    monkeypatch.setattr(processes, "serve_on", lambda *_: pytest.fail("it serves"))
    ready, theirs = multiprocessing.Pipe(duplex=False)
    served = processes._Served(settings, ConnectionLimits(), None, None, None)
    with socket.create_server(("127.0.0.1", 0)) as listener, ready, theirs:
        with processes._undisturbed(), pytest.raises(SystemExit):
            processes._work(served, listener, theirs)
        assert str(path) in str(ready.recv())


def test_several_processes_share_no_database_in_memory():
    """Each would have its own, and a client would meet one or another."""
    with pytest.raises(ValueError, match="name a file"):
        serve_workers(ServerSettings(":memory:", ()), workers=2, port=0)
