"""Bodies as others read them: two parsers that know nothing of ours agree on every part."""

from __future__ import annotations

import email
import email.policy
import io
import re
from collections import Counter

import hypothesis.strategies as st
import pytest
from doubles import CREDENTIALS, Network, envelope
from hypothesis import example, given
from python_multipart import MultipartParser
from python_multipart.multipart import parse_options_header

from face_async import FaceSession, ImageFile, LimitError
from face_async._call.multipart import CHUNK_BYTES, WHOLE_BYTES, JsonBody, MultipartBody, SentBody
from face_async._call.wire import encode
from face_async.endpoints import Endpoint
from face_async.images import Picture
from face_async.images.thread_jobs import ThreadJobs
from face_async.limits import ServiceLimits

JPEG = b"\xff\xd8\xff\xe0"
ROOMY = ServiceLimits(max_request_bytes=10 * CHUNK_BYTES)


# Two parsers


def parts_by_python_multipart(content_type, body):
    """Return (headers, content) of every part, as python_multipart reads them."""
    parts, name = [], []
    _, options = parse_options_header(content_type)

    def end_header():
        parts[-1][0].append(b"")

    callbacks = {
        "on_part_begin": lambda: parts.append(({}, [])),
        "on_header_field": lambda data, start, end: name.append(data[start:end]),
        "on_header_value": lambda data, start, end: (
            parts[-1][0].setdefault(b"".join(name).lower(), []).append(data[start:end])
        ),
        "on_header_end": name.clear,
        "on_part_data": lambda data, start, end: parts[-1][1].append(data[start:end]),
    }
    parser = MultipartParser(options[b"boundary"], callbacks)
    assert len(body) == parser.write(body)
    parser.finalize()
    return [({key: b"".join(value) for key, value in headers.items()}, b"".join(content)) for headers, content in parts]


def parts_by_email(content_type, body):
    """Return (headers, content) of every part, as the standard library reads them."""
    message = email.message_from_bytes(
        b"MIME-Version: 1.0\r\nContent-Type: " + content_type.encode() + b"\r\n\r\n" + body,
        policy=email.policy.compat32,
    )
    assert message.is_multipart()
    assert not message.defects
    assert not message.preamble
    return [
        (
            # Raw: the library would write U+FFFD for what is not ASCII.
            {key.lower().encode(): value.encode("utf-8", "surrogateescape") for key, value in part.raw_items()},
            part.get_payload(decode=True),
        )
        for part in message.get_payload()
    ]


def parameters(disposition):
    """Return the parameters of a Content-Disposition by the grammar that browsers write: no escape but percent."""
    return dict(re.findall(rb'; (\w+)="([^"\r\n\0]*)"', disposition))


async def sent_by(*chunks_of):
    """Return the content type and the bytes of a body, loaded and sent once."""
    (body,) = chunks_of
    await body.load(ROOMY, ThreadJobs())
    attempt = body.attempt()
    content = b"".join([chunk async for chunk in attempt])
    assert attempt.handed_over
    assert body.length == len(content)
    return body.content_type, content


def run(awaitable):
    """Run what never really waits, without an event loop, so that hypothesis may call it a thousand times."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


# Structure


@pytest.mark.anyio
async def test_two_parsers_find_the_same_parts(rng):
    """Names, values, file names, media types and contents are the same to both."""
    pictures = [JPEG + rng.randbytes(size) for size in (1, 1_000, 300_000)]
    texts = [("appid", "123456"), ("group_ids[0]", "groß"), ("tag", ""), ("person_name", "line\r\nbreak")]
    named = [(f"images[{index}]", Picture(picture)) for index, picture in enumerate(pictures)]
    content_type, body = await sent_by(MultipartBody(texts, named))
    expected = [(name.encode(), None, None, value.encode()) for name, value in texts] + [
        (f"images[{index}]".encode(), f"image{index}.jpg".encode(), b"image/jpeg", picture)
        for index, picture in enumerate(pictures)
    ]
    for parse in (parts_by_python_multipart, parts_by_email):
        found = [
            (
                parameters(headers[b"content-disposition"])[b"name"],
                parameters(headers[b"content-disposition"]).get(b"filename"),
                headers.get(b"content-type"),
                content,
            )
            for headers, content in parse(content_type, body)
        ]
        assert expected == found


@pytest.mark.anyio
async def test_the_fields_of_a_call_arrive_under_the_specifications_names():
    """newperson's packet holds appid, bucket, group_ids[0], group_ids[1], person_id, image and the rest, once each."""
    network = Network(
        [envelope({"person_id": "p", "suc_group": 2, "suc_face": 1, "face_id": "f", "group_ids": ["a", "b"]})]
    )
    async with FaceSession("123456", "test", CREDENTIALS, transport=network) as session:
        await session.new_person("p", ["a", "b"], JPEG, person_name="Ada", tag="hq")
    [sent] = network.sent
    found = {
        parameters(headers[b"content-disposition"])[b"name"]: content
        for headers, content in parts_by_email(sent.headers["content-type"], sent.body)
    }
    expected = {
        b"appid": b"123456",
        b"bucket": b"test",
        b"group_ids[0]": b"a",
        b"group_ids[1]": b"b",
        b"person_id": b"p",
        b"person_name": b"Ada",
        b"tag": b"hq",
        b"image": JPEG,
    }
    assert expected == found


