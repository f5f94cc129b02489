"""The verbs beyond the specification: what they send and read, and servers that lack them."""

from __future__ import annotations

import json
import pickle
import re
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import httpx
import pytest
from doubles import AT_ONCE, envelope, session_on
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import face_async
from face_async import (
    Candidate,
    DetectedFace,
    DetectResult,
    FaceApi,
    FaceBox,
    IdentifiedFace,
    InvalidParameterError,
    MultiIdentifyResult,
    ResponseError,
    RetryPolicy,
    UnsupportedError,
)
from face_async.endpoints import ENDPOINTS, LATER_ENDPOINTS
from face_async.server.handlers import HANDLERS
from face_async.server.later import LATER_HANDLERS

pytestmark = pytest.mark.anyio

DOCS = Path(face_async.__file__).parent / "docs"
# What the hosted service and its sibling were seen to answer, and what later documents print.
DETECTED = (
    b'{"code":0,"message":"OK","data":{"session_id":"","image_height":500,"image_width":500,"face":[{"face_id":'
    b'"1996293255563337727","x":149,"y":118,"height":202.0,"width":202.0,"pitch":14,"roll":0,"yaw":0,"age":22,'
    b'"gender":0,"glass":false,"expression":35,"beauty":81,"glasses":0,"mask":0,"hat":0,"face_shape":{}},'
    b'{"face_id":"2","x":1,"y":2,"width":30,"height":40}]}}'
)
IDENTIFIED = (
    b'{"code":0,"message":"OK","data":{"results":[{"candidates":[{"person_id":"p2","face_id":"2","confidence":35,'
    b'"tag":""},{"person_id":"p1","face_id":"1","confidence":63}],"face_rect":{"x":100,"y":100,"width":200,'
    b'"height":200}},{"candidates":[],"face_rect":{"x":1,"y":2,"width":3.5,"height":4}}],"session_id":"",'
    b'"group_size":1000,"time_ms":687}}'
)
ADDED = envelope({"person_id": "ada", "added": 1, "group_ids": ["guests"], "session_id": ""})
DELETED = envelope({"person_id": "ada", "deleted": 2, "group_ids": ["guests", "staff"], "session_id": "s"})

CALLS = {
    "detect": lambda session: session.detect("http://x/y.jpg"),
    "addgroupids": lambda session: session.add_group_ids("ada", ["staff", "guests"]),
    "delgroupids": lambda session: session.del_group_ids("ada", ["staff", "guests"]),
    "multidentify": lambda session: session.multi_identify(["staff", "guests"], "http://x/y.jpg"),
}


@pytest.fixture(params=LATER_ENDPOINTS, ids=lambda endpoint: endpoint.name)
def endpoint(request):
    return request.param


def sent_fields(sent) -> dict[str, object]:
    """Return what one request carried, whatever its form."""
    if sent.headers["content-type"] == "application/json":
        return json.loads(sent.body)
    packet = b"Content-Type: " + sent.headers["content-type"].encode() + b"\r\n\r\n" + sent.body
    parts = BytesParser(policy=HTTP).parsebytes(packet).get_payload()
    named = [(part.get_param("name", header="content-disposition"), part) for part in parts]
    return {name: part.get_payload(decode=True) if part.get_filename() else part.get_payload() for name, part in named}


# The table


def test_no_later_endpoint_is_forgotten(anyio_backend):
    """Each row has a call in these tests, and a handler of the local server."""
    names = {endpoint.name for endpoint in LATER_ENDPOINTS}
    assert names == set(CALLS)
    assert names | {"shape"} == set(LATER_HANDLERS)


@pytest.mark.skipif(not DOCS.is_dir(), reason="the wheel leaves the documentation out")
def test_the_documentation_lists_every_endpoint(anyio_backend):
    """With its verb, and those of the later revision with what was decided about them."""
    rows = dict(re.findall(r"^\| `(\w+)\(.*?\)` \| (\w+) \|", (DOCS / "verbs.md").read_text("utf-8"), re.MULTILINE))
    assert set(rows.values()) == {endpoint.name for endpoint in LATER_ENDPOINTS} | set(HANDLERS)
    assert all(hasattr(FaceApi, verb) for verb in rows)
    decisions = (DOCS / "server.md").read_text("utf-8")
    assert all(f"\n| {name}" in decisions or f", {name} |" in decisions for name in LATER_HANDLERS)


def test_a_row_says_whether_it_is_in_the_specification(anyio_backend):
    """By its section."""
    assert [endpoint.later for endpoint in (*ENDPOINTS, *LATER_ENDPOINTS)] == [False] * 13 + [True] * 4


