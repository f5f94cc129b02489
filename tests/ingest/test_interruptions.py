"""Whatever happens on the way, the end is the same: what was to be added is there, each picture once."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel
import pytest
from ingestkit import enrolled, finished, outcomes, serving, told, write_people

from face_async import ServiceError, UnavailableError
from face_async.ingest import JournalError, State, ingest, retry_failed, verify
from face_async.server import Store

pytestmark = pytest.mark.anyio


def after(count, fault, *names):
    """Return a plan: this fault for all requests behind the first ``count`` to these endpoints, or to any."""
    seen = []

    def plan(name):
        if names and name not in names:
            return ""
        seen.append(name)
        return fault if len(seen) > count else ""

    return plan


async def shots_of(session, store, run):
    """Finish a run; return what is enrolled, and hold the journal against it."""
    summary = await finished(run)
    async with verify(session, run.journal) as differences:
        assert [] == [difference async for difference in differences]
    assert summary.done == sum(map(len, enrolled(store).values()))
    return {person: set(shots) for person, shots in enrolled(store).items()}


EVERYBODY = {f"person{number}": set(range(4)) for number in range(3)}


# The service is away


async def test_an_outage_costs_time_and_no_picture(store, people, run_on):
    """The run waits, one task asks for the groups until there is an answer, and then all goes on."""
    asked = []

    def plan(name):
        asked.append(name)
        down = 4 <= len(asked) and asked.count("getgroupids") < 12
        return "refuse" if down else ""

    phases = []
    async with serving(store, plan=plan) as (session, _):
        run = run_on(session, people, on_progress=lambda summary: phases.append((summary.phase, summary.away)))
        assert EVERYBODY == await shots_of(session, store, run)
    assert 11 <= asked.count("getgroupids") <= 13  # never two at a time
    assert any(phase == "waiting" and "refused by the test" in away for phase, away in phases)
    assert ("ended", None) == phases[-1]


@pytest.mark.parametrize("fault", [213, "lose"])
@pytest.mark.parametrize("shots", [1, 4])
async def test_effects_that_may_have_happened_are_settled(store, tmp_path, run_on, fault, shots):
    """Every second effect fails, before or after it is applied: nothing is lost, nothing is there twice."""
    effects = []
    people = write_people(tmp_path / "people", 3, shots)
    everybody = {f"person{person}": set(range(shots)) for person in range(3)}

    def plan(name):
        if name in {"addface", "newperson"}:
            effects.append(name)
            return fault if len(effects) % 2 else ""
        return ""

    async with serving(store, plan=plan) as (session, _):
        assert everybody == await shots_of(session, store, run_on(session, people))


async def test_a_request_that_always_fails_is_given_up(store, people, run_on, journal):
    """While others succeed the fault must be its own; it may be tried again later."""

    def plan(name):
        return 213 if name == "addface" and b"person1" in network.body else ""

    async with serving(store, plan=plan) as (session, network):
        units = await outcomes(run_on(session, people))
        lost = [unit for unit in units if unit.state is not State.DONE]
        assert {("person1", "213")} == {(unit.person_id, unit.code) for unit in lost}
        assert 8 == sum(map(len, enrolled(store).values()))
        network.plan = lambda name: ""
        assert EVERYBODY == await shots_of(session, store, retry_failed(session, journal=journal))


async def test_a_service_that_does_nothing_right_ends_the_run(store, tmp_path, run_on, journal):
    """It answers, but fails every effect: only a few pictures fail, not all."""
    people = write_people(tmp_path / "people", 40, 1)
    async with serving(store, plan=after(0, 107, "newperson")) as (session, network):
        with pytest.raises(UnavailableError):
            await finished(run_on(session, people, max_at_once=4))
        network.plan = lambda name: ""
        summary = await finished(run_on(session, people))
        assert summary.failed in range(1, 9)  # fewer where the run ended before the last ones were noted
        assert 40 == summary.done + summary.failed
        assert 40 == (await finished(retry_failed(session, journal=journal))).done


@pytest.mark.parametrize("code", [14, 24])
async def test_errors_that_no_call_can_escape_end_the_run(store, people, run_on, code):
    """At once, with that error; the journal is kept, and nothing counts as failed."""
    async with serving(store, plan=after(3, code)) as (session, network):
        with pytest.raises(ServiceError) as caught:
            await finished(run_on(session, people, max_at_once=1))
        assert code == caught.value.code
        assert len(network.calls) <= 5
        network.plan = lambda name: ""
        run = run_on(session, people)
        assert EVERYBODY == await shots_of(session, store, run)
    assert 0 == run.summary.failed


# The run is stopped


async def test_a_run_that_is_stopped_ends_what_is_under_way(store, tmp_path, run_on):
    """Nothing new is begun, nothing is in doubt; the next run goes on."""
    people = write_people(tmp_path / "people", 30, 1)
    async with serving(store) as (session, network):
        async with run_on(session, people, max_at_once=2) as run:
            async for _ in run:
                run.stop()
        assert "ended" == run.summary.phase
        assert 0 == run.summary.ambiguous
        assert 1 <= run.summary.done <= 4
        assert run.summary.done == sum(map(len, enrolled(store).values()))
        assert 30 == (await finished(run_on(session, people))).done
    assert 30 == network.calls.count("newperson")


async def test_a_run_that_waits_can_be_stopped(store, people, run_on):
    """It does not wait for the service to come back."""
    async with serving(store, plan=after(4, "refuse")) as (session, network):

        def stop(summary):
            if summary.phase == "waiting":
                run.stop()

        run = run_on(session, people, probe_delay=3_600, on_progress=stop)
        await finished(run)
        network.plan = lambda name: ""
        assert EVERYBODY == await shots_of(session, store, run_on(session, people))


async def test_leaving_the_block_ends_the_run_at_once(store, tmp_path, run_on):
    """What was under way is settled by the next run."""
    people = write_people(tmp_path / "people", 20, 2)
    async with serving(store) as (session, _):
        async with run_on(session, people, max_at_once=4) as run:
            async for _ in run:
                break
        assert EVERYBODY.keys() < (await shots_of(session, store, run_on(session, people))).keys()
    assert 40 == sum(map(len, enrolled(store).values()))


async def test_no_schedule_of_faults_and_cuts_loses_or_doubles_anything(rng, full, tmp_path, anyio_backend):
    """Runs are cut off anywhere, on a network that refuses and loses; the end is exact, whatever the schedule."""
    for schedule in range(300 if full else 4):
        folder = tmp_path / str(schedule)
        people = write_people(folder / "people", rng.randrange(1, 6), rng.randrange(1, 25))
        journal = folder / "enroll.journal"
        done = {}
        with Store() as store:
            plan = lambda _: rng.choice(["", "", "", "", "refuse", "lose", 107, 213])  # noqa: E731
            async with serving(store, plan=plan) as (session, network):
                make = partial(ingest, session, people, journal=journal, group_ids=["staff"], probe_delay=0)
                for _ in range(rng.randrange(1, 5)):
                    done |= await cut_off(make, rng)
                network.plan = lambda name: ""
                async with make() as run:
                    units = [unit async for unit in run]
                while run.summary.codes.keys() - {"-1309"}:  # given up in bad times
                    async with retry_failed(session, journal=journal, probe_delay=0) as run:
                        units += [unit async for unit in run]
                async with verify(session, journal) as differences:
                    assert [] == [difference async for difference in differences], f"schedule {schedule}"
            shots = len(list((people / "person0").iterdir()))
            expected = {folder.name: min(20, shots) for folder in people.iterdir()}
            assert expected == {person: len(found) for person, found in enrolled(store).items()}, f"schedule {schedule}"
            assert (0, sum(expected.values())) == (run.summary.ambiguous, run.summary.done), f"schedule {schedule}"
            for person, found in told(units).items():
                assert found.items() <= enrolled(store)[person].items(), f"schedule {schedule}"


async def cut_off(make, rng):
    """Cancel a run after some of the event loop's steps; an error that ends it is fine, too."""
    found = {}
    with anyio.CancelScope() as scope:

        async def cancel_later():
            for _ in range(rng.randrange(300)):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_later)
            try:
                async with make(max_at_once=rng.choice([1, 3, 64])) as run:
                    async for unit in run:
                        found[unit.id] = unit
            except ServiceError:
                pass
            tasks.cancel_scope.cancel()
    return found


# The disk is full


async def test_a_full_disk_stops_the_sending(store, tmp_path, run_on):
    """With a clear error; what was sent is settled once there is room again."""
    people = write_people(tmp_path / "people", 60, 3)

    def fill(summary):
        if summary.done == 30:
            run._journal._db.execute("PRAGMA max_page_count = 1")

    async with serving(store) as (session, network):
        run = run_on(session, people, on_progress=fill, max_at_once=4)
        with pytest.raises(JournalError, match="disk is full; free some space and run again"):
            await finished(run)
        before = network.calls.count("addface")
        assert before < 60
        found = await shots_of(session, store, run_on(session, people))
    assert {f"person{number}": {0, 1, 2} for number in range(60)} == found
