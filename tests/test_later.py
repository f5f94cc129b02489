"""The verbs beyond the specification: what they send, read, settle and bound, and servers that lack them."""

from __future__ import annotations

import io
import json
import pickle
import re
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import anyio
import httpx
import pytest
from doubles import envelope, session_on
from PIL import Image
from serverkit import ToyRecognizer, picture
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import face_async
from face_async import (
    AddGroupIdsResult,
    Candidate,
    DelGroupIdsResult,
    DetectedFace,
    DetectResult,
    FaceApi,
    FaceBox,
    GroupLimitError,
    IdentifiedFace,
    ImageError,
    InvalidParameterError,
    MultiIdentifyResult,
    NotFoundError,
    PersonLimitError,
    ResponseError,
    RetryPolicy,
    ServiceLimits,
    ShardedGroup,
    UnsupportedError,
)
from face_async.bulk.ledger import Key
from face_async.endpoints import ENDPOINTS, LATER_ENDPOINTS
from face_async.server import Face
from face_async.server.handlers import HANDLERS
from face_async.server.later import LATER_HANDLERS
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)
DOCS = Path(face_async.__file__).parent / "docs"
SMALL = ServiceLimits(max_persons_per_group=2, max_groups_per_appid=4)

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


class Crowd(ToyRecognizer):
    """Sees in a picture as many persons as its first pixel has red, the largest face being person 1."""

    def find_faces(self, content: bytes, *, most: int = 100) -> list[Face]:
        with Image.open(io.BytesIO(content)) as image:
            count = image.getpixel((0, 0))[0]
        return [self.find_face(picture(person + 1)) for person in range(count)][:most]


