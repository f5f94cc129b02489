"""When a failed request is tried again, how long after, and how often all in all."""

from __future__ import annotations

import pickle
import random
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial

import anyio
import httpx
import pytest
from doubles import CREDENTIALS, Network, envelope, session_on

from face_async import (
    AuthError,
    DeadlineError,
    FaceSession,
    RateLimitedError,
    ResponseError,
    RetryPolicy,
    Throttle,
    TransportError,
    UnavailableError,
)
from face_async._call.retry import RetryQuota, clock_skew, retry_after
from face_async._transports.base import Reason, TransportFailure
from face_async.signature import parse

pytestmark = pytest.mark.anyio

PERSON = envelope({"person_id": "p", "session_id": ""})
AT_ONCE = RetryPolicy(base_delay=0)
NOW = 1_500_000_000


class Answering(httpx.AsyncBaseTransport):
    """Answers with status, headers and body in their order, the last one for ever; an exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.signatures = []

    async def handle_async_request(self, request):
        async for _ in request.stream:
            pass
        self.signatures.append(parse(request.headers["authorization"]))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, headers, content = answer
        return httpx.Response(status, headers=headers, content=content)


def session_over(*answers, **options):
    transport = Answering(*answers)
    return FaceSession("1", "b", CREDENTIALS, transport=transport, **{"retry": AT_ONCE, **options}), transport


# Pauses


def test_pauses_are_random_up_to_a_bound_that_doubles():
    """Full jitter: from 0 to base, twice base, four times base, never more than the maximum."""
    policy = RetryPolicy(max_attempts=9, base_delay=1, max_delay=5)
    rng = random.Random(1)
    for attempt, bound in enumerate([1, 2, 4, 5, 5], start=1):
        pauses = [policy.pause(attempt, rng) for _ in range(500)]
        assert bound * 0.9 < max(pauses) <= bound
        assert min(pauses) < bound * 0.1
    assert policy.pause(1, rng, asked=7.5) == 7.5


def test_retry_after_is_seconds_or_a_date():
    """Anything else is no demand, and one that has passed is none any more."""

    def date(seconds):
        return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)

    asked = {"3": 3, " 120 ": 120, date(30): 30, date(-30): 0, "": 0, "soon": 0, "-5": 0, "1e9": 0, "9" * 400: 0}
    assert {text: retry_after({"retry-after": text}, NOW) for text in asked} == asked
    assert retry_after({}, NOW) == 0


async def test_retry_after_is_waited_for():
    """The server's demand goes before a shorter pause of our own."""
    session, _ = session_over((429, {"Retry-After": "1"}, b"busy"), (200, {}, PERSON))
    started = time.monotonic()
    assert (await session.set_info("p", tag="x")).meta.attempts == 2
    assert time.monotonic() - started >= 1


async def test_who_is_only_told_when_to_come_again_has_not_used_up_an_attempt():
    """However often, until the deadline; without Retry-After, or with a single attempt, it counts like any other."""

    async def succeeds(told, busy) -> None:
        session, _ = session_over(told, busy, told, busy, (200, {}, PERSON))
        assert (await session.set_info("p", tag="x")).meta.attempts == 5

    async def fails(answers, attempts, **options) -> None:
        session, transport = session_over(*answers, **options)
        with pytest.raises((RateLimitedError, ResponseError)) as caught:
            await session.get_info("p")
        assert (caught.value.attempts, len(transport.signatures)) == (attempts, attempts)

    async with anyio.create_task_group() as tasks:  # all of them wait for seconds
        for status, content in ((200, envelope(code=15)), (429, b"busy")):
            told, busy = (status, {"Retry-After": "1"}, content), (status, {}, content)
            tasks.start_soon(succeeds, told, busy)
            tasks.start_soon(partial(fails, [told, busy], 4, retry=AT_ONCE))
            tasks.start_soon(partial(fails, [told], 1, retry=RetryPolicy(max_attempts=1)))
            tasks.start_soon(partial(fails, [told], 3, deadline=2.5))


@pytest.mark.parametrize("answer", [(503, b"down"), (200, envelope(code=15)), (429, envelope(code=107))])
async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(answer):
    """The error comes at once."""
    status, content = answer
    session, transport = session_over((status, {"Retry-After": "3600"}, content))
    with pytest.raises(Exception, match="getinfo") as caught:
        await session.get_info("p")
    assert (caught.value.attempts, len(transport.signatures)) == (1, 1)