# Hostile text

NASTY = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    '"',
    "\\",
    ";",
    "--",
    "=",
    ":",
    "\r\n\r\n",
    "filename=",
    'name="image"',
    "%22",
    "é",
    "😀",
    "\u2028",
    "\x0b",
    "\x85",
]
hostile = st.lists(
    st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
).map("".join)


@example('a"; name="image"; filename="b', "\r\n--boundary--\r\n")
@example('\\"', 'Content-Disposition: form-data; name="image"\r\n\r\nx')
@example("a\r\nContent-Type: text/html\r\n\r\n<script>", "\r\n\r\n")
@example("ends with a backslash\\", "\0")
@given(hostile, hostile)
def test_no_text_can_change_the_structure(filename, value):
    """Whatever a file name or a value holds, there are the same parts under the same names, with their bytes."""
    picture = Picture(JPEG, name=filename)
    content_type, body = run(sent_by(MultipartBody([("person_name", value), ("tag", value)], [("image", picture)])))
    for parse in (parts_by_python_multipart, parts_by_email):
        found = parse(content_type, body)
        dispositions = [parameters(headers[b"content-disposition"]) for headers, _ in found]
        assert [b"person_name", b"tag", b"image"] == [disposition[b"name"] for disposition in dispositions]
        assert [{b"content-disposition"}, {b"content-disposition"}, {b"content-disposition", b"content-type"}] == [
            set(headers) for headers, _ in found
        ]
        assert [value.encode(), value.encode(), JPEG] == [content for _, content in found]


@example("ends with a backslash\\")
@example('\\"; name="other')
@given(hostile)
def test_a_file_name_is_one_parameter_to_a_server(filename):
    """Both parsers' own reading of the header finds the name "image" and one file name, nothing else."""
    content_type, body = run(sent_by(MultipartBody([], [("image", Picture(JPEG, name=filename))])))
    [(headers, _)] = parts_by_python_multipart(content_type, body)
    kind, options = parse_options_header(headers[b"content-disposition"])
    assert kind == b"form-data"
    assert set(options) == {b"name", b"filename"}
    assert options[b"name"] == b"image"
    part = email.message_from_bytes(b"".join(b"%s: %s\r\n" % header for header in headers.items()) + b"\r\n")
    assert {"form-data", "name", "filename"} == {key for key, _ in part.get_params(header="content-disposition")}
    assert part.get_param("name", header="content-disposition") == "image"


@given(hostile)
def test_the_name_of_a_field_is_as_safe_as_a_file_name(name):
    """session.request takes any field names; they cannot break out of their quotes either."""
    content_type, body = run(sent_by(MultipartBody([(name, "value")], [("image", Picture(JPEG))])))
    for parse in (parts_by_python_multipart, parts_by_email):
        assert [b"value", JPEG] == [content for _, content in parse(content_type, body)]


def test_boundaries_cannot_be_guessed():
    """128 random bits part the parts, so that no content holds them by chance or by malice."""
    boundaries = {re.search(r"boundary=(\w+)$", MultipartBody([], []).content_type)[1] for _ in range(100)}
    assert len(boundaries) == 100
    assert {len(boundary) for boundary in boundaries} == {32}


# Any input at all (goal G8)

