"""Pictures of every origin: they arrive byte for byte, lazily, unchanged, or not at all."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from doubles import CREDENTIALS, Network, envelope, session_on
from python_multipart import MultipartParser
from raw_server import RawServer, answer, close_after_request, never_read, reset_mid_body
from timing import PATIENCE

from face_async import (
    FaceSession,
    ImageFile,
    ImageRefusedError,
    ImageUrl,
    RequestTooLargeError,
    RetryPolicy,
    TransportError,
)
from face_async._call.multipart import CHUNK_BYTES
from face_async.images import PictureReader

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff\xe0"
FOUND = envelope({"candidates": []})
LARGE_SIZE = 1_400_000


@pytest.fixture
def photo(rng):
    """A picture of a few chunks, as the tests know it."""
    return JPEG + rng.randbytes(LARGE_SIZE)


@pytest.fixture
def path(photo, tmp_path):
    """The same picture in a file, last changed long ago, so that any change shows in its time."""
    path = tmp_path / "private name.jpg"
    path.write_bytes(photo)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def session_at(server, **options):
    options = {"retry": RetryPolicy(base_delay=0), **options}
    return FaceSession("123456", "test", CREDENTIALS, base_url=server.url, **options)


def contents(headers, body):
    """Return the contents of the pictures in a multipart body, in their order."""
    pieces, found = [], []
    parser = MultipartParser(
        dict(part.strip().split("=") for part in headers["content-type"].split(";")[1:])["boundary"],
        {
            "on_part_begin": pieces.clear,
            "on_header_value": lambda data, start, end: pieces.append(data[start:end] + b"\n"),
            "on_headers_finished": lambda: pieces.append(b"\0"),
            "on_part_data": lambda data, start, end: pieces.append(data[start:end]),
            "on_part_end": lambda: found.append(b"".join(pieces)),
        },
    )
    parser.write(body)
    parser.finalize()
    return [content for head, _, content in (part.partition(b"\0") for part in found) if b"filename" in head]


# Origins


async def opened_by_anyio(path):
    return await anyio.open_file(path, "rb")


ORIGINS = {
    "str": str,
    "Path": Path,
    "anyio.Path": anyio.Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "async file": opened_by_anyio,
    "ImageFile of a path": ImageFile,
    "ImageFile of bytes": lambda path: ImageFile(path.read_bytes(), name="a.png", media_type="image/png"),
    "ImageFile of a file": lambda path: ImageFile(io.BytesIO(path.read_bytes())),
}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("size", [5, LARGE_SIZE])
async def test_a_picture_arrives_byte_for_byte(origin, size, path):
    """Wherever a picture comes from, the server gets its bytes."""
    os.truncate(path, size)
    source = ORIGINS[origin](path)
    if hasattr(source, "__await__"):
        source = await source
    session, network = session_on(FOUND)
    try:
        await session.identify("staff", source)
    finally:
        if origin in {"file", "unbuffered file"}:
            source.close()
        elif origin == "async file":
            await source.aclose()
    assert [path.read_bytes()] == contents(network.sent[0].headers, network.sent[0].body)


@pytest.mark.parametrize("source", ["https://example.com/a.jpg", ImageUrl("https://example.com/a.jpg")])
async def test_a_url_is_for_the_server_to_fetch(source):
    """A URL travels as text in JSON; nothing is fetched or opened here."""
    session, network = session_on(FOUND)
    await session.identify("staff", source)
    assert network.sent[0].headers["content-type"] == "application/json"
    assert b'"url": "https://example.com/a.jpg"' in network.sent[0].body


async def test_a_file_object_is_read_from_where_it_stands():
    """A file object's position is its owner's business: what follows it is sent."""
    file = io.BytesIO(b"skipped" + JPEG)
    file.seek(7)
    session, network = session_on(FOUND)
    await session.identify("staff", file)
    assert [JPEG] == contents(network.sent[0].headers, network.sent[0].body)
    assert not file.closed


async def test_a_file_object_that_gives_few_bytes_at_a_time_is_read_to_its_end():
    """A short read is not the end of a file; only an empty one is."""

    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 3))

    session, network = session_on(FOUND)
    await session.identify("staff", Slow(JPEG * 10))
    assert [JPEG * 10] == contents(network.sent[0].headers, network.sent[0].body)


async def test_pictures_of_one_request_keep_their_order(path, photo):
    """Several pictures, in memory and in files, small and large, arrive as they were listed."""
    small = path.with_name("small.jpg")
    small.write_bytes(JPEG)
    half = photo[:700_000]
    path.write_bytes(half)
    session, network = session_on(envelope({"added": 4, "face_ids": list("abcd"), "ret_codes": [0] * 4}))
    await session.add_face("p", [small, path, photo[:400_000], small])
    assert [JPEG, half, photo[:400_000], JPEG] == contents(network.sent[0].headers, network.sent[0].body)


async def test_no_local_name_is_sent(path):
    """File names are neutral; where a picture lies is nobody's business."""
    session, network = session_on(FOUND)
    await session.identify("staff", path)
    await session.identify("staff", ImageFile(path, name="chosen.jpg"))
    assert b'filename="image0.jpg"' in network.sent[0].body
    assert b'filename="chosen.jpg"' in network.sent[1].body
    for sent in network.sent:
        assert path.name.encode() not in sent.body
        assert path.parent.name.encode() not in sent.body


