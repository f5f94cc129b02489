"""What stands in front of a server has limits of its own, which the client keeps: nginx, as Debian has it."""

from __future__ import annotations

import io
import json
from functools import cache

import anyio
import httpx
import numpy as np
import pytest
from doubles import CREDENTIALS, envelope
from nginxkit import nginx_for_tests  # noqa: F401 - the fixture goes by another name
from PIL import Image
from raw_server import RawServer, answer
from stacks import loop_of_stack, session_of_stack, stack_of_test  # noqa: F401 - fixtures go by other names
from timing import PATIENCE, in_time

from face_async import FaceSession, RequestTooLargeError, ResponseError, RetryPolicy, Throttle
from face_async.cli.doctor.checks_service import _check_request_size
from face_async.ingest import ingest
from face_async.portraits import draw_portrait
from face_async.server import serve_in_background
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio
behind_nginx = pytest.mark.external("nginx")

GROUPS = envelope({"group_ids": ["staff"]})
INFO = envelope({"person_id": "p", "person_name": "", "face_ids": [], "group_ids": [], "tag": ""})


@cache
def portraits() -> list[bytes]:
    return [draw_portrait(person) for person in range(8)]


def sized(content: bytes, size: int) -> bytes:
    """Return a picture with so many bytes."""
    return content + bytes(size - len(content))


@pytest.fixture
async def face_server(stack):
    """A server, and its base URL."""
    with FaceServer() as server:
        async with serve_in_background(server.app) as running:
            server.base_url = running.base_url
            yield server


@pytest.fixture
def session_behind(stack, face_server, start_nginx):
    """Return a function that opens a session behind nginx with these directives."""

    def session_behind(*directives, http="", **options):
        nginx = start_nginx(face_server.base_url, *directives, http=http)
        return face_server.session(base_url=nginx.url, http=stack.http, **options)

    return session_behind


# Too large


@behind_nginx
async def test_packs_become_as_small_as_a_proxy_wants_them(session_behind, face_server):
    """nginx lets 1 MB through: of six pictures of 200 KB for one person none is lost, and the next ones fit at once."""
    async with session_behind() as session:
        for person_id in ("ada", "bob"):
            await session.new_person(person_id, ["staff"])
        sizes = []
        for person_id in ("ada", "bob"):
            before = session.stats.bytes_sent
            pictures = [(person_id, sized(portrait, 200_000)) for portrait in portraits()[:6]]
            async with session.add_faces(pictures) as outcomes:
                assert [None] * 6 == [outcome.error for outcome in await outcomes.collect()]
            sizes.append(session.stats.bytes_sent - before)
            assert 6 == len(await session.get_face_ids(person_id))
        assert session.stats.retries == 0
    assert sizes[0] > 2_400_000  # sent as one, and once more in parts
    assert sizes[1] < 1_300_000
    assert 4 == len(face_server.calls("addface"))  # what was refused has not come to the server


@behind_nginx
async def test_enrollments_become_as_small_as_a_proxy_wants_them(session_behind, tmp_path):
    """Nothing is lost, and nothing stays in doubt."""
    for person in range(3):
        folder = tmp_path / "people" / f"person{person}"
        folder.mkdir(parents=True)
        for shot in range(6):
            (folder / f"{shot}.jpg").write_bytes(sized(portraits()[shot], 200_000))
    async with (
        session_behind() as session,
        ingest(session, tmp_path / "people", journal=tmp_path / "j", group_ids=["staff"]) as run,
    ):
        summary = await run.finish()
    assert (18, 0, 0) == (summary.done, summary.failed, summary.ambiguous)


