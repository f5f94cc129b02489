"""Pictures that are refused before anything is sent."""

from __future__ import annotations

import io
import os

import anyio
import pytest
from albums import JPEG
from doubles import session_on
from picturekit import FOUND
from timing import PATIENCE

from face_async import ImageFile, ImageRefusedError, RequestTooLargeError
from face_async.images import PictureReader

pytestmark = pytest.mark.anyio


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
