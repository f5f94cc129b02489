"""What pictures are given as: file objects that depend on their input or were read before, and texts that are none."""

from __future__ import annotations

import ast
import base64
import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import anyio
import pytest
from doubles import envelope, session_on
from timing import PATIENCE

import face_async
from face_async import ImageFile, ImageRefusedError, NewPerson, ShardedGroup
from face_async.bulk.fitting import fit_image
from face_async.local import local_session
from face_async.portraits import draw_portrait

pytestmark = pytest.mark.anyio

FOUND = envelope({"candidates": []})
COUNT = 5
LONG = 1_000  # characters that no message has


@lru_cache
def portraits():
    return [draw_portrait(number, size=200) for number in range(COUNT)]


# File objects that the input takes back


def from_zip():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number, portrait in enumerate(portraits()):
            file.writestr(str(number), portrait)
    with zipfile.ZipFile(archive) as file:
        for number in range(COUNT):
            with file.open(str(number)) as member:
                yield member


def from_tar():
    """One after another out of a stream: what was passed cannot be read any more."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        for number, portrait in enumerate(portraits()):
            info = tarfile.TarInfo(str(number))
            info.size = len(portrait)
            file.addfile(info, io.BytesIO(portrait))
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r|") as file:
        for member in file:
            yield file.extractfile(member)


def from_with_blocks():
    with tempfile.TemporaryDirectory() as folder:
        for number, portrait in enumerate(portraits()):
            path = Path(folder, str(number))
            path.write_bytes(portrait)
            with path.open("rb") as file:
                yield file


def from_one_buffer():
    buffer = io.BytesIO()
    for portrait in portraits():
        buffer.seek(0)
        buffer.truncate()
        buffer.write(portrait)
        buffer.seek(0)
        yield buffer


def named():
    return (ImageFile(file, name="photo.jpg") for file in from_zip())


INPUTS = [from_zip, from_tar, from_with_blocks, from_one_buffer, named]


async def of_outcomes(outcomes, result_of):
    async with outcomes:
        return [result_of(outcome.unwrap()) for outcome in await outcomes.collect()]


def pairs(images):
    return ((f"person{number}", image) for number, image in enumerate(images))


def persons(images, *group_ids):
    return (NewPerson(person_id, group_ids, image) for person_id, image in pairs(images))


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("images", INPUTS)
async def test_every_bulk_verb_sends_each_file_object_as_it_was_when_it_was_pulled(images, fit):
    """Whatever its input does to it when the next one is asked for: close it, read on, fill it anew."""
    async with local_session(recognizer="fingerprint") as session:
        options = {"fit": fit, "ordered": True}
        created = session.new_persons(persons(images(), "staff"), **options)
        assert await of_outcomes(created, lambda result: result.suc_face) == [1] * COUNT
        found = session.identify_many(images(), "staff", **options)
        expected = [f"person{number}" for number in range(COUNT)]
        assert expected == await of_outcomes(found, lambda result: result.best.person_id)
        verified = session.verify_many(pairs(images()), **options)
        assert all(await of_outcomes(verified, lambda result: result.is_match))
        detected = session.detect_many(images(), **options)
        assert await of_outcomes(detected, lambda result: len(result.faces)) == [1] * COUNT
        for person_id in expected:
            await session.del_person(person_id)
        sharded = ShardedGroup(session, "guests")
        created = sharded.new_persons(persons(images()), **options)
        assert await of_outcomes(created, lambda result: result.suc_face) == [1] * COUNT
        found = sharded.identify_many(images(), **options)
        assert expected == await of_outcomes(found, lambda result: result.best.person_id)
        for person_id in expected:
            await session.del_person(person_id)
            await session.new_person(person_id, ["staff"])
        added = session.add_faces(pairs(images()), **options)
        assert all(await of_outcomes(added, lambda result: result.added))


async def test_the_item_of_an_outcome_is_the_callers_own():
    """What was read of it is for the request alone."""
    session, _ = session_on(FOUND)
    given = [io.BytesIO(portrait) for portrait in portraits()]
    async with session, session.identify_many(given, "staff", ordered=True) as outcomes:
        items = [outcome.item async for outcome in outcomes]
    assert all(one is other for one, other in zip(given, items, strict=True))


async def test_a_file_object_that_cannot_be_read_costs_its_own_outcome():
    session, network = session_on(FOUND)
    closed = io.BytesIO(portraits()[0])
    closed.close()
    given = [portraits()[0], closed, portraits()[1]]
    async with session, session.identify_many(given, "staff", ordered=True) as outcomes:
        errors = [outcome.error async for outcome in outcomes]
    assert [None, None] == [errors[0], errors[2]]
    assert isinstance(errors[1], ImageRefusedError)
    assert "closed" in str(errors[1])
    assert len(network.sent) == 2


def cut_gzip(content):
    return gzip.open(io.BytesIO(gzip.compress(content)[:-30]))


def cut_bz2(content):
    return bz2.open(io.BytesIO(bz2.compress(content)[:-30]))


def cut_lzma(content):
    return lzma.open(io.BytesIO(lzma.compress(content)[:-30]))


def damaged_zip(content):
    """Its checksum is another one's."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.jpg", content)
    damaged = archive.getvalue().replace(content, content[:-1] + b"?")
    return zipfile.ZipFile(io.BytesIO(damaged)).open("1.jpg")