# Refused before anything is sent


async def assert_refused(error, source, match=None, **options):
    session, network = session_on(FOUND, **options)
    with pytest.raises(error, match=match):
        await session.identify("staff", source)
    if isinstance(source, io.BytesIO):
        source.seek(0)
    with pytest.raises(error, match=match):
        await session.add_face("p", [JPEG, source])
    assert network.sent == []


@pytest.mark.parametrize("kind", ["path", "bytes", "file"])
async def test_a_gif_is_refused_whatever_its_name(kind, tmp_path):
    """Magic bytes decide, not names; the error calls the picture by its path."""
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"GIF89a" + bytes(500_000))
    make = {"path": lambda: path, "bytes": path.read_bytes, "file": lambda: io.BytesIO(path.read_bytes())}[kind]
    session, network = session_on(FOUND)
    with pytest.raises(ImageRefusedError, match=r"holiday\.jpg' is a GIF" if kind == "path" else "is a GIF"):
        await session.identify("staff", make())
    with pytest.raises(ImageRefusedError, match="is a GIF"):
        await session.identify("staff", ImageFile(make(), name="a.jpg", media_type="image/jpeg"))
    assert network.sent == []


@pytest.mark.parametrize("kind", ["path", "bytes", "file"])
async def test_an_empty_picture_is_refused(kind, tmp_path):
    """No bytes are no picture."""
    path = tmp_path / "empty.jpg"
    path.touch()
    await assert_refused(ImageRefusedError, {"path": path, "bytes": b"", "file": io.BytesIO()}[kind], "is empty")


async def test_what_is_no_readable_file_is_refused(tmp_path):
    """Missing files, directories, pipes, broken links and impossible names are refused, and none of them hangs."""
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    with anyio.fail_after(PATIENCE):
        await assert_refused(ImageRefusedError, tmp_path / "missing.jpg", "No such file")
        await assert_refused(ImageRefusedError, tmp_path, "no regular file")
        await assert_refused(ImageRefusedError, fifo, "no regular file")
        await assert_refused(ImageRefusedError, loop, "cannot be read")
        await assert_refused(ImageRefusedError, "nul\0byte.jpg", "cannot be read")
        await assert_refused(ImageRefusedError, "x" * 5_000, "cannot be read")
        await assert_refused(ImageRefusedError, "lone\ud800surrogate", "cannot be read")


