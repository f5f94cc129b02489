"""Bulk runs while the service is away: they wait for it, or fail item by item, as they were told."""

from __future__ import annotations

import io
import itertools
from collections import Counter

import anyio
import pytest
from doubles import CREDENTIALS
from ingestkit import RECOGNIZER, enrolled, serving
from serverkit import picture
from timing import PATIENCE

from face_async import (
    DuplicateFaceError,
    FaceSession,
    ImageError,
    NewPerson,
    RetryPolicy,
    ServiceError,
    ServiceLimits,
    ShardedGroup,
    TransportError,
)
from face_async.bulk import outage
from face_async.server import Store, create_app, serve_in_background

pytestmark = pytest.mark.anyio

PEOPLE = 4
ITEMS = 24
AT_ONCE = 3


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Probe without pauses."""
    monkeypatch.setattr(outage, "PROBE_DELAY", 0)


@pytest.fixture
def store():
    with Store() as store:
        yield store


class Away:
    """The plan of a network whose service goes away after some requests, until it was probed a few times.

    Attributes:
        begun: Whether the requests count yet.
        count: How many items were pulled.
        pulled: How many were at each probe.
    """

    def __init__(self, fault, *, after=8, probes=5):
        self.fault = fault
        self.pulled = []
        self.count = 0
        self.begun = False
        self._requests = 0
        self._after = after
        self._probes = probes

    def __call__(self, name):
        if not self.begun:
            return ""
        self._requests += 1
        if self._requests <= self._after or len(self.pulled) >= self._probes:
            return ""
        if name == "getgroupids":
            self.pulled.append(self.count)
        return self.fault

    def items(self, make):
        """Return the input, which counts what is pulled."""
        self.begun = True
        for number in range(ITEMS):
            self.count += 1
            yield make(number)


def person(number):
    return NewPerson(f"new{number}", ["staff"], io.BytesIO(picture(100 + number)))


# For every bulk verb: what an item is, and how it is called.
VERBS = {
    "add_faces": (
        lambda number: (f"p{number % PEOPLE}", io.BytesIO(picture(number % PEOPLE, 10 + number))),
        lambda session, items, **options: session.add_faces(items, **options),
    ),
    "new_persons": (person, lambda session, items, **options: session.new_persons(items, **options)),
    "identify_many": (
        lambda number: io.BytesIO(picture(number % PEOPLE, 0)),
        lambda session, items, **options: session.identify_many(items, "staff", **options),
    ),
    "verify_many": (
        lambda number: (f"p{number % PEOPLE}", io.BytesIO(picture(number % PEOPLE, 0))),
        lambda session, items, **options: session.verify_many(items, **options),
    ),
    "detect_many": (
        lambda number: io.BytesIO(picture(number % PEOPLE, 0)),
        lambda session, items, **options: session.detect_many(items, **options),
    ),
    "sharded new_persons": (
        lambda number: NewPerson(f"new{number}", (), io.BytesIO(picture(100 + number))),
        lambda session, items, **options: ShardedGroup(session, "crowd").new_persons(items, **options),
    ),
    "sharded identify_many": (
        lambda number: io.BytesIO(picture(number % PEOPLE, 0)),
        lambda session, items, **options: ShardedGroup(session, "shard").identify_many(items, **options),
    ),
}
ANSWERS = {"detect_many": ImageError}  # the pictures have no pixels
each_verb = pytest.mark.parametrize("verb", VERBS)


async def people(session):
    for number in range(PEOPLE):
        await session.new_person(f"p{number}", ["staff", "shard-0000"], picture(number, 0))


async def run(verb, session, away, **options):
    """Run a verb on all items; return the outcomes in input order."""
    make, call = VERBS[verb]
    with anyio.fail_after(PATIENCE):
        async with call(session, away.items(make), max_at_once=AT_ONCE, ordered=True, **options) as outcomes:
            return await outcomes.collect()


@each_verb
@pytest.mark.parametrize("fault", ["refuse", "lose", 107, 213])
async def test_a_run_that_waits_loses_nothing_to_an_outage(store, verb, fault):
    """Nothing is pulled while the service is away; then all goes on, each effect once, also those whose answers were
    lost; file objects are sent again from what they gave the first time."""
    away = Away(fault)
    async with serving(store, plan=away) as (session, _):
        await people(session)
        outcomes = await run(verb, session, away, on_outage="wait")
        assert {ANSWERS.get(verb, type(None))} == {type(outcome.error) for outcome in outcomes}
        assert list(range(ITEMS)) == [outcome.index for outcome in outcomes]
    assert len(away.pulled) == 5
    assert 1 == len(set(away.pulled))
    shots = enrolled(store)
    if verb == "add_faces":
        assert {f"p{n}": {0, *range(10 + n, 10 + ITEMS, PEOPLE)} for n in range(PEOPLE)} == {
            name: set(theirs) for name, theirs in shots.items()
        }
    if "new_persons" in verb:
        assert {f"new{n}" for n in range(ITEMS)} == {name for name in shots if name.startswith("new")}
        assert {0} == {shot for n in range(ITEMS) for shot in shots[f"new{n}"]}


@each_verb
async def test_a_run_that_was_not_told_to_wait_fails_item_by_item(store, verb):
    """As ever: every item that meets the outage has its error, and those after it are served."""
    away = Away("")
    requests = itertools.count()
    async with serving(store) as (session, network):
        await people(session)
        network.plan = lambda _: "refuse" if 9 <= next(requests) < 30 else ""
        outcomes = await run(verb, session, away)
    expected = {TransportError, ANSWERS.get(verb, type(None))}
    assert expected == {type(outcome.error) for outcome in outcomes}
    assert not isinstance(outcomes[-1].error, TransportError)


async def test_many_groups_are_searched_once_the_service_is_back(store):
    """One picture in many groups waits as well, whether errors are collected or raised."""
    async with serving(store) as (session, network):
        await people(session)
        for errors in ("collect", "raise"):
            network.plan = Away("refuse", after=1)
            network.plan.begun = True
            found = await session.identify_in_groups(
                io.BytesIO(picture(2, 0)), ["staff", "shard-0000"], on_outage="wait", errors=errors
            )
            assert ("p2", 2, {}) == (found.best.person_id, len(found.by_group), found.errors)
            network.plan = Away("refuse", after=0)
            network.plan.begun = True
            found = await ShardedGroup(session, "shard").identify(
                io.BytesIO(picture(2, 0)), on_outage="wait", errors=errors
            )
            assert ("p2", {}) == (found.best.person_id, found.errors)


async def test_a_server_that_is_restarted_costs_only_time(store, monkeypatch):
    """A real one, on its socket: started some time after the run, stopped in the middle of it, and started again."""
    monkeypatch.setattr(outage, "PROBE_DELAY", 0.05)
    app = create_app(store, credentials=CREDENTIALS, recognizer=RECOGNIZER)
    probes = (picture(number % PEOPLE, 0) for number in range(200))
    seen = []
    async with serve_in_background(app) as server:
        url, port = server.base_url, int(server.base_url.rpartition(":")[2])
    options = {"base_url": url, "retry": RetryPolicy(max_attempts=2, base_delay=0)}
    with anyio.fail_after(PATIENCE):
        async with FaceSession("123456", "test", CREDENTIALS, **options) as session:
            async with serve_in_background(app, port=port):
                await people(session)
            async with session.identify_many(probes, "staff", max_at_once=AT_ONCE, on_outage="wait") as run:
                for _ in range(2):
                    await anyio.sleep(0.1)  # it is not there, and the run is under way
                    async with serve_in_background(app, port=port):
                        seen += [(await anext(run)).unwrap().best.person_id for _ in range(100)]
    assert {f"p{number}": 50 for number in range(PEOPLE)} == Counter(seen)


# Which errors end what


async def test_a_call_that_keeps_failing_while_the_service_is_there_is_given_up(store):
    """Three times, then it is its item's error; the others go on."""
    bad = picture(3, 0)

    async with serving(store) as (session, network):
        await people(session)
        network.plan = lambda name: 213 if name == "identify" and bad in network.body else ""
        away = Away("")
        outcomes = await run("identify_many", session, away, on_outage="wait")
        assert {213} == {outcome.error.code for outcome in outcomes if outcome.error}
        assert ITEMS // PEOPLE == sum(outcome.error is not None for outcome in outcomes)