@pytest.mark.parametrize("damaged", [cut_gzip, cut_bz2, cut_lzma, damaged_zip])
async def test_a_damaged_archive_costs_the_outcome_of_its_picture(damaged):
    """Whatever error the archive's module has for that."""
    session, network = session_on(FOUND)
    given = [portraits()[0], damaged(portraits()[1]), portraits()[2]]
    async with session:
        async with session.identify_many(given, "staff", ordered=True) as outcomes:
            errors = [type(outcome.error) async for outcome in outcomes]
        with pytest.raises(ImageRefusedError, match="the image cannot be read: "):
            await session.identify("staff", damaged(portraits()[1]))
    assert [type(None), ImageRefusedError, type(None)] == errors
    assert len(network.sent) == 2


async def test_a_file_is_no_input_of_pictures():
    """Its lines are none."""
    session, network = session_on(FOUND)
    with pytest.raises(TypeError, match="not a single BytesIO"):
        session.identify_many(io.BytesIO(portraits()[0]), "staff")
    assert [] == network.sent


async def test_a_pipe_keeps_nobody_waiting():
    """It is independent of the other items, and its picture may come much later than theirs."""
    read, write = os.pipe()
    session, _ = session_on(FOUND)
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb", buffering=0) as end:
        given = [pipe, portraits()[0]]
        with anyio.fail_after(PATIENCE):
            async with session, session.identify_many(given, "staff") as outcomes:
                first = await anext(outcomes)
                end.write(portraits()[1][:4_000])
                end.close()
                second = await anext(outcomes)
    assert (1, 0) == (first.index, second.index)
    assert first.error is second.error is None


# File objects that were read before


