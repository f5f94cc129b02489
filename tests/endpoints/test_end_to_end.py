"""The client and the local server together: all verbs, in process and over sockets, on asyncio and trio."""

from __future__ import annotations

import re
import sys
import time
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.streams.text import TextReceiveStream
from doubles import CREDENTIALS

from face_async import (
    AlreadyExistsError,
    AuthError,
    Credentials,
    FaceLimitError,
    FaceSession,
    GroupLimitError,
    ImageError,
    NotFoundError,
    PersonLimitError,
    RequestTooLargeError,
    ServiceError,
    ServiceLimits,
)
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server import Account, Store, create_app, serve_in_background

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def over_sockets(**options):
    limits = options.get("limits", ServiceLimits())
    with Store() as store:
        app = create_app(store, credentials=CREDENTIALS, recognizer="fingerprint", limits=limits)
        async with (
            serve_in_background(app) as server,
            FaceSession("123456", "test", CREDENTIALS, base_url=server.base_url, **options) as session,
        ):
            yield session


@asynccontextmanager
async def in_process(**options):
    async with local_session(recognizer="fingerprint", **options) as session:
        yield session


@asynccontextmanager
async def in_a_second_process():
    """The command line's own server, with the account that it makes up and prints."""
    command = [
        sys.executable,
        "-c",
        "from face_async.cli import main; main()",
        "serve",
        "--port",
        "0",
        "--db",
        ":memory:",
    ]
    process = await anyio.open_process([*command, "--recognizer", "fingerprint"], stderr=None)
    try:
        lines = TextReceiveStream(process.stdout)
        printed = ""
        while printed.count("\n") < 5:
            printed += await lines.receive()
        account = dict(re.findall(r"export FACE_ASYNC_(\w+)=(\S+)", printed))
        credentials = Credentials(account["SECRET_ID"], account["SECRET_KEY"])
        async with FaceSession(
            account["APPID"], account["BUCKET"], credentials, base_url=account["BASE_URL"]
        ) as session:
            yield session
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await process.aclose()


@pytest.fixture(params=[over_sockets, in_process, in_a_second_process], ids=["sockets", "in process", "second process"])
def open_session(request):
    return request.param


async def test_all_13_verbs(open_session, tmp_path):
    """A person's whole life, with every verb of the specification."""
    picture = tmp_path / "b.jpg"
    picture.write_bytes(draw_portrait(0, shot=1))
    async with open_session() as session:
        created = await session.new_person("ada", ["staff", "guests"], draw_portrait(0), person_name="阿达", tag="hq")
        await session.new_person("bob", ["staff"])
        added = await session.add_face("ada", [picture, draw_portrait(0), b"no picture"], tag="second")
        await session.set_info("bob", person_name="Bob")
        info = await session.get_info("ada")
        face = await session.get_face_info(added.faces[0].face_id)
        probe = draw_portrait(0, shot=2)
        found = await session.identify("staff", probe)
        verified = await session.verify("ada", probe)
        compared = await session.compare(picture, probe)

        assert (2, 1, {"staff", "guests"}) == (created.suc_group, created.suc_face, set(created.group_ids))
        assert [(0, True), (-1312, False), (-1400, False)] == [(one.code, one.added) for one in added.faces]
        assert ("阿达", "hq", (created.face_id, added.faces[0].face_id)) == (info.person_name, info.tag, info.face_ids)
        assert "Bob" == (await session.get_info("bob")).person_name
        assert added.faces[0].face_id == face.face_id
        assert ("ada", True) == (found.best.person_id, verified.is_match)
        assert compared.similarity >= 75
        assert {"staff", "guests"} == set(await session.get_group_ids())
        assert ["ada", "bob"] == await session.get_person_ids("staff")
        assert list(info.face_ids) == await session.get_face_ids("ada")

        removed = await session.del_face("ada", [created.face_id])
        assert (1, (created.face_id,)) == (removed.deleted, removed.face_ids)
        assert 1 == (await session.del_person("bob")).deleted
        assert ["ada"] == await session.get_person_ids("staff")


REFUSALS = {
    "person exists": (AlreadyExistsError, -1302, lambda session: session.new_person("ada", ["staff"])),
    "no such person": (NotFoundError, -1303, lambda session: session.get_info("nobody")),
    "no such face": (NotFoundError, -1305, lambda session: session.get_face_info("1")),
    "no such group": (NotFoundError, -1306, lambda session: session.identify("nowhere", draw_portrait(0))),
    "no picture at all": (ImageError, -1400, lambda session: session.verify("ada", b"no picture")),
    "a damaged picture": (ImageError, -1102, lambda session: session.verify("ada", draw_portrait(0)[:2000])),
    "a URL": (ImageError, -1308, lambda session: session.verify("ada", "http://127.0.0.1:9/a.jpg")),
    "a full person": (FaceLimitError, -1309, lambda session: session.add_face("ada", [draw_portrait(0, shot=9)])),
    "a full group": (PersonLimitError, -1310, lambda session: session.new_person("cyd", ["staff"])),
    "too many groups": (GroupLimitError, -1311, lambda session: session.new_person("cyd", ["another"])),
}