BITS = [*NASTY, "\x7f", "\ufeff", "\u202e", "%0D", "--\r\n", "\r\n--", "a", "image", "x" * 200, "个"]
GOOD_TYPES = [None, None, None, "image/jpeg", "image/x-y+z"]
BAD_TYPES = ["text/html; charset=x", "a/b\r\nX: y", "a/b\0", 'a/"b"', "é/b", "/"]
SOURCES = [b"\xff\xd8\xff", b"\r\n--", b"\r", b"\n", b"--", b"\r\n\r\n", b"\0", b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"]


def text_of(rng):
    surrogate = "\ud800" if rng.randrange(40) == 0 else ""
    return "".join(rng.choices(BITS, k=rng.choice([0, 1, 2, 5]))) + surrogate


def media_type_of(rng):
    return rng.choice(GOOD_TYPES if rng.randrange(10) else BAD_TYPES)


def picture_of(rng):
    """Return a few bytes that look like structure, or now and then so many that they end near the edge of a chunk."""
    size = rng.choice([WHOLE_BYTES, CHUNK_BYTES]) - rng.randrange(900) if rng.randrange(300) == 0 else 0
    return bytes(size) + b"".join(rng.choices(SOURCES, k=rng.choice([1, 2, 5])))


def escaped(name):
    """Return a name as browsers write it between quotes."""
    return b"".join({13: b"%0D", 10: b"%0A", 34: b"%22", 0: b"%00"}.get(byte, bytes([byte])) for byte in name.encode())


def encoded(fields, pictures):
    """Return the type and the bytes of a body, made as a session makes it; None for input that is refused."""
    anything = Endpoint("anything", "", object)
    try:
        images = {name: ImageFile(source, name=called, media_type=kind) for name, called, kind, source in pictures}
        request = encode(anything, fields, images, ROOMY)
    except (TypeError, ValueError):
        return None
    try:
        return run(sent_by(request.body))
    except LimitError:
        return None


def test_no_input_makes_another_body_than_it_should(rng, full):
    """Whatever names, texts and pictures are given: two parsers find exactly them, or they are refused."""
    seen = Counter()
    for _ in range(1_000_000 if full else 4_000):
        fields = {text_of(rng) + "x": text_of(rng) for _ in range(rng.randrange(3))}
        pictures = [
            (f"{text_of(rng)}{index}", rng.choice([None, text_of(rng)]), media_type_of(rng), picture_of(rng))
            for index in range(rng.choice([1, 1, 2]))
        ]
        found = encoded(fields, pictures)
        seen[found is not None] += 1
        if found is None:
            continue
        expected = [(escaped(name), None, value.encode()) for name, value in fields.items()]
        expected += [
            (escaped(name), b"" if called is None else escaped(called), content)
            for name, called, _, content in pictures
        ]
        for parse in (parts_by_python_multipart, parts_by_email):
            parts = parse(*found)
            assert expected == [with_neutral_name(headers, content) for headers, content in parts]
            kinds = [headers.get(b"content-type") for headers, _ in parts]
            assert [None] * len(fields) == kinds[: len(fields)]
            for kind, (_, _, given_kind, _) in zip(kinds[len(fields) :], pictures, strict=True):
                assert kind == given_kind.encode() if given_kind else kind
    assert seen[True] > seen[False] > 100


def with_neutral_name(headers, content):
    """Return name, file name and content of a part, the file name empty where it is one of ours."""
    assert headers.keys() <= {b"content-disposition", b"content-type"}
    found = parameters(headers[b"content-disposition"])
    called = found.get(b"filename")
    return found[b"name"], b"" if called and re.fullmatch(rb"image\d(\.\w+)?", called) else called, content


# Length

fields_of_a_call = st.dictionaries(hostile.map("x{}".format), hostile | st.lists(hostile, max_size=3), max_size=4)
pictures_of_a_call = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.none() | hostile, st.sampled_from([None, "image/x-y+z"])),
    max_size=4,
)


@given(fields_of_a_call, pictures_of_a_call)
def test_the_size_computed_is_the_bytes_sent(fields, pictures):
    """Before anything is loaded, for any fields, names and pictures; without pictures it is the JSON's."""
    images = {
        f"image{index}": ImageFile(b"\xff" + content, name=name, media_type=media_type)
        for index, (content, name, media_type) in enumerate(pictures)
    }
    body = encode(Endpoint("anything", "", object), fields, images, ROOMY).body
    computed = body.size
    _, content = run(sent_by(body))
    assert len(content) == computed == body.size == body.length


@pytest.mark.anyio
@pytest.mark.parametrize("kept", [True, False])
async def test_the_size_of_files_that_were_looked_at_is_computed_without_reading_them(tmp_path, kept):
    """It is what is sent of them later, although they are gone when it is computed."""
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3 * CHUNK_BYTES))
    picture = Picture(path)
    picture.look(keep_up_to=path.stat().st_size if kept else 0)
    body = encode(Endpoint("anything", "", object), {"tag": "t"}, {"images": [picture, JPEG]}, ROOMY).body
    path.rename(tmp_path / "away.png")
    computed = body.size
    (tmp_path / "away.png").rename(path)
    _, content = await sent_by(body)
    assert len(content) == computed


