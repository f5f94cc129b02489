"""What is told of calls: the log, events of attempts, and errors that name what they are about."""

from __future__ import annotations

import contextlib
import logging
from email.utils import formatdate
from time import time

import anyio
import attrs
import httpx
import pytest
from doubles import CREDENTIALS, envelope, session_on
from raw_server import RawServer, answer, reset_after_request, silence
from stacks import Stack, loop_of_stack, on_httpx, session_of_stack, stack_of_test  # noqa: F401 - fixtures are asked for by their own names
from timing import PATIENCE

from face_async import (
    Attempt,
    CallError,
    DeadlineError,
    DuplicateFaceError,
    FaceSession,
    NotFoundError,
    RateLimitedError,
    ResponseError,
    RetryPolicy,
    ShardedGroup,
    Throttle,
    TransportError,
    UnavailableError,
    UnsupportedError,
)
from face_async._call import attempts

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)
ONCE = RetryPolicy(max_attempts=1)
PICTURE = b"\xff\xd8\xffpicture"
INFO = envelope({"person_id": "ada", "person_name": "", "face_ids": [], "group_ids": [], "tag": ""})
SET = envelope({"person_id": "ada"})
BUSY = envelope(code=15, message="busy")
BROKEN = envelope(code=213)


# Events


async def test_every_attempt_is_one_event(session_at):
    """Of reads, effects, retries and of the calls that settle a doubt: as many events as requests, in their order."""
    events = []
    script = [
        answer(INFO),
        answer(BUSY),
        answer(SET),
        reset_after_request(),
        answer(b"no"),
        answer(BROKEN),
        answer(INFO),
    ]
    with RawServer(script) as server:
        async with session_at(server, on_attempt=events.append) as session:
            await session.get_info("ada")
            await session.set_info("ada", tag="")
            await session.set_info("ada", tag="")
            assert session.stats.requests == len(events) == len(script)
    assert [(event.endpoint, event.number, event.status, event.code, event.pause is None) for event in events] == [
        ("getinfo", 1, 200, 0, True),
        ("setinfo", 1, 200, 15, False),
        ("setinfo", 2, 200, 0, True),
        ("setinfo", 1, 0, None, False),
        ("setinfo", 2, 200, None, False),
        ("setinfo", 3, 200, 213, True),
        ("getinfo", 1, 200, 0, True),
    ]
    assert [event.maybe_applied for event in events] == [False] * 3 + [True] * 3 + [False]
    kinds = [type(None), RateLimitedError, type(None), TransportError, ResponseError, UnavailableError, type(None)]
    assert [type(event.error) for event in events] == kinds
    assert {event.subject for event in events} == {"person 'ada'"}
    assert [event.slowed_to for event in events] == [None, 32, None, None, None, None, None]
    assert [event.bytes_sent for event in events] == [len(request.body) for request in server.requests]
    assert all(0 < event.elapsed < PATIENCE and event.queued == 0 for event in events)


async def test_a_call_that_is_cancelled_has_an_event_for_its_attempt(session_at):
    """It says that the effect may have happened if the request was handed over."""
    events = []
    with RawServer([silence()]) as server:
        async with session_at(server, on_attempt=events.append, timeout=PATIENCE) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.del_person, "ada")
                await anyio.to_thread.run_sync(server.began.acquire, True, PATIENCE)
                while not session.stats.requests or not server.requests:  # noqa: ASYNC110 - it runs in a thread
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            [event] = events
    assert isinstance(event.error, anyio.get_cancelled_exc_class())
    assert (event.status, event.code, event.maybe_applied, event.pause) == (0, None, True, None)


@on_httpx
async def test_an_event_cannot_be_changed():
    """Events are values."""
    event = Attempt(endpoint="identify", subject="group 'staff'", number=1, elapsed=0.5, queued=0, bytes_sent=9)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.number = 2


@on_httpx
async def test_time_in_the_queue_is_told():
    """Of a call that waited for the rate, every event has the seconds so far."""
    events = []
    session, _ = session_on(
        BROKEN, INFO, retry=AT_ONCE, throttle=Throttle(max_rate=100, burst=1), on_attempt=events.append
    )
    for _ in range(50):
        session._throttle.seconds_to_wait()  # others have taken the rate for half a second
    async with session:
        result = await session.get_info("ada")
    assert 0 < events[0].queued <= events[1].queued == result.meta.queued
    assert events[0].pause is not None