async def test_a_file_that_may_not_be_read_is_refused(path, monkeypatch):
    """A lack of permission is said in the error."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    await assert_refused(ImageRefusedError, path, "Permission denied")


async def test_a_file_object_that_fails_is_refused():
    """An error of the operating system while a file object is read is no foreign exception either."""

    class Broken(io.BytesIO):
        def read(self, size=-1, /):
            raise OSError(5, "Input/output error")

    await assert_refused(ImageRefusedError, Broken(), "Input/output error")


async def test_what_is_no_picture_at_all_is_a_programming_error(path):
    """Text files, numbers and None raise TypeError, and the message says what to do."""
    with path.open(encoding="latin-1") as text:
        await assert_refused(TypeError, text, "mode 'rb'")
    await assert_refused(TypeError, io.StringIO("text"), "mode 'rb'")
    await assert_refused(TypeError, 7, "path, bytes, a binary file object or a URL, not int")
    async with await anyio.open_file(path, encoding="latin-1") as text:
        await assert_refused(TypeError, text, "bytes, not str")


async def test_a_request_over_the_limit_is_refused(tmp_path):
    """1.5 MiB is the end, for the sum of several pictures too; how large it would be is said."""
    path = tmp_path / "large.jpg"
    path.write_bytes(JPEG + bytes(1_572_864))
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        await assert_refused(RequestTooLargeError, source, "more than the 1,572,864 allowed")
    session, network = session_on(FOUND)
    with pytest.raises(RequestTooLargeError, match=r"have 1,600,\d+ bytes"):
        await session.add_face("p", [JPEG + bytes(800_000)] * 2)
    assert network.sent == []


async def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    """Ten gigabytes are refused by their size alone."""
    path = tmp_path / "huge.jpg"
    path.write_bytes(JPEG)
    os.truncate(path, 10 * 1024**3)
    read = []
    original = PictureReader.read

    def counting(self, size):
        read.append(size)
        return original(self, size)

    monkeypatch.setattr(PictureReader, "read", counting)
    await assert_refused(RequestTooLargeError, path, r"10,737,\d+,\d+ bytes")
    assert sum(read) < 100


async def test_an_endless_file_object_is_not_read_to_its_end():
    """One byte over the limit is enough to refuse."""

    class Endless(io.BytesIO):
        given = 0

        def read(self, size=-1, /):
            self.given += size
            return bytes(size)

    endless = Endless()
    session, network = session_on(FOUND)
    with pytest.raises(RequestTooLargeError):
        await session.identify("staff", endless)
    assert endless.given <= 1_572_865
    assert network.sent == []


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


# Again


@pytest.mark.parametrize("origin", ORIGINS)
async def test_every_attempt_sends_the_same_body(origin, path, photo):
    """A retry replays the body, also of file objects, under a new signature."""
    source = ORIGINS[origin](path)
    if hasattr(source, "__await__"):
        source = await source
    with RawServer([answer(envelope(code=107)), answer(envelope(code=107)), answer(FOUND)]) as server:
        async with session_at(server) as session:
            assert (await session.identify("staff", source)).meta.attempts == 3
    if origin in {"file", "unbuffered file"}:
        source.close()
    elif origin == "async file":
        await source.aclose()
    first, second, third = server.requests
    assert photo in first.body
    assert first.body == second.body == third.body
    assert len({request.header("Authorization") for request in server.requests}) == 3


async def test_a_file_object_is_read_once_however_often_it_is_sent(photo):
    """What cannot be read twice is kept for further attempts."""

    class Counting(io.BytesIO):
        given = 0

        def read(self, size=-1, /):
            content = super().read(size)
            self.given += len(content)
            return content

    file = Counting(photo)
    session, network = session_on(envelope(code=107), FOUND, retry=RetryPolicy(base_delay=0))
    await session.identify("staff", file)
    assert len(photo) == file.given
    assert [[photo], [photo]] == [contents(sent.headers, sent.body) for sent in network.sent]


# Values


@pytest.mark.parametrize(
    ("head", "media_type", "name"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image0.jpg"),
        (b"\x89PNG\r\n\x1a\n", "image/png", "image0.png"),
        (b"BM", "image/bmp", "image0.bmp"),
        (b"RIFF\0\0\0\0WEBP", "image/webp", "image0.webp"),
        (b"unknown", "application/octet-stream", "image0"),
    ],
)
async def test_the_first_bytes_tell_type_and_name(head, media_type, name):
    """Magic bytes name the media type and end the neutral name; what was given goes before."""
    session, network = session_on(FOUND)
    await session.identify("staff", head)
    await session.identify("staff", ImageFile(head, name="n", media_type="image/x-own"))
    assert f'filename="{name}"\r\nContent-Type: {media_type}\r\n'.encode() in network.sent[0].body
    assert b'filename="n"\r\nContent-Type: image/x-own\r\n' in network.sent[1].body


@pytest.mark.parametrize("wrong", ["ftp://a/b.jpg", "a.jpg", "https://a/b c.jpg", "http://a\n", "http://a\0"])
def test_an_image_url_is_an_http_url(wrong):
    """Other schemes, white space and control characters raise ValueError when the URL is named."""
    with pytest.raises(ValueError, match="url must begin with"):
        ImageUrl(wrong)
    with pytest.raises(TypeError, match="url must be a str"):
        ImageUrl(wrong.encode())


@pytest.mark.parametrize("wrong", ["image", "image/jpeg\r\nX: y", "image/jpeg; a=b", "", "/"])
def test_a_media_type_cannot_smuggle_headers(wrong):
    """A media type is type/subtype and nothing else."""
    with pytest.raises(ValueError, match="media_type must look like"):
        ImageFile(JPEG, media_type=wrong)


def test_a_name_is_text_that_can_be_sent():
    """A name must be a str that UTF-8 can encode."""
    with pytest.raises(TypeError, match="name"):
        ImageFile(JPEG, name=b"a.jpg")
    with pytest.raises(ValueError, match="name"):
        ImageFile(JPEG, name="lone\ud800.jpg")


def test_no_repr_shows_a_byte_of_a_picture():
    """A picture's bytes stay out of reprs, and so out of logs."""
    assert "secret" not in repr(ImageFile(b"secret"))