@each_verb
async def test_a_service_that_answers_probes_and_nothing_else_ends_the_run(store, verb):
    """After some calls in a row that were given up: the rest of the input is not burnt."""
    async with serving(store) as (session, network):
        await people(session)
        network.plan = lambda name: "" if name.startswith("get") else 107
        away = Away("")
        with pytest.raises(ServiceError, match="107"):
            await run(verb, session, away, on_outage="wait")
    assert away.count < ITEMS


async def test_a_wrong_key_ends_a_run_that_waits(store):
    async with serving(store) as (session, network):
        await people(session)
        network.plan = lambda name: 14
        away = Away("")
        with pytest.raises(ServiceError, match="14"):
            await run("identify_many", session, away, on_outage="wait")
    assert away.count <= 2 * AT_ONCE


async def test_a_person_of_somebody_elses_is_no_result_of_ours(store):
    """Who was there before, with another face, is not taken for the person that the outage left in doubt."""
    lost = iter(["refuse", "lose", "lose"])
    async with serving(store) as (session, network):
        await session.new_person("ada", ["staff"], picture(1, 0))
        network.plan = lambda name: next(lost, "") if name == "newperson" else ""
        async with session.new_persons([NewPerson("ada", ["staff"], picture(1, 7))], on_outage="wait") as outcomes:
            [outcome] = await outcomes.collect()
    assert -1302 == outcome.error.code
    assert outcome.error.maybe_applied