@on_httpx
async def test_an_event_that_is_kept_keeps_no_picture(session_at):
    """Of an attempt that is tried again, the error has no traceback, by whose frames it would hold all of the call."""
    events = []
    with RawServer([answer(BROKEN), answer(envelope({"candidates": []}))]) as server:
        async with session_at(server, on_attempt=events.append) as session:
            await session.identify("staff", PICTURE)
    assert isinstance(events[0].error, UnavailableError)
    assert events[0].error.__traceback__ is None


@on_httpx
async def test_where_nobody_listens_no_event_is_made(monkeypatch, caplog):
    """A call that succeeds at once costs one look at who listens."""

    def refuse(**facts):
        raise AssertionError(facts)

    monkeypatch.setattr(attempts, "Attempt", refuse)
    caplog.set_level(logging.INFO, "face_async")
    session, _ = session_on(INFO)
    async with session:
        assert (await session.get_info("ada")).meta.attempts == 1
    assert caplog.records == []


@on_httpx
async def test_what_a_listener_raises_changes_nothing(caplog):
    """The call goes on, and the log has the traceback."""
    session, _ = session_on(BUSY, INFO, retry=AT_ONCE, on_attempt=lambda event: 1 / 0)
    async with session:
        assert (await session.get_info("ada")).meta.attempts == 2
    raised = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info[0] for record in raised] == [ZeroDivisionError] * 2


async def listener(event):
    raise AssertionError


@pytest.mark.parametrize("wrong", [listener, 5])
def test_a_listener_that_cannot_be_called_in_the_middle_of_a_call_is_refused(wrong):
    """At once, and the error says what it has to be."""
    with pytest.raises(TypeError, match="on_attempt must be a plain function"):
        session_on(INFO, on_attempt=wrong)


@on_httpx
async def test_copies_tell_the_same_listener():
    """What a copy sends is told as well."""
    events = []
    session, _ = session_on(INFO, on_attempt=events.append)
    async with session:
        await session.with_options(deadline=5).get_info("ada")
    assert len(events) == 1


# The log


async def lines_of(caplog, session, call):
    """Return what the client logs of a call, whatever comes of it."""
    caplog.clear()
    caplog.set_level(logging.DEBUG, "face_async")
    async with session:
        with contextlib.suppress(CallError):
            await call(session)
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "face_async"]


@on_httpx
async def test_a_calm_call_is_told_at_debug_only(caplog):
    """Which endpoint for whom, the HTTP status, and how long it took."""
    session, _ = session_on(INFO)
    [(level, line)] = await lines_of(caplog, session, lambda session: session.get_info("ada"))
    assert level == "DEBUG"
    assert line.startswith("getinfo for person 'ada': HTTP 200 (attempt 1, 0.")
    assert caplog.records[0].attempt.code == 0


@on_httpx
async def test_retries_and_slowdowns_are_told(caplog):
    """A retry with its cause and its pause at INFO; the first slowdown of a session at WARNING, the others at INFO."""
    session, _ = session_on(BUSY, BUSY, INFO, retry=AT_ONCE)
    told = await lines_of(caplog, session, lambda session: session.identify("staff", PICTURE))
    assert [level for level, _ in told] == ["INFO", "WARNING", "INFO", "INFO", "DEBUG"]
    assert told[0][1].startswith("identify for group 'staff': 15 ")
    assert "(attempt 1, 0." in told[0][1]
    assert told[0][1].endswith("; trying again in 0.000 seconds")
    assert told[1][1] == "the service asks for fewer requests: at most 32 calls at once now"
    assert told[3][1] == "the service asks for fewer requests: at most 16 calls at once now"


@on_httpx
async def test_a_failure_that_is_raised_anyway_is_told_at_debug_only(caplog):
    """Who catches the error decides how loud it is."""
    session, _ = session_on(envelope(code=-1303))
    [(level, line)] = await lines_of(caplog, session, lambda session: session.get_info("ada"))
    assert level == "DEBUG"
    assert line.startswith("getinfo for person 'ada': -1303 ERROR_PERSON_NOT_EXISTED: no person of this id exists")
    assert line.endswith(" seconds)")


