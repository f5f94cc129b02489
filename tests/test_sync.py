"""The session for programs without async: what it has in common with the asynchronous one, and its thread."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from timing import PATIENCE

import face_async
from face_async import AuthError, Credentials, NewPerson, NotFoundError, TransportError
from face_async.portraits import draw_portrait
from face_async.sync import FaceSession, Outcomes
from face_async.testing import FaceServer

ASYNCHRONOUS = face_async.FaceSession
ENGINE = {"ledger", "probe"}  # what bulk verbs stand on
PORTRAITS = [draw_portrait(person) for person in range(3)]


@pytest.fixture
def server():
    with FaceServer() as server:
        yield server


def session_with(server, **options):
    options.setdefault("transport", server.transport)
    options.setdefault("base_url", "http://localhost")
    return FaceSession(server.appid, server.bucket, server.credentials, **options)


@pytest.fixture
def session(server):
    with session_with(server) as session:
        yield session


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


# The same verbs


def test_it_has_every_verb_of_the_asynchronous_session():
    """And nothing else; only ``aclose`` is called as files call it."""
    assert public(ASYNCHRONOUS) - ENGINE - {"aclose"} | {"close"} == public(FaceSession)
    assert public(face_async.Outcomes) - public(face_async.bulk.once.EnteredOnce) <= public(Outcomes)


def described(verb):
    """Return parameters and result; an input is synchronous alone here."""
    parameters = [
        (each.name, each.kind, each.default, re.sub(r" \| AsyncIterable\[\w+\]", "", str(each.annotation)))
        for each in inspect.signature(verb).parameters.values()
    ]
    return parameters, inspect.signature(verb).return_annotation


@pytest.mark.parametrize("name", sorted(public(FaceSession) - {"close"}))
def test_every_verb_takes_and_returns_the_same(name):
    """With the same description, which help() shows."""
    mine, theirs = (inspect.getattr_static(kind, name) for kind in (FaceSession, ASYNCHRONOUS))
    if isinstance(theirs, property):
        assert theirs.fget.__annotations__ == mine.fget.__annotations__
        return
    mine, theirs = (getattr(kind, name) for kind in (FaceSession, ASYNCHRONOUS))
    assert described(theirs) == described(mine)
    assert theirs.__doc__ == mine.__doc__ or name == "from_env"
    assert not inspect.iscoroutinefunction(mine)


def test_it_is_made_of_the_same_arguments(monkeypatch):
    """One by one as keyword arguments, and from the environment."""
    values = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "id", "SECRET_KEY": "key", "BASE_URL": "http://127.0.0.1:1"}
    for name, value in values.items():
        monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
    with FaceSession.from_env(timeout=3) as session:
        assert (session.appid, session.bucket, session.stats.requests) == ("1", "b", 0)
        assert repr(ASYNCHRONOUS.from_env()) == repr(session)
    with pytest.raises(ValueError, match="max_concurrency"):
        FaceSession("1", "b", Credentials("id", "key"), throttle=face_async.Throttle(max_concurrency=0))


def test_single_calls_return_what_they_return_with_await(session):
    created = session.new_person("ada", ["staff"], PORTRAITS[0], person_name="Ada")
    assert created.suc_face == 1
    assert session.add_face("ada", [draw_portrait(0, shot=1)]).added == 1
    assert session.identify("staff", draw_portrait(0, shot=2)).best.person_id == "ada"
    assert session.identify_in_groups(PORTRAITS[0], ["staff"]).best.person_id == "ada"
    assert (["staff"], ["ada"]) == (session.get_group_ids(), session.get_person_ids("staff"))
    assert session.with_options(deadline=9).get_info("ada").person_name == "Ada"
    assert session.request("getinfo", {"person_id": "ada"}).status == 200
    assert session.stats.requests >= 7
    with pytest.raises(NotFoundError):
        session.get_info("nobody")


# Bulk


def test_bulk_verbs_are_blocks_that_are_iterated(session):
    with session.new_persons([NewPerson(f"p{n}", ["staff"], PORTRAITS[n]) for n in range(3)]) as created:
        assert ["p0", "p1", "p2"] == sorted(outcome.unwrap().person_id for outcome in created)
    with session.add_faces((f"p{n}", draw_portrait(n, shot=1)) for n in range(3)) as added:
        assert [True] * 3 == [outcome.unwrap().added for outcome in added.collect()]
    with session.identify_many(PORTRAITS, "staff", ordered=True) as found:
        assert ["p0", "p1", "p2"] == [outcome.unwrap().best.person_id for outcome in found]
    with session.verify_many(iter([("p0", PORTRAITS[0])])) as verified:
        assert next(verified).unwrap().is_match
    with session.detect_many(PORTRAITS[:1], max_at_once=1) as detected:
        [outcome] = detected
    assert outcome.item is PORTRAITS[0]


def test_an_input_is_iterated_by_the_thread_that_takes_the_outcomes(session):
    """Also a database cursor, which no other thread may use; no more is pulled than asked for."""
    session.new_person("p0", ["staff"], PORTRAITS[0])
    threads = []

    def pictures():
        try:
            with sqlite3.connect(":memory:") as db:
                for (person,) in db.execute(
                    "WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i+1 FROM n) SELECT i % 3 FROM n"
                ):
                    threads.append(threading.current_thread())
                    yield PORTRAITS[person]
        finally:
            threads.append(threading.current_thread())

    with session.identify_many(pictures(), "staff", max_at_once=4) as outcomes:
        for _ in range(20):
            next(outcomes).unwrap()
        assert 20 <= len(threads) <= 24
    assert {threading.current_thread()} == set(threads)
    assert len(outcomes.untaken) <= 4


def test_errors_of_calls_inputs_and_programs_come_where_they_belong(session):
    """One failure costs one outcome; an input's own error, and an item of a wrong type, end the run."""
    session.new_person("p0", ["staff"], PORTRAITS[0])

    def broken():
        yield PORTRAITS[0]
        raise OSError("the disk is gone")

    with session.verify_many([("p0", PORTRAITS[0]), ("nobody", PORTRAITS[0])], ordered=True) as outcomes:
        right, wrong = outcomes
    assert right.unwrap().is_match
    assert isinstance(wrong.error, NotFoundError)
    with pytest.raises(OSError, match="the disk is gone"), session.identify_many(broken(), "staff") as outcomes:
        outcomes.collect()
    with pytest.raises(TypeError), session.identify_many([7], "staff") as outcomes:
        outcomes.collect()
    with pytest.raises(TypeError, match="not a single str"):
        session.identify_many("a.jpg", "staff")


