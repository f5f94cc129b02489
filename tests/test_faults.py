"""Every fault of the table, on every endpoint (goal G2): what the caller hears, and what the server saw.

Each fault meets each of the 13 verbs (costly ones every fourth) on one of the stacks, in turn; with ``--full`` all meet
all on all.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

import anyio
import anyio.to_thread
import pytest
from attrs import frozen
from doubles import envelope
from faults import DRIPS, FAULTS, FLOOD, HTML, LARGE, STALLS, Fault, refuse_early
from raw_server import CERTIFICATE, Behavior, RawServer, answer, black_hole, http, say
from specification import SAMPLES, Sample
from stacks import STACKS, Stack, loop_of_stack, session_of_stack  # noqa: F401 - fixtures go by other names
from timing import PATIENCE, in_time
from verbs import CALLS, RESULTS, pictures

from face_async import (
    CODES,
    AuthError,
    CallError,
    DeadlineError,
    FaceSession,
    ImageFile,
    RequestTooLargeRefusal,
    ResponseError,
    RetryPolicy,
    ServiceError,
    TransportError,
)
from face_async.endpoints import ENDPOINTS
from face_async.errors import Retry
from face_async.signature import parse

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)
ATTEMPTS = AT_ONCE.max_attempts


# The verbs, and how the outcome of an effect is looked for


@dataclass(frozen=True)
class Verb:
    """One of the 13, with a picture where one may be sent."""

    sample: Sample
    effect: bool

    def __str__(self) -> str:
        """Name the verb in a test's id."""
        return self.name

    @property
    def name(self) -> str:
        return self.sample.endpoint

    @property
    def good(self) -> Behavior:
        """The specification's own answer."""
        return answer(self.sample.answer)

    @property
    def result(self) -> object:
        """What that answer means."""
        return RESULTS[self.name]

    async def call(self, session: FaceSession, *, large: bool = False) -> object:
        """Make the call of the specification, with pictures of 1.4 MB together if they are to be large."""
        sources = pictures(self.sample)
        if large:
            sources = [ImageFile(LARGE[: len(LARGE) // len(sources)]) for _ in sources]
        return await CALLS[self.name](session, sources)

    @property
    def uploads(self) -> bool:
        """Whether it sends pictures."""
        return self.sample.form == "multipart"


VERBS = {
    endpoint.name: Verb([sample for sample in SAMPLES if sample.endpoint == endpoint.name][-1], endpoint.effect)
    for endpoint in ENDPOINTS
}
EFFECTS = [verb for verb in VERBS.values() if verb.effect]

FACES = list(RESULTS["addface"].face_ids)
PERSON = {"person_id": "person0", "person_name": "", "tag": "", "face_ids": FACES, "group_ids": ["tencent"]}
NEW = {**PERSON, "face_ids": [RESULTS["newperson"].face_id], "group_ids": ["tencent", "qq"]}


def found(face_id: str) -> bytes:
    return envelope({"candidates": [{"person_id": "person0", "face_id": face_id, "confidence": 100.0}]})


LOOKS = {
    "newperson": "getinfo",
    "delperson": "getinfo",
    "addface": "getfaceids",
    "delface": "getfaceids",
    "setinfo": "getinfo",
}
"""The first endpoint that is asked what became of an effect."""

APPLIED = {
    "newperson": [envelope(NEW), *map(found, NEW["face_ids"])],
    "delperson": [envelope(code=-1303)],
    "addface": [
        envelope({"face_ids": FACES}),
        envelope(PERSON),
        *[found(face_id) for face_id in FACES],
    ],
    "delface": [envelope({"face_ids": []})],
    "setinfo": [envelope({**PERSON, "person_name": "NicolasCage"})],
}
"""What looking sees when the effect had happened, after a call that was never answered."""

AGAIN = {
    "newperson": [envelope(code=-1302), envelope(NEW), *map(found, NEW["face_ids"])],
    "delperson": [envelope(code=-1303)],
    "addface": [
        envelope({"added": 0, "face_ids": FACES, "ret_codes": [-1312, -1312]}),
        envelope({"face_ids": FACES}),
    ],
    "delface": [envelope(code=-1305), envelope({"face_ids": []})],
    "setinfo": [VERBS["setinfo"].sample.answer],
}
"""What the second try is answered with when the first had its effect, and what looking sees then."""


# Cases


@pytest.fixture(name="stack", scope="module")
def stack_in_turn(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The loop and the library of a test."""
    with request.param.in_use():
        yield request.param


TURNS = (0, 2, 1, 3, 2)
"""The stacks in their turn. Its length shares no factor with 13 verbs."""


def in_turn(rows: list, *, first: int, full: bool) -> list:
    """Return every row with a stack, each with the next one; in full, every row on every stack."""
    return [
        pytest.param(*stack.values, *row, marks=stack.marks, id="-".join([stack.id, *map(str, row)]))
        for number, stack in enumerate(STACKS)
        for turn, row in enumerate(rows)
        if full or TURNS[(first + turn) % len(TURNS)] == number
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its part of the table."""
    full = metafunc.config.getoption("full")
    wanted = [name for name in ("fault", "verb", "drip") if name in metafunc.fixturenames]
    effects = "effect" in metafunc.function.__name__
    verbs = EFFECTS if effects else list(VERBS.values())
    rows = {
        (): [()],
        ("fault",): [(fault,) for fault in STALLS],
        ("drip",): [(name,) for name in DRIPS],
        ("verb",): [(verb,) for verb in verbs],
        ("fault", "verb"): [
            (fault, verb)
            for fault in FAULTS
            for verb in (verbs[::4] if fault.costly and not full else verbs)
            if not effects or may_have_its_effect(fault)
        ],
    }[tuple(wanted)]
    first = len(metafunc.function.__name__)  # so that not all tests that are few begin with the same stack
    metafunc.parametrize(["stack", *wanted], in_turn(rows, first=first, full=full), indirect=["stack"], scope="module")


def may_have_its_effect(fault: Fault) -> bool:
    """Return whether the service may do what it was asked for, although this happens."""
    return fault.phase == "A" and fault.whole == 1


def phase(fault: Fault, verb: Verb) -> str:
    """Return whether the request may have been executed."""
    return fault.upload_phase if verb.uploads and fault.upload_phase else fault.phase


def seen(server: RawServer) -> Counter[str]:
    """Return how many whole requests to each endpoint a server has read."""
    return Counter(re.fullmatch(r"POST /face/(\w+) HTTP/1\.1", request.line)[1] for request in server.requests)


# Faults that show at once


async def assert_costs_one_attempt_and_is_told(session_at, fault: Fault, verb: Verb, **options: object) -> None:
    """Assert that a call with this fault at first is a good one, and that one with this fault for ever is an error.

    The error says whether the effect may have happened: looking meets the same fault then, as often as any call does.
    """
    in_doubt = verb.effect and phase(fault, verb) == "A"
    faults = Counter([verb.name] * (1 + ATTEMPTS) + [LOOKS.get(verb.name)] * ATTEMPTS * in_doubt)
    script = [fault.behavior(), verb.good, *[fault.behavior()] * (faults.total() - 1)]
    with RawServer(script, narrow=fault.large) as server:
        async with session_at(server, **options) as session:
            result = await verb.call(session, large=fault.large)
            stats = session.stats
            with pytest.raises(CallError) as caught:
                await verb.call(session, large=fault.large)
    assert verb.result == result
    assert (2, 1) == (stats.requests, stats.retries)
    if hasattr(result, "meta"):
        assert (2, "") == (result.meta.attempts, result.meta.settled)
    error = caught.value
    assert fault.error is type(error)
    assert (verb.name, ATTEMPTS, in_doubt) == (error.endpoint, error.attempts, error.maybe_applied)
    assert Counter([verb.name, *faults.elements()] if fault.whole else [verb.name]) == seen(server)


async def test_a_fault_costs_one_attempt_and_is_told_when_it_stays(session_at, fault, verb):
    """The next attempt succeeds, also for an effect; three are a typed error; no request is sent more than that."""
    await assert_costs_one_attempt_and_is_told(session_at, fault, verb)


async def test_an_effect_that_had_happened_is_found_out(session_at, fault, verb):
    """A second try that is refused since the first had its effect is a good end, and so is no answer to any of them.

    Looking settles both, and the result says how.
    """
    again = [answer(content) for content in AGAIN[verb.name]]
    looks = [answer(content) for content in APPLIED[verb.name]]
    with RawServer([fault.behavior(), *again, *[fault.behavior()] * ATTEMPTS, *looks], narrow=fault.large) as server:
        async with session_at(server) as session:
            refused = await verb.call(session, large=fault.large)
            unanswered = await verb.call(session, large=fault.large)
    assert [verb.result] * 2 == [refused, unanswered]
    assert (2, ATTEMPTS) == (refused.meta.attempts, unanswered.meta.attempts)
    # Setting the same values twice is no refusal, so there is nothing to settle.
    assert (verb.name != "setinfo", True) == (bool(refused.meta.settled), bool(unanswered.meta.settled))
    assert seen(server)[verb.name] == 2 + ATTEMPTS


async def test_an_effect_that_had_not_happened_stays_in_doubt(session_at, verb):
    """Looking that does not find the effect proves nothing: the service may still be about to act."""
    absent = {
        "newperson": [envelope(code=-1303)],
        "delperson": [envelope(NEW)],
        "addface": [envelope({"face_ids": []})],
        "delface": [envelope({"face_ids": RESULTS["delface"].face_ids})],
        "setinfo": [envelope(PERSON)],
    }[verb.name]
    with RawServer([answer(HTML, 503)] * ATTEMPTS + [answer(content) for content in absent]) as server:
        async with session_at(server) as session:
            with pytest.raises(ResponseError, match="look before repeating") as caught:
                await verb.call(session)
    assert (503, True, ATTEMPTS) == (caught.value.status, caught.value.maybe_applied, caught.value.attempts)
    assert {verb.name: ATTEMPTS, LOOKS[verb.name]: 1} == seen(server)


# Faults that show when a time is over


async def at_once(act) -> None:
    """Run ``act(verb)`` for all verbs at the same time: they only wait."""
    async with anyio.create_task_group() as tasks:
        for verb in VERBS.values():
            tasks.start_soon(act, verb)


async def test_a_server_that_stalls(session_at, fault):
    """It costs ``timeout`` seconds an attempt; else it is like any other fault, for every verb."""

    async def act(timeout):
        await at_once(lambda verb: assert_costs_one_attempt_and_is_told(session_at, fault, verb, timeout=timeout))

    await in_time(act)


async def assert_stopped(session_at, behavior: Behavior, verb: Verb, deadline: float) -> None:
    """Assert that a call ends at its deadline, without another attempt, and that an effect is in doubt."""
    with RawServer([behavior]) as server:
        async with session_at(server, timeout=PATIENCE, deadline=deadline) as session:
            with pytest.raises(DeadlineError) as caught:
                await verb.call(session)
    error = caught.value
    assert (verb.name, 1, verb.effect) == (error.endpoint, error.attempts, error.maybe_applied)
    assert {verb.name: 1} == seen(server)


async def test_a_server_that_always_has_another_byte_to_say(session_at, drip):
    """A byte now and then satisfies every timeout; the deadline stops it, for every verb."""

    async def act(deadline):
        await at_once(lambda verb: assert_stopped(session_at, DRIPS[drip], verb, deadline))

    await in_time(act)


async def test_a_flood_of_informational_answers(session_at, full):
    """The deadline stops it, too; one verb after another, since it keeps a machine busy."""
    for verb in list(VERBS.values())[:: 1 if full else 4]:
        await in_time(lambda deadline, verb=verb: assert_stopped(session_at, FLOOD, verb, deadline))


# Connections that are not made


@frozen
class Mending(RetryPolicy):
    """Tries again at once, after having mended what was wrong."""

    mend: Callable[[], object] = list

    def pause(self, attempt, random, asked=0.0):
        self.mend()
        return super().pause(attempt, random, asked)


def assert_certain(error: CallError, verb: Verb) -> None:
    """Assert that a call was tried as often as may be, and certainly had no effect."""
    assert TransportError is type(error)
    assert (verb.name, ATTEMPTS, False) == (error.endpoint, error.attempts, error.maybe_applied)


async def test_a_refused_connection(session_at, verb):
    """Nothing can have happened: it costs an attempt, and for ever it is an error without doubt."""
    with RawServer([verb.good], starts=False) as server:
        async with session_at(server, retry=Mending(base_delay=0, mend=server.start)) as session:
            assert verb.result == await verb.call(session)
            assert 2 == session.stats.requests
    with RawServer([], starts=False) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match="cannot connect") as caught:
                await verb.call(session)
    assert_certain(caught.value, verb)


async def test_a_connection_that_is_never_made(session_at):
    """It costs ``timeout`` seconds an attempt, and nothing can have happened either; so it is for every verb."""

    async def act(timeout):
        await at_once(lambda verb: swallowed(verb, timeout))

    async def swallowed(verb, timeout):
        with RawServer([verb.good], starts=False) as server:
            policy = Mending(base_delay=0, mend=server.swallow())
            async with session_at(server, retry=policy, timeout=timeout) as session:
                assert verb.result == await verb.call(session)
                assert 2 == session.stats.requests
        with black_hole() as url:
            async with session_at(url, timeout=timeout) as session:
                with pytest.raises(TransportError, match="connecting took too long") as caught:
                    await verb.call(session)
        assert_certain(caught.value, verb)

    await in_time(act)


async def test_a_bad_certificate(session_at, verb, tmp_path):
    """Nothing is said to a server that cannot prove who it is."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE, encoding="ascii")
    with RawServer([], tls=path) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError, match=r"(?i)certificate") as caught:
                await verb.call(session)
    assert_certain(caught.value, verb)
    assert (ATTEMPTS, []) == (server.accepted, server.requests)


async def test_a_connection_that_is_reset_on_arrival(session_at, verb):
    """It costs an attempt. Whether the reset is noticed before all was said is a matter of moments, and so is doubt."""
    with RawServer([verb.good], resets=1) as server:
        async with session_at(server) as session:
            assert verb.result == await verb.call(session)
            assert 2 == session.stats.requests
    with RawServer([], resets=1_000) as server:
        async with session_at(server) as session:
            with pytest.raises(TransportError) as caught:
                await verb.call(session)
    assert (verb.name, ATTEMPTS) == (caught.value.endpoint, caught.value.attempts)
    assert caught.value.maybe_applied <= verb.effect
    assert [] == server.requests


# Connections that are kept


def gone(way: str, closed: threading.Event) -> Behavior:
    """Return a behavior that answers and leaves, without having announced it."""

    def behave(connection):
        answer(VERBS["getgroupids"].sample.answer)(connection)
        connection.close() if way == "FIN" else connection.reset()
        closed.set()

    return behave


@pytest.mark.parametrize("way", ["FIN", "RST"])
async def test_a_connection_gone_stale_costs_nothing(session_at, verb, way):
    """It is noticed before anything is said on it, for small and for large bodies: one attempt, one request."""
    for large in (False, True)[: 1 + verb.uploads]:
        closed = threading.Event()
        with RawServer([gone(way, closed), verb.good]) as server:
            async with session_at(server) as session:
                await session.get_group_ids()
                assert await anyio.to_thread.run_sync(closed.wait, PATIENCE)
                assert verb.result == await verb.call(session, large=large)
                assert 2 == session.stats.requests
        assert Counter(["getgroupids", verb.name]) == seen(server)


async def test_an_answer_sent_ahead_is_nobodys(session_at, verb):
    """A second answer behind the first is not taken for that of the next call."""
    ahead = http(verb.sample.answer) + http(envelope(code=-1101))
    with RawServer([say(ahead), verb.good]) as server:
        async with session_at(server) as session:
            assert [verb.result] * 2 == [await verb.call(session) for _ in range(2)]
    assert {verb.name: 2} == seen(server)
    assert 2 == server.accepted


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_but_told(session_at, verb, status):
    """Nothing was done: the error says where it points, at once, and the other origin hears nothing."""
    with RawServer([]) as other:
        location = f"{other.url}/face/{verb.name}"
        with RawServer([answer(HTML, status, ("Location", location))]) as server:
            async with session_at(server) as session:
                with pytest.raises(ResponseError, match=r"redirect to .*set base_url") as caught:
                    await verb.call(session)
    error = caught.value
    assert (status, location, location in str(error)) == (error.status, error.location, True)
    assert (verb.name, 1, False) == (error.endpoint, error.attempts, error.maybe_applied)
    assert 0 == other.accepted


@pytest.mark.parametrize("large", [False, True])
async def test_a_request_that_is_too_large_for_a_proxy_is_refused_as_by_the_service(session_at, verb, large):
    """HTTP 413 is code 23, whether the request was read to its end or not, and whatever the text is encoded as."""
    packets = [http(HTML, 413), http(b"\x1f\x8b", 413, ("Content-Encoding", "gzip"))]
    behaviors = [refuse_early(packet) if large else say(packet) for packet in packets]
    with RawServer(behaviors, narrow=large) as server:
        async with session_at(server) as session:
            for _ in packets:
                with pytest.raises(RequestTooLargeRefusal, match=r"HTTP 413.*client_max_body_size") as caught:
                    await verb.call(session, large=large)
                error = caught.value
                assert (23, verb.name, 1, False) == (error.code, error.endpoint, error.attempts, error.maybe_applied)


# Answers that are final, and answers that ask for something


FINAL = [code for code, row in CODES.items() if row.retry in {Retry.NEVER, Retry.SMALLER, Retry.HOPELESS, Retry.CLOCK}]


async def test_codes_that_are_answers(session_at, verb):
    """Refusals, and all codes that say who may call, are raised at once, and leave no doubt."""
    with RawServer([answer(envelope(code=code)) for code in FINAL]) as server:
        async with session_at(server) as session:
            for code in FINAL:
                with pytest.raises(ServiceError) as caught:
                    await verb.call(session)
                error = caught.value
                assert (CODES[code].error, code) == (type(error), error.code)
                assert (verb.name, 1, False) == (error.endpoint, error.attempts, error.maybe_applied)
    assert {verb.name: len(FINAL)} == seen(server)


def expired(hours: int) -> Behavior:
    """Return a behavior that calls a signature expired, with a clock of its own."""

    def behave(connection):
        date = formatdate(time.time() + hours * 3_600, usegmt=True)
        answer(envelope(code=9), 200, ("Date", date))(connection)

    return behave


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_an_hour_off_is_corrected_once(session_at, verb, hours):
    """Code 9 costs one attempt, signed by the server's clock; when that does not help, it is final."""
    with RawServer([expired(hours), verb.good]) as server:
        async with session_at(server) as session:
            assert verb.result == await verb.call(session)
    signed = [parse(request.header("Authorization")).signed_at for request in server.requests]
    assert pytest.approx(hours * 3_600, abs=60) == signed[1] - signed[0]
    with RawServer([expired(hours)] * 2) as server:
        async with session_at(server) as session:
            with pytest.raises(AuthError) as caught:
                await verb.call(session)
    assert (9, 2, False) == (caught.value.code, caught.value.attempts, caught.value.maybe_applied)


WAITS = {"HTTP 429": (HTML, 429), "HTTP 503": (HTML, 503), "code 15": (envelope(code=15), 200)}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_wait_beyond_the_deadline_is_not_begun(session_at, verb, wait):
    """Retry-After an hour is an error at once; an effect in doubt is looked for, once."""
    in_doubt = verb.effect and wait == "HTTP 503"
    busy = answer(*WAITS[wait], ("Retry-After", "3600"))
    with RawServer([busy] * (1 + in_doubt)) as server:
        async with session_at(server) as session:
            with pytest.raises(CallError) as caught:
                await verb.call(session)
    assert (1, in_doubt) == (caught.value.attempts, caught.value.maybe_applied)
    assert Counter([verb.name] + [LOOKS.get(verb.name)] * in_doubt) == seen(server)


async def test_a_wait_is_waited_for(session_at):
    """Retry-After a second is a second before the next attempt, for every verb."""

    async def act(verb):
        for wait in WAITS.values():
            tasks.start_soon(waiting, verb, answer(*wait, ("Retry-After", "1")))

    async def waiting(verb, busy):
        with RawServer([busy, verb.good]) as server:
            async with session_at(server) as session:
                started = time.monotonic()
                assert verb.result == await verb.call(session)
                assert time.monotonic() - started >= 1
                assert 2 == session.stats.requests

    async with anyio.create_task_group() as tasks:
        await at_once(act)