@on_httpx
@pytest.mark.parametrize(
    ("answers", "level", "line"),
    [
        ([BROKEN, envelope(code=-1303)], "INFO", "the doubt is settled: the person was already absent"),
        (
            [BROKEN, envelope({"person_id": "ada", "deleted": 1})],
            "INFO",
            "the doubt is settled: the last answer tells it",
        ),
        ([BROKEN, BROKEN, BROKEN, INFO], "WARNING", "looking does not tell whether the effect has happened"),
        ([BROKEN, envelope(code=-1301)], "INFO", "the doubt is settled: it had no effect"),
    ],
)
async def test_doubts_and_how_they_were_settled_are_told(caplog, answers, level, line):
    """A doubt that is settled at INFO, one that stays at WARNING; until then no line gives advice to the user."""
    session, _ = session_on(*answers, retry=AT_ONCE)
    told = await lines_of(caplog, session, lambda session: session.del_person("ada"))
    [(said_at, said)] = [each for each in told if "doubt" in each[1] or "looking" in each[1]]
    assert (said_at, said) == (level, f"delperson for person 'ada': an answer was lost, and {line}")
    assert told[0][0] == "INFO"
    assert "; the effect may have happened; trying again in 0.000 seconds" in told[0][1]
    assert not any("look before" in each for _, each in told)


@on_httpx
@pytest.mark.parametrize("tokens", [1, 2])
async def test_a_doubt_for_which_there_is_no_time_is_told(caplog, tokens):
    """At INFO, as the error says it, too; also where the quota has ended the call, no line gives advice."""
    session, _ = session_on(BROKEN, retry=RetryPolicy(base_delay=0, quota=tokens))
    told = await lines_of(caplog, session, lambda session: session.del_person("ada"))
    assert [level for level, _ in told] == [*["INFO"] * tokens, "DEBUG", "INFO"]
    assert told[-1][1].endswith("and there was no time or quota to look what became of the effect")
    assert not any("look before" in line for _, line in told)


@on_httpx
async def test_a_wrong_clock_is_told(caplog):
    """By how much, and on which side."""
    answers = [envelope(code=9), INFO]

    class Late(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return httpx.Response(200, headers={"Date": formatdate(time() + 600)}, content=answers.pop(0))

    session = FaceSession("1", "b", CREDENTIALS, transport=Late(), retry=AT_ONCE)
    told = await lines_of(caplog, session, lambda session: session.get_info("ada"))
    [line] = [line for level, line in told if level == "WARNING"]
    assert line.startswith(("this machine's clock is -600 seconds", "this machine's clock is -599 seconds"))


# Errors


NAMED = {
    "newperson for person 'ada', group 'staff' and 1 more": lambda s: s.new_person("ada", ["staff", "guests"], PICTURE),
    "delperson for person 'ada'": lambda s: s.del_person("ada"),
    "addface for person 'ada'": lambda s: s.add_face("ada", [PICTURE]),
    "delface for person 'ada', face 'f' and 2 more": lambda s: s.del_face("ada", ["f", "g", "h"]),
    "setinfo for person 'ada'": lambda s: s.set_info("ada", tag="t"),
    "getinfo for person 'ada'": lambda s: s.get_info("ada"),
    "getgroupids": lambda s: s.get_group_ids(),
    "getpersonids for group 'staff'": lambda s: s.get_person_ids("staff"),
    "getfaceids for person 'ada'": lambda s: s.get_face_ids("ada"),
    "getfaceinfo for face 'f'": lambda s: s.get_face_info("f"),
    "verify for person 'ada'": lambda s: s.verify("ada", PICTURE),
    "identify for group 'staff'": lambda s: s.identify("staff", PICTURE),
    "compare": lambda s: s.compare(PICTURE, PICTURE),
    "detect": lambda s: s.detect(PICTURE),
    "delgroupids for person 'ada', group 'staff'": lambda s: s.del_group_ids("ada", ["staff"]),
    "multidentify for group 'staff' and 1 more": lambda s: s.multi_identify(["staff", "guests"], PICTURE),
}
FAILING = {
    NotFoundError: envelope(code=-1303),
    ResponseError: b"no JSON",
    UnavailableError: envelope(code=107),
    RateLimitedError: BUSY,
}


@on_httpx
@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("label", NAMED)
async def test_an_error_names_the_object(label, kind):
    """Whatever the call and whatever went wrong: its message says it first, and its subject is there to be read."""
    session, _ = session_on(FAILING[kind], retry=ONCE)
    with pytest.raises(kind) as caught:
        await NAMED[label](session)
    assert str(caught.value).startswith(f"{label}: ")
    assert f"{caught.value.endpoint} for {caught.value.subject}".removesuffix(" for ") == label


@on_httpx
async def test_errors_without_an_answer_name_the_object_too():
    """No connection, a closed session, a server without the endpoint, a deadline."""
    with RawServer([answer(b"", 404)]) as server:
        async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, retry=ONCE) as session:
            with pytest.raises(
                UnsupportedError, match=r"^delgroupids for person 'ada', group 'staff': the server does"
            ):
                await session.del_group_ids("ada", ["staff"])
        url = server.url
    async with FaceSession("1", "b", CREDENTIALS, base_url=url, retry=ONCE) as session:
        with pytest.raises(TransportError, match=rf"^getinfo for person 'ada': {url}: cannot connect") as caught:
            await session.get_info("ada")
    assert (caught.value.subject, caught.value.reason) == ("person 'ada'", str(caught.value))
    sharded = ShardedGroup(session_on(INFO)[0], "staff")
    with pytest.raises(NotFoundError, match=r"^delperson for person 'ada': -1303"):
        await sharded.del_person("ada")