SIZES = sorted(
    {n for base in (0, 1, 2) for n in (base * CHUNK_BYTES - 1, base * CHUNK_BYTES, base * CHUNK_BYTES + 1)} - {-1, 0}
)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [*SIZES, 3 * CHUNK_BYTES // 2])
@pytest.mark.parametrize("in_file", [True, False], ids=["path", "bytes"])
async def test_the_length_is_the_bytes_sent(size, in_file, tmp_path, rng):
    """Around every edge of a chunk, Content-Length is exact, and the picture is whole."""
    picture = rng.randbytes(size)
    path = tmp_path / "picture"
    path.write_bytes(picture)
    for pictures in ([picture], [picture, picture]):
        sources = [(f"images[{index}]", Picture(path if in_file else picture)) for index in range(len(pictures))]
        content_type, body = await sent_by(MultipartBody([("tag", "t")], sources))
        assert pictures == [content for _, content in parts_by_python_multipart(content_type, body)[1:]]


@pytest.mark.anyio
@pytest.mark.parametrize("overhang", [-1, 0, 1])
async def test_the_length_is_the_bytes_sent_when_the_whole_body_ends_at_a_chunk(overhang, tmp_path):
    """Also where the closing boundary falls on, or is cut by, the edge of a chunk."""
    path = tmp_path / "picture"
    for frame_cut in range(0, 60, 7):
        probe = MultipartBody([], [("image", Picture(b"x"))])
        await probe.load(ROOMY, ThreadJobs())
        path.write_bytes(b"\xff" * (2 * CHUNK_BYTES - probe.length + 1 + overhang + frame_cut))
        content_type, body = await sent_by(MultipartBody([], [("image", Picture(path))]))
        [(_, content)] = parts_by_email(content_type, body)
        assert path.read_bytes() == content


@pytest.mark.anyio
async def test_chunks_are_large_and_the_last_comes_last(tmp_path):
    """Every chunk but the last is CHUNK_BYTES long, and nothing is handed over until the last is asked for."""
    path = tmp_path / "picture"
    path.write_bytes(bytes(3 * CHUNK_BYTES))
    for source in (path, path.read_bytes()):
        body = MultipartBody([("tag", "t")], [("image", Picture(source)), ("image", Picture(source))])
        await body.load(ROOMY, ThreadJobs())
        sizes = []
        attempt = body.attempt()
        while not attempt.handed_over:
            sizes.append(len(await anext(attempt)))
        assert {CHUNK_BYTES} == set(sizes[:-1])
        assert 0 < sizes[-1] <= CHUNK_BYTES
        with pytest.raises(StopAsyncIteration):
            await anext(attempt)


@pytest.mark.anyio
async def test_every_attempt_is_the_same_and_its_own():
    """A body can be sent any number of times, also at the same time."""
    body = MultipartBody([("tag", "t")], [("image", Picture(io.BytesIO(JPEG)))])
    await body.load(ROOMY, ThreadJobs())
    attempts = [body.attempt(), body.attempt()]
    contents = [b"".join([chunk async for chunk in attempt]) for attempt in attempts]
    assert contents[0] == contents[1]


@pytest.mark.anyio
async def test_a_json_body_is_handed_over_in_one_chunk():
    """JSON is short: one chunk, which is the last."""
    body = JsonBody(b'{"appid": "1"}')
    await body.load(ROOMY, ThreadJobs())
    attempt = SentBody(body)
    assert not attempt.handed_over
    assert [b'{"appid": "1"}'] == [chunk async for chunk in attempt]
    assert attempt.handed_over


@pytest.mark.anyio
async def test_a_small_body_in_memory_can_be_had_in_one_go(tmp_path):
    """It is the same bytes as in chunks, and handed over with that; files and large bodies come in chunks only."""
    path = tmp_path / "picture"
    path.write_bytes(JPEG)
    for body in (JsonBody(b"{}"), MultipartBody([("tag", "t")], [("image", Picture(JPEG)), ("b", Picture(path))])):
        _, content = await sent_by(body)
        attempt = body.attempt()
        assert not attempt.handed_over
        assert content == b"".join(attempt.in_one_go())
        assert attempt.handed_over
    path.write_bytes(JPEG + bytes(WHOLE_BYTES))
    for source in (path, path.read_bytes()):
        body = MultipartBody([], [("image", Picture(source))])
        await body.load(ROOMY, ThreadJobs())
        attempt = body.attempt()
        assert attempt.in_one_go() is None
        assert not attempt.handed_over
        assert body.length == len(b"".join([chunk async for chunk in attempt]))


def test_a_name_given_is_the_name_sent():
    """Plain names pass unchanged, in UTF-8, as browsers send them."""
    picture = Picture(ImageFile(JPEG, name="Zoë 1.jpg").source, name="Zoë 1.jpg")
    _, body = run(sent_by(MultipartBody([], [("image", picture)])))
    assert 'name="image"; filename="Zoë 1.jpg"\r\n'.encode() in body
