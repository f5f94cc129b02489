"""What calls wait for besides their answers, when the session is closed: nothing, any more."""

from __future__ import annotations

import anyio
import httpx
import pytest
from albums import JPEG
from doubles import CREDENTIALS, envelope
from picturekit import silent_pipe
from timing import PATIENCE

from face_async import FaceSession, RetryPolicy, Throttle, TransportError

pytestmark = pytest.mark.anyio

LONG = 3_600
LATER = {"Retry-After": str(LONG)}
TOO_MANY = httpx.Response(200, headers=LATER, content=envelope(code=15))
AWAY = httpx.Response(503, headers=LATER)
BROKEN = httpx.Response(200, headers=LATER, content=envelope(code=107))
INFO = envelope({"person_id": "p", "group_ids": [], "face_ids": ["f"], "person_name": "", "tag": "", "session_id": ""})


def session_that_gets(answer, **options):
    """Return a session of which every request gets this answer."""
    transport = httpx.MockTransport(lambda _: answer)
    return FaceSession("1", "b", CREDENTIALS, transport=transport, deadline=2 * LONG, **options)


async def closed_while_calls_wait(session, *calls):
    """Begin calls, close the session when all of them wait, and return the errors that they end with."""
    errors = {}

    async def end(number, call):
        with pytest.raises(TransportError) as caught:
            await call(session)
        errors[number] = caught.value

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for number, call in enumerate(calls):
                tasks.start_soon(end, number, call)
                await anyio.wait_all_tasks_blocked()
            assert errors == {}
            await session.aclose()
    assert all("the session was closed" in str(error) for error in errors.values())
    return [errors[number] for number in range(len(calls))]


def get(session):
    return session.get_info("p")


def change(session):
    return session.set_info("p", tag="t")


PAUSES = [
    pytest.param(TOO_MANY, get, False, id="too many requests"),
    pytest.param(TOO_MANY, change, False, id="too many changes"),
    pytest.param(BROKEN, get, False, id="a read that failed"),
    pytest.param(AWAY, get, False, id="a read of a service that is away"),
    pytest.param(AWAY, change, True, id="a change by a service that is away"),
]


@pytest.mark.parametrize(("answer", "call", "maybe_applied"), PAUSES)
async def test_closing_ends_the_pause_before_a_retry(answer, call, maybe_applied):
    """And the error says what the attempt before it may have done, as any other."""
    session = session_that_gets(answer)
    [error] = await closed_while_calls_wait(session, call)
    assert (error.attempts, error.maybe_applied, error.subject) == (1, maybe_applied, "person 'p'")
    assert session.stats.requests == 1


async def test_closing_ends_the_queue_behind_a_call_that_pauses():
    """Also for its place, which the pause keeps."""
    session = session_that_gets(BROKEN, throttle=Throttle(max_concurrency=1))
    errors = await closed_while_calls_wait(session, get, change)
    assert [(1, False), (0, False)] == [(error.attempts, error.maybe_applied) for error in errors]
    state = session.stats.throttle
    assert (state.in_flight, state.waiting, state.bytes_in_flight) == (0, 0, 0)


async def test_closing_ends_the_wait_for_the_rate():
    session = session_that_gets(
        BROKEN, throttle=Throttle(max_rate=1 / LONG, burst=1), retry=RetryPolicy(max_attempts=1)
    )
    with pytest.raises(Exception, match="107"):
        await get(session)
    [error] = await closed_while_calls_wait(session, change)
    assert (error.attempts, error.maybe_applied, session.stats.requests) == (0, False, 1)


async def test_closing_ends_the_wait_for_a_file_object():
    """One that delivers nothing: its call is over, and was certainly not sent."""
    with silent_pipe() as file:
        [error] = await closed_while_calls_wait(
            session_that_gets(BROKEN), lambda session: session.add_face("p", [file])
        )
    assert (error.attempts, error.maybe_applied) == (0, False)


async def test_a_wait_that_begins_after_closing_is_over_at_once():
    """What is given back when others end is no way to go on."""
    session = session_that_gets(BROKEN, throttle=Throttle(max_concurrency=1, max_rate=1 / LONG, burst=1))
    errors = await closed_while_calls_wait(session, get, get, get)
    assert [1, 0, 0] == [error.attempts for error in errors]


async def test_closing_between_two_looks_at_a_doubt_leaves_it_a_doubt():
    """The call that settles it ends as all that are under way do, and says that the effect may have happened."""
    answers = iter([None, httpx.Response(200, content=envelope(code=-1302)), httpx.Response(200, content=INFO)])
    asked = []

    class Closing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            asked.append(request.url.path)
            answer = next(answers)
            if answer is None:
                await request.aread()
                raise httpx.ReadError("gone")
            if request.url.path.endswith("getinfo"):
                await session.aclose()
            return answer

    session = FaceSession("1", "b", CREDENTIALS, transport=Closing(), retry=RetryPolicy(base_delay=0))
    with pytest.raises(Exception, match="newperson") as caught:
        await session.new_person("p", ["g"], JPEG)
    assert caught.value.maybe_applied is True
    assert ["newperson", "newperson", "getinfo"] == [path.rpartition("/")[2] for path in asked]
