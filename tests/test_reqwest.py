"""What is the business of http="reqwest" alone; what it shares with httpx is in test_transport and test_leaks."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from doubles import CREDENTIALS, envelope
from faults import HTML, refuse_early
from raw_server import RawServer, answer, http, never_read, silence
from timing import PATIENCE

from face_async import FaceSession, ImageRefusedError, ResponseError, RetryPolicy, TransportError
from face_async.images import PictureReader

pytest.importorskip("pyreqwest")

INFO = envelope({"person_id": "p", "person_name": "Ada", "face_ids": [], "group_ids": [], "tag": ""})
FOUND = envelope({"candidates": []})
JPEG = b"\xff\xd8\xff\xe0"

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"])


def session_at(server, **options):
    options = {"retry": RetryPolicy(base_delay=0), "http": "reqwest", **options}
    return FaceSession("123456", "test", CREDENTIALS, base_url=server.url, **options)


# Choosing it


@pytest.mark.anyio
@on_trio
async def test_on_trio_the_error_says_what_to_use():
    """A RuntimeError names http='httpx' before anything is sent."""
    with RawServer([]) as server:
        async with session_at(server) as session:
            with pytest.raises(RuntimeError, match=r"asyncio only.*http='httpx'"):
                await session.get_info("p")
    assert server.accepted == 0


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    """An ImportError names face_async[speed] when the session is built, not at the first call."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyreqwest"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "pyreqwest", None)
    monkeypatch.delitem(sys.modules, "face_async._transports.reqwest", raising=False)
    with pytest.raises(ImportError, match=re.escape("pip install 'face_async[speed]'")):
        FaceSession("1", "b", CREDENTIALS, http="reqwest")
    assert repr(FaceSession("1", "b", CREDENTIALS))


@pytest.mark.parametrize("http", ["", "requests", None, "HTTPX"])
def test_an_unknown_library_is_refused(http):
    """The error names the two there are."""
    with pytest.raises(ValueError, match="http must be 'httpx' or 'reqwest'"):
        FaceSession("1", "b", CREDENTIALS, http=http)


def test_the_environment_chooses_the_library(monkeypatch):
    """FACE_ASYNC_HTTP names it for from_env, and only for that; an argument goes before it."""
    for name in ("APPID", "BUCKET", "SECRET_ID", "SECRET_KEY"):
        monkeypatch.setenv(f"FACE_ASYNC_{name}", "x")

    def library(session):
        return type(session._runner.transport).__name__

    monkeypatch.delenv("FACE_ASYNC_HTTP", raising=False)
    assert library(FaceSession.from_env()) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "reqwest")
    assert library(FaceSession.from_env()) == "Reqwest"
    assert library(FaceSession.from_env(http="httpx")) == "HttpxLanes"
    assert library(FaceSession("1", "b", CREDENTIALS)) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "")
    assert library(FaceSession.from_env()) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "curl")
    with pytest.raises(ValueError, match="not 'curl'"):
        FaceSession.from_env()


def test_only_an_open_client_delays_the_end_of_the_process():
    """Importing registers nothing to be done at exit; the first call over the library registers it, once."""
    program = """if True:
        import atexit, asyncio, time
        import face_async
        ours = []
        register = atexit.register
        atexit.register = lambda act, *args: ours.append(act) if act is time.sleep else register(act, *args)
        from face_async._transports.reqwest import Reqwest
        print(len(ours))
        async def open_two():
            for _ in range(2):
                Reqwest()._open(1.0)
        asyncio.run(open_two())
        print(len(ours))
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["0", "1"]


# Uploads


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("size", [5, 100_000, 262_144, 262_145, 1_400_000])
@pytest.mark.parametrize("in_file", [True, False], ids=["path", "bytes"])
async def test_a_picture_arrives_byte_for_byte(size, in_file, tmp_path, rng):
    """Small ones as one piece, large ones as a stream: always with a true Content-Length, never chunked."""
    picture = JPEG + rng.randbytes(size)
    path = tmp_path / "picture.jpg"
    path.write_bytes(picture)
    with RawServer([answer(envelope(code=107)), answer(FOUND)]) as server:
        async with session_at(server) as session:
            assert (await session.identify("g", path if in_file else picture)).meta.attempts == 2
    for request in server.requests:
        assert request.body.count(picture) == 1
        assert len(picture) < len(request.body) < len(picture) + 1_000
        assert str(len(request.body)) == request.header("Content-Length")
        assert "transfer-encoding" not in {name.lower() for name, _ in request.headers}
    assert server.requests[0].body == server.requests[1].body


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("number", [1, 3, 6], ids=["first read", "middle read", "last read"])
async def test_a_file_that_changes_while_it_is_sent_never_arrives_whole(number, tmp_path, monkeypatch):
    """The error that reading the body raised comes out as it is, and the request stays incomplete."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(JPEG + bytes(1_400_000))
    original, calls = PictureReader.read, []

    def read(self, size):
        calls.append(size)
        if len(calls) - 1 == number:
            os.truncate(path, 700_000)
        return original(self, size)

    def cut_short(connection):
        connection.read_request()

    monkeypatch.setattr(PictureReader, "read", read)
    with RawServer([cut_short]) as server:
        async with session_at(server) as session:
            with pytest.raises(ImageRefusedError, match="changed while it was being sent") as caught:
                await session.add_face("p", [path])
    assert server.requests == []
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def open_copies_of(path):
    return [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(path)]


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
async def test_a_cancelled_upload_closes_its_file(native, tmp_path):
    """Whoever cancels, the file is closed by the time that the call has ended."""
    path = (tmp_path / "picture.jpg").resolve()
    path.write_bytes(JPEG + bytes(1_400_000))
    with RawServer([never_read()], narrow=True) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            call = asyncio.ensure_future(session.identify("g", path)) if native else None
            async with anyio.create_task_group() as tasks:
                if not native:
                    tasks.start_soon(session.identify, "g", path)
                with anyio.fail_after(PATIENCE):
                    while not open_copies_of(path):  # noqa: ASYNC110 - a worker thread opens it
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            if call:
                call.cancel()
                await asyncio.wait([call])
                assert call.cancelled()
            with anyio.move_on_after(PATIENCE):
                while open_copies_of(path):  # noqa: ASYNC110 - a worker thread may still be reading
                    await anyio.sleep(0.001)
            assert open_copies_of(path) == []


