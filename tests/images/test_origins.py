"""Pictures of every origin: they arrive byte for byte, in every attempt."""

from __future__ import annotations

import io
import os
from pathlib import Path

import anyio
import pytest
from albums import JPEG
from doubles import envelope, session_on
from picturekit import FOUND, LARGE_SIZE, contents, session_at
from raw_server import RawServer, answer

from face_async import ImageFile, ImageUrl, RetryPolicy

pytestmark = pytest.mark.anyio

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
