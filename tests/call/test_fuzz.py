"""The specification's own answers, mutated without end (goal G8): whatever comes, it is a result or a typed error."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from copy import deepcopy
from functools import partial

import pytest
from specification import ANSWERS

from face_async import CODES, AddFaceResult, IdentifyResult, ResponseError, ServiceError
from face_async._call.judgement import facts_of
from face_async._call.multipart import JsonBody
from face_async._call.wire import Request, decode_answer
from face_async.endpoints import ENDPOINTS

URLS = {"addface": {"urls": ["http://x/a.jpg", "http://x/b.jpg"]}}
PIECES = [
    *(b"null true false 0 -0 1e999 -1 1.5 NaN Infinity 1E400 00 {} [] \"\" '' // /**/".split()),
    *(b'\xff \xc0\x80 \xed\xa0\x80 \xf5 \xef\xbb\xbf \x00 \x1f \\ \\u \\ud800 "\\ud800" \\" , : { } [ ] "'.split(b" ")),
    *[b'"code":0,', b'"data":{},', b'"data":null,', b'"message":"x",', b"1" * 5_000, b"[" * 2_000, b'{"":' * 2_000],
    "个人😀".encode(),
]
VALUES = [
    *[None, True, False, 0, 1, -1, 2**63, 10**400, 0.0, -0.5, 1e308, float("inf"), float("nan"), -1303, 15, 213],
    *["", "0", "1.5", "null", "a" * 3_000, "\0", "\ud800", "个人😀", [], {}, [[]], [None], [{}], ["a", 1], {"": None}],
    *[{"code": 0}, {"data": {}}, {"candidates": []}, [0, 0], [-1312, 0], ["7", ""], ["7"], [True], [1.5]],
]
ALL_CODES = [*CODES, 0, 1, -9999]


# Mutations of bytes


def flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] = rng.randrange(256)


def insert(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content) + 1)
    content[place:place] = rng.choice(PIECES)


def replace(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start : start + rng.randrange(9)] = rng.choice(PIECES)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def remove(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.randrange(1, 40)]


def repeat(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    piece = content[start : start + rng.randrange(1, 40)]
    content[start:start] = piece


def splice(content: bytearray, rng: random.Random) -> None:
    other = rng.choice(list(ANSWERS.values()))
    content[rng.randrange(len(content)) :] = other[rng.randrange(len(other)) :]


BYTE_MUTATIONS = [flip, insert, replace, cut, remove, repeat, splice]


def mutated_bytes(answer: bytes, rng: random.Random) -> bytes:
    content = bytearray(answer)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        rng.choice(BYTE_MUTATIONS)(content, rng)
        content = content or bytearray(b" ")
    return bytes(content)


# Mutations of values


def nodes(value: object, parent: object = None, key: object = None):
    """Yield every place of a JSON value, as its parent and its key there."""
    if parent is not None:
        yield parent, key
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for inner_key, inner in list(entries):
        yield from nodes(inner, value, inner_key)


def twice(value: object) -> str:
    """Return the JSON of an object that names its last key twice."""
    text = json.dumps(value)
    return f'{text[:-1]},"{list(value)[-1]}":0}}'


def mutated_values(answer: bytes, rng: random.Random) -> bytes:
    value = json.loads(answer)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        parent, key = rng.choice(list(nodes(value)) or [({}, "")])
        match rng.randrange(8):
            case 0:
                parent.pop(key, None) if isinstance(parent, dict) else parent.pop()
            case 1 if isinstance(parent, dict):
                parent[rng.choice(["", "meta", "images", "tag", "code", "x" * 300])] = deepcopy(rng.choice(VALUES))
            case 1 | 2 if isinstance(parent, list):
                parent.append(deepcopy(rng.choice(VALUES)))
            case 3:
                parent[key] = [parent.get(key)] if isinstance(parent, dict) else {"": parent[key]}
            case 4:
                value["code"] = rng.choice(ALL_CODES)
            case _:
                parent[key] = deepcopy(rng.choice(VALUES))
    text = twice(value) if value and rng.randrange(20) == 0 else json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


# The truth


def end_of(request: Request, content: bytes) -> object:
    """Return the result of an answer, or the error that it is; any other error is the test's failure."""
    try:
        return decode_answer(request, 200, content, partial(facts_of, endpoint=request.endpoint))
    except (ResponseError, ServiceError) as error:
        return error


def check(end: object) -> str:
    """Assert that an error says where the answer breaks, in printable words, and that a result can be used."""
    if isinstance(end, ResponseError | ServiceError):
        assert str(end).isprintable()
        assert (None, None) == (end.__cause__, end.__context__)
        assert end.code if isinstance(end, ServiceError) else end.path.startswith("$")
        return "refused" if isinstance(end, ServiceError) else "bad"
    assert repr(end)
    assert end == end  # noqa: PLR0124 - no NaN got in
    if isinstance(end, AddFaceResult):
        assert 2 == len(end.faces)
    if isinstance(end, IdentifyResult):
        assert all(math.isfinite(candidate.confidence) for candidate in end.candidates)
    return "good"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_no_answer_brings_out_anything_but_a_result_or_a_typed_error(endpoint, seed, full):
    """Two thousand mutations of each answer, or a million of all together."""
    rng = random.Random(f"{seed} {endpoint.name}")
    request = Request(endpoint, JsonBody(b""), {}, URLS.get(endpoint.name, {}), ())
    answer = ANSWERS[endpoint.name]
    ends: Counter[str] = Counter()
    for turn in range(1_000_000 // len(ENDPOINTS) + 1 if full else 2_000):
        content = (mutated_values if turn % 2 else mutated_bytes)(answer, rng)
        ends[check(end_of(request, content))] += 1
    # A fuzzer of which nothing gets through, or everything, tests little.
    assert {"bad", "refused", "good"} == {end for end, count in ends.items() if count > 10}
