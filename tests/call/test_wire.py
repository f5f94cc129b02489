"""Answers: what is accepted, and where an answer breaks the specification."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from functools import partial

import pytest
from doubles import envelope, session_on
from hypothesis import given
from hypothesis import strategies as st

from face_async import (
    CODES,
    DuplicateFaceError,
    ImageError,
    Meta,
    ResponseError,
    RetryPolicy,
    ServiceError,
)
from face_async._call.judgement import facts_of
from face_async._call.multipart import JsonBody
from face_async._call.wire import Request, decode_answer
from face_async.endpoints import ENDPOINTS, GET_GROUP_IDS, GET_PERSON_IDS, IDENTIFY

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(max_attempts=1)


def identify_answer(**changes) -> bytes:
    candidate = {"person_id": "p", "face_id": "1", "confidence": 54.9, "tag": ""} | changes
    return envelope({"session_id": "", "candidates": [candidate]})


@pytest.mark.parametrize("code", CODES)
async def test_every_code_raises_the_error_that_the_table_names(code):
    """An envelope with a code other than 0 raises its class, with everything the answer said."""
    session, _ = session_on(envelope({"session_id": "s7"}, code, CODES[code].name), retry=ONCE)

    with pytest.raises(ServiceError) as caught:
        await session.get_info("person0")

    error = caught.value
    assert CODES[code].error is type(error)
    expected = (code, CODES[code].name, "getinfo", "s7", {"session_id": "s7"}, 1)
    assert expected == (error.code, error.name, error.endpoint, error.session_id, error.data, error.attempts)


async def test_an_unknown_code_is_a_plain_service_error():
    """A code that the specification does not list stays a ServiceError, with the server's message."""
    session, _ = session_on(envelope(None, -9999, "NEW\x1b[31m"))

    with pytest.raises(ServiceError, match=r"-9999 .*NEW\\x1b\[31m") as caught:
        await session.get_info("person0")

    assert (ServiceError, -9999, "NEW\x1b[31m") == (type(caught.value), caught.value.code, caught.value.message)


@pytest.mark.parametrize("data", [None, {}, {"similarity": 0.0, "session_id": ""}], ids=["null", "empty", "zeros"])
async def test_with_an_error_data_may_be_missing_or_empty(data):
    """data may be null, empty or filled with zeros when the code is not 0."""
    session, _ = session_on(envelope(data, -1101))

    with pytest.raises(ImageError):
        await session.compare(b"a", b"b")


async def test_with_an_error_data_may_be_absent():
    """data may be absent when the code is not 0."""
    session, _ = session_on(b'{"code":-1101,"message":""}')

    with pytest.raises(ImageError):
        await session.compare(b"a", b"b")


async def test_a_failed_comparison_says_which_picture_failed():
    """fail_flag comes with failures, so data is read although the code is not 0."""
    session, _ = session_on(envelope({"fail_flag": 2, "session_id": ""}, -1101))

    with pytest.raises(ImageError, match="in the second picture") as caught:
        await session.compare(b"a", b"b")

    assert 2 == caught.value.data["fail_flag"]


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
async def test_a_well_formed_envelope_counts_whatever_the_http_status(status):
    """The specification documents no HTTP status for errors, so any will do."""
    session, _ = session_on((envelope({}, -1303), status))

    with pytest.raises(ServiceError) as caught:
        await session.get_info("person0")

    assert -1303 == caught.value.code


async def test_unknown_fields_are_ignored():
    """time_ms and group_size were seen in answers to identify."""
    data = {"session_id": "", "candidates": [], "time_ms": 12, "group_size": 3, "meta": {"status": 1}, "images": 1}
    session, _ = session_on(envelope(data))

    result = await session.identify("tencent", b"a")

    assert () == result.candidates
    assert None is result.best
    assert 200 == result.meta.status