# Cancelling


@pytest.mark.anyio
@on_asyncio
@pytest.mark.parametrize("patience", [0.0, 0.001, 0.05])
async def test_a_scope_of_anyio_knows_its_own_cancellation(patience):
    """Nothing leaves a scope that has cancelled a call, though the library raises a CancelledError of its own."""
    with RawServer(itertools.repeat(silence())) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            with anyio.move_on_after(patience) as scope:
                await session.get_info("p")
            assert scope.cancelled_caught
            async with anyio.create_task_group() as tasks:
                tasks.cancel_scope.cancel()
                await session.get_info("p")
            assert asyncio.current_task().cancelling() == 0
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@on_asyncio
async def test_closing_the_session_before_a_request_goes_over_leaves_no_doubt():
    """Requests wait one turn of the event loop for each other; one that a closing session stops there was not sent."""
    caught = []

    async def call(session):
        with pytest.raises(TransportError, match="closed") as error:
            await session.set_info("p", tag="t")
        caught.append(error.value.maybe_applied)

    with RawServer([]) as server:
        async with session_at(server) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(call, session)
            await anyio.lowlevel.checkpoint()
            await session.aclose()
    assert caught == [False]
    assert server.accepted == 0


# The end of the process

PROGRAM = """
import asyncio, os, sys
from face_async import Credentials, FaceSession

session = FaceSession("1", "b", Credentials("i", "k"), base_url=sys.argv[1], http="reqwest")

async def well_behaved():
    async with session:
        await asyncio.gather(*[session.get_info("p") for _ in range(8)])

async def never_closed():
    await asyncio.gather(*[session.get_info("p") for _ in range(8)])

async def left_in_the_middle():
    tasks = [asyncio.create_task(session.set_info("p", tag="t")) for _ in range(8)]
    await asyncio.sleep(0.1)

async def cancelled_upload():
    try:
        async with asyncio.timeout(0.1):
            await session.identify("g", sys.argv[3])
    except TimeoutError:
        pass

asyncio.run(globals()[sys.argv[2]]())
print("done")
"""


@pytest.mark.parametrize("way", ["well_behaved", "never_closed", "left_in_the_middle", "cancelled_upload"])
def test_a_process_that_used_it_ends_well(way, tmp_path, full):
    """Neither an abort nor a word on stderr, however the program leaves its session."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(JPEG + bytes(1_400_000))
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    over = threading.Event()

    def behave(connection):
        head = connection.read_head()
        if b"/face/getinfo " in head:
            connection.read(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
            answer_at_once(connection)
        else:
            over.wait(PATIENCE)

    def answer_at_once(connection):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(INFO) + INFO)

    def run(_):
        command = [sys.executable, str(script), server.url, way, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment)

    with RawServer(iter([behave] * 1_000)) as server:
        with ThreadPoolExecutor(2) as pool:
            ran = list(pool.map(run, range(50 if full else 3)))
        over.set()
    assert [(0, "done\n", "")] * len(ran) == [(one.returncode, one.stdout, one.stderr) for one in ran]


def test_an_upload_that_is_answered_early_leaves_nothing_to_warn_of():
    """When the answer comes and the loop ends, the library drops chunks that it has asked for; Python does not mind."""

    async def upload(server):
        async with session_at(server) as session:
            with pytest.raises(ResponseError):
                await session.identify("g", JPEG + bytes(1_400_000))

    early = itertools.repeat(refuse_early(http(HTML, 413)))
    with warnings.catch_warnings(record=True) as warned, RawServer(early, narrow=True) as server:
        warnings.simplefilter("always")
        for _ in range(10):
            asyncio.run(upload(server))
        gc.collect()
    assert [] == [str(warning.message) for warning in warned]