# The clock


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_wrong_clock_is_corrected_from_the_date_header(hours):
    """Code 9 with a Date: one more try, signed by the server's clock, and so are all later calls."""
    there = datetime.fromtimestamp(datetime.now(UTC).timestamp() + hours * 3_600, UTC)
    date = {"Date": format_datetime(there, usegmt=True)}
    session, transport = session_over((200, date, envelope(code=9)), (200, date, PERSON))
    assert (await session.set_info("p", tag="x")).meta.attempts == 2
    assert (await session.set_info("p", tag="x")).meta.attempts == 1
    first, *later = [signature.signed_at for signature in transport.signatures]
    assert [pytest.approx(hours * 3_600, abs=60)] * 2 == [moment - first for moment in later]


async def test_a_clock_is_corrected_once_a_call():
    """A server whose Date does not help is not asked a third time."""
    there = datetime.fromtimestamp(NOW, UTC)
    session, transport = session_over((200, {"Date": format_datetime(there, usegmt=True)}, envelope(code=9)))
    with pytest.raises(AuthError, match="clock") as caught:
        await session.get_info("p")
    assert (caught.value.attempts, len(transport.signatures)) == (2, 2)


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 32 Jan 2026 99:00:00 GMT", "now"])
async def test_an_expired_signature_without_a_usable_date_is_final(date):
    """There is nothing to correct the clock by; and a clock that is right need not be."""
    value = format_datetime(datetime.now(UTC), usegmt=True) if date == "now" else date
    session, transport = session_over((200, {"Date": value} if value else {}, envelope(code=9)))
    with pytest.raises(AuthError):
        await session.get_info("p")
    assert len(transport.signatures) == 1


async def test_a_clock_is_corrected_for_more_calls_at_once_than_there_are_retries():
    """Each call may correct it once, so that a wrong clock fails none of a thousand calls."""
    there = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3_600, UTC)
    answers = [(200, {"Date": format_datetime(there, usegmt=True)}, envelope(code=9))] * 150 + [(200, {}, PERSON)]
    session, _ = session_over(*answers, throttle=Throttle(max_concurrency=150))
    everybody = anyio.Event()

    class Together(Answering):
        async def handle_async_request(self, request):
            response = await super().handle_async_request(request)
            if len(self.signatures) == 150:
                everybody.set()
            await everybody.wait()
            return response

    session._runner.transport._inner = transport = Together(*answers)
    async with anyio.create_task_group() as tasks:
        for _ in range(150):
            tasks.start_soon(partial(session.set_info, "p", tag="x"))
    assert len(transport.signatures) == 300


def test_small_differences_are_no_skew():
    """A Date has whole seconds, and travels a while."""
    date = format_datetime(datetime.fromtimestamp(NOW, UTC), usegmt=True)
    skews = {NOW - 3_600: 3_600, NOW + 3_600: -3_600, NOW + 4: 0, NOW - 4: 0}
    assert {now: clock_skew({"date": date}, now) for now in skews} == skews


# The quota


@pytest.mark.parametrize("capacity", [0, 1, 100])
def test_a_quota_gives_out_tokens_and_gets_them_back_with_answers(capacity):
    """All of them for nothing, then one for ten answers or one that was a retry's, and never more than at first."""
    quota = RetryQuota(capacity)
    assert capacity == sum(quota.take() for _ in range(capacity + 1))
    for _ in range(10):
        quota.refund(token=False)
    assert [quota.take(), quota.take()] == [capacity > 0, False]
    quota.refund(token=True)
    assert [quota.take(), quota.take()] == [capacity > 0, False]
    for _ in range(10_000):
        quota.refund(token=False)
    assert capacity == sum(quota.take() for _ in range(1_000))


class Unreliable(Answering):
    """Loses a part of the requests, chosen at random; of the others it answers every one."""

    def __init__(self, lost, rng):
        super().__init__((200, {}, PERSON))
        self.lost = lost
        self.rng = rng

    async def handle_async_request(self, request):
        answer = await super().handle_async_request(request)
        if self.rng.random() < self.lost:
            raise httpx.ConnectError("no")
        return answer


@pytest.mark.parametrize("lost", [0.12, 0.2])
async def test_retries_that_succeed_use_nothing_up(lost, rng, full):
    """A service that fails now and then, for ever, is retried for ever: the attempts decide, not the quota."""
    calls = 20_000 if full else 2_000
    policy = RetryPolicy(max_attempts=5, base_delay=0)
    session = FaceSession("1", "b", CREDENTIALS, transport=Unreliable(lost, rng), retry=policy)
    failures = []
    for _ in range(calls):
        try:
            await session.set_info("p", tag="x")
        except TransportError as error:
            failures.append(error.attempts)
    assert set(failures) <= {5}
    assert len(failures) <= 10 * lost**5 * calls


