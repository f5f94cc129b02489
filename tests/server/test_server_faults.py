"""Scripted faults: each kind does what the table in faults.py says, to the request it was meant for, and only once."""

from __future__ import annotations

import json
import socket
import threading
import time
from email.utils import parsedate_to_datetime

import anyio
import httpx
import pytest
from serverkit import APPID, BUCKET, CREDENTIALS, Caller, ToyRecognizer, authorization, calling, picture
from timing import PATIENCE

from face_async.errors import CODES
from face_async.limits import ServiceLimits
from face_async.server import Fault, Faults, create_app, serve_in_background
from face_async.server.faults import AnswerLostError, ScriptedAnswer
from face_async.server.handlers import HANDLERS, Call
from face_async.server.request.forms import Form
from face_async.server.request.parameters import Parameters, PictureUrl

pytestmark = pytest.mark.anyio


@pytest.fixture
def faults():
    """A script that its test leaves empty: every fault was met."""
    script = Faults()
    yield script
    assert () == script.pending


@pytest.fixture
async def caller(store, faults, anyio_backend):
    async with calling(store, faults=faults) as ready:
        yield ready


@pytest.fixture(params=["in process", "on a socket"])
async def anywhere(request, store, faults, anyio_backend):
    """A caller of the same application in process, and on a socket."""
    if request.param == "in process":
        async with calling(store, faults=faults) as ready:
            yield ready
        return
    app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer(), faults=faults)
    async with (
        serve_in_background(app) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        yield Caller(client)


async def post(caller: Caller, name: str, **fields: object) -> httpx.Response:
    """Call with JSON and return whatever HTTP answer comes."""
    body = {"appid": APPID, "bucket": BUCKET} | fields
    return await caller.client.post(f"/face/{name}", json=body, headers={"Authorization": authorization()})


async def new_person(caller: Caller, person_id: str = "ada") -> int:
    code, _ = await caller.json("newperson", person_id=person_id, group_ids=["staff"])
    return code


def persons(store) -> list[str]:
    return store.person_ids(APPID, "staff") if store.group_ids(APPID) else []


# What comes back instead


async def test_any_code_of_the_table_can_be_answered(caller, faults):
    """Also those that the server never returns of itself."""
    for code in CODES:
        faults.add("getgroupids", code=code)
        assert (code, {}) == await caller.json("getgroupids")


async def test_every_endpoint_can_fail(caller, faults):
    """And answers with a session_id if it has one."""
    for name in HANDLERS:
        faults.add(name, code=15)
        code, data = await caller.json(name)
        assert (15, name.startswith("get") and name != "getinfo") == (code, not data)


async def test_a_code_comes_in_place_of_the_effect(caller, faults, store):
    """Nothing was done, and the next request is answered as ever."""
    faults.add("newperson", code=213)
    assert 213 == await new_person(caller)
    assert [] == persons(store)
    assert 0 == await new_person(caller)


async def test_a_code_can_come_after_the_effect(caller, faults, store):
    """All was done, although the answer says nothing of it."""
    faults.add("newperson", code=213, after=True)
    assert 213 == await new_person(caller)
    assert ["ada"] == persons(store)


async def test_a_status_comes_with_a_page_and_with_headers(anywhere, faults, store):
    """As from a proxy in between."""
    faults.add("newperson", status=503, headers={"Retry-After": "3"})
    response = await post(anywhere, "newperson", person_id="ada", group_ids=["staff"])
    assert (503, "text/html", "3") == (
        response.status_code,
        response.headers["content-type"].partition(";")[0],
        response.headers["retry-after"],
    )
    assert "<h1>503</h1>" in response.text
    assert [] == persons(store)


async def test_a_status_can_come_after_the_effect(caller, faults, store):
    """The server had done it before its proxy lost patience."""
    faults.add("newperson", status=504, after=True)
    assert 504 == (await post(caller, "newperson", person_id="ada", group_ids=["staff"])).status_code
    assert ["ada"] == persons(store)


async def test_a_code_can_come_with_a_status_and_headers(caller, faults):
    """An envelope that is not HTTP 200."""
    faults.add("getgroupids", code=15, status=429, headers={"Retry-After": "1"})
    response = await post(caller, "getgroupids")
    assert (429, 15, "1") == (response.status_code, response.json()["code"], response.headers["retry-after"])


async def test_200_with_a_page_is_an_answer_too(caller, faults):
    """As captive portals give it."""
    faults.add("getgroupids", status=200)
    response = await post(caller, "getgroupids")
    assert (200, "text/html") == (response.status_code, response.headers["content-type"].partition(";")[0])


# Connections that break


@pytest.mark.parametrize(("fault", "applied"), [("drop_request", []), ("drop_response", ["ada"])])
async def test_a_connection_breaks_before_or_after_the_effect(anywhere, faults, store, fault, applied):
    """The client sees the same; the next request is answered."""
    faults.add("newperson", **{fault: True})
    with pytest.raises((AnswerLostError, httpx.RemoteProtocolError)):
        await new_person(anywhere)
    assert applied == persons(store)
    assert 0 == await new_person(anywhere, "bob")


async def test_a_broken_connection_is_one_line_in_the_log(store, faults, caplog):
    """No traceback: nothing is wrong with the server."""
    app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer(), faults=faults)
    faults.add("getgroupids", drop_request=True)
    async with (
        serve_in_background(app) as server,
        httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await Caller(client).json("getgroupids")
    assert "Traceback" not in caplog.text


async def test_what_the_effect_was_refused_with_is_lost_with_its_answer(caller, faults):
    """A fault after the effect hides how the effect ended."""
    faults.add("delperson", code=213, after=True)
    assert 213 == (await caller.json("delperson", person_id="nobody"))[0]


# Parts of a batch


@pytest.mark.parametrize("count", [0, 1, 2, 9])
async def test_a_part_of_a_batch_is_its_first_pictures(caller, faults, store, count):
    """As many as were told, or as there are."""
    await caller.new_person("ada")
    faults.add("addface", code=213, partial=count)
    names = [f'Content-Disposition: form-data; name="images[{index}]"\r\n\r\n'.encode() for index in range(3)]
    code, _ = await caller.multipart(
        "addface",
        b'Content-Disposition: form-data; name="person_id"\r\n\r\nada',
        *(name + picture(index) for index, name in enumerate(names)),
    )
    assert 213 == code
    assert min(count, 3) == len(store.face_ids(APPID, "ada"))
    added = await caller.add_faces("ada", *map(picture, range(3)))
    assert [-1312] * min(count, 3) + [0] * (3 - min(count, 3)) == added["ret_codes"]


async def test_a_part_of_a_batch_can_lose_its_answer(anywhere, faults, store):
    """The connection breaks where the server stopped."""
    await anywhere.new_person("ada")
    faults.add("addface", drop_response=True, partial=1)
    with pytest.raises((AnswerLostError, httpx.RemoteProtocolError)):
        await anywhere.add_faces("ada", picture(1), picture(2))
    assert 1 == len(store.face_ids(APPID, "ada"))


@pytest.mark.parametrize(
    ("form", "first"),
    [
        (Form({}, {"images": [b"a", b"b", b"c"]}), [b"a", b"b"]),
        (Form({"urls": ["a", "b", "c"]}), [PictureUrl("a"), PictureUrl("b")]),
        (Form({"urls": "a"}), [PictureUrl("a")]),
    ],
)
async def test_a_part_is_of_pictures_and_of_urls_alike(faults, form, first):
    """In every form in which a request may carry them."""
    seen = []

    async def handler(call: Call) -> dict[str, object]:
        seen.extend(call.parameters.pictures("images", "urls"))
        return {}

    faults.add("addface", code=213, partial=2)
    parameters = Parameters(form, ServiceLimits())
    with pytest.raises(ScriptedAnswer):
        await faults.perform("addface", handler, Call(APPID, parameters, None, None, ServiceLimits()))
    assert first == seen


# Late effects and delays


async def test_a_late_effect_happens_before_the_nth_following_request(caller, faults, store):
    """Whatever requests those are; until then it is pending."""
    faults.add("newperson", code=213, late=2)
    assert 213 == await new_person(caller)
    assert [Fault("newperson", code=213, late=2)] == list(faults.pending)
    assert [] == (await caller.ok("getgroupids"))["group_ids"]
    assert ["staff"] == (await caller.ok("getgroupids"))["group_ids"]
    assert ["ada"] == persons(store)


async def test_late_effects_happen_when_they_are_told_to(anywhere, faults, store):
    """All of them, in their order, also from outside the server's thread."""
    faults.add("newperson", drop_response=True, late=100, times=2)
    for person_id in ("ada", "bob"):
        with pytest.raises((AnswerLostError, httpx.RemoteProtocolError)):
            await new_person(anywhere, person_id)
    assert [] == persons(store)
    await faults.apply_late()
    assert ["ada", "bob"] == persons(store)


async def test_a_late_effect_meets_the_world_as_it_is_by_then(caller, faults, store):
    """The retry was faster: the late one is refused, and nobody is told."""
    faults.add("newperson", code=213, late=1)
    assert 213 == await new_person(caller)
    faults.add("newperson", code=213, late=1)
    assert 213 == await new_person(caller)
    assert -1302 == await new_person(caller)
    assert ["ada"] == persons(store)


async def test_a_late_effect_that_crashes_costs_no_other_request(caller, faults, store):
    """The log has it; the request before which it happens is answered as ever."""
    await caller.new_person("ada")
    faults.add("addface", drop_response=True, late=1)
    with pytest.raises(AnswerLostError):
        await caller.add_faces("ada", b"crash")
    assert ["staff"] == (await caller.ok("getgroupids"))["group_ids"]


async def test_a_late_effect_may_be_a_part_of_a_batch(caller, faults, store):
    """What was told of the effect holds whenever it happens."""
    await caller.new_person("ada")
    faults.add("addface", drop_response=True, partial=1, late=1)
    with pytest.raises(AnswerLostError):
        await caller.add_faces("ada", picture(1), picture(2))
    assert 1 == len((await caller.ok("getfaceids", person_id="ada"))["face_ids"])


async def test_a_delay_comes_before_the_effect(caller, faults, store):
    """A client in process that does not wait takes its request with it."""
    faults.add("newperson", delay=3_600)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(new_person, caller)
        while faults.pending:  # noqa: ASYNC110 - the script has no event to tell
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert [] == persons(store)


async def test_a_delay_lasts_and_is_followed_by_the_ordinary_answer(caller, faults):
    """Or by what else was scripted with it."""
    faults.add("newperson", delay=0.05)
    faults.add("newperson", delay=0.05, code=15)
    for code in (0, 15):
        started = time.monotonic()
        assert code == await new_person(caller)
        assert time.monotonic() - started > 0.04


async def test_on_a_socket_a_delayed_effect_happens_although_the_client_has_left(store, faults):
    """As every server goes on with what it has read."""
    app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer(), faults=faults)
    faults.add("newperson", delay=0.1)
    body = json.dumps({"appid": APPID, "bucket": BUCKET, "person_id": "ada", "group_ids": ["staff"]}).encode()
    head = (
        f"POST /face/newperson HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: {authorization()}\r\n\r\n"
    )
    async with serve_in_background(app) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection, anyio.fail_after(PATIENCE):
            connection.sendall(head.encode() + body)
            while faults.pending:  # noqa: ASYNC110 - the script has no event to tell
                await anyio.sleep(0.001)
    assert ["ada"] == persons(store)  # a server that stops finishes what it has begun


