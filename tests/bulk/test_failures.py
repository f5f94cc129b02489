"""What an error costs the bounded map: one outcome, or the run."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import anyio.lowlevel
import pytest
from bulkkit import Gate, both_kinds, double, settled

from face_async import ImageRefusedError, NotFoundError, Outcomes, ServiceError
from face_async.errors import service_error

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "error", [NotFoundError(-1303, endpoint="verify"), ValueError("bad id"), ImageRefusedError("gone")]
)
async def test_one_failure_costs_one_outcome(error):
    """An error of the package, or a ValueError, is its item's outcome; all others are served."""

    async def call(item):
        if item == 3:
            raise error
        return item

    async with Outcomes(call, range(6), max_at_once=2, ordered=True) as outcomes:
        found = await outcomes.collect()
    assert [0, 1, 2, None, 4, 5] == [outcome.result for outcome in found]
    assert [None, None, None, error, None, None] == [outcome.error for outcome in found]
    with pytest.raises(type(error)) as caught:
        found[3].unwrap()
    assert error is caught.value


@pytest.mark.parametrize("code", [4, 5, 6, 9, 10, 11, 12, 14, 16, 24])
async def test_a_code_after_which_nothing_can_succeed_ends_the_run(code):
    """It is raised where outcomes are taken; no more items are pulled, and no more calls begun."""
    begun = []

    async def call(item):
        begun.append(item)
        await anyio.lowlevel.checkpoint()
        if item == 5:
            raise service_error(code, endpoint="identify")
        return item

    items = itertools.count()
    with pytest.raises(ServiceError) as caught:  # noqa: PT012 - the block is what is tested
        async with Outcomes(call, items, max_at_once=4) as outcomes:
            while True:
                await anext(outcomes)
    assert caught.value.code == code
    assert max(begun) <= 9
    assert next(items) <= 10
    assert code in {outcome.error.code for outcome in outcomes.untaken if isinstance(outcome.error, ServiceError)}


@pytest.mark.parametrize("code", [13, 15, 3, -1303, -9999])
async def test_any_other_code_costs_one_outcome(code):
    """Also a repeated signature, which another request need not have."""

    async def call(item):
        if item == 1:
            raise service_error(code, endpoint="identify")
        return item

    async with Outcomes(call, range(3), max_at_once=1) as outcomes:
        assert [0, code, 2] == [outcome.error.code if outcome.error else outcome.result async for outcome in outcomes]


class Bug(Exception):  # noqa: N818 - a name that an error of a caller may have
    """An error that is nobody's outcome."""


async def test_a_programming_error_is_raised_at_once_and_plain():
    """Another error of a call comes out of the iteration as it is, though good outcomes wait and more would follow."""
    gate = Gate()

    async def call(item):
        if item == 2:
            await gate(item)
            raise Bug
        return item

    async with Outcomes(call, itertools.count(), max_at_once=4) as outcomes:
        await anext(outcomes)
        gate.release(2)
        await settled()
        with pytest.raises(Bug):
            await anext(outcomes)


@pytest.mark.parametrize("generated", both_kinds(lambda: (1 // (2 - item) for item in range(9))))
async def test_an_error_of_the_input_is_raised_plain(generated):
    """What the input raises comes out of the iteration as it is."""
    with pytest.raises(ZeroDivisionError):
        async with Outcomes(double, generated(), max_at_once=4) as outcomes:
            await outcomes.collect()


async def test_an_input_that_cannot_be_begun_is_an_error_too():
    """What iter() or aiter() raises comes out of the iteration as it is."""

    class Broken:
        def __iter__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with Outcomes(double, Broken(), max_at_once=4) as outcomes:
            await outcomes.collect()


async def test_an_error_of_progress_is_raised_plain():
    """What the progress callable raises comes out of the iteration as it is."""

    def progress(done, total, outcome):
        raise Bug

    with pytest.raises(Bug):
        async with Outcomes(double, range(9), max_at_once=4, progress=progress) as outcomes:
            await outcomes.collect()


async def test_an_error_of_the_body_comes_out_unchanged():
    """The body's own exception passes, without a group around it, and all that ran is cancelled."""
    gate, error = Gate(), Bug()
    with pytest.raises(Bug) as caught:  # noqa: PT012 - the block is what is tested
        async with Outcomes(gate, range(9), max_at_once=4):
            await settled()
            assert {0, 1, 2, 3} == set(gate.running)
            raise error
    assert error is caught.value
    assert error.__context__ is None
    assert [] == gate.running


async def test_cancelling_the_body_cancels_what_runs():
    """A scope around the block that is cancelled ends the block and its calls; no cancellation is lost."""
    gate = Gate()
    with anyio.CancelScope() as scope:
        async with Outcomes(gate, range(9), max_at_once=4) as outcomes:
            await settled()
            scope.cancel()
            await anext(outcomes)
        raise AssertionError("not reached")
    assert scope.cancelled_caught
    assert sorted(gate.ended) == [0, 1, 2, 3]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_timeout_of_asyncio_ends_the_block():
    """asyncio.timeout works around and inside a block."""
    gate = Gate()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Outcomes(gate, range(9), max_at_once=4) as outcomes:
            await anext(outcomes)
    assert [] == gate.running
    assert asyncio.current_task().cancelling() == 0