async def test_a_quota_that_is_used_up_is_named_in_the_error():
    """Both where a request is not sent again, and where an effect in doubt is not looked at; and the error pickles."""
    policy = RetryPolicy(base_delay=0, quota=3)
    used_up = "given up early: the session's quota of 3 retries is used up"
    session, transport = session_over(httpx.ConnectError("no"), retry=policy)
    caught = []
    for _ in range(3):
        with pytest.raises(TransportError) as info:
            await session.get_info("p")
        caught.append((info.value.attempts, used_up in str(info.value)))
    assert caught == [(3, False), (2, True), (1, True)]
    transport.answers = [httpx.ReadError("gone")]
    with pytest.raises(TransportError, match=used_up) as info:
        await session.set_info("p", tag="x")
    assert info.value.maybe_applied is True
    assert str(info.value) == str(pickle.loads(pickle.dumps(info.value)))
    assert 1 == str(info.value).count(used_up)


async def test_an_undecoded_answer_is_returned_also_where_the_quota_is_used_up():
    """It has the code or status that would have been retried, and is no error of the call."""
    session, transport = session_over((503, {}, b"busy"), retry=RetryPolicy(base_delay=0, quota=0))
    answer = await session.request("getinfo", {"person_id": "p"})
    assert (answer.status, answer.content) == (503, b"busy")
    assert len(transport.signatures) == 1


async def test_a_quota_of_nothing_tries_nothing_again():
    session, transport = session_over(httpx.ConnectError("no"), retry=RetryPolicy(base_delay=0, quota=0))
    with pytest.raises(TransportError, match="quota of 0 retries"):
        await session.get_info("p")
    assert len(transport.signatures) == 1


async def test_copies_share_a_quota_unless_theirs_is_another():
    """A copy for one call must not be a way around the quota."""
    session, transport = session_over(httpx.ConnectError("no"), retry=RetryPolicy(base_delay=0, quota=2))
    for options in ({"deadline": 50}, {"retry": RetryPolicy(base_delay=0, max_attempts=9, quota=2)}):
        with pytest.raises(TransportError):
            await session.with_options(**options).get_info("p")
    assert len(transport.signatures) == 2 + 2
    with pytest.raises(TransportError):
        await session.with_options(retry=RetryPolicy(base_delay=0, quota=1)).get_info("p")
    assert len(transport.signatures) == 2 + 2 + 2


@pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
def test_a_quota_is_a_number_of_retries(wrong):
    with pytest.raises((TypeError, ValueError), match="quota"):
        RetryPolicy(quota=wrong)


@pytest.mark.parametrize("kind", ["refused", "lost", "unavailable"])
async def test_a_total_outage_is_not_answered_with_a_flood(kind, full):
    """Ten thousand calls into an outage are no more than 1.01 times as many requests (goal G6); effects, too."""
    calls = 10_000 if full else 1_000
    answers = {
        "refused": httpx.ConnectError("no"),
        "lost": httpx.ReadError("gone"),
        "unavailable": (200, {}, envelope(code=107)),
    }
    session, transport = session_over(answers[kind])
    failed = 0
    for turn in range(calls):
        try:
            await (session.get_info("p") if turn % 2 else session.set_info("p", tag="x"))
        except (TransportError, UnavailableError):
            failed += 1
    assert failed == calls
    assert len(transport.signatures) <= calls + RetryPolicy().quota


async def test_a_session_without_answers_for_a_while_recovers():
    """After an outage, answers bring the retries back."""
    session, transport = session_over(httpx.ConnectError("no"))
    for _ in range(60):
        with pytest.raises(TransportError):
            await session.get_info("p")
    transport.answers = [(200, {}, PERSON)]
    for _ in range(50):
        await session.set_info("p", tag="x")
    transport.answers = [httpx.ConnectError("no"), (200, {}, PERSON)]
    assert (await session.set_info("p", tag="x")).meta.attempts == 2


async def test_a_session_that_was_closed_tries_nothing_again():
    """Whoever closes it does not want to wait for pauses."""
    session, network = session_on(envelope(code=107), retry=RetryPolicy(base_delay=0))

    class Closing(Network):
        async def handle_async_request(self, request):
            await session.aclose()
            return await super().handle_async_request(request)

    session._runner.transport._inner = closing = Closing(network.answers)
    with pytest.raises(UnavailableError) as caught:
        await session.get_info("p")
    assert (caught.value.attempts, len(closing.sent)) == (1, 1)


async def test_a_transport_that_ends_a_call_a_moment_early_has_ended_it_at_its_deadline(monkeypatch):
    """The clock of an event loop may run in steps."""
    session, _ = session_over((200, {}, PERSON), retry=AT_ONCE)

    async def send(*_):
        raise TransportFailure(Reason.DEADLINE, unsent=False)

    monkeypatch.setattr(session._runner.transport, "send", send)
    with pytest.raises(DeadlineError) as caught:
        await session.get_info("p")
    assert 1 == caught.value.attempts