async def test_a_confidence_may_be_the_integer_0():
    """verify answers 0, not 0.0, for a person without faces."""
    session, _ = session_on(envelope({"session_id": "", "confidence": 0, "ismatch": False}))

    result = await session.verify("person0", b"a")

    assert (0.0, False, float) == (result.confidence, result.is_match, type(result.confidence))


@pytest.mark.parametrize("data", [{"confidence": 1}, {"confidence": 1, "ismatch": 0}])
async def test_an_error_names_the_field_of_the_specification(data):
    """Not the attribute that it becomes."""
    session, _ = session_on(envelope(data), retry=RetryPolicy(max_attempts=1))

    with pytest.raises(ResponseError) as caught:
        await session.verify("person0", b"a")

    assert "$.data.ismatch" == caught.value.path


async def test_candidates_are_sorted_by_confidence():
    """The most confident is the first, and best, even if a server forgets to sort."""
    candidates = [{"person_id": name, "face_id": name, "confidence": value} for name, value in (("a", 1), ("b", 2.5))]
    session, _ = session_on(envelope({"candidates": candidates}))

    result = await session.identify("tencent", b"a")

    assert ["b", "a"] == [candidate.person_id for candidate in result.candidates]
    assert "b" == result.best.person_id


ADDED_SHAPES = {"one entry per image": ["7", "9", "8"], "one entry per added face": ["7", "8"]}


@pytest.mark.parametrize("face_ids", ADDED_SHAPES.values(), ids=ADDED_SHAPES)
async def test_both_shapes_of_face_ids_pair_images_with_their_faces(face_ids):
    """A rejected image has no face id, whether the server lists an entry for it or not."""
    session, _ = session_on(envelope({"added": 2, "face_ids": face_ids, "ret_codes": [0, -1312, 0]}))

    result = await session.add_face("person0", [b"a", b"b", b"c"])

    expected = [(b"a", "7", 0, True), (b"b", None, -1312, False), (b"c", "8", 0, True)]
    assert expected == [(face.image, face.face_id, face.code, face.added) for face in result.faces]
    with pytest.raises(DuplicateFaceError):
        result.raise_for_failures()


BROKEN_ADDFACE = {
    "added contradicts ret_codes": ({"added": 1, "face_ids": ["7", "8"], "ret_codes": [0, 0]}, "$.data"),
    "neither shape": ({"added": 3, "face_ids": ["7"], "ret_codes": [0, 0, 0]}, "$.data"),
    "other number of codes": ({"added": 1, "face_ids": ["7"], "ret_codes": [0]}, "$.data.ret_codes"),
}


@pytest.mark.parametrize(("data", "path"), BROKEN_ADDFACE.values(), ids=BROKEN_ADDFACE)
async def test_an_addface_answer_that_cannot_be_paired_is_malformed(data, path):
    """Only the two known shapes are accepted, and the effect may have happened."""
    session, network = session_on(envelope(data), retry=RetryPolicy(max_attempts=1))

    with pytest.raises(ResponseError) as caught:
        await session.add_face("person0", [b"a", b"b"])

    assert (path, True, 1) == (caught.value.path, caught.value.maybe_applied, len(network.sent))


