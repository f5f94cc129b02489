"""Bulk runs that end otherwise than by their last item: nothing of what was done is lost, and nobody waits for ever."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest
from bulkkit import Gate
from serverkit import ToyRecognizer, picture
from timing import PATIENCE

from face_async import AuthError, NewPerson, Outcomes, PersonLimitError, RetryPolicy, ShardedGroup
from face_async.bulk.fitting import FITTING_BYTES
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def server():
    with FaceServer(recognizer=ToyRecognizer()) as server:
        yield server


@pytest.fixture
async def session(server, anyio_backend):
    async with server.session(retry=RetryPolicy(base_delay=0)) as session:
        yield session


def people(count):
    return [NewPerson(f"p{index}", ["staff"]) for index in range(count)]


async def test_what_was_collected_before_the_end_is_not_lost(server, session):
    """A key that is revoked in the middle: those who were created are told from those who were not."""
    outcomes = session.new_persons(people(30), max_at_once=2)
    server.faults.add("newperson", times=19, delay=0.0001)
    server.faults.add("newperson", code=14)
    async with outcomes:
        with pytest.raises(AuthError):
            await outcomes.collect()

    created = {outcome.item.person_id for outcome in outcomes.untaken if outcome.error is None}
    doubtful = {
        outcome.item.person_id for outcome in outcomes.untaken if getattr(outcome.error, "maybe_applied", False)
    }
    assert len(created) >= 17  # of 19, two of which may have been under way
    assert created <= set(await session.get_person_ids("staff")) <= created | doubtful


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_was_collected_is_not_lost_however_often_that_is_cut_short(ordered):
    """By cancellation, again and again: what no collect() has returned is untaken."""
    gate, pulled = Gate(), []

    async with Outcomes(
        gate, (pulled.append(item) or item for item in range(99)), max_at_once=3, ordered=ordered
    ) as run:
        for turn in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run.collect)
                for item in range(4 * turn, 4 * turn + 4):
                    gate.release(item)
                    await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        gate.release(12)
        assert (await anext(run)).index == 12
    assert [*range(12), *pulled[13:]] == [outcome.index for outcome in run.untaken]
    assert [*range(12)] == [outcome.result for outcome in run.untaken if outcome.error is None]


async def test_who_waits_for_an_outcome_when_the_block_is_left_waits_no_longer():
    """Another task of those that share the run: it is told that the run has ended."""
    caught = []

    async def take(outcomes):
        with pytest.raises(RuntimeError, match="has ended"):
            await anext(outcomes)
        caught.append(True)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks, Outcomes(Gate(), range(9), max_at_once=3) as outcomes:
            for _ in range(2):
                tasks.start_soon(take, outcomes)
            await anyio.wait_all_tasks_blocked()
    assert caught == [True, True]


async def test_tasks_that_share_a_run_use_up_no_places():
    """However they take turns: as many items as ever may be under way, to the end."""
    taken = []
    again = anyio.Event()

    async def call(item):
        await again.wait()  # all takers wait when the first outcomes come, at once
        return item

    async def take(outcomes):
        async for outcome in outcomes:
            taken.append(outcome.index)
            await anyio.lowlevel.checkpoint()  # the others take theirs

    with anyio.fail_after(PATIENCE):
        async with Outcomes(call, range(50), max_at_once=3) as outcomes, anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(take, outcomes)
            while len(taken) < 50:
                await anyio.wait_all_tasks_blocked()
                again.set()
                again = anyio.Event()
    assert list(range(50)) == sorted(taken)


async def test_several_tasks_may_take_the_outcomes_of_one_run(session):
    """Each outcome goes to one of them, and all of them end with the last."""
    taken = []

    async def take(outcomes):
        async for outcome in outcomes:
            taken.append(outcome.index)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(PATIENCE):
        async with session.new_persons(people(20), max_at_once=4) as outcomes, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(take, outcomes)
    assert list(range(20)) == sorted(taken)


async def test_an_input_that_fails_to_clean_up_does_not_hide_the_end(session):
    """The block ends as it would have; its own error is no group."""

    def items():
        try:
            yield from people(5)
        finally:
            raise OSError("cleaning up failed")

    async with session.new_persons(items(), max_at_once=1) as outcomes:
        async for outcome in outcomes:
            assert outcome.index == 0
            break


async def test_a_shard_that_may_hold_the_person_is_not_left_for_the_next(server, session):
    """The shard is full, maybe by this very call: trying another one could double the person."""
    group = ShardedGroup(session, "staff")
    server.faults.add("newperson", drop_response=True)
    server.faults.add("newperson", code=-1310)
    server.faults.add("getinfo", drop_request=True, times=3)
    with pytest.raises(PersonLimitError) as caught:
        await group.new_person("ada")

    assert caught.value.maybe_applied is True
    assert ("staff-0000",) == (await session.get_info("ada")).group_ids


async def test_a_face_added_beside_the_bulk_is_known_to_it(server, session):
    """Doubts are settled by what a person has now, whichever verb added it."""
    await session.new_person("ada", ["staff"])
    async with session.add_faces([("ada", picture(1, 1))]) as outcomes:
        await outcomes.collect()
    await session.add_face("ada", [picture(1, 9)])
    server.faults.add("addface", drop_request=True)
    async with session.add_faces([("ada", picture(1, 9))]) as outcomes:
        [outcome] = await outcomes.collect()

    assert outcome.error.code == -1312


async def test_a_picture_too_large_is_made_to_fit_for_many_groups_as_well():
    """Fit goes wherever many pictures go."""
    from face_async.portraits import draw_portrait  # noqa: PLC0415 - draws with an extra

    huge = draw_portrait(1) + bytes(FITTING_BYTES)  # what follows a picture's end is no part of it
    with FaceServer() as server:
        session = server.session()
        group = ShardedGroup(session, "staff")
        async with group.new_persons([NewPerson("ada", (), huge)], fit=True) as outcomes:
            [outcome] = await outcomes.collect()
        found = await group.identify(huge, fit=True)

    assert outcome.unwrap().suc_face == 1
    assert found.best.person_id == "ada"


_VARIABLE: ContextVar[list[object]] = ContextVar("_VARIABLE")


@pytest.mark.parametrize("lazy", [False, True])
async def test_a_call_sees_the_context_variables_of_its_item(lazy):
    """As they were when the input yielded it: what tells one request from the other in logs and traces."""
    numbers = [index // 4 for index in range(40)]  # some items share theirs with the one before
    values = [[number] for number in numbers]

    def items():
        for number in numbers:
            _VARIABLE.set(values[number])
            yield number

    async def slow_items():
        for number in items():
            await anyio.lowlevel.checkpoint()
            yield number

    async def call(_):
        await anyio.lowlevel.checkpoint()
        return _VARIABLE.get()

    async with Outcomes(call, slow_items() if lazy else items(), max_at_once=3, ordered=True) as outcomes:
        seen = [outcome.unwrap() for outcome in await outcomes.collect()]
    assert all(mine is values[number] for mine, number in zip(seen, numbers, strict=True))


async def test_what_a_call_does_to_context_variables_is_its_own():
    """The next one sees neither what another has set, nor an object that is only equal to that of its own context."""
    mine: list[object] = []
    _VARIABLE.set(mine)
    seen = []

    async def call(item):
        seen.append(_VARIABLE.get())
        if item % 3 == 0:
            _VARIABLE.set([])  # equal to that of the run, and another list
        if item % 3 == 1:
            ContextVar[int](f"of {item}").set(item)

    async with Outcomes(call, range(12), max_at_once=2) as outcomes:
        await outcomes.collect()
    assert [mine] * 12 == seen
    assert all(each is mine for each in seen)


async def test_a_run_has_no_more_tasks_than_calls_under_way():
    """However many items there are: a task takes one after the other."""
    tasks = set()

    async def call(_):
        tasks.add(anyio.get_current_task().id)
        await anyio.lowlevel.checkpoint()

    async with Outcomes(call, range(100), max_at_once=4) as outcomes:
        await outcomes.collect()
    assert len(tasks) <= 4
