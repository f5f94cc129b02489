"""What a failed attempt means: one table, read alike by single calls, bulk verbs and enrollments."""

from __future__ import annotations

import pytest
from attrs import evolve
from doubles import envelope, session_on
from ingestkit import finished, write_people

from face_async import CODES, NewPerson, ReturnCode, ServiceError
from face_async._call.judgement import Failure, Judgement, Phase, facts_of, judge, judge_error
from face_async.endpoints import ENDPOINTS
from face_async.errors import (
    DeadlineError,
    FaceLimitError,
    ImageRefusedError,
    ResponseError,
    TransportError,
    service_error,
)
from face_async.ingest import ingest

pytestmark = pytest.mark.anyio

ANSWERED = Judgement(Phase.ANSWERED)
LATER = Judgement(Phase.NOT_EXECUTED, retry=True)
SLOWER = Judgement(Phase.NOT_EXECUTED, retry=True, slower=True)
SMALLER = Judgement(Phase.ANSWERED, smaller=True)
HOPELESS = Judgement(Phase.NOT_EXECUTED, hopeless=True)
CLOCK = Judgement(Phase.NOT_EXECUTED, hopeless=True, correct_clock=True)
AMBIGUOUS = Judgement(Phase.AMBIGUOUS, retry=True)
AWAY = Judgement(Phase.AMBIGUOUS, retry=True, slower=True, away=True)
NOT_EXECUTED = {AMBIGUOUS: LATER, AWAY: evolve(AWAY, phase=Phase.NOT_EXECUTED)}

CODES_THAT_MEAN = {
    LATER: {107, 108},
    SLOWER: {15},
    SMALLER: {23},
    CLOCK: {9},
    HOPELESS: {4, 5, 6, 10, 11, 12, 14, 16, 24},
    AMBIGUOUS: {13, 213, -1200},
}
EXPECTED = {code: judgement for judgement, codes in CODES_THAT_MEAN.items() for code in codes}
STATUSES = {
    **dict.fromkeys((301, 302, 303, 307, 308), HOPELESS),
    **dict.fromkeys((401, 403, 408), LATER),
    413: SMALLER,
    429: SLOWER,
    **dict.fromkeys((502, 503, 504), AWAY),
}


def judgement_of(*, effect=True, handed_over=True, **failure):
    return judge(Failure(**failure), effect=effect, handed_over=handed_over)


def test_every_code_means_what_the_table_says():
    """All that are not named are answers, unknown ones too."""
    assert {code: judgement_of(code=code) for code in CODES} == {code: EXPECTED.get(code, ANSWERED) for code in CODES}
    assert judgement_of(code=424242) == ANSWERED


def test_an_http_status_without_an_envelope_is_ambiguous_unless_it_says_more():
    """Proxies answer so, before or behind the service."""
    statuses = range(200, 600)
    expected = {status: STATUSES.get(status, AMBIGUOUS) for status in statuses}
    assert {status: judgement_of(status=status) for status in statuses} == expected


def test_a_missing_answer_is_ambiguous():
    """The request may have arrived."""
    assert judgement_of() == AMBIGUOUS


@pytest.mark.parametrize(("effect", "handed_over"), [(False, True), (True, False), (False, False)])
def test_without_effect_or_a_whole_request_nothing_is_ambiguous(effect, handed_over):
    """What would be is not executed; all the rest means the same."""
    failures = [{}, *({"status": status} for status in (500, *STATUSES)), *({"code": code} for code in CODES)]
    for failure in failures:
        certain = judgement_of(**failure)
        expected = NOT_EXECUTED.get(certain, certain)
        assert judgement_of(effect=effect, handed_over=handed_over, **failure) == expected, failure


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize("handed_over", [True, False])
def test_an_error_that_was_made_is_judged_like_its_failure(endpoint, handed_over):
    """Whoever has only the error, such as a bulk verb, reads the same from it."""
    made = {Failure(code=code): lambda facts, code=code: service_error(code, **facts) for code in CODES}
    made |= {
        Failure(status=status): lambda facts, status=status: ResponseError("html", status=status, **facts)
        for status in (200, 302, 429, 502)
    }
    made |= {Failure(): lambda facts: TransportError("lost", **facts)}
    for failure, make in made.items():
        error = make(facts_of(failure, endpoint, attempts=3, handed_over=handed_over))
        expected = judge(failure, effect=endpoint.effect, handed_over=handed_over)
        assert judge_error(error) == expected, failure
        assert (error.endpoint, error.attempts) == (endpoint.name, 3)
        assert error.maybe_applied == (expected.phase is Phase.AMBIGUOUS)


def test_only_too_many_requests_are_mended_by_waiting_however_often():
    """What is away may stay away."""
    assert [True, False, False] == [judgement.too_many for judgement in (SLOWER, AWAY, AMBIGUOUS)]


def test_what_is_no_answer_of_the_service_is_final():
    """The same arguments would be refused again."""
    assert [judge_error(error) for error in (FaceLimitError("21"), ImageRefusedError("a GIF"), ValueError("x"))] == [
        ANSWERED
    ] * 3
    assert judge_error(DeadlineError("late", endpoint="identify")) == LATER


# What ends a run of many calls


ENDS_A_RUN = [code for code in ReturnCode if code and judgement_of(code=code).hopeless]


def test_the_codes_that_end_a_run_are_those_of_the_account_the_clock_and_the_interface():
    """No further call can succeed after them."""
    assert set(ENDS_A_RUN) == {4, 5, 6, 9, 10, 11, 12, 14, 16, 24}


@pytest.mark.parametrize("code", ENDS_A_RUN)
async def test_a_bulk_verb_ends_with_it(code):
    """It is raised where outcomes are taken, and nothing more is sent."""
    session, network = session_on(envelope(code=code))
    people = [NewPerson(f"p{index}", ["staff"]) for index in range(100)]
    with pytest.raises(ServiceError) as caught:
        async with session.new_persons(people, max_at_once=2) as outcomes:
            await outcomes.collect()
    assert (caught.value.code, len(network.sent) <= 4) == (code, True)


@pytest.mark.parametrize("code", ENDS_A_RUN)
async def test_an_enrollment_ends_with_it(code, tmp_path):
    """It is raised, and the run can be continued later."""
    folder = write_people(tmp_path / "people", 20, 1)
    session, network = session_on(envelope(code=code))
    with pytest.raises(ServiceError) as caught:
        await finished(ingest(session, folder, group_ids=["staff"], journal=tmp_path / "journal", max_at_once=2))
    assert (caught.value.code, len(network.sent) <= 4) == (code, True)
