"""The session: what it is made of, its configuration, its copies, and its way out."""

from __future__ import annotations

import json
import pickle

import anyio
import httpx
import pytest
import respx
from doubles import CREDENTIALS, envelope, session_on

from face_async import (
    DEFAULT_BASE_URL,
    Credentials,
    FaceLimitError,
    FaceSession,
    Key,
    RetryPolicy,
    ServiceError,
    ServiceLimits,
    Throttle,
    TransportError,
)
from face_async.signature import parse, verify_signature

pytestmark = pytest.mark.anyio

PERSON = envelope({"person_id": "p", "session_id": ""})
ENV = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "id", "SECRET_KEY": "key"}


async def test_every_request_carries_a_fresh_signature_for_its_appid_and_bucket():
    """Signatures verify with the session's credentials and are never used twice."""
    session, network = session_on(envelope(None, 107), PERSON, retry=RetryPolicy(base_delay=0))

    await session.set_info("p", tag="x")
    await session.set_info("p", tag="x")

    signatures = [parse(sent.headers["authorization"]) for sent in network.sent]
    assert [("123456", "test", True)] * 3 == [
        (one.appid, one.bucket, verify_signature(one, CREDENTIALS)) for one in signatures
    ]
    assert 3 == len({one.original for one in signatures})


@pytest.mark.parametrize("appid", ["", "1 2", "1\n2", "a&b=c", "ü"])
def test_an_appid_or_bucket_that_cannot_be_signed_is_refused(appid):
    """What would break a signature is a ValueError when the session is made."""
    with pytest.raises(ValueError, match="appid must be printable ASCII"):
        FaceSession(appid, "test", CREDENTIALS)
    with pytest.raises(ValueError, match="bucket must be printable ASCII"):
        FaceSession("123456", appid, CREDENTIALS)


def test_wrong_types_are_refused_when_the_session_is_made():
    """A tuple is no Credentials, a number no appid."""
    with pytest.raises(TypeError, match="Credentials"):
        FaceSession("1", "b", ("id", "key"))
    with pytest.raises(TypeError, match="appid must be a str, not int"):
        FaceSession(1, "b", CREDENTIALS)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"deadline": -1}, {"timeout": float("nan")}])
def test_times_are_more_than_0_seconds(options):
    """A timeout or deadline of nothing is a ValueError."""
    with pytest.raises(ValueError, match=next(iter(options))):
        FaceSession("1", "b", CREDENTIALS, **options)


@pytest.mark.parametrize(
    "options", [{"timeout": None}, {"deadline": "5"}, {"limits": None}, {"throttle": 3}, {"retry": 3}, {"base_url": 3}]
)
async def test_an_option_of_the_wrong_type_is_named(options):
    (name,) = options
    with pytest.raises(TypeError, match=f"{name} must be a"):
        FaceSession("1", "b", CREDENTIALS, **options)
    if name in {"throttle", "retry"}:
        async with FaceSession("1", "b", CREDENTIALS) as session:
            with pytest.raises(TypeError, match=f"{name} must be a"):
                session.with_options(**options)


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.new_person(None, ["staff"]),
        lambda session: session.new_person("ada", None),
        lambda session: session.del_person(None),
        lambda session: session.add_face(None, [b"\xff\xd8\xff"]),
        lambda session: session.add_face(["ada"], [b"\xff\xd8\xff"]),
        lambda session: session.del_face("ada", None),
        lambda session: session.set_info(None, tag="x"),
        lambda session: session.get_info(None),
        lambda session: session.get_person_ids(None),
        lambda session: session.get_face_ids(None),
        lambda session: session.get_face_info(None),
        lambda session: session.verify(None, b"\xff\xd8\xff"),
        lambda session: session.identify(None, b"\xff\xd8\xff"),
        lambda session: session.add_group_ids("ada", None),
        lambda session: session.identify_in_groups(b"\xff\xd8\xff", None),
        lambda session: session.request("getinfo", {"person_id": None}),
    ],
)
async def test_what_a_call_is_about_is_never_left_out(call):
    """None, as a database has it where nothing is, is a wrong argument; nothing is sent."""
    session, network = session_on(PERSON)
    with pytest.raises(TypeError, match=r"(person|group|face)_ids? must (not )?be"):
        await call(session)
    assert [] == network.sent