# What is sent


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda session: session.detect("http://x/y.jpg"), {"url": "http://x/y.jpg"}),
        (lambda session: session.detect("http://x/y.jpg", largest_only=True), {"url": "http://x/y.jpg", "mode": 1}),
        (lambda session: session.detect(b"\xff\xd8\xffA"), {"image": b"\xff\xd8\xffA"}),
        (lambda session: session.detect(b"\xff\xd8\xffA", largest_only=True), {"image": b"\xff\xd8\xffA", "mode": "1"}),
    ],
)
async def test_detect_sends_its_mode_as_the_official_clients_do(call, expected):
    """A number in JSON, a text in multipart, and nothing where it is all faces."""
    session, network = session_on(DETECTED)
    await call(session)
    assert network.sent[0].url.endswith("/face/detect")
    assert sent_fields(network.sent[0]) == {"appid": "123456", "bucket": "test"} | expected


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_a_persons_groups_are_sent_as_json(verb):
    """With exactly the parameters of the documents."""
    answers = {"add_group_ids": [envelope({"person_ids": []}), envelope({"group_ids": []}), ADDED]}
    session, network = session_on(*answers.get(verb, [DELETED]))
    await getattr(session, verb)("ada", ["guests"])
    expected = {"appid": "123456", "bucket": "test", "person_id": "ada", "group_ids": ["guests"]}
    assert sent_fields(network.sent[-1]) == expected


@pytest.mark.parametrize("verb", ["identify", "multi_identify"])
@pytest.mark.parametrize(
    ("groups", "in_json", "in_multipart"),
    [
        ("staff", {"group_id": "staff"}, {"group_id": "staff"}),
        (["staff"], {"group_id": "staff"}, {"group_id": "staff"}),
        (
            ("staff", "guests"),
            {"group_ids": ["staff", "guests"]},
            {"group_ids[0]": "staff", "group_ids[1]": "guests"},
        ),
    ],
)
async def test_one_group_is_sent_as_the_specification_has_it_and_several_as_a_list(verb, groups, in_json, in_multipart):
    """So that one group needs no server of a later revision."""
    answer = IDENTIFIED if verb == "multi_identify" else envelope({"candidates": []})
    session, network = session_on(answer)
    await getattr(session, verb)(groups, "http://x/y.jpg")
    await getattr(session, verb)(groups, b"\xff\xd8\xffA")
    account = {"appid": "123456", "bucket": "test"}
    assert sent_fields(network.sent[0]) == account | in_json | {"url": "http://x/y.jpg"}
    assert sent_fields(network.sent[1]) == account | in_multipart | {"image": b"\xff\xd8\xffA"}


@pytest.mark.parametrize("groups", [[], ["a", "a"], ["a b", "c"], "", [""]], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda session, groups: session.identify(groups, "http://x/y.jpg"),
        lambda session, groups: session.multi_identify(groups, "http://x/y.jpg"),
        lambda session, groups: session.add_group_ids("ada", [groups] if isinstance(groups, str) else groups),
        lambda session, groups: session.del_group_ids("ada", [groups] if isinstance(groups, str) else groups),
    ],
    ids=["identify", "multi_identify", "add_group_ids", "del_group_ids"],
)
async def test_wrong_groups_are_refused_before_anything_is_sent(call, groups):
    """None, one twice, one that no server would take."""
    session, network = session_on(envelope())
    with pytest.raises(ValueError, match="group_id"):
        await call(session, groups)
    assert network.sent == []


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_groups_are_a_list(verb):
    """A single str would be one group a letter."""
    session, network = session_on(envelope())
    with pytest.raises(TypeError, match="group_ids must be a list of str, not a single str"):
        await getattr(session, verb)("ada", "staff")
    assert network.sent == []


# What is read


async def test_detected_faces_are_typed():
    """Fields that nobody documents are ignored; a face that is placed alone has no description."""
    session, _ = session_on(DETECTED)
    described = DetectedFace(
        face_id="1996293255563337727", x=149, y=118, width=202.0, height=202.0, gender=0, age=22, expression=35,
        glass=False, pitch=14, yaw=0, roll=0, beauty=81,
    )  # fmt: skip
    placed = DetectedFace(face_id="2", x=1, y=2, width=30.0, height=40.0)
    assert await session.detect(b"\xff\xd8\xff") == DetectResult(
        faces=(described, placed), image_width=500, image_height=500
    )
    assert (placed.age, placed.glass) == (None, None)