class Upload:
    """An upload as web frameworks have it: asynchronous, without ``tell``, over a file that has."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    async def read(self, size=-1):
        return self.file.read(size)

    async def seek(self, offset):
        self.file.seek(offset)


class Blind:
    """A file object that does not tell where it is."""

    def __init__(self, content):
        self._inner = io.BytesIO(content)
        self.read, self.seek = self._inner.read, self._inner.seek


async def read_some(file, size):
    found = file.read(size)
    return await found if hasattr(found, "__await__") else found


@pytest.mark.parametrize("kind", [io.BytesIO, Upload, Blind])
async def test_a_file_object_that_was_read_to_its_end_says_so(kind):
    """And names what to do, which helps."""
    file = kind(portraits()[0])
    await read_some(file, -1)
    session, network = session_on(FOUND)
    async with session:
        with pytest.raises(ImageRefusedError, match=r"already read to its end; call seek\(0\)"):
            await session.identify("staff", file)
        assert not network.sent
        sought = file.seek(0)
        if sought is not None and hasattr(sought, "__await__"):
            await sought
        await session.identify("staff", file)
    assert portraits()[0] in network.sent[0].body


@pytest.mark.parametrize("kind", [io.BytesIO, Upload])
async def test_a_file_object_without_its_beginning_is_not_sent(kind):
    """Who has looked at its first bytes is told that the picture cannot be recognized without them."""
    file = kind(portraits()[0])
    await read_some(file, 16)
    session, network = session_on(FOUND)
    async with session:
        with pytest.raises(ImageRefusedError, match=r"read up to byte 16, .* call seek\(0\)"):
            await session.identify("staff", file)
    assert not network.sent


async def test_a_picture_within_a_file_is_sent_from_where_the_file_is():
    """A picture may be one part of a larger file."""
    file = io.BytesIO(b"header" + portraits()[0])
    file.seek(6)
    session, network = session_on(FOUND)
    async with session:
        await session.identify("staff", file)
    assert portraits()[0] in network.sent[0].body


async def test_an_empty_file_object_is_empty():
    session, _ = session_on(FOUND)
    async with session:
        with pytest.raises(ImageRefusedError, match=r"is empty$"):
            await session.identify("staff", io.BytesIO())


# Texts that are no paths


NO_PATHS = {
    "base64": lambda picture: base64.b64encode(picture).decode(),
    "short base64": lambda picture: base64.b64encode(picture[:60]).decode(),
    "a data URI": lambda picture: "data:image/jpeg;base64," + base64.b64encode(picture).decode(),
    "turned into a str": str,
    "a URL": lambda picture: "s3://bucket/" + "a" * 2_000,
    "a str of": lambda picture: base64.b64encode(b"unknown" + picture * 3).decode(),
}


@pytest.mark.parametrize("what", NO_PATHS)
async def test_a_text_that_is_neither_path_nor_url_is_named_and_not_shown(what):
    """The message says what it is, is short, and has no part of the picture in it."""
    text = NO_PATHS[what](portraits()[0])
    session, network = session_on(FOUND)
    async with session:
        with pytest.raises(ImageRefusedError, match="neither a path nor a URL") as caught:
            await session.identify("staff", text)
        async with session.identify_many([text], "staff") as outcomes:
            [outcome] = await outcomes.collect()
    assert not network.sent
    for message in (str(caught.value), repr(caught.value), str(outcome.error), repr(outcome)):
        assert what.removeprefix("short ") in message
        assert len(message) < LONG
        assert text[:40] not in message
    with pytest.raises(ImageRefusedError, match="neither a path nor a URL"):
        fit_image(text)


@pytest.mark.parametrize("path", ["missing.jpg", "data/missing.jpg", "Qk1.jpg", "C:/missing.jpg"])
async def test_a_path_that_is_missing_is_a_path(path):
    session, _ = session_on(FOUND)
    async with session:
        with pytest.raises(ImageRefusedError, match=f"the image '{path}' cannot be read: No such file"):
            await session.identify("staff", path)


CALLS = {
    "identify": lambda session, text: session.identify(text, b"\xff\xd8\xff"),
    "identify, image": lambda session, text: session.identify("staff", text),
    "identify, url": lambda session, text: session.identify("staff", f"https://{text}"),
    "add_face": lambda session, text: session.add_face("ada", [text]),
    "new_person": lambda session, text: session.new_person(text, ["staff"]),
    "new_person, groups": lambda session, text: session.new_person("ada", text),
    "set_info": lambda session, text: session.set_info("ada", tag=text),
    "del_face": lambda session, text: session.del_face("ada", [text]),
    "request": lambda session, text: session.request(text, {}),
    "identify_in_groups": lambda session, text: session.identify_in_groups(b"\xff\xd8\xff", text),
    "errors": lambda session, text: session.identify_in_groups(b"\xff\xd8\xff", ["staff"], errors=text),
}


@pytest.mark.parametrize("call", CALLS)
async def test_no_message_is_longer_for_a_longer_argument(call):
    """Messages quote what was given, and cut it short: a megabyte in a log helps nobody."""
    session, network = session_on(FOUND)
    async with session:
        with pytest.raises((ValueError, TypeError, face_async.FaceError)) as caught:
            await CALLS[call](session, " x/" * 300_000)
    assert not network.sent
    assert len(str(caught.value)) < LONG


def test_one_function_quotes_what_users_give():
    """No message quotes by itself, so that none can forget to cut short."""
    found = []
    for path in sorted(Path(face_async.__file__).parent.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and not function.name.startswith("__"):
                found += [
                    f"{path.name}:{node.lineno}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
                ]
    assert found == []