@behind_nginx
async def test_one_picture_too_large_for_a_proxy_is_refused_and_the_next_is_made_to_fit(session_behind):
    """The error is that of the service's own limit; the size is remembered by all copies, for all verbs."""
    noise, large = np.random.default_rng(1).integers(0, 255, (700, 700, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    assert len(large.getvalue()) > 1_400_000
    async with session_behind() as session:
        await session.new_person("ada", ["staff"], portraits()[0])
        assert session.planned_request_bytes == session.limits.planned_request_bytes
        with pytest.raises(RequestTooLargeError, match=r"HTTP 413.*client_max_body_size"):
            await session.with_options(deadline=PATIENCE).identify("staff", sized(portraits()[0], 1_300_000))
        assert 640_000 < session.planned_request_bytes < 660_000
        async with session.identify_many([large.getvalue()], "staff", fit=True) as outcomes:
            (outcome,) = await outcomes.collect()
    assert not isinstance(outcome.error, RequestTooLargeError)


class Narrow(httpx.AsyncBaseTransport):
    """Refuses what has more than 600 KB as the service or a proxy does, and adds all else."""

    def __init__(self, refusal: httpx.Response) -> None:
        self.refusal = refusal
        self.refused = 0

    async def handle_async_request(self, request):
        body = b"".join([chunk async for chunk in request.stream])
        if len(body) > 600_000:
            self.refused += 1
            return httpx.Response(self.refusal.status_code, content=self.refusal.content)
        count = body.count(b'name="images[')
        ids = [f"{id(body)}-{index}" for index in range(count)]
        data = {"added": count, "face_ids": ids, "ret_codes": [0] * count} if count else {"face_ids": []}
        return httpx.Response(200, content=envelope(data))


@pytest.mark.parametrize("refusal", [httpx.Response(200, content=envelope(code=23)), httpx.Response(413)], ids=str)
async def test_a_smaller_limit_is_learned_once_a_session(stack, refusal):
    """By whatever run of it, and whoever refuses: packs are planned smaller from then on."""
    network = Narrow(refusal)
    session = FaceSession("1", "b", CREDENTIALS, transport=network)
    contents = [sized(b"\xff\xd8\xff%d" % shot, 100_000) for shot in range(10)]
    for run in range(3):
        pairs = [(f"{run}-{person}", content) for person in range(4) for content in contents]
        async with session.with_options(deadline=PATIENCE).add_faces(pairs, max_at_once=10) as outcomes:
            assert [None] * 40 == [outcome.error for outcome in await outcomes.collect()]
    assert network.refused == 1


async def test_a_server_that_refuses_every_request_as_too_large_leaves_something_to_plan_with(stack):
    """No picture is made to fit into nothing."""
    with RawServer([answer(b"<html>", 413)] * 3) as server:
        async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, http=stack.http) as session:
            for ask in (session.get_group_ids, session.get_group_ids):
                with pytest.raises(RequestTooLargeError):
                    await ask()
            async with session.identify_many([portraits()[0][:20_000]], "staff", fit=True) as outcomes:
                (outcome,) = await outcomes.collect()
            assert session.planned_request_bytes >= 32_000
    assert isinstance(outcome.error, RequestTooLargeError)


@behind_nginx
@pytest.mark.parametrize("limit", [600_000, 1_048_576])
async def test_the_doctor_finds_the_limit_of_a_proxy_by_trying(session_behind, limit):
    """To a few percent, and nothing is stored by it."""
    async with session_behind(f"client_max_body_size {limit};") as session:
        found = await _check_request_size(session)
        assert [] == await session.get_group_ids()
    refused, arrives, _ = (int(word.replace(",", "")) for word in found.said.split() if word[0].isdigit())
    assert found.verdict == "warning"
    assert arrives <= limit < refused < arrives + 50_000
    assert "client_max_body_size" in found.mend


@behind_nginx
async def test_the_doctor_is_content_with_a_proxy_that_lets_the_specified_size_through(session_behind):
    async with session_behind("client_max_body_size 2m;") as session:
        assert "ok" == (await _check_request_size(session)).verdict


# Too many, and away


@behind_nginx
async def test_a_rate_that_a_proxy_allows_is_found(session_behind):
    """nginx answers 503 without Retry-After; of 60 calls at once, at most a few are lost, instead of nearly all."""
    zone = "limit_req_zone $binary_remote_addr zone=one:1m rate=20r/s;"

    async def act(_):  # again where a busy machine lets all retries come at the same moment
        async with session_behind("limit_req zone=one burst=5;", http=zone) as session:
            failed = []

            async def call():
                try:
                    await session.get_group_ids()
                except ResponseError as error:
                    failed.append(error.status)

            async with anyio.create_task_group() as calls:
                for _ in range(60):
                    calls.start_soon(call)
            throttle = session.stats.throttle
        assert throttle.slowdowns >= 1
        assert throttle.concurrency < 64
        assert len(failed) <= 6

    await in_time(act)


@behind_nginx
async def test_a_server_that_is_away_behind_a_proxy_slows_a_session_down(stack, start_nginx):
    """nginx answers 502 where nobody listens; retries are bounded by the quota as in any outage."""
    with RawServer([], starts=False) as away:
        nginx = start_nginx(away.url)
        async with FaceSession("1", "b", CREDENTIALS, base_url=nginx.url, http=stack.http) as session:
            with pytest.raises(ResponseError, match="HTTP 502"):
                await session.get_group_ids()
            assert (3, 3) == (session.stats.requests, session.stats.throttle.slowdowns)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("headers", [(), (("Retry-After", "0"),)], ids=["", "with Retry-After"])
async def test_statuses_of_proxies_slow_a_session_down_like_code_15(session_at, status, headers):
    """And good answers make it faster again."""
    with RawServer([answer(b"<html>", status, *headers), answer(GROUPS)]) as server:
        async with session_at(server, throttle=Throttle(max_concurrency=8)) as session:
            assert await session.get_group_ids() == ["staff"]
            throttle = session.stats.throttle
    assert (1, 4) == (throttle.slowdowns, throttle.concurrency)


@pytest.mark.parametrize("busy", [(b"<html>", 503), envelope(code=15)], ids=["503", "code 15"])
async def test_a_call_that_was_too_fast_queues_again(stack, busy):
    """With its place kept, as many calls would go on as before, until all are out of attempts."""
    under_way = most = 0

    class Busy(httpx.AsyncBaseTransport):
        """Answers no more than four at once."""

        async def handle_async_request(self, request):
            nonlocal under_way, most
            under_way += 1
            try:
                fits = under_way <= 4
                await anyio.sleep(0.01 if fits else 0)
                content, status = (GROUPS, 200) if fits else busy if isinstance(busy, tuple) else (busy, 200)
                return httpx.Response(status, content=content)
            finally:
                under_way -= 1

    session = FaceSession(
        "1", "b", CREDENTIALS, transport=Busy(), throttle=Throttle(max_concurrency=64), retry=RetryPolicy(base_delay=0)
    )
    ended = []

    async def call():
        try:
            ended.append(await session.get_group_ids())
        except Exception as error:  # noqa: BLE001 - it is counted
            ended.append(error)

    async with anyio.create_task_group() as calls:
        for _ in range(64):
            calls.start_soon(call)
    assert ended.count(["staff"]) >= 48  # with their places kept: 12
    state = session.stats.throttle
    assert (0, 0, 0) == (state.in_flight, state.waiting, state.bytes_in_flight)


async def test_a_call_that_queues_again_goes_before_those_that_have_not_begun(stack):
    """Its deadline comes first."""
    asked = []

    class Busy(httpx.AsyncBaseTransport):
        """Puts off the first request, and answers when nobody else can do anything."""

        async def handle_async_request(self, request):
            body = b"".join([chunk async for chunk in request.stream])
            asked.append(json.loads(body)["person_id"])
            await anyio.wait_all_tasks_blocked()
            return httpx.Response(503) if len(asked) == 1 else httpx.Response(200, content=INFO)

    session = FaceSession(
        "1", "b", CREDENTIALS, transport=Busy(), throttle=Throttle(max_concurrency=1), retry=RetryPolicy(base_delay=0)
    )
    async with anyio.create_task_group() as calls:
        for person_id in "abcd":
            calls.start_soon(session.get_info, person_id)
    assert asked[0] == asked[2], "after the one that had its place meanwhile"
    assert (4, 5) == (len({*asked}), len(asked))


# Elsewhere


@behind_nginx
async def test_a_redirect_of_a_proxy_is_told_with_where_it_points(session_behind):
    """As from http to https: one request, and no doubt about the effect."""
    async with session_behind("return 301 https://faces.example$request_uri;") as session:
        with pytest.raises(ResponseError, match=r"HTTP 301.* redirect to https://faces.example/face/newperson") as told:
            await session.new_person("ada", ["staff"])
        assert session.stats.requests == 1
    assert "https://faces.example/face/newperson" == told.value.location
    assert not told.value.maybe_applied


@behind_nginx
async def test_a_redirect_ends_a_run(session_behind):
    """No further call can succeed either."""
    async with session_behind("return 302 https://login.example/;") as session:
        with pytest.raises(ResponseError, match=r"redirect to https://login.example/"):
            async with session.identify_many(portraits() * 100, "staff", max_at_once=4) as outcomes:
                await outcomes.collect()
        assert session.stats.requests <= 8
