"""The bounded map: the order of its outcomes, its bounds, and how it is left."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from albums import JPEG
from bulkkit import Gate, both_kinds, double, settled
from doubles import CREDENTIALS, envelope, session_on
from raw_server import RawServer, answer, silence
from timing import PATIENCE

from face_async import BulkApi, FaceSession, IdentifyResult, Outcomes, ServiceLimits, TransportError
from face_async.endpoints import Endpoint

pytestmark = pytest.mark.anyio

# Order and bounds


async def test_outcomes_come_as_they_are_completed():
    """Without ordered=True the quickest is first; index and item say which it is."""
    gate, order = Gate(), [2, 0, 1]
    async with Outcomes(gate, range(3), max_at_once=3) as outcomes:
        found = []
        for item in order:
            gate.release(item)
            found.append(await anext(outcomes))
        assert [] == await outcomes.collect()
    assert [(item, item, item) for item in order] == [(each.index, each.item, each.unwrap()) for each in found]


async def test_ordered_outcomes_come_in_input_order():
    """With ordered=True a quick item waits for those before it."""
    gate = Gate()
    async with Outcomes(gate, list("abc"), max_at_once=3, ordered=True) as outcomes:
        for item in "cba":
            gate.release(item)
            await settled()
        assert list("abc") == [outcome.unwrap() async for outcome in outcomes]


async def test_ordered_outcomes_lose_nothing(rng):
    """However the items are completed, ordered=True gives each once, in order."""

    async def call(item):
        for _ in range(rng.randrange(5)):
            await anyio.lowlevel.checkpoint()
        return item

    async with Outcomes(call, range(500), max_at_once=7, ordered=True) as outcomes:
        assert list(range(500)) == [outcome.unwrap() async for outcome in outcomes]


@pytest.mark.parametrize("max_at_once", [1.5, 2.0, float("nan"), "3", None])
async def test_how_many_at_once_is_a_whole_number(max_at_once):
    """Of halves of places there would never be none left."""
    with pytest.raises(TypeError, match="max_at_once must be an int"):
        Outcomes(Gate(), range(3), max_at_once=max_at_once)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("max_at_once", [1, 3, 8])
@pytest.mark.parametrize("generated", both_kinds(lambda pull: map(pull, range(60))))
async def test_the_input_is_pulled_only_as_outcomes_are_taken(generated, max_at_once, ordered):
    """Never more than max_at_once items are pulled and not done with, the one in the caller's hands included."""
    pulled = []

    def pull(item):
        pulled.append(item)
        return item

    async with Outcomes(double, generated(pull), max_at_once=max_at_once, ordered=ordered) as outcomes:
        done = 0
        async for _ in outcomes:
            await settled()
            assert min(60, done + max_at_once) == len(pulled)
            done += 1
    assert done == 60


@pytest.mark.parametrize("generated", both_kinds(itertools.count))
async def test_an_endless_input_works(generated):
    """The first outcomes come although the input never ends."""
    async with Outcomes(double, generated(), max_at_once=4, ordered=True) as outcomes:
        assert [0, 2, 4] == [(await anext(outcomes)).unwrap() for _ in range(3)]


async def test_no_input_is_no_outcome():
    """An empty input ends at once."""
    async with Outcomes(double, [], max_at_once=1) as outcomes:
        assert [] == await outcomes.collect()


async def test_as_many_calls_run_at_once_as_allowed():
    """All of max_at_once places are used, and no more."""
    gate = Gate()
    async with Outcomes(gate, range(9), max_at_once=4) as outcomes:
        await settled()
        assert {0, 1, 2, 3} == set(gate.running)
        gate.release(0)
        await anext(outcomes)
        await settled()
        assert {1, 2, 3} == set(gate.running), "the caller still holds the outcome of 0"


# Leaving early


@pytest.mark.parametrize("max_at_once", [1, 4])
async def test_leaving_early_cancels_what_runs(max_at_once):
    """After the block no call runs, no task is left, and none was started for nothing."""
    gate, before = Gate(), len(anyio.get_running_tasks())
    async with Outcomes(gate, itertools.count(), max_at_once=max_at_once) as outcomes:
        gate.release(0)
        assert (await anext(outcomes)).unwrap() == 0
        await settled()
        running = set(gate.running)
    assert set(range(1, max_at_once)) == running
    assert [] == gate.running
    assert before == len(anyio.get_running_tasks())