@pytest.mark.parametrize(
    "base_url",
    [
        "http://faces.example.com",
        "http://192.168.0.7:8600",
        "ftp://127.0.0.1",
        "faces.example.com",
        "",
        "https://user:pw@example.com",
        "https://example.com/?a=1",
        "https://example.com:port",
        "https://exa\x00mple.com",
    ],
)
def test_pictures_and_signatures_do_not_leave_unencrypted(base_url):
    """Http is for loopback addresses, and a base URL holds nothing that is no part of it."""
    with pytest.raises(ValueError, match=r"base_url|https"):
        FaceSession("1", "b", CREDENTIALS, base_url=base_url)


async def test_a_host_of_any_language_is_called_by_its_name_in_ascii():
    """The Host header is what DNS knows it as."""
    network = respx.MockRouter()
    route = network.post("https://b\u00fccher.example/face/getgroupids").respond(
        json={"data": {"group_ids": []}, "code": 0}
    )
    transport = httpx.MockTransport(network.async_handler)
    async with FaceSession(
        "1", "b", CREDENTIALS, base_url="https://b\u00fccher.example", transport=transport
    ) as session:
        assert [] == await session.get_group_ids()

    assert "xn--bcher-kva.example" == route.calls.last.request.headers["host"]


async def test_closing_ends_the_calls_over_a_given_transport_too():
    """Those under way fail, and those in the queue are not begun."""
    begun, failed = [], []

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            begun.append(request)
            await anyio.sleep_forever()

    async def call(session):
        try:
            await session.get_group_ids()
        except TransportError as error:
            failed.append(error)

    session = FaceSession("1", "b", CREDENTIALS, transport=Silent(), throttle=Throttle(max_concurrency=1))
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(call, session)
        await anyio.wait_all_tasks_blocked()
        await session.aclose()

    assert (1, 5) == (len(begun), len(failed))


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:1", "http://localhost:1/", "http://[::1]:1", "https://x.org/api"]
)
async def test_loopback_and_https_are_fine(base_url):
    """The path of a base URL is kept, a trailing slash is not."""
    _, network = session_on(PERSON)

    await FaceSession("1", "b", CREDENTIALS, base_url=base_url, transport=network).set_info("p", tag="")

    assert f"{base_url.rstrip('/')}/face/setinfo" == network.sent[0].url


async def test_http_elsewhere_needs_allow_insecure():
    """allow_insecure permits plain http to any host."""
    _, network = session_on(PERSON)

    session = FaceSession("1", "b", CREDENTIALS, base_url="http://faces.lan", transport=network, allow_insecure=True)
    await session.set_info("p", tag="")

    assert ["http://faces.lan/face/setinfo"] == [sent.url for sent in network.sent]


def test_from_env_reads_the_environment(monkeypatch):
    """The four variables make a session; the base URL is the documented one unless it is set."""
    for name, value in ENV.items():
        monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
    assert f"FaceSession('1', 'b', base_url='{DEFAULT_BASE_URL}')" == repr(FaceSession.from_env())

    monkeypatch.setenv("FACE_ASYNC_BASE_URL", "http://127.0.0.1:8600")
    assert "FaceSession('1', 'b', base_url='http://127.0.0.1:8600')" == repr(FaceSession.from_env(timeout=1))


def test_from_env_names_what_is_missing(monkeypatch):
    """A ValueError names the variables to set."""
    for name in ENV:
        monkeypatch.delenv(f"FACE_ASYNC_{name}", raising=False)
    monkeypatch.setenv("FACE_ASYNC_APPID", "1")

    with pytest.raises(ValueError, match="FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID, FACE_ASYNC_SECRET_KEY"):
        FaceSession.from_env()


async def test_with_options_shares_the_pool_and_the_throttle():
    """A copy has options of its own, and counts and closes with the original."""
    session, network = session_on(envelope(None, 107))
    once = session.with_options(retry=RetryPolicy(max_attempts=1), timeout=1, deadline=2)

    with pytest.raises(ServiceError) as caught:
        await once.get_info("p")

    assert (1, 1) == (caught.value.attempts, len(network.sent))
    assert (1, 0, len(network.sent[0].body)) == (
        session.stats.requests,
        session.stats.retries,
        session.stats.bytes_sent,
    )
    await session.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await once.get_info("p")
    await session.aclose()
    with pytest.raises(ValueError, match="deadline"):
        session.with_options(deadline=0)