def test_what_was_collected_before_a_run_ended_is_not_lost(server, session):
    server.faults.add("newperson", times=3, delay=0.001)
    server.faults.add("newperson", code=14)
    people = (NewPerson(f"p{n}", ["staff"]) for n in range(9))
    outcomes = session.new_persons(people, max_at_once=1)
    with outcomes, pytest.raises(AuthError):
        outcomes.collect()
    created = [outcome.item.person_id for outcome in outcomes.untaken if outcome.error is None]
    assert ["p0", "p1", "p2"] == created == sorted(session.get_person_ids("staff"))


def test_a_block_is_entered_once(session):
    outcomes = session.identify_many([], "staff")
    with pytest.raises(RuntimeError, match="with session"):
        next(outcomes)
    with outcomes:
        assert [] == outcomes.collect()
    with pytest.raises(RuntimeError, match="entered once"):
        outcomes.__enter__()
    with pytest.warns(RuntimeWarning, match="never entered") as caught:
        session.identify_many([], "staff")
    assert 1 == len(caught)


# Threads, loops and processes


def test_any_number_of_threads_may_share_a_session(session):
    """Single calls, and the outcomes of one run."""
    session.new_person("p0", ["staff"], PORTRAITS[0])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: session.identify("staff", PORTRAITS[0]).best.person_id, range(40)))
        with session.identify_many(iter([PORTRAITS[0]] * 40), "staff", max_at_once=8) as outcomes:
            taken = [taking.result(PATIENCE) for taking in [pool.submit(list, outcomes) for _ in range(4)]]
    assert ["p0"] * 40 == found
    assert list(range(40)) == sorted(outcome.index for part in taken for outcome in part)


@pytest.mark.anyio
async def test_it_works_where_an_event_loop_runs_already(server):
    """As in a notebook; it blocks that loop, and nothing else."""
    with session_with(server) as session:
        assert session.get_group_ids() == []