# The clock


@pytest.mark.parametrize("skew", [3_600, -3_600])
async def test_a_wrong_clock_refuses_signatures_and_says_what_time_it_has(anywhere, faults, skew):
    """A client that takes its time from the answer is let in."""
    faults.clock_skew = skew
    response = await post(anywhere, "getgroupids")
    assert 9 == response.json()["code"]
    (date,) = response.headers.get_list("date")
    told = parsedate_to_datetime(date).timestamp()
    assert time.time() + skew == pytest.approx(told, abs=60)
    anywhere.sign = lambda: authorization(now=told)
    assert (0, {"group_ids": []}) == await anywhere.json("getgroupids")


async def test_every_answer_is_dated(anywhere, faults):
    """Once, and also where no endpoint is; right unless told otherwise."""
    for response in (await post(anywhere, "getgroupids"), await anywhere.client.get("/nowhere")):
        (date,) = response.headers.get_list("date")
        assert time.time() == pytest.approx(parsedate_to_datetime(date).timestamp(), abs=60)


# The script


async def test_faults_are_met_in_order_and_as_often_as_was_said(caller, faults):
    """Each endpoint has its own; those of no endpoint take whoever comes."""
    faults.add("getgroupids", code=15, times=2)
    faults.add("getgroupids", code=107)
    faults.add("getpersonids", code=108)
    faults.add(code=24)
    order = ["getgroupids", "getinfo", "getgroupids", "getpersonids", "getgroupids", "getgroupids"]
    assert [15, 24, 15, 108, 107, 0] == [(await caller.json(name))[0] for name in order]