async def test_the_throttle_bounds_calls_under_way_and_counts_their_waiting():
    """No more calls than max_concurrency run at once; the others queue, and their results say how long."""
    running = most = 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            running -= 1
            return httpx.Response(200, content=PERSON)

    results = []
    async with (
        FaceSession("1", "b", CREDENTIALS, transport=Slow(), throttle=Throttle(max_concurrency=3)) as session,
        anyio.create_task_group() as tasks,
    ):

        async def call():
            results.append(await session.set_info("p", tag=""))

        for _ in range(20):
            tasks.start_soon(call)

    assert (20, 3) == (len(results), most)
    assert pytest.approx(sum(result.meta.queued for result in results)) == session.stats.seconds_queued
    assert session.stats.seconds_queued > 0


async def test_limits_of_the_session_are_the_ones_enforced():
    """A deployment with other limits says so once."""
    session, network = session_on(PERSON, limits=ServiceLimits(max_faces_per_person=1, max_id_bytes=3))

    with pytest.raises(FaceLimitError, match="2 images are more than the 1"):
        await session.add_face("p", [b"a", b"b"])
    with pytest.raises(ValueError, match="person_id has 4 bytes"):
        await session.get_info("abcd")

    assert [] == network.sent


BAD_CALLS = {
    "empty person_id": (ValueError, lambda session: session.get_info("")),
    "person_id None": (TypeError, lambda session: session.identify(5, b"a")),
    "overlong person_id": (ValueError, lambda session: session.get_info("x" * 129)),
    "slash in group_id": (ValueError, lambda session: session.get_person_ids("a/b")),
    "empty face_id": (ValueError, lambda session: session.get_face_info("")),
    "no groups": (ValueError, lambda session: session.new_person("p", [])),
    "groups as str": (TypeError, lambda session: session.new_person("p", "staff")),
    "a group twice": (ValueError, lambda session: session.new_person("p", ["a", "a"])),
    "no faces": (ValueError, lambda session: session.del_face("p", [])),
    "overlong tag": (ValueError, lambda session: session.set_info("p", tag="x" * 1025)),
    "nothing to set": (ValueError, lambda session: session.set_info("p")),
    "no images": (ValueError, lambda session: session.add_face("p", [])),
    "images as path": (TypeError, lambda session: session.add_face("p", "a.jpg")),
    "21 images": (FaceLimitError, lambda session: session.add_face("p", [b"a"] * 21)),
    "malformed URL": (ValueError, lambda session: session.identify("g", "http://a b")),
    "image None": (TypeError, lambda session: session.add_face("p", [None])),
    "lone surrogate": (ValueError, lambda session: session.set_info("p", person_name="\ud800")),
}


@pytest.mark.parametrize(("error", "call"), BAD_CALLS.values(), ids=BAD_CALLS)
async def test_bad_input_gets_a_clear_error_before_anything_is_sent(error, call):
    """TypeError, ValueError or LimitError; the network sees nothing."""
    session, network = session_on(PERSON)

    with pytest.raises(error):
        await call(session)

    assert [] == network.sent


@pytest.mark.parametrize("verb", ["verify", "identify"])
async def test_a_verb_that_needs_an_image_does_not_go_without(verb):
    """None is no image."""
    session, network = session_on(PERSON)

    with pytest.raises(TypeError, match="image"):
        await getattr(session, verb)("p", None)

    assert [] == network.sent


async def test_request_sends_anything_and_returns_the_answer_undecoded():
    """Endpoints of later versions are within reach: signed, with appid and bucket, whatever the code."""
    session, network = session_on(envelope(None, 15), envelope({"face": []}, -1101), retry=RetryPolicy(base_delay=0))

    answer = await session.request("detect", {"mode": "1", "none": None}, {"image": b"\xff\xd8\xff"})

    assert (200, -1101, 2) == (answer.status, json.loads(answer.content)["code"], len(network.sent))
    assert network.sent[0].url.endswith("/face/detect")
    assert b'name="mode"' in network.sent[0].body
    assert b'name="none"' not in network.sent[0].body
    for path in ("../admin", "", "http://example.com", "/getinfo", "face//getinfo", "/face/", "face/getinfo/"):
        with pytest.raises(ValueError, match="path"):
            await session.request(path, {})


