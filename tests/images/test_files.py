"""Pictures in files: read lazily, closed whatever happens, and unchanged or not sent."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from albums import JPEG
from doubles import CREDENTIALS, Network, envelope, session_on
from picturekit import FOUND, LARGE_SIZE, contents, session_at
from raw_server import RawServer, answer, close_after_request, never_read, reset_mid_body
from timing import PATIENCE

from face_async import FaceSession, ImageRefusedError, RetryPolicy, TransportError
from face_async._call.multipart import CHUNK_BYTES
from face_async.images import PictureReader

pytestmark = pytest.mark.anyio

# Files that change


def replace(path):
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


CHANGES = {
    "grows": lambda path: os.truncate(path, path.stat().st_size + 4),
    "shrinks": lambda path: os.truncate(path, path.stat().st_size // 2),
    "shrinks to nothing": lambda path: os.truncate(path, 0),
    "is rewritten": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "is replaced": replace,
    "vanishes": Path.unlink,
}


@contextmanager
def before_read(monkeypatch, number, act):
    """Act once, before the read of this number, from 0; the first read looks, the others send."""
    original, calls = PictureReader.read, []

    def read(self, size):
        calls.append(size)
        if len(calls) - 1 == number:
            act()
        return original(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(PictureReader, "read", read)
        yield


@pytest.mark.parametrize("change", ["grows", "shrinks", "shrinks to nothing", "is rewritten"])
@pytest.mark.parametrize("number", [1, 3, 6], ids=["first read", "middle read", "last read"])
async def test_a_file_that_changes_while_it_is_sent_never_arrives_whole(change, number, path, monkeypatch):
    """Neither the old nor the new content nor a mixture is sent: the request stays incomplete, and says why."""
    # A request whose body cannot be begun may not be begun either.
    with before_read(monkeypatch, number, lambda: CHANGES[change](path)), RawServer(iter([cut_short])) as server:
        async with session_at(server) as session:
            with pytest.raises(ImageRefusedError, match="changed while it was being sent"):
                await session.add_face("p", [path])
            assert session.stats.connections == 0
    assert server.requests == []


def cut_short(connection):
    """Read as much as the client sends, and expect that it is not a whole request."""
    connection.read_request()
    connection.send(b"")


@pytest.mark.parametrize("change", CHANGES)
async def test_a_file_that_changes_before_it_is_sent_again_never_arrives_whole(change, path, photo):
    """The second attempt sends the same picture as the first or none."""

    def lose_answer(connection):
        connection.read_request()
        CHANGES[change](path)
        connection.close()

    with RawServer(iter([lose_answer, cut_short])) as server:
        async with session_at(server) as session:
            with pytest.raises(ImageRefusedError, match=r"changed|No such file"):
                await session.identify("staff", path)
    assert len(server.requests) == 1
    assert photo in server.requests[0].body


@pytest.mark.parametrize("change", CHANGES)
async def test_a_small_file_is_what_it_was_when_it_was_looked_at(change, path, tmp_path):
    """A picture of up to one chunk is read once: what follows does not touch it, and no mixture can arise."""
    path.write_bytes(JPEG + bytes(1_000))

    class Changing(Network):
        async def handle_async_request(self, request):
            if not self.sent and path.exists():
                CHANGES[change](path)
            return await super().handle_async_request(request)

    network = Changing([envelope(code=107), FOUND])
    async with FaceSession("1", "b", CREDENTIALS, transport=network, retry=RetryPolicy(base_delay=0)) as session:
        await session.identify("staff", path)
    assert [[JPEG + bytes(1_000)]] * 2 == [contents(sent.headers, sent.body) for sent in network.sent]


async def test_a_file_that_vanishes_while_it_is_open_is_sent(path, photo, monkeypatch):
    """An unlinked file is still the same file to whoever has it open."""
    with before_read(monkeypatch, 3, path.unlink), RawServer([answer(FOUND)]) as server:
        async with session_at(server) as session:
            await session.identify("staff", path)
    assert photo in server.requests[0].body


# Lazily


async def test_the_first_bytes_arrive_before_the_last_are_read(path, photo, monkeypatch):
    """An upload is no copy: the server has the first chunk while the last is still on disk."""
    arrived, in_time = threading.Event(), []

    def await_arrival(connection):
        connection.more()
        arrived.set()
        answer(FOUND)(connection)

    def wait_for_arrival():
        in_time.append(arrived.wait(PATIENCE))

    with before_read(monkeypatch, 6, wait_for_arrival), RawServer([await_arrival]) as server:
        async with session_at(server) as session:
            await session.identify("staff", path)
    assert in_time == [True]
    assert photo in server.requests[0].body


async def test_nothing_is_opened_before_its_turn(path):
    """A call that was never awaited, or waits for the throttle, has opened no file."""
    before = open_files()
    session, _ = session_on(FOUND)
    session.identify("staff", path).close()
    assert before == open_files()


async def test_memory_does_not_grow_with_the_size_of_uploads(path):
    """24 uploads under way hold a few chunks each, not 24 files."""
    uploads = 24
    begun = threading.Semaphore(0)

    def read_a_little(connection):
        connection.read_head()
        for _ in range(0, CHUNK_BYTES + 1, 1_024):
            connection.read(1_024)
        begun.release()
        connection.hold()

    with RawServer([read_a_little] * uploads, narrow=True) as server:
        async with session_at(server, timeout=PATIENCE) as session, anyio.create_task_group() as tasks:
            tracemalloc.start()
            try:
                for _ in range(uploads):
                    tasks.start_soon(session.add_face, "p", [path])
                for _ in range(uploads):
                    assert await anyio.to_thread.run_sync(begun.acquire, True, PATIENCE)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert session.stats.connections == uploads
            tasks.cancel_scope.cancel()
    assert peak < uploads * 4 * CHUNK_BYTES < uploads * LARGE_SIZE * 0.6


# Files are closed


def open_files():
    return set(Path("/proc/self/fd").iterdir())


@contextmanager
def counted_files(monkeypatch):
    """Yield the set of the file descriptors that were opened and not closed."""
    still_open, opens, closes = set(), os.open, os.close

    def counting_open(*args, **options):
        number = opens(*args, **options)
        still_open.add(number)
        return number

    def counting_close(number):
        still_open.discard(number)
        closes(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", counting_open)
        patch.setattr(os, "close", counting_close)
        yield still_open


async def test_files_are_closed_whatever_happens(path, monkeypatch):
    """After success, a lost answer, a cut upload, a changed file and a refusal, no file is open."""
    script = [answer(FOUND), *[close_after_request()] * 3, *[reset_mid_body()] * 3, cut_short]
    with counted_files(monkeypatch) as still_open, RawServer(script, narrow=True) as server:
        async with session_at(server) as session:
            await session.identify("staff", path)
            assert still_open == set()
            for _ in range(2):
                with pytest.raises(TransportError):
                    await session.identify("staff", path)
                assert still_open == set()
            with before_read(monkeypatch, 3, lambda: os.truncate(path, 10)), pytest.raises(ImageRefusedError):
                await session.identify("staff", path)
            assert still_open == set()


async def test_a_cancelled_upload_closes_its_file(path, monkeypatch):
    """A cancelled call leaves neither a file nor a connection open."""
    with counted_files(monkeypatch) as still_open, RawServer([never_read()], narrow=True) as server:
        async with session_at(server, timeout=PATIENCE) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.identify, "staff", path)
                with anyio.fail_after(PATIENCE):
                    while not still_open:  # noqa: ASYNC110 - a worker thread opens it
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            assert still_open == set()
            assert session.stats.connections == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("number", [1, 3])
async def test_a_native_cancellation_closes_the_file_that_a_thread_still_reads(number, path, monkeypatch):
    """asyncio's own cancellation does not wait for the worker thread; the thread closes the file when it is done."""
    reading, go_on = threading.Event(), threading.Event()

    def stall():
        reading.set()
        assert go_on.wait(PATIENCE)

    with counted_files(monkeypatch) as still_open, before_read(monkeypatch, number, stall):
        session, _ = session_on(FOUND)
        call = asyncio.create_task(session.identify("staff", path))
        assert await anyio.to_thread.run_sync(reading.wait, PATIENCE)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(still_open) == 1
        go_on.set()
        with anyio.move_on_after(PATIENCE):
            while still_open:  # noqa: ASYNC110 - a worker thread closes it
                await anyio.sleep(0.001)
        assert still_open == set()
