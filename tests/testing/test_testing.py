"""What users of the library test with: a server of their own, and the fixtures that bring it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from timing import PATIENCE

import face_async.testing.plugin
from face_async import (
    FaceLimitError,
    FaceSession,
    NotFoundError,
    RateLimitedError,
    RetryPolicy,
    ServiceLimits,
    TransportError,
    UnavailableError,
)
from face_async.portraits import draw_portrait
from face_async.server import StoreError
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)


@pytest.fixture
def server():
    """A server whose script is empty in the end."""
    with FaceServer() as opened:
        yield opened
        assert () == opened.faults.pending


@pytest.fixture(params=["in process", "on a socket"])
async def session(request, server, anyio_backend):
    """A session on the server, in process and over a socket."""
    if request.param == "in process":
        yield server.session(retry=AT_ONCE)
        return
    async with server.serve() as base_url, server.session(base_url=base_url, retry=AT_ONCE) as opened:
        yield opened


async def test_a_session_on_the_server_does_what_sessions_do(session):
    """Enroll, recognize, refuse: the whole service, without models or files."""
    await session.new_person("ada", ["staff"], draw_portrait(1))
    assert "ada" == (await session.identify("staff", draw_portrait(1, shot=1))).best.person_id
    with pytest.raises(NotFoundError):
        await session.get_info("bob")


async def test_scripted_codes_are_retried_like_true_ones(session, server):
    """And every one of them was met, as the record shows."""
    server.faults.add("getgroupids", code=15)
    server.faults.add("getgroupids", status=503)
    assert [] == await session.get_group_ids()
    assert [15, None, 0] == [call.code for call in server.calls("getgroupids")]


@pytest.mark.parametrize("fault", ["drop_request", "drop_response"])
async def test_a_lost_answer_is_the_same_error_in_process_and_on_a_socket(session, server, fault):
    """The connection broke; more is not known."""
    server.faults.add("getgroupids", **{fault: True})
    with pytest.raises(TransportError, match="broke HTTP or closed the connection early"):
        await session.with_options(retry=RetryPolicy(max_attempts=1)).get_group_ids()
    assert [] == await session.get_group_ids()
    assert [None, 0] == [call.code for call in server.calls()]


async def test_a_burst_outlasts_the_attempts(session, server):
    """The error says how many there were."""
    server.faults.add("identify", code=15, times=3)
    with pytest.raises(RateLimitedError) as caught:
        await session.identify("staff", draw_portrait(1))
    assert 3 == caught.value.attempts


async def test_a_session_takes_the_time_from_a_server_whose_clock_is_wrong(session, server):
    """Refused once, then it signs by the server's clock."""
    server.faults.clock_skew = 3_600
    assert [] == await session.get_group_ids()
    assert 2 == session.stats.requests
    assert [0] == [call.code for call in server.calls()]  # who is not let in is no call


async def test_calls_are_recorded_as_they_came(server):
    """By the specification's names, pictures as bytes, in their order."""
    session = server.session()
    ada = draw_portrait(1)
    await session.new_person("ada", ["staff", "guests"], ada, tag="hq")
    with pytest.raises(NotFoundError):
        await session.get_info("bob")

    created, asked = server.calls()
    assert {
        "appid": server.appid,
        "bucket": server.bucket,
        "person_id": "ada",
        "group_ids": ["staff", "guests"],
        "tag": "hq",
    } == created.parameters
    assert {"image": [ada]} == created.pictures
    assert ("newperson", 0) == (created.endpoint, created.code)
    assert ("getinfo", -1303, {}) == (asked.endpoint, asked.code, asked.pictures)
    assert [asked] == server.calls("getinfo")
    assert f"{{'image': ['{len(ada)} bytes']}}" in repr(created)


async def test_a_call_that_crashes_the_server_is_recorded_with_its_code(anyio_backend):
    """213, which is what the client was told."""

    class Broken:
        name = "broken"

        def find_face(self, picture):
            raise RuntimeError

    with FaceServer(recognizer=Broken()) as server:
        session = server.session(retry=RetryPolicy(max_attempts=1))
        with pytest.raises(UnavailableError):
            await session.compare(draw_portrait(1), draw_portrait(2))
        assert [213] == [call.code for call in server.calls()]


def test_calls_of_an_endpoint_that_does_not_exist_are_a_mistake(server):
    """No test passes because of a slip of the pen."""
    with pytest.raises(ValueError, match="endpoint must be one of newperson"):
        server.calls("new_person")


