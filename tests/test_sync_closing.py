"""Closing a session for programs without async ends all that is under way, whichever thread waits for it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial

import httpx
import pytest
from albums import JPEG
from doubles import CREDENTIALS, envelope
from timing import PATIENCE

from face_async import NewPerson, RetryPolicy, TransportError
from face_async.sync import FaceSession, loop
from face_async.testing import FaceServer

LONG = 3_600
LATER = {"Retry-After": str(LONG)}


class Other(threading.Thread):
    """A function in another thread, with what it returns or raises; no test and no program waits for it for ever."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self._function = function
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self._function()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def end(self):
        """Wait for its end, and return what it has raised."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error


def until(condition):
    """Wait until something is true that another thread brings about."""
    for _ in range(100 * PATIENCE):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError


def loops():
    return [thread for thread in threading.enumerate() if thread.name.startswith("face_async.sync")]


@pytest.fixture(autouse=True)
def _no_loop_is_left(monkeypatch):
    monkeypatch.setattr(loop, "_LAST_SECONDS", PATIENCE)  # on a busy machine, calls may take longer to fail
    before = loops()
    yield
    assert before == loops()


@pytest.fixture
def server():
    with FaceServer() as server:
        yield server


def session_with(server):
    options = {"transport": server.transport, "base_url": "http://localhost", "deadline": 2 * LONG}
    return FaceSession(server.appid, server.bucket, server.credentials, **options)


def session_that_gets(answer, **options):
    """Return a session of which every request gets this answer."""
    transport = httpx.MockTransport(lambda _: answer)
    return FaceSession("1", "b", CREDENTIALS, transport=transport, deadline=2 * LONG, **options)


# Single calls


def test_calls_under_way_fail(server):
    """With the errors that closing has for them, which say what may have happened."""
    for endpoint in ("getinfo", "setinfo"):
        server.faults.add(endpoint, delay=LONG)
    session = session_with(server)
    calls = Other(partial(session.get_info, "p")), Other(partial(session.set_info, "p", tag="t"))
    until(lambda: session.stats.requests == 2)
    assert Other(session.close).end() is None
    errors = [call.end() for call in calls]
    assert [TransportError] * 2 == [type(error) for error in errors]
    assert [(1, False), (1, True)] == [(error.attempts, error.maybe_applied) for error in errors]
    assert "the session was closed" in str(errors[0])


def test_no_pause_is_waited_out():
    """Neither one that the service asks for, nor one that a call makes by itself."""
    answers = {
        "too many": httpx.Response(200, headers=LATER, content=envelope(code=15)),
        "broken": httpx.Response(200, headers=LATER, content=envelope(code=107)),
        "away": httpx.Response(503, headers=LATER),
    }
    for what, answer in answers.items():
        session = session_that_gets(answer)
        call = Other(partial(session.set_info, "p", tag="t"))
        until(lambda session=session: session.stats.retries == 1)
        assert Other(session.close).end() is None
        error = call.end()
        assert isinstance(error, TransportError)
        assert (error.attempts, error.maybe_applied) == (1, what == "away")


def test_what_does_not_fail_by_itself_is_cancelled(monkeypatch):
    """Such as a search that waits for a service that is away: it is told that the session is closed."""
    monkeypatch.setattr(loop, "_LAST_SECONDS", 0)
    session = session_that_gets(httpx.Response(503), retry=RetryPolicy(max_attempts=1))
    call = Other(partial(session.identify_in_groups, JPEG, ["staff"], on_outage="wait"))
    until(lambda: session.stats.requests)
    assert Other(session.close).end() is None
    assert isinstance(call.end(), RuntimeError)
    assert "the session is closed" in str(call.error)


def test_threads_that_begin_calls_meanwhile_are_told(server):
    """Every call of theirs ends, the last of each with RuntimeError, as on a session that was closed before."""
    session = session_with(server)

    def call():
        while True:
            with suppress(TransportError):
                session.get_group_ids()

    others = [Other(call) for _ in range(8)]
    until(lambda: session.stats.requests > 50)
    closers = [Other(session.close) for _ in range(3)]
    assert [None] * 3 == [closer.end() for closer in closers]
    errors = [other.end() for other in others]
    assert ["the session is closed; make calls inside its 'with' block"] * 8 == [str(error) for error in errors]


def test_what_runs_in_the_thread_of_the_session_cannot_close_it(server):
    """It would wait for itself; the session goes on."""
    errors = []

    def close(_attempt):
        try:
            session.close()
        except RuntimeError as error:
            errors.append(str(error))

    options = {"transport": server.transport, "base_url": "http://localhost", "on_attempt": close}
    with FaceSession(server.appid, server.bucket, server.credentials, **options) as session:
        assert [[], []] == [session.get_group_ids(), session.get_group_ids()]
    assert ["the session cannot be closed in its own thread, by progress or on_attempt"] * 2 == errors


# Bulk


def people():
    return (NewPerson(f"p{number}", ["staff"]) for number in range(1_000))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_run_whose_block_another_thread_is_in_ends(server, lazy):
    """That thread is told where it takes outcomes; the block is left as ever, and tells what became of the items."""
    server.faults.add("newperson", times=9, delay=0.001)
    server.faults.add("newperson", times=4, delay=LONG)
    session, taken = session_with(server), []
    outcomes = session.new_persons(people() if lazy else list(people()), max_at_once=4)

    def work():
        with outcomes:
            while True:
                taken.append(next(outcomes))

    worker = Other(work)
    until(lambda: len(taken) == 9 and session.stats.throttle.in_flight == 4)
    assert Other(session.close).end() is None
    assert isinstance(worker.end(), RuntimeError)
    assert "the session is closed; make calls inside its 'with' block" == str(worker.error)
    every = sorted([*taken, *outcomes.untaken], key=lambda outcome: outcome.index)
    assert [outcome.item.person_id for outcome in every] == [f"p{number}" for number in range(len(every))]
    cut_short = [outcome.error for outcome in every if outcome.error is not None]
    assert 9 == len(every) - len(cut_short)
    assert {TransportError} == {type(error) for error in cut_short}
    assert 4 == sum(error.maybe_applied for error in cut_short)


def test_a_run_whose_block_a_generator_is_in_ends(server):
    """Where the generator goes on, it is told; where it is let go, nothing happens."""
    session, outcomes = session_with(server), []

    def taken():
        # Of a list, which no thread has to pull, four items are begun at once.
        with session.new_persons(list(people()), max_at_once=4, ordered=True) as run:
            outcomes.append(run)
            yield from run

    goes_on, is_let_go = taken(), taken()
    assert [0, 0] == [next(goes_on).index, next(is_let_go).index]
    closing = Other(session.close)
    assert closing.end() is None
    with pytest.raises(RuntimeError, match="the session is closed; make calls inside its 'with' block"):
        next(goes_on)
    is_let_go.close()
    assert all(run.untaken for run in outcomes)


def test_a_block_that_is_left_after_closing_has_ended(server):
    """Without an error, and its generator is closed."""
    session, ended = session_with(server), []

    def items():
        try:
            yield from people()
        finally:
            ended.append(threading.current_thread())

    with session.new_persons(items(), max_at_once=2) as outcomes:
        next(outcomes)
        assert Other(session.close).end() is None
        with pytest.raises(RuntimeError, match="the session is closed"):
            outcomes.collect()
    assert ended == [threading.current_thread()]