def crowd(count: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), (count, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def server():
    with FaceServer(recognizer=Crowd(), limits=SMALL) as server:
        yield server
        assert server.faults.pending == ()


@pytest.fixture
async def session(server, anyio_backend):
    async with server.session(retry=AT_ONCE) as session:
        yield session


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


# With the local server


async def test_the_faces_of_a_picture_are_found_and_identified(session):
    """All of them, or the largest alone."""
    for person in (1, 2):
        await session.new_person(f"p{person}", ["staff"], picture(person))
    assert len((await session.detect(crowd(2))).faces) == 2
    found = await session.detect(crowd(2), largest_only=True)
    assert (len(found.faces), found.image_width, found.image_height) == (1, 60, 40)
    faces = (await session.multi_identify(["staff"], crowd(2))).faces
    assert [face.best.person_id for face in faces if face.best] == ["p1", "p2"]
    with pytest.raises(ImageError, match="-1101"):
        await session.detect(crowd(0))
    with pytest.raises(NotFoundError, match="-1306"):
        await session.multi_identify(["staff", "nowhere"], crowd(1))


async def test_identify_searches_several_groups_as_if_they_were_one(session):
    """Five candidates of all, in one request."""
    await session.new_person("ada", ["staff"], picture(1))
    await session.new_person("bob", ["guests"], picture(2))
    found = await session.identify(["guests", "staff"], picture(1))
    assert [candidate.person_id for candidate in found.candidates] == ["ada", "bob"]


async def test_a_person_moves_between_groups(session):
    """Both verbs count real changes alone."""
    await session.new_person("ada", ["staff"])
    added = await session.add_group_ids("ada", ["staff", "guests"])
    assert added == AddGroupIdsResult(person_id="ada", added=1, group_ids=("guests",), session_id=added.session_id)
    deleted = await session.del_group_ids("ada", ["staff"])
    assert deleted == DelGroupIdsResult(person_id="ada", deleted=1, group_ids=("staff",), session_id=deleted.session_id)
    assert (await session.get_info("ada")).group_ids == ("guests",)
    for verb in (session.add_group_ids, session.del_group_ids):
        with pytest.raises(NotFoundError, match="-1303"):
            await verb("nobody", ["staff"])
    with pytest.raises(NotFoundError, match="-1306"):
        await session.del_group_ids("ada", ["nowhere"])


# Bounded by the ledger


async def test_no_group_gets_a_person_too_many(server, session):
    """The ledger refuses before anything is sent; whoever is in a full group already needs no room there."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["staff"])
    await session.new_person("cyd", ["guests"])
    with pytest.raises(PersonLimitError) as caught:
        await session.add_group_ids("cyd", ["staff", "guests"])
    assert not hasattr(caught.value, "code")
    assert server.calls("addgroupids") == []
    assert (await session.add_group_ids("ada", ["staff", "guests"])).group_ids == ("guests",)
    assert (await session.add_group_ids("ada", ["staff", "guests"])).added == 0
    with pytest.raises(GroupLimitError):
        await session.add_group_ids("ada", ["g1", "g2", "g3"])


async def test_whoever_leaves_a_group_makes_room(session):
    """The group is counted anew before anybody is refused."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    await session.new_person("cyd", ["guests"])
    await session.add_group_ids("bob", ["staff"])
    with pytest.raises(PersonLimitError):
        await session.add_group_ids("cyd", ["staff"])
    await session.del_group_ids("ada", ["staff"])
    assert (await session.add_group_ids("cyd", ["staff"])).added == 1


async def test_many_at_once_fill_a_group_to_its_limit_and_no_further(server, session):
    """Without a single refusal by the server, and with one list of each group."""
    for index in range(6):
        await session.new_person(f"p{index}", [f"g{index % 3}"])
    outcomes: list[type] = []

    async def join(index: int) -> None:
        try:
            await session.add_group_ids(f"p{index}", ["staff"])
            outcomes.append(int)
        except PersonLimitError:
            outcomes.append(PersonLimitError)

    async with anyio.create_task_group() as tasks:
        for index in range(6):
            tasks.start_soon(join, index)
    assert sorted(map(str, outcomes)) == sorted(map(str, [int] * 2 + [PersonLimitError] * 4))
    assert [call.code for call in server.calls("addgroupids")] == [0, 0]


# Settled


LOST = [
    pytest.param({"drop_response": True}, id="answer lost"),
    pytest.param({"code": 213, "after": True}, id="213 after the effect"),
    pytest.param({"status": 502, "after": True}, id="502 after the effect"),
    pytest.param({"drop_response": True, "late": 1}, id="late, before the retry"),
]


@pytest.mark.parametrize("fault", LOST)
async def test_groups_joined_by_a_lost_answer_are_found_out(server, session, fault):
    """The second answer counts nothing; the person is in all of them."""
    await session.new_person("ada", ["staff"])
    server.faults.add("addgroupids", **fault)
    added = await session.add_group_ids("ada", ["guests", "hq"])
    assert (added.added, added.group_ids) == (2, ("guests", "hq"))
    assert (added.meta.settled, added.meta.attempts) == ("the person is in all of the groups", 2)
    assert (await session.get_info("ada")).group_ids == ("staff", "guests", "hq")
    balance = session.ledger.snapshot(Key("persons", "guests"))
    assert balance is None or balance.ambiguous == 1


@pytest.mark.parametrize("fault", LOST)
async def test_groups_left_by_a_lost_answer_are_found_out(server, session, fault):
    """The person is in none of them."""
    await session.new_person("ada", ["staff", "guests"])
    server.faults.add("delgroupids", **fault)
    deleted = await session.del_group_ids("ada", ["guests", "staff"])
    assert (deleted.deleted, deleted.group_ids) == (2, ("guests", "staff"))
    assert (deleted.meta.settled, deleted.meta.attempts) == ("the person is in none of the groups", 2)
    assert (await session.get_info("ada")).group_ids == ()


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_a_request_that_was_lost_is_sent_again_and_nothing_is_looked_up(server, session, verb):
    """The second answer tells it all."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    group = "guests" if verb == "add_group_ids" else "staff"
    server.faults.add(verb.replace("_", ""), drop_request=True)
    result = await getattr(session, verb)("ada", [group])
    assert (result.group_ids, result.meta.settled, result.meta.attempts) == ((group,), "", 2)
    assert server.calls("getinfo") == []


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_what_cannot_be_found_out_is_said(server, session, verb):
    """Where no attempt got through, and the person's groups are not as they would be."""
    await session.new_person("ada", ["staff"])
    await session.new_person("bob", ["guests"])
    group = "guests" if verb == "add_group_ids" else "staff"
    server.faults.add(verb.replace("_", ""), drop_request=True, times=3)
    with pytest.raises(face_async.TransportError) as caught:
        await getattr(session, verb)("ada", [group])
    assert caught.value.maybe_applied


@pytest.mark.parametrize("verb", ["add_group_ids", "del_group_ids"])
async def test_a_person_who_is_gone_is_in_no_group(server, session, verb):
    """-1303 after a lost request: nothing was done."""
    await session.new_person("ada", ["staff"])
    server.faults.add(verb.replace("_", ""), drop_request=True)
    with pytest.raises(NotFoundError, match="-1303") as caught:
        await getattr(session, verb)("nobody", ["staff"])
    assert not caught.value.maybe_applied


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


async def test_the_local_server_lacks_what_it_lacks(session):
    """Its envelope for no endpoint is code 3; shape has one, as -1104."""
    assert json.loads((await session.request("nosuch", {})).content)["code"] == 3
    assert json.loads((await session.request("shape", {}, {"image": picture(1)})).content)["code"] == -1104


# In bulk


async def test_many_pictures_are_looked_at(session):
    """One outcome a picture, in order if asked for; one without a face fails alone."""
    pictures = [crowd(count) for count in (1, 0, 3)]
    async with session.detect_many(pictures, ordered=True) as outcomes:
        found = [outcome.error or len(outcome.unwrap().faces) async for outcome in outcomes]
    assert (found[0], type(found[1]), found[2]) == (1, ImageError, 3)
    async with session.detect_many(pictures[2:], largest_only=True) as outcomes:
        assert [len(outcome.unwrap().faces) async for outcome in outcomes] == [1]


async def test_many_pictures_are_identified_in_several_groups(session):
    """As identify does."""
    await session.new_person("ada", ["staff"], picture(1))
    await session.new_person("bob", ["guests"], picture(2))
    async with session.identify_many([picture(1), picture(2)], ["staff", "guests"], ordered=True) as outcomes:
        assert [outcome.unwrap().best.person_id async for outcome in outcomes] == ["ada", "bob"]


# Sharded


async def test_a_person_is_taken_into_a_population_and_out_of_it(session):
    """Into the lowest shard that has room; whoever is in it already stays where they are."""
    for person in ("ada", "bob", "cyd"):
        await session.new_person(person, ["others" if person != "cyd" else "rest"])
    staff = ShardedGroup(session, "staff")
    joined = [(await staff.add_person(person)).group_ids for person in ("ada", "bob", "cyd")]
    assert joined == [("staff-0000",), ("staff-0000",), ("staff-0001",)]
    assert (await staff.add_person("ada")).added == 0
    assert await staff.shards() == ["staff-0000", "staff-0001"]

    assert (await staff.remove_person("ada")).group_ids == ("staff-0000",)
    assert (await session.get_info("ada")).group_ids == ("others",)
    assert (await staff.add_person("ada")).group_ids == ("staff-0000",)
    with pytest.raises(NotFoundError):
        await staff.add_person("nobody")


async def test_a_person_moves_from_one_population_to_another(server, session):
    """Added there before they are removed here; what failed half-way is taken up again."""
    staff, alumni = ShardedGroup(session, "staff"), ShardedGroup(session, "alumni")
    await staff.new_person("ada", picture(1))
    await staff.new_person("bob", picture(2))
    moved = await staff.move_person("ada", alumni)
    assert (moved.added, moved.group_ids) == (1, ("alumni-0000",))
    assert (await session.get_info("ada")).group_ids == ("alumni-0000",)

    server.faults.add("delgroupids", code=-1310)
    with pytest.raises(PersonLimitError):
        await staff.move_person("bob", alumni)
    assert (await session.get_info("bob")).group_ids == ("staff-0000", "alumni-0000")
    assert (await staff.move_person("bob", alumni)).added == 0
    assert (await session.get_info("bob")).group_ids == ("alumni-0000",)
    assert [person async for person in staff.person_ids()] == []


async def test_only_members_are_moved_and_removed(session):
    """Nothing is changed for whoever is not in the population."""
    staff, alumni = ShardedGroup(session, "staff"), ShardedGroup(session, "alumni")
    await session.new_person("ada", ["others"])
    for step in (lambda: staff.remove_person("ada"), lambda: staff.move_person("ada", alumni)):
        with pytest.raises(NotFoundError) as caught:
            await step()
        assert "in none of the shards of 'staff'" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="to must be another population than 'staff'"):
        await staff.move_person("ada", ShardedGroup(session, "staff"))
    assert (await session.get_info("ada")).group_ids == ("others",)