@on_httpx
async def test_the_error_of_a_picture_names_the_person():
    """Alone and in bulk, where the answer says only which of the pictures it was."""
    session, _ = session_on(envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0, -1312]}))
    added = await session.add_face("ada", [PICTURE, PICTURE])
    with pytest.raises(DuplicateFaceError, match=r"^addface for person 'ada': -1312 "):
        added.raise_for_failures()
    session, _ = session_on(
        envelope({"face_ids": []}), envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0, -1312]})
    )
    async with session.add_faces([("ada", PICTURE)] * 2) as outcomes:
        failed = [outcome.error for outcome in await outcomes.collect() if outcome.error]
    assert [str(error).partition(" ERROR")[0] for error in failed] == ["addface for person 'ada': -1312"]


@on_httpx
@pytest.mark.parametrize("waiting_for", ["a place", "bytes", "the rate"])
async def test_an_error_says_when_a_call_never_left_the_queue(waiting_for):
    """Whatever it queued for: nothing was sent, and what can be done about it."""
    throttle = {
        "a place": Throttle(max_concurrency=1),
        "bytes": Throttle(max_bytes_in_flight=1),
        "the rate": Throttle(max_rate=0.01, burst=1),
    }[waiting_for]
    session, network = session_on(INFO, throttle=throttle, deadline=0.05)
    session._throttle.seconds_to_wait()
    if waiting_for != "the rate":
        assert session._throttle.places.acquire_now(1 if waiting_for == "a place" else 0)
        assert session._throttle.bytes.acquire_now(1)
    with pytest.raises(
        DeadlineError, match=r"^getinfo for person 'ada': it never left the queue within the dea"
    ) as caught:
        await session.get_info("ada")
    assert "nothing was sent" in str(caught.value)
    assert (caught.value.attempts, caught.value.maybe_applied, network.sent) == (0, False, [])


@on_httpx
async def test_an_error_says_when_the_pictures_could_not_be_read_in_time():
    """That is no queue: a wider throttle would not help."""

    class Slow:
        async def read(self, size=-1):
            await anyio.sleep(PATIENCE)

    session, _ = session_on(INFO, deadline=0.05)
    with pytest.raises(DeadlineError, match=r"identify for group 'staff': its pictures could not be read within the"):
        await session.identify("staff", Slow())


@on_httpx
async def test_a_call_that_was_sent_and_not_answered_is_told_from_one_that_queued():
    """It says that no answer came."""
    with RawServer([silence()]) as server:
        async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, deadline=0.3, retry=ONCE) as session:
            with pytest.raises(DeadlineError, match=r"^getinfo for person 'ada': no answer within the deadline of 0.3"):
                await session.get_info("ada")