async def test_who_is_not_let_in_meets_no_fault(caller, faults):
    """A bad signature and an unreadable body are refused as ever; the script waits for the next."""
    faults.add("getgroupids", code=15)
    unsigned = await caller.client.post("/face/getgroupids")
    unreadable = await caller.client.post("/face/getgroupids", headers={"Authorization": authorization()})
    assert [4, 3] == [response.json()["code"] for response in (unsigned, unreadable)]
    assert 15 == (await caller.json("getgroupids"))[0]


async def test_pending_is_what_is_still_to_come(caller, faults):
    """With the times that are left."""
    faults.add("getgroupids", code=15, times=3)
    faults.add("identify", delay=1)
    await caller.json("getgroupids")
    assert "(Fault(endpoint='getgroupids', times=2, code=15), Fault(endpoint='identify', delay=1))" == repr(
        faults.pending
    )
    faults.clear()


async def test_clear_forgets_everything(caller, faults, store):
    """Faults, late effects, and the clock."""
    faults.add("newperson", code=213, late=1)
    await new_person(caller)
    faults.add("newperson", code=15)
    faults.clock_skew = 3_600
    faults.clear()
    assert () == faults.pending
    await faults.apply_late()
    assert [] == persons(store)
    assert 0 == await new_person(caller)