@pytest.mark.parametrize("path", ["getgroupids", "face/getgroupids", "/face/getgroupids"])
async def test_request_takes_an_endpoint_by_its_name_or_path(path):
    """All ways to write it are the same endpoint, which has no effect and is tried again after a lost answer."""
    session, network = session_on((b"<html>", 502), envelope({"group_ids": []}), retry=RetryPolicy(base_delay=0))
    await session.request(path, {})
    assert ["/face/getgroupids"] * 2 == [httpx.URL(sent.url).path for sent in network.sent]


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"code":0}'])
async def test_request_does_not_judge_what_it_returns(content):
    """What is no envelope is returned as it came."""
    session, _ = session_on(content)

    assert content == (await session.request("identify", {"group_id": "g"}, {"image": "http://x/y.jpg"})).content


async def test_request_tries_an_error_page_again():
    """What a verb would try again, so does the escape hatch; in the end it returns what came."""
    session, network = session_on((b"<html>", 503), envelope({}), retry=RetryPolicy(base_delay=0))
    assert b"<html>" != (await session.request("getgroupids", {})).content
    assert 2 == len(network.sent)

    session, network = session_on((b"<html>", 503), retry=RetryPolicy(base_delay=0))
    answer = await session.request("getgroupids", {})
    assert (503, b"<html>", 3) == (answer.status, answer.content, len(network.sent))


async def test_a_transport_that_was_handed_in_is_not_closed():
    """Who opened it closes it."""

    class Mine(httpx.AsyncBaseTransport):
        closed = False

        async def handle_async_request(self, request):
            return httpx.Response(200, content=PERSON)

        async def aclose(self):
            self.closed = True

    mine = Mine()
    async with FaceSession("1", "b", CREDENTIALS, transport=mine) as session:
        await session.set_info("p", tag="")

    assert mine.closed is False


async def test_whatever_a_transport_raises_leaves_as_a_typed_error():
    """No exception of an HTTP library escapes, and none hangs on the error."""
    secret = CREDENTIALS.secret_key

    class Bad(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise httpx.LocalProtocolError(f"bad header {secret}")

    session = FaceSession("1", "b", CREDENTIALS, transport=Bad(), retry=RetryPolicy(max_attempts=1))
    with pytest.raises(TransportError, match="LocalProtocolError") as caught:
        await session.get_info("p")

    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    assert secret not in repr(caught.value) + str(pickle.dumps(caught.value))


async def test_respx_works_under_a_session_without_a_transport():
    """Programs that mock httpx with respx need nothing else."""
    with respx.mock(base_url=DEFAULT_BASE_URL) as mock:
        route = mock.post("/face/getgroupids").respond(json={"data": {"group_ids": ["staff"]}, "code": 0})
        async with FaceSession("1", "b", Credentials("id", "key")) as session:
            assert ["staff"] == await session.get_group_ids()

    assert {"appid": "1", "bucket": "b"} == json.loads(route.calls.last.request.content)


@respx.mock(base_url=DEFAULT_BASE_URL)
async def test_a_fault_below_http_is_a_transport_error(respx_mock):
    """A connect timeout is no answer, and nothing was applied."""
    respx_mock.post("/face/setinfo").mock(side_effect=httpx.ConnectTimeout)

    async with FaceSession("1", "b", CREDENTIALS, retry=RetryPolicy(base_delay=0)) as session:
        with pytest.raises(TransportError, match="connecting took too long") as caught:
            await session.set_info("p", tag="x")

    assert (False, 3) == (caught.value.maybe_applied, caught.value.attempts)


def test_what_the_ledger_takes_can_be_imported_from_the_package():
    """A key names whose room is asked for."""
    session, _ = session_on()
    key = Key("faces", "ada")
    assert session.ledger.snapshot(key) is None
    session.ledger.forget(key)