def test_an_interrupted_call_is_over():
    """Ctrl-C ends the waiting, and the call with it; the session goes on. In a process that a signal cannot miss."""
    code = """
import os, signal, threading
from face_async.sync import FaceSession
from face_async.testing import FaceServer
with FaceServer() as server:
    server.faults.add("getgroupids", delay=3_600)
    options = {"transport": server.transport, "base_url": "http://localhost", "deadline": 3_600}
    with FaceSession(server.appid, server.bucket, server.credentials, **options) as session:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            session.get_group_ids()
        except KeyboardInterrupt:
            print(session.get_group_ids(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "[]\n"


def test_an_interrupted_run_goes_on_where_it_was():
    """Ctrl-C costs no outcome, and the input is pulled further. In a process that a signal cannot miss."""
    code = """
import os, signal, threading
from face_async.portraits import draw_portrait
from face_async.sync import FaceSession
from face_async.testing import FaceServer
with FaceServer() as server:
    options = {"transport": server.transport, "base_url": "http://localhost"}
    with FaceSession(server.appid, server.bucket, server.credentials, **options) as session:
        session.new_person("p0", ["staff"], draw_portrait(0))

        class Pictures:  # unlike a generator, it goes on where it is interrupted
            left = [draw_portrait(0)] * 4

            def __iter__(self):
                return self

            def __next__(self):
                if not self.left:
                    raise StopIteration
                if len(self.left) == 3:
                    server.faults.add("identify", delay=1, times=1)
                    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                return self.left.pop()

        with session.identify_many(Pictures(), "staff", max_at_once=1) as outcomes:
            taken = [next(outcomes).index]
            try:
                taken += [outcome.index for outcome in outcomes]
            except KeyboardInterrupt:
                print(taken, [outcome.index for outcome in outcomes], flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "[0] [1, 2, 3]\n"


def test_an_input_that_is_interrupted_is_pulled_again(server):
    """Or has ended, if it is a generator: nothing waits for an item that nobody pulls."""

    class Interrupted:
        def __init__(self):
            self.left = [KeyboardInterrupt, b"", KeyboardInterrupt, b""]

        def __iter__(self):
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            if self.left.pop() is KeyboardInterrupt:
                raise KeyboardInterrupt
            return draw_portrait(0)

    def generated():
        yield draw_portrait(0)
        raise KeyboardInterrupt

    with session_with(server) as session:
        session.new_person("ada", ["staff"], draw_portrait(0))
        for items, found in ((Interrupted(), [1, 1, 0]), (generated(), [1, 0])):
            with session.identify_many(items, "staff", max_at_once=1) as outcomes:
                taken = []
                for _ in found:
                    taken.append(0)
                    with contextlib.suppress(KeyboardInterrupt):
                        for _outcome in outcomes:
                            taken[-1] += 1
            assert taken == found


def loops():
    return [thread for thread in threading.enumerate() if thread.name.startswith("face_async.sync")]


def test_a_closed_session_makes_no_more_calls(server):
    """Closing twice is fine, and so is closing what was never used; its thread is gone."""
    before = loops()
    session = session_with(server)
    copy = session.with_options(deadline=5)
    assert copy.get_group_ids() == []
    assert len(loops()) == len(before) + 1
    session.close()
    session.close()
    for closed in (session, copy):
        with pytest.raises(RuntimeError, match="closed"):
            closed.get_group_ids()
    session_with(server).close()
    assert before == loops()


def test_a_session_that_is_not_closed_warns(server):
    session = session_with(server)
    session.get_group_ids()
    with pytest.warns(ResourceWarning, match="not closed: use 'with'"):
        del session


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_no_session():
    """It is told so at once, instead of waiting for a thread that is not there."""
    code = """
import os, sys
from face_async.sync import FaceSession
from face_async import Credentials, TransportError
session = FaceSession("1", "b", Credentials("id", "key"), base_url="http://127.0.0.1:1")
try:
    session.get_group_ids()
except TransportError:
    pass
child = os.fork()
if not child:
    try:
        session.get_group_ids()
    except RuntimeError as error:
        print(error, flush=True)
        session.close()
    os._exit(0)
os.waitpid(child, 0)
session.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "the session was made before this process was forked: make one in every process\n"


def test_what_fails_says_so_as_ever():
    """Errors come through the thread as they are."""
    with (
        FaceSession("1", "b", Credentials("id", "key"), base_url="http://127.0.0.1:1") as session,
        pytest.raises(TransportError) as caught,
    ):
        session.get_group_ids()
    assert caught.value.attempts == 3