BROKEN = {
    "not JSON": (b"<html>busy</html>", "$"),
    "empty": (b"", "$"),
    "not UTF-8": (b'{"code":0,"message":"\xff"}', "$"),
    "a byte order mark": (b'\xef\xbb\xbf{"code":0}', "$"),
    "an array": (b"[]", "$"),
    "no code": (b'{"data":{}}', "$.code"),
    "code as text": (b'{"code":"0","data":{}}', "$.code"),
    "code true": (b'{"code":true,"data":{}}', "$.code"),
    "message as number": (b'{"code":0,"message":5,"data":{}}', "$.message"),
    "no data": (b'{"code":0}', "$.data"),
    "data as array": (b'{"code":0,"data":[]}', "$.data"),
    "no candidates": (b'{"code":0,"data":{}}', "$.data.candidates"),
    "candidates as text": (b'{"code":0,"data":{"candidates":"abc"}}', "$.data.candidates"),
    "a candidate as text": (b'{"code":0,"data":{"candidates":["abc"]}}', "$.data.candidates[0]"),
    "confidence as text": (identify_answer(confidence="high"), "$.data.candidates[0].confidence"),
    "confidence true": (identify_answer(confidence=True), "$.data.candidates[0].confidence"),
    "confidence too large": (identify_answer(confidence=10**400), "$.data.candidates[0].confidence"),
    "person_id as number": (identify_answer(person_id=5), "$.data.candidates[0].person_id"),
    "face_id null": (identify_answer(face_id=None), "$.data.candidates[0].face_id"),
    "NaN": (b'{"code":0,"data":{"candidates":[{"confidence":NaN}]}}', "$"),
    "infinite by exponent": (
        b'{"code":0,"data":{"candidates":[{"person_id":"p","face_id":"1","confidence":1e999}]}}',
        "$.data.candidates[0].confidence",
    ),
    "a key twice": (b'{"code":0,"code":0,"data":{}}', "$"),
    "100,000 deep": (b"[" * 100_000, "$"),
    "60,000 deep": (b"[" * 60_000, "$"),
    "an integer of 5,000 digits": (b'{"code":' + b"1" * 5_000 + b"}", "$"),
}