@pytest.mark.parametrize(("error", "code", "call"), REFUSALS.values(), ids=REFUSALS)
async def test_what_the_server_refuses_is_the_error_of_its_code(error, code, call):
    """The server's own refusals arrive with their class and code; limits as the same class that our checks raise."""
    limits = ServiceLimits(max_faces_per_person=2, max_persons_per_group=2, max_groups_per_appid=1)
    async with in_process(limits=limits) as session:
        await session.new_person("ada", ["staff"], draw_portrait(0))
        await session.add_face("ada", [draw_portrait(0, shot=1)])
        await session.new_person("bob", ["staff"])

        with pytest.raises(error) as caught:
            await call(session)

    assert isinstance(caught.value, ServiceError)
    assert code == caught.value.code


ACCOUNTS = [
    Account("123456", ("test",), CREDENTIALS),
    Account("654321", ("test",), Credentials("AKIDother", "otherSecretKey")),
]
WRONG_ACCOUNTS = {
    10: ("999999", "test", CREDENTIALS),
    11: ("123456", "test", Credentials("AKIDnobody", "exampleSecretKey")),
    12: ("654321", "test", CREDENTIALS),
    14: ("123456", "test", Credentials("AKIDexampleSecretId", "anotherSecretKey")),
    16: ("123456", "elsewhere", CREDENTIALS),
}


@pytest.mark.parametrize(("code", "account"), WRONG_ACCOUNTS.items(), ids=WRONG_ACCOUNTS)
async def test_a_wrong_account_is_told_what_is_wrong_with_it(code, account):
    """Every part of an account that does not fit has its own code; no error repeats the secret."""
    with Store() as store:
        app = create_app(store, credentials=ACCOUNTS, recognizer="fingerprint")
        async with serve_in_background(app) as server, FaceSession(*account, base_url=server.base_url) as session:
            with pytest.raises(NotFoundError if code == 16 else AuthError) as caught:
                await session.get_group_ids()

    assert (code, 1) == (caught.value.code, caught.value.attempts)
    assert account[2].secret_key not in str(caught.value)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_wrong_clock_is_set_by_the_servers(hours):
    """A client whose clock is an hour off signs what the server refuses with code 9, and then by the server's clock."""
    with Store() as store:
        wrong = hours * 3600
        app = create_app(store, credentials=CREDENTIALS, recognizer="fingerprint", clock=lambda: time.time() + wrong)
        async with (
            serve_in_background(app) as server,
            FaceSession("123456", "test", CREDENTIALS, base_url=server.base_url) as session,
        ):
            for _ in range(3):
                assert [] == await session.get_group_ids()

    assert (4, 1) == (session.stats.requests, session.stats.retries)


async def test_the_server_has_the_last_word_on_size():
    """A server with a smaller limit than ours answers 23, which is the same error as our own check."""
    with Store() as store:
        limits = ServiceLimits(max_request_bytes=1_000)
        app = create_app(store, credentials=CREDENTIALS, recognizer="fingerprint", limits=limits)
        async with (
            serve_in_background(app) as server,
            FaceSession("123456", "test", CREDENTIALS, base_url=server.base_url) as session,
        ):
            with pytest.raises(RequestTooLargeError) as caught:
                await session.compare(draw_portrait(0), draw_portrait(0))

    assert 23 == caught.value.code


async def test_bulk_verbs_work_on_the_real_server():
    """Adding, identifying and verifying many at once gives each item its own outcome."""
    people = range(5)
    async with over_sockets() as session:
        for person in people:
            await session.new_person(f"p{person}", ["staff", f"g{person}"], draw_portrait(person))
        async with session.add_faces([(f"p{person}", draw_portrait(person, shot=1)) for person in people]) as outcomes:
            assert [True] * 5 == [outcome.unwrap().added for outcome in await outcomes.collect()]
        probes = [draw_portrait(person, shot=2) for person in people]
        async with session.identify_many(probes, "staff", ordered=True) as outcomes:
            found = [outcome.unwrap().best.person_id async for outcome in outcomes]
        async with session.verify_many([("p0", probes[0]), ("nobody", probes[0])], ordered=True) as outcomes:
            right, wrong = await outcomes.collect()
        merged = await session.identify_in_groups(probes[3], ["staff", "g3", "nowhere"], top=2, errors="collect")

    assert [f"p{person}" for person in people] == found
    assert right.unwrap().is_match
    assert isinstance(wrong.error, NotFoundError)
    assert ("p3", 2, ["staff", "g3"]) == (merged.best.person_id, len(merged.candidates), list(merged.by_group))
    assert [-1306] == [error.code for error in merged.errors.values()]


@pytest.mark.parametrize("option", ["base_url", "transport"])
async def test_a_local_session_is_at_no_other_server(option):
    with pytest.raises(TypeError, match=f"takes no {option}: for another server make a FaceSession"):
        async with local_session(recognizer="fingerprint", **{option: "https://faces.example.com"}):
            pass


async def test_a_local_session_on_a_file_remembers(tmp_path):
    """What was enrolled in one local session is there in the next on the same file."""
    path = tmp_path / "faces.db"
    async with local_session(path, recognizer="fingerprint") as session:
        await session.new_person("ada", ["staff"], draw_portrait(0))
    async with local_session(path, recognizer="fingerprint") as session:
        found = await session.identify("staff", draw_portrait(0, shot=1))

    assert "ada" == found.best.person_id