async def test_identified_faces_are_typed():
    """Each with its candidates, the most confident first, and its box."""
    session, _ = session_on(IDENTIFIED)
    found = await session.multi_identify("staff", b"\xff\xd8\xff")
    candidates = (
        Candidate(person_id="p1", face_id="1", confidence=63.0),
        Candidate(person_id="p2", face_id="2", confidence=35.0),
    )
    assert found == MultiIdentifyResult(
        faces=(
            IdentifiedFace(candidates=candidates, box=FaceBox(x=100, y=100, width=200.0, height=200.0)),
            IdentifiedFace(candidates=(), box=FaceBox(x=1, y=2, width=3.5, height=4.0)),
        )
    )
    assert [face.best for face in found.faces] == [candidates[0], None]


@pytest.mark.parametrize(
    ("name", "answer", "path"),
    [
        ("detect", DETECTED.replace(b'"age":22', b'"age":"22"'), "$.data.face[0].age"),
        ("detect", DETECTED.replace(b'"glass":false', b'"glass":0'), "$.data.face[0].glass"),
        ("detect", DETECTED.replace(b'"x":1,', b""), "$.data.face[1].x"),
        ("detect", DETECTED.replace(b'"image_width":500,', b""), "$.data.image_width"),
        ("multidentify", IDENTIFIED.replace(b'"x":100', b'"x":1.5'), "$.data.results[0].face_rect.x"),
        ("multidentify", IDENTIFIED.replace(b'"confidence":63', b'"tag":"t"'), "$.data.results[0].candidates[1]"),
        ("addgroupids", ADDED.replace(b'"added": 1', b'"added": true'), "$.data.added"),
        ("delgroupids", DELETED.replace(b'"guests"', b"7"), "$.data.group_ids[0]"),
    ],
)
async def test_an_answer_of_another_shape_says_where_it_breaks(name, answer, path):
    """As the answers of the specification's endpoints do."""
    listed = [envelope({"person_ids": []})] * 2 + [envelope({"group_ids": []})] if name == "addgroupids" else []
    session, _ = session_on(*listed, answer, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(ResponseError) as caught:
        await CALLS[name](session)
    assert caught.value.path.startswith(path)


# Servers that lack them


def old_server(answer, anyio_backend_name: str = "") -> httpx.ASGITransport:
    """Return a server of the 13 endpoints alone: it lists no persons and no groups, and answers all else in its way."""

    async def list_nothing(request):
        return PlainTextResponse(envelope({"person_ids": [], "group_ids": []}), media_type="application/json")

    routes = [Route(f"/face/{name}", list_nothing, methods=["POST"]) for name in ("getpersonids", "getgroupids")]
    return httpx.ASGITransport(Starlette(routes=routes, exception_handlers={404: answer, 405: answer}))


async def bare_404(request, error):
    return PlainTextResponse("Not Found", status_code=404)


async def code_3(request, error):
    return PlainTextResponse(envelope(code=3, message="BAD_REQUEST"), media_type="application/json")


async def bare_405(request, error):
    return PlainTextResponse("<h1>Method Not Allowed</h1>", status_code=405, media_type="text/html")


@pytest.mark.parametrize("answer", [bare_404, bare_405, code_3])
async def test_a_server_without_the_endpoint_is_told_at_once(endpoint, answer):
    """A bare 404 or 405, or an envelope with code 3: one request, and an error that says what to do."""
    options = {"base_url": "http://localhost", "transport": old_server(answer), "retry": AT_ONCE}
    session = face_async.FaceSession("123456", "test", face_async.Credentials("AKID", "key"), **options)
    with pytest.raises(
        UnsupportedError, match=rf"^{endpoint.name}\b.*: the server does not have this endpoint"
    ) as caught:
        await CALLS[endpoint.name](session)
    assert (caught.value.endpoint, caught.value.attempts, caught.value.maybe_applied) == (endpoint.name, 1, False)
    assert caught.value.__cause__ is None
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_no_other_error_is_taken_for_a_missing_endpoint():
    """Not an unpaid account, not the specification's own endpoints, not a server in trouble."""
    unpaid = envelope(code=3, message="account abnormal,errorno is:2")
    session, _ = session_on(unpaid)
    with pytest.raises(InvalidParameterError, match="account abnormal"):
        await session.detect(b"\xff\xd8\xff")
    session, _ = session_on((b"Not Found", 404), retry=AT_ONCE)
    with pytest.raises(ResponseError):
        await session.get_group_ids()
    session, _ = session_on((b"Bad Gateway", 502), retry=AT_ONCE)
    with pytest.raises(ResponseError):
        await session.detect(b"\xff\xd8\xff")
