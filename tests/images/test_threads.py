"""Work in threads never waits for threads that its own callers may hold, as sync handlers of a web back end do."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from timing import PATIENCE

import face_async
from face_async.bulk.fitting import fitted
from face_async.ingest import ingest
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server import serve_in_background
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

ADA = draw_portrait(0)
LARGE = ADA + bytes(600_000)  # read in several pieces while it is sent


async def from_all_threads(verb, *args, threads=None):
    """Call a verb from as many sync handlers as anyio has threads, each of which waits for it; return what they got.
    Of costly verbs less is enough: anyio has only so many threads then."""
    results = []

    async def patiently():
        with anyio.fail_after(PATIENCE):
            return await verb(*args)

    def handler():
        results.append(anyio.from_thread.run(patiently))

    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = threads = threads or int(limiter.total_tokens)
    async with anyio.create_task_group() as handlers:
        for _ in range(threads):
            handlers.start_soon(anyio.to_thread.run_sync, handler)
    assert len(results) == threads
    return results


@pytest.fixture
def files(tmp_path):
    """A small picture, which is read at once, and a large one."""
    for name, content in {"small.jpg": ADA, "large.jpg": LARGE}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture(params=["in process", "on a socket", "asyncio"])
async def session(request, anyio_backend):
    """A session with a person, on every kind of transport."""
    http = "asyncio" if request.param == "asyncio" and anyio_backend == "asyncio" else "httpx"
    with FaceServer() as server:
        async with serve_in_background(server.app) as running:
            where = {} if request.param == "in process" else {"base_url": running.base_url, "http": http}
            async with server.session(deadline=PATIENCE / 4, **where) as session:
                await session.new_person("ada", ["staff"], ADA)
                yield session


@pytest.mark.parametrize("name", ["small.jpg", "large.jpg"])
async def test_handlers_in_all_threads_identify_files(session, files, name):
    """Files are looked at and read in threads of the session's own."""
    found = await from_all_threads(session.identify, "staff", files / name)
    assert {result.best.person_id for result in found} == {"ada"}


async def test_handlers_in_all_threads_identify_file_objects(session):
    """So are file objects."""

    async def identify():
        return await session.identify("staff", io.BytesIO(ADA))

    assert {result.best.person_id for result in await from_all_threads(identify)} == {"ada"}


async def test_handlers_in_all_threads_use_a_local_session():
    """Its server looks at pictures and at its database in threads of its own."""
    async with local_session(recognizer="fingerprint") as session:
        await session.new_person("ada", ["staff"], ADA)
        found = await from_all_threads(session.identify, "staff", ADA)
    assert {result.best.person_id for result in found} == {"ada"}


async def test_handlers_in_all_threads_run_bulk_verbs(session, files):
    """Also where pictures are searched in several groups, or are made to fit."""

    async def many():
        async with session.add_faces([("ada", files / "small.jpg")]) as outcomes:
            (outcome,) = await outcomes.collect()
        found = await session.identify_in_groups(files / "small.jpg", ["staff"])
        await fitted(files / "small.jpg")
        return outcome.error.code, found.best.person_id

    assert set(await from_all_threads(many)) == {(-1312, "ada")}


async def test_handlers_in_all_threads_enroll_folders(session, files, full):
    """Journals have threads of their own."""
    (files / "people" / "ada").mkdir(parents=True)
    (files / "people" / "ada" / "1.jpg").write_bytes(draw_portrait(0, shot=1))
    numbers = iter(range(1_000))

    async def enroll():
        journal = files / f"{next(numbers)}.journal"
        async with ingest(session, files / "people", journal=journal, group_ids=["staff"]) as run:
            return (await run.finish()).done

    assert sum(await from_all_threads(enroll, threads=None if full else 10)) >= 1


@pytest.fixture(params=["httpx", "asyncio"])
async def unconnected(request, anyio_backend):
    """A session that has to look up a name first."""
    with FaceServer() as server:
        async with serve_in_background(server.app) as running:
            url = running.base_url.replace("127.0.0.1", "localhost")
            http = request.param if anyio_backend == "asyncio" else "httpx"
            async with server.session(deadline=PATIENCE / 4, base_url=url, http=http) as session:
                yield session


async def test_handlers_in_all_threads_call_a_service_by_name(unconnected):
    """Names are looked up in threads of the session's own: trio's own look-up takes those that the handlers hold."""
    assert [[]] * 40 == await from_all_threads(unconnected.get_group_ids)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_handlers_in_all_threads_of_asyncio_call_a_service_by_name(unconnected):
    """As ``asyncio.to_thread`` starts them; asyncio's own look-up takes the same threads."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))

    def handler():
        return asyncio.run_coroutine_threadsafe(unconnected.get_group_ids(), loop).result(PATIENCE)

    assert [[], []] == await asyncio.gather(asyncio.to_thread(handler), asyncio.to_thread(handler))


def test_nothing_runs_in_threads_that_anybody_may_hold():
    """All work in threads goes through limiters of its own; only what runs its own event loop has all to itself."""
    package = Path(face_async.__file__).parent
    library = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in {"cli", "fleet"}]
    calls = [line.strip() for path in library for line in path.read_text("utf-8").splitlines()]
    assert [] == [
        line for line in calls if "to_thread.run_sync(" in line and "limiter=" not in line and "``" not in line
    ]
    others = ("asyncio.to_thread(", "run_in_executor(", "anyio.getaddrinfo(")
    assert [] == [line for line in calls if any(other in line for other in others)]


async def test_handlers_in_all_threads_start_servers():
    """A server that is started, and stopped, does not wait for such threads either."""

    async def start():
        with FaceServer() as server:
            async with serve_in_background(server.app) as running:
                return running.port

    await from_all_threads(start)