async def test_a_group_that_is_full_by_the_person_in_doubt_has_room_for_them(store):
    """The room that was reserved before the outage is the person's own."""
    limits = ServiceLimits(max_persons_per_group=2)
    lost = iter(["lose", "lose"])
    async with serving(store, limits=limits) as (session, network):
        await session.new_person("bob", ["staff"])
        network.plan = lambda name: next(lost, "") if name == "newperson" else ""
        async with session.new_persons([NewPerson("ada", ["staff"])], on_outage="wait") as outcomes:
            [outcome] = await outcomes.collect()
        assert outcome.unwrap().meta.settled == "the person was there already"
        assert {"ada", "bob"} == set(await session.get_person_ids("staff"))


async def test_a_picture_that_the_person_has_is_a_duplicate_after_an_outage_too(store):
    away = Away("refuse", after=0)
    async with serving(store, plan=away) as (session, _):
        await people(session)
        away.begun = True
        async with session.add_faces([("p0", picture(0, 0)), ("p0", picture(0, 9))], on_outage="wait") as outcomes:
            twin, fresh = sorted(await outcomes.collect(), key=lambda outcome: outcome.index)
    assert isinstance(twin.error, DuplicateFaceError)
    assert fresh.unwrap().added


async def test_a_run_may_be_left_while_it_waits(store):
    """At once; what was under way has its outcome."""
    async with serving(store) as (session, network):
        await people(session)
        network.plan = lambda name: "refuse"
        with anyio.move_on_after(0.05):
            async with session.identify_many(itertools.repeat(picture(0, 0)), "staff", on_outage="wait") as outcomes:
                await outcomes.collect()
    assert all(isinstance(outcome.error, TransportError) for outcome in outcomes.untaken)
    assert outcomes.untaken


@each_verb
async def test_there_are_two_ways_to_meet_an_outage(store, verb):
    async with serving(store) as (session, _):
        with pytest.raises(ValueError, match="on_outage must be 'wait' or 'fail', not 'hope'"):
            await run(verb, session, Away(""), on_outage="hope")
        with pytest.raises(ValueError, match="on_outage"):
            await session.identify_in_groups(b"", ["staff"], on_outage="hope")