CHANGES, ASKS = Endpoint("addface", "2.3", object, effect=True), Endpoint("identify", "2.12", object)


@pytest.mark.parametrize(("endpoint", "maybe_applied"), [(CHANGES, True), (ASKS, False)])
@pytest.mark.parametrize("ordered", [False, True])
async def test_leaving_early_tells_what_was_not_taken(endpoint, maybe_applied, ordered):
    """In input order: what was done has its outcome, what was under way an error that says what may have happened."""
    gate = Gate()
    async with Outcomes(gate, itertools.count(), max_at_once=5, ordered=ordered, endpoint=endpoint) as outcomes:
        gate.release(0)
        assert (await anext(outcomes)).unwrap() == 0
        for item in (2, 3):
            gate.release(item)
        await settled()
        assert outcomes.untaken == ()
    assert [1, 2, 3, 4] == [outcome.index for outcome in outcomes.untaken] == [each.item for each in outcomes.untaken]
    assert [None, 2, 3, None] == [outcome.result for outcome in outcomes.untaken]
    cut_short = [outcome.error for outcome in outcomes.untaken if outcome.error]
    assert [maybe_applied] * 2 == [error.maybe_applied for error in cut_short]
    assert all(isinstance(error, TransportError) for error in cut_short)
    assert endpoint.name in str(cut_short[0])


async def test_what_was_pulled_and_not_begun_was_not_sent():
    """Items whose calls had no turn yet are told as such."""
    async with Outcomes(double, range(3), max_at_once=3, endpoint=CHANGES) as outcomes:
        outcomes._tasks.cancel_scope.cancel()
    assert [False] * len(outcomes.untaken) == [outcome.error.maybe_applied for outcome in outcomes.untaken]


async def test_nothing_is_left_when_all_was_taken():
    """After a run to its end there is nothing untaken."""
    async with Outcomes(double, range(9), max_at_once=3) as outcomes:
        await outcomes.collect()
    assert outcomes.untaken == ()


async def test_leaving_early_closes_the_input():
    """Generators, sync and async, run their finally when the block is left; that of the caller's own file does not."""
    closed = []

    def sync():
        try:
            yield from itertools.count()
        finally:
            closed.append("sync")

    async def later():
        try:
            for item in itertools.count():
                yield item
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append("async")

    for items in (sync(), later()):
        async with Outcomes(double, items, max_at_once=2) as outcomes:
            await anext(outcomes)
    assert closed == ["sync", "async"]
    lines = io.StringIO("a\nb\nc\n")
    async with Outcomes(double, lines, max_at_once=1) as outcomes:
        await anext(outcomes)
    assert not lines.closed


async def test_leaving_early_frees_the_lanes():
    """No lane of the session stays busy, and the next call is served."""
    script = [answer(envelope({"candidates": []})), *[silence()] * 3, answer(envelope({"candidates": []}))]
    with RawServer(script) as server:
        async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, timeout=PATIENCE) as session:
            async with session.identify_many(itertools.repeat(JPEG), "staff", max_at_once=4) as outcomes:
                (await anext(outcomes)).unwrap()
                for _ in range(4):
                    assert await anyio.to_thread.run_sync(server.began.acquire, True, PATIENCE)
            assert session.stats.connections <= 1
            assert (await session.identify("staff", JPEG)).candidates == ()


# Misuse


async def test_outcomes_want_their_context():
    """Before the block, iterating raises RuntimeError that shows how; after it, one that says so."""
    outcomes = Outcomes(double, range(3), max_at_once=1)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(outcomes)
    async with outcomes:
        await anext(outcomes)
    with pytest.raises(RuntimeError, match="has ended"), anyio.fail_after(PATIENCE):
        await anext(outcomes)