async def test_restore_brings_everything_back(server):
    """Persons, groups and faces, and the galleries that were looked at in between."""
    session = server.session()
    await session.new_person("ada", ["staff"], draw_portrait(1))
    await session.add_face("ada", [draw_portrait(1, shot=1)])
    before = server.snapshot()
    face_ids = await session.get_face_ids("ada")

    await session.new_person("bob", ["staff", "guests"], draw_portrait(2))
    assert "bob" == (await session.identify("staff", draw_portrait(2))).best.person_id
    server.restore(before)

    assert ["staff"] == await session.get_group_ids()
    assert face_ids == await session.get_face_ids("ada")
    # The group is as often changed again as before, but by somebody else.
    await session.new_person("eve", ["staff"], draw_portrait(3))
    found = await session.identify("staff", draw_portrait(3))
    assert {"ada", "eve"} == {candidate.person_id for candidate in found.candidates}


async def test_a_snapshot_serves_other_servers(server):
    """So that a costly enrollment is done once for many tests."""
    await server.session().new_person("ada", ["staff"], draw_portrait(1))
    with FaceServer() as other:
        other.restore(server.snapshot())
        assert ["ada"] == await other.session().get_person_ids("staff")


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 4_096])
async def test_what_is_no_snapshot_is_refused(server, content):
    """And replaces nothing."""
    await server.session().new_person("ada", ["staff"])
    with pytest.raises(StoreError, match="snapshot"):
        server.restore(content)
    assert ["staff"] == await server.session().get_group_ids()


async def test_options_are_a_sessions_own(anyio_backend):
    """The limits are the server's, unless the session shall not know them."""
    pictures = [draw_portrait(1, shot=shot) for shot in range(3)]
    with FaceServer(limits=ServiceLimits(max_faces_per_person=2)) as server:
        await server.session().new_person("ada", ["staff"])
        with pytest.raises(FaceLimitError):
            await server.session().add_face("ada", pictures)
        assert [] == server.calls("addface")
        added = await server.session(limits=ServiceLimits()).add_face("ada", pictures)
        assert [0, 0, -1309] == [face.code for face in added.faces]


async def test_any_httpx_client_may_call_the_server(server):
    """Over its transport, which needs no closing."""
    async with httpx.AsyncClient(transport=server.transport, base_url="http://faces") as client:
        assert 4 == (await client.post("/face/getgroupids")).json()["code"]


async def test_a_program_is_led_to_the_server_by_its_environment(server, monkeypatch):
    """As it would be led to any other."""
    async with server.serve() as base_url:
        for name, value in server.environment(base_url).items():
            monkeypatch.setenv(name, value)
        async with FaceSession.from_env() as session:
            assert [] == await session.get_group_ids()
    assert 1 == len(server.calls("getgroupids"))


def test_no_secret_is_printed(server):
    """Nor any signature."""
    shown = repr(server) + repr(server.session()) + repr(server.calls())
    assert server.credentials.secret_key not in shown


# The plugin

TESTS = """
import pytest
from face_async.portraits import draw_portrait

async def enroll(server, session):
    assert [] == await session.get_group_ids()
    await session.new_person("ada", ["staff"], draw_portrait(1))
    assert [0, 0] == [call.code for call in server.calls()]

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_with_anyio(face_server, face_session, anyio_backend):
    await enroll(face_server, face_session)

@pytest.mark.asyncio
async def test_with_pytest_asyncio(face_server, face_session):
    await enroll(face_server, face_session)

def test_with_a_loop_of_its_own(face_server, face_session):
    import trio
    trio.run(enroll, face_server, face_session)
"""


def test_the_fixtures_serve_every_way_to_run_asynchronous_tests(tmp_path):
    """A fresh server for each test; no warning, whichever plugin runs the loop."""
    (tmp_path / "test_it.py").write_text(TESTS)
    # The package is the one under test; an installed plugin of this name may be another version's.
    plugins = ["-p", "no:face_async", "-p", "face_async.testing.plugin", "-p", "no:cacheprovider"]
    options = ["-q", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {"PYTHONPATH": str(Path(face_async.__file__).parents[1])}
    command = [sys.executable, "-m", "pytest", *plugins, *options]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_plugin_costs_nothing_until_a_fixture_is_asked_for():
    """It is imported in every pytest run; by itself it imports pytest alone."""
    program = f"""if True:
        import runpy, sys
        import pytest
        runpy.run_path({face_async.testing.plugin.__file__!r})
        print({{"face_async", "httpx", "anyio", "attrs", "numpy", "starlette"}} & set(sys.modules))
    """
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "set()" == ran.stdout.strip()