@pytest.mark.parametrize(("content", "path"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_says_where_it_breaks_the_specification(content, path):
    """No json or cattrs exception escapes: a ResponseError names the place."""
    session, _ = session_on(content, retry=ONCE)

    with pytest.raises(ResponseError) as caught:
        await session.identify("tencent", b"a")

    assert (path, 200, "identify") == (caught.value.path, caught.value.status, caught.value.endpoint)
    assert caught.value.maybe_applied is False
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


# Answers of few bytes that would be many as objects (goal G7)

MOST_BYTES = 4 * 1024 * 1024  # of an answer that reaches the decoder
MOST_GROWTH = 16 * 1024 * 1024


def filled(start: bytes, piece: bytes, end: bytes, size: int = MOST_BYTES) -> bytes:
    """Return as many pieces as fit into an answer, between its start and its end."""
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


def padded(start: bytes, piece: bytes, count: int, end: bytes) -> bytes:
    """Return so many pieces, and white space up to the largest answer."""
    content = start + piece * count + end
    return content + b" " * (MOST_BYTES - len(content))


CHAIN = b'{"":' * 900 + b"0" + b"}" * 900
GROUPS = b'{"code":0,"data":{"group_ids":['
BOMBS = {
    "empty objects": lambda: filled(b"[", b"{},", b"{}]"),
    "ones": lambda: filled(b"[", b"1,", b"1]"),
    "short strings": lambda: filled(b"[", b'"aa",', b'""]'),
    "one emoji": lambda: filled('["😀'.encode(), b"a", b'"]'),
    "half of it with one emoji": lambda: filled('["😀'.encode(), b"a", b'"]', MOST_BYTES * 3 // 8),
    "two bytes a character": lambda: filled(b'["', "中".encode(), b'"]', MOST_BYTES * 3 // 4),
    "one long string": lambda: filled(b'["', b"a", b'"]'),
    "one string of escapes": lambda: filled(b'["', rb"\u4e2d", b'"]'),
    "one string without an end": lambda: filled(b'"', rb"\"", b""),
    "nothing but quotes": lambda: b'"' * MOST_BYTES,
    "a quote and commas": lambda: b'"' + b"," * (MOST_BYTES - 1),
    "as many empty objects as may be": lambda: padded(b"[", b"{},", 32_700, b"0]"),
    "as many chains as may be": lambda: padded(b"[", CHAIN + b",", 36, b"0]"),
    "integers of 4,300 digits": lambda: filled(b"[", b"1" * 4_300 + b",", b"0]"),
    "many wrong entries": lambda: padded(GROUPS, b"1,", 65_000, b"1]}}"),
    "many wrong entries behind a good one": lambda: padded(GROUPS + b'"a",', b"1,", 65_000, b"1]}}"),
    "a long message": lambda: filled(b'{"code":-1101,"message":"', b"\x7f", b'"}'),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_answer_takes_more_than_16_mib_to_understand(name):
    """Its own bytes counted, and whatever it is made of."""
    content = BOMBS[name]()
    tracemalloc.start()
    try:
        with pytest.raises((ResponseError, ServiceError)):
            decode_answer(request_to(GET_GROUP_IDS), 200, content, partial(facts_of, endpoint=GET_GROUP_IDS))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(content) <= MOST_BYTES
    assert len(content) + most <= MOST_GROWTH


LONG_IDS = {
    "twenty thousand": [f"{number:036}" for number in range(20_000)],
    "of 128 bytes": [f"{number:0128}" for number in range(10_000)],
    "of 128 bytes with one emoji": ["😀"] + [f"{number:0128}" for number in range(9_999)],
    "of 42 characters of three bytes": ["个" * 36 + f"{number:06}" for number in range(10_000)],
    "with colons": [f"urn:company:site:office:department:person:{number}:a:b:c" for number in range(10_000)],
    "with everything that separates": [f'{number}\\",:[{{' * 2 for number in range(10_000)],
}


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("name", LONG_IDS)
def test_a_full_group_is_understood(name, escaped):
    """The longest good answers, whatever their ids hold, and whether or not they are escaped, are read."""
    ids = LONG_IDS[name]
    content = json.dumps({"data": {"person_ids": ids}, "code": 0}, ensure_ascii=escaped).encode()
    assert tuple(ids) == decode_answer(
        request_to(GET_PERSON_IDS), 200, content, partial(facts_of, endpoint=GET_PERSON_IDS)
    )


async def test_wrapped_results_name_their_place_too():
    """The one field that is the result must be there."""
    session, _ = session_on(envelope({}), retry=ONCE)

    with pytest.raises(ResponseError, match=r"\$\.data\.group_ids: missing"):
        await session.get_group_ids()


async def test_results_say_how_they_came_but_are_equal_without():
    """meta has status, attempts and seconds, and takes no part in equality."""
    answer = envelope({"session_id": "s", "person_id": "person0"})
    session, _ = session_on(envelope(None, 107), answer, retry=RetryPolicy(base_delay=0))

    second_try = await session.set_info("person0", tag="x")
    first_try = await session.set_info("person0", tag="x")

    assert second_try == first_try
    assert (2, 1, 200) == (second_try.meta.attempts, first_try.meta.attempts, first_try.meta.status)
    assert second_try.meta.elapsed >= second_try.meta.queued >= 0
    assert "meta" not in repr(first_try)
    assert Meta() == Meta(0, 0, 0.0, 0.0, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["code", "data", "message", "candidates", "person_id", "confidence", "face_id", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_values, st.sampled_from(ENDPOINTS))
def test_no_json_brings_out_anything_but_typed_errors(value, endpoint):
    """Any JSON at all is a result, a ServiceError or a ResponseError."""
    decode_or_typed_error(
        Request(endpoint, JsonBody(b""), {}, {"url": "http://x/y.jpg"}, ()), json.dumps(value).encode()
    )


@given(st.binary(max_size=200))
def test_no_bytes_bring_out_anything_but_typed_errors(content):
    """Any bytes at all are a result, a ServiceError or a ResponseError."""
    decode_or_typed_error(request_to(IDENTIFY), content)


def request_to(endpoint) -> Request:
    """Return a request that carries one image."""
    return Request(endpoint, JsonBody(b""), {}, {"url": "http://x/y.jpg"}, ())


def decode_or_typed_error(request: Request, content: bytes) -> None:
    with suppress(ResponseError, ServiceError):
        decode_answer(request, 200, content, partial(facts_of, endpoint=request.endpoint))