async def test_outcomes_are_entered_once():
    """Entered again, in the block or after it, they raise, and no item is pulled twice; the block itself goes on."""
    pulled = []
    outcomes = Outcomes(double, (pulled.append(item) or item for item in range(3)), max_at_once=1)
    async with outcomes:
        with pytest.raises(RuntimeError, match="entered once"):
            await outcomes.__aenter__()
        assert [0, 2, 4] == [outcome.unwrap() async for outcome in outcomes]
    with pytest.raises(RuntimeError, match="entered once"), anyio.fail_after(PATIENCE):
        async with outcomes:
            await outcomes.collect()
    assert [0, 1, 2] == pulled


@pytest.mark.parametrize("verb", ["add_faces", "new_persons", "identify_many", "verify_many", "detect_many"])
def test_a_bulk_verb_that_is_never_entered_warns(verb):
    """It has done nothing, which would else be seen by nobody; the warning is about the caller's line."""
    session, network = session_on(envelope())
    arguments = {"identify_many": ([], "staff")}.get(verb, ([],))
    with pytest.warns(RuntimeWarning, match="never entered, so nothing was done: async with") as caught:
        getattr(session, verb)(*arguments)
    assert __file__ == caught[0].filename
    assert network.sent == []


@pytest.mark.parametrize("wrong", [0, -1])
async def test_max_at_once_is_at_least_one(wrong):
    """No call at all at once is a ValueError."""
    with pytest.raises(ValueError, match="max_at_once"):
        Outcomes(double, [], max_at_once=wrong)


@pytest.mark.parametrize("single", ["a.jpg", b"bytes", Path("a.jpg"), 7, None])
async def test_a_single_image_is_no_iterable(single):
    """A str would be taken letter by letter: it raises TypeError, as bytes, paths and what is no iterable."""
    session, network = session_on(envelope())
    for verb in (
        lambda: session.identify_many(single, "staff"),
        lambda: session.add_faces(single),
        lambda: session.verify_many(single),
    ):
        with pytest.raises(TypeError, match="iterable of items, not a single"):
            verb()
    assert network.sent == []


@pytest.mark.parametrize("wrong", ["pp", "person", ("p",), ("p", JPEG, 1), None, 7])
async def test_an_item_that_is_no_pair_is_a_programming_error(wrong):
    """Pairs are pairs: anything else raises TypeError at once."""
    session, network = session_on(envelope({"confidence": 1.0, "ismatch": False}))
    for verb in (session.add_faces, session.verify_many):
        with pytest.raises(TypeError, match="pair"):
            async with verb([wrong]) as outcomes:
                await outcomes.collect()
    assert network.sent == []


async def test_a_wrong_type_of_image_is_a_programming_error():
    """An int among the images ends the iteration with TypeError, plain."""
    session, _ = session_on(envelope({"candidates": []}))
    with pytest.raises(TypeError, match="not int"):
        async with session.identify_many([JPEG, 7], "staff") as outcomes:
            await outcomes.collect()


# Progress


async def test_progress_hears_of_every_outcome():
    """Called with how many are done, the total where the input has a length, and the outcome."""
    for items, total in (([5, 6, 7], 3), (iter([5, 6, 7]), None)):
        heard = []

        def hear(*args, heard=heard):
            heard.append(args)

        async with Outcomes(double, items, max_at_once=2, progress=hear) as outcomes:
            found = await outcomes.collect()
        assert [(1, total), (2, total), (3, total)] == [(done, said) for done, said, _ in heard]
        assert [outcome for _, _, outcome in heard] == found


# Volume


class Instant(BulkApi):
    """A service that finds nobody, at once."""

    limits = ServiceLimits()

    async def _call(self, endpoint, fields, images=None):
        await anyio.lowlevel.checkpoint()
        if images["image"].content[:1] == b"?":
            raise TransportError("no answer", endpoint=endpoint.name, maybe_applied=False)
        return IdentifyResult(candidates=())


async def test_ten_thousand_images_take_no_more_memory_than_a_few(full):
    """Memory follows max_at_once, not the input's length, results and failures alike."""
    size, count = 10_000, 100_000 if full else 10_000
    images = (b"!?"[index % 2 : index % 2 + 1] * size for index in range(count))
    taken = failed = 0
    tracemalloc.start()
    try:
        async with Instant().identify_many(images, "staff", max_at_once=16) as outcomes:
            async for outcome in outcomes:
                taken += 1
                failed += outcome.error is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (taken, failed) == (count, count // 2)
    assert peak < 64 * size
