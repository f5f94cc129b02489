"""Every fault of the table, on every endpoint (goal G2): what the caller hears, and what the server saw.

Each fault meets each of the 13 verbs (costly ones every fourth) on one of the stacks, in turn; with ``--full`` all meet
all on all.
"""

from __future__ import annotations

from collections import Counter

import pytest
from doubles import envelope
from faultcases import ATTEMPTS, LOOKS, VERBS, Verb, at_once, phase, pytest_generate_tests, seen, stack_in_turn  # noqa: F401 - the hook and the fixture are for pytest
from faults import DRIPS, FLOOD, HTML, Fault
from raw_server import Behavior, RawServer, answer
from stacks import loop_of_stack, session_of_stack  # noqa: F401 - fixtures go by other names
from timing import PATIENCE, in_time
from verbs import RESULTS

from face_async import CallError, DeadlineError, ResponseError

pytestmark = pytest.mark.anyio

# How the outcome of an effect is looked for


FACES = list(RESULTS["addface"].face_ids)
PERSON = {"person_id": "person0", "person_name": "", "tag": "", "face_ids": FACES, "group_ids": ["tencent"]}
NEW = {**PERSON, "face_ids": [RESULTS["newperson"].face_id], "group_ids": ["tencent", "qq"]}


def found(face_id: str) -> bytes:
    return envelope({"candidates": [{"person_id": "person0", "face_id": face_id, "confidence": 100.0}]})


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