async def test_the_script_is_written_in_any_thread(caller, faults):
    """Many writers, one reader: nothing is lost, nothing is met twice."""
    writers = [threading.Thread(target=lambda: [faults.add("getgroupids", code=15) for _ in range(25)]) for _ in "1234"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    codes = [(await caller.json("getgroupids"))[0] for _ in range(101)]
    assert [15] * 100 + [0] == codes


@pytest.mark.parametrize(
    ("error", "words", "fault"),
    [
        (ValueError, "needs a code", {}),
        (ValueError, "endpoint must be one of newperson", {"endpoint": "new_person", "code": 15}),
        (ValueError, "code must be one of the table", {"code": 0}),
        (ValueError, "code must be one of the table", {"code": 9_999}),
        (TypeError, "code must be int or NoneType", {"code": "15"}),
        (TypeError, "code must be int or NoneType", {"code": True}),
        (ValueError, "status must be 200 to 599", {"status": 100}),
        (ValueError, "one that comes with a body", {"status": 204}),
        (ValueError, "times must be 1 or more", {"code": 15, "times": 0}),
        (TypeError, "times must be int", {"code": 15, "times": 1.5}),
        (TypeError, "headers must map str to str", {"status": 429, "headers": {"Retry-After": 3}}),
        (TypeError, "headers must be Mapping", {"status": 429, "headers": "Retry-After: 3"}),
        (ValueError, "headers need a code or a status", {"drop_response": True, "headers": {"Retry-After": "3"}}),
        (ValueError, "one answer", {"code": 15, "drop_response": True}),
        (ValueError, "one answer", {"drop_request": True, "drop_response": True}),
        (ValueError, "after, partial and late need", {"after": True, "delay": 1}),
        (ValueError, "after, partial and late need", {"drop_request": True, "late": 1}),
        (ValueError, "after, partial and late need", {"endpoint": "addface", "partial": 1, "delay": 1}),
        (ValueError, "choose one", {"code": 213, "after": True, "late": 1}),
        (ValueError, "late must be 1 or more", {"code": 213, "late": 0}),
        (TypeError, "late must be int or NoneType", {"code": 213, "late": True}),
        (ValueError, "partial must be 0 or more", {"endpoint": "addface", "code": 213, "partial": -1}),
        (ValueError, "partial is for", {"code": 213, "partial": 1}),
        (ValueError, "partial is for", {"endpoint": "newperson", "code": 213, "partial": 1}),
        (ValueError, "delay must be", {"delay": -1}),
        (ValueError, "delay must be", {"delay": float("inf")}),
        (ValueError, "delay must be", {"delay": float("nan")}),
        (TypeError, "delay must be", {"delay": "1"}),
        (TypeError, "drop_response must be bool", {"drop_response": 1}),
        (TypeError, "after must be bool", {"code": 213, "after": 2}),
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_an_error_at_once(faults, error, words, fault):
    """Which says what would; nothing is added."""
    with pytest.raises(error, match=words):
        faults.add(**fault)
