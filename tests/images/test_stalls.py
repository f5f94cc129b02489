"""File objects that deliver nothing: a call does not outlast its deadline for them. Others are never left in a read."""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import os
import socket
import tarfile
import tempfile
import threading
import zipfile
from contextlib import contextmanager

import anyio
import anyio.to_thread
import pytest
from albums import JPEG
from doubles import session_on
from picturekit import FOUND, silent_pipe
from timing import PATIENCE

from face_async import DeadlineError, ImageFile, ImageRefusedError, Throttle
from face_async.images.threads import may_stall

pytestmark = pytest.mark.anyio


@contextmanager
def silent_socket(**options):
    """As ``socket.makefile`` gives it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    with ours, ours.makefile("rb", **options) as file:
        try:
            yield file
        finally:
            theirs.close()


@contextmanager
def silent_body():
    """As ``urllib.request.urlopen`` gives it: the head of an answer came, and nothing of its body."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    with ours, http.client.HTTPResponse(ours, method="GET") as response:
        response.begin()
        try:
            yield response
        finally:
            theirs.close()


@contextmanager
def silent_archive():
    with silent_pipe() as pipe:
        yield gzip.GzipFile(fileobj=pipe)


@contextmanager
def silent_something():
    """A file object of which nothing is known."""

    class Something:
        def read(self, size=-1):
            return pipe.read(size)

    with silent_pipe() as pipe:
        yield Something()


SILENT = [silent_pipe, silent_socket, silent_body, silent_archive, silent_something]


@pytest.mark.parametrize("silent", SILENT)
async def test_a_file_object_that_delivers_nothing_does_not_outlast_the_deadline(silent):
    """Its call ends with DeadlineError, nothing was sent, and the next calls have its place."""
    session, network = session_on(FOUND, deadline=0.05, throttle=Throttle(max_concurrency=1))
    with anyio.fail_after(PATIENCE):
        async with session:
            with silent() as file:
                with pytest.raises(DeadlineError, match="could not be read within") as caught:
                    await session.add_face("p", [ImageFile(file, name="photo.jpg")])
                assert (caught.value.attempts, caught.value.maybe_applied, network.sent) == (0, False, [])
                with pytest.raises(ImageRefusedError, match="open its file again"):
                    await session.identify("staff", file)
            await session.with_options(deadline=PATIENCE).identify("staff", JPEG)
    assert len(network.sent) == 1


@pytest.mark.parametrize("silent", SILENT)
async def test_a_call_that_waits_for_a_silent_file_object_can_be_cancelled(silent):
    session, network = session_on(FOUND, deadline=2 * PATIENCE)
    with silent() as file, anyio.fail_after(PATIENCE / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.identify, "staff", file)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert network.sent == []


async def test_what_is_left_of_a_file_object_is_not_sent_for_the_whole():
    """A call that was cancelled may have read the beginning, which the next one would miss."""
    session, network = session_on(FOUND)
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as file, os.fdopen(write, "wb", buffering=0) as end:
        async with session, anyio.create_task_group() as tasks:
            end.write(JPEG)
            tasks.start_soon(session.identify, "staff", file)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        end.write(b"the rest")
        end.close()
        session, network = session_on(FOUND)
        async with session:
            with pytest.raises(ImageRefusedError, match="not read to its end by an earlier call; open its file again"):
                await session.identify("staff", file)
    assert network.sent == []


class Slow(io.FileIO):
    """A regular file whose reads take as long as the test says."""

    def __init__(self, path):
        super().__init__(path)
        self.reading, self.go_on = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.reading.set()
        self.go_on.wait(PATIENCE)
        return super().read(size)


async def test_a_regular_file_is_never_left_in_a_read(tmp_path):
    """Whoever has given it may close it, or read the next member of an archive, when the call has ended."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG)
    session, _ = session_on(FOUND)
    ended = []

    async def identify():
        try:
            await session.identify("staff", file)
        finally:
            ended.append(file.go_on.is_set())

    with Slow(path) as file, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(identify)
            assert await anyio.to_thread.run_sync(file.reading.wait, PATIENCE)
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
            assert ended == []
            file.go_on.set()
    assert ended == [True]


# Which is which


@pytest.fixture
def open_files(tmp_path):
    """File objects that end in a regular file or in memory."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG)
    for opened in (gzip.open, bz2.open):
        with opened(tmp_path / opened.__module__, "wb") as file:
            file.write(JPEG)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.write(path, "photo.jpg")
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.add(path, "photo.jpg")
    with (
        path.open("rb") as buffered,
        path.open("rb", buffering=0) as raw,
        tempfile.TemporaryFile() as temporary,
        tempfile.NamedTemporaryFile() as named,
        tempfile.SpooledTemporaryFile() as spooled,
        tempfile.SpooledTemporaryFile(max_size=1) as rolled,
        gzip.open(tmp_path / "gzip") as packed,
        bz2.open(tmp_path / "bz2") as tightly_packed,
        zipfile.ZipFile(tmp_path / "zip") as zipped,
        zipped.open("photo.jpg") as in_zip,
        tarfile.open(tmp_path / "tar") as tarred,
        tarred.extractfile("photo.jpg") as in_tar,
    ):
        rolled.write(JPEG)
        with path.open("rb") as closed:
            pass
        in_memory = io.BytesIO(), gzip.GzipFile(fileobj=io.BytesIO())
        on_disk = buffered, raw, temporary, named, rolled, packed, tightly_packed, in_zip, in_tar
        yield *in_memory, spooled, *on_disk, closed


def test_what_ends_in_a_regular_file_or_in_memory_cannot_stall(open_files):
    """Whatever the standard library wraps it in."""
    assert [] == [file for file in open_files if may_stall(file)]


@pytest.mark.parametrize("silent", SILENT)
def test_what_ends_elsewhere_may_stall(silent):
    with silent() as file:
        assert may_stall(file)


def test_what_has_itself_inside_is_not_looked_at_for_ever():
    class Circle:
        read = None

        @property
        def raw(self):
            return self

    assert may_stall(Circle())
