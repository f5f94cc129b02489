"""The bounded map, and the bulk verbs that stand on it."""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from doubles import CREDENTIALS, Network, envelope, session_on
from raw_server import RawServer, answer, silence
from timing import PATIENCE

from face_async import (
    AuthError,
    BulkApi,
    Candidate,
    DuplicateFaceError,
    FaceSession,
    IdentifyResult,
    ImageError,
    ImageRefusedError,
    NotFoundError,
    Outcomes,
    RequestTooLargeError,
    ServiceError,
    ServiceLimits,
    ShardedGroup,
    TransportError,
    VerifyResult,
    images,
)
from face_async.endpoints import Endpoint
from face_async.errors import service_error

pytestmark = pytest.mark.anyio

JPEG = b"\xff\xd8\xff\xe0"


class Gate:
    """A call that ends, one item at a time, only when the test says so."""

    def __init__(self):
        self.running = []
        self.ended = []
        self._events = {}

    async def __call__(self, item):
        self.running.append(item)
        event = self._events.setdefault(item, anyio.Event())
        try:
            await event.wait()
        finally:
            self.running.remove(item)
            self.ended.append(item)
        return item

    def release(self, item):
        self._events.setdefault(item, anyio.Event()).set()


async def settled():
    """Let all tasks go on as far as they get without the outside world."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def double(item):
    """Return twice the item, some time later."""
    await anyio.lowlevel.checkpoint()
    return 2 * item


def both_kinds(make):
    """Run a test with a generator and with an asynchronous one."""

    async def later(items):
        for item in items:
            await anyio.lowlevel.checkpoint()
            yield item

    return [pytest.param(make, id="sync"), pytest.param(lambda *args: later(make(*args)), id="async")]


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


# Failures


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


# The verbs


async def test_add_faces_adds_every_image(rng):
    """One request, and one outcome, per pair; the outcome's image is the one that was given."""
    images = [JPEG + rng.randbytes(10) for _ in range(5)]
    session, network = session_on(envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]}))
    async with session.add_faces(
        [(f"p{index}", image) for index, image in enumerate(images)], ordered=True
    ) as outcomes:
        found = [outcome.unwrap() async for outcome in outcomes]
    assert [("f", True)] * 5 == [(face.face_id, face.added) for face in found]
    assert images == [face.image for face in found]
    assert sorted(images) == sorted(image for sent in network.sent for image in images if image in sent.body)


@pytest.mark.parametrize(("code", "error"), [(-1312, DuplicateFaceError), (-1101, ImageError), (-9999, ServiceError)])
async def test_add_faces_tells_why_an_image_was_refused(code, error):
    """A code in ret_codes becomes the error that the code stands for."""
    session, _ = session_on(envelope({"added": 0, "face_ids": [], "ret_codes": [code]}))
    async with session.add_faces([("p", JPEG)]) as outcomes:
        [outcome] = await outcomes.collect()
    assert error is type(outcome.error)
    assert (outcome.error.code, outcome.error.endpoint) == (code, "addface")


async def test_a_bad_id_and_a_missing_file_cost_one_outcome_each():
    """What is refused before sending is the outcome of its item alone."""
    session, network = session_on(envelope({"confidence": 80, "ismatch": True}))
    pairs = [("p", JPEG), ("bad id", JPEG), ("p", Path("missing.jpg")), ("p", JPEG)]
    async with session.verify_many(pairs, ordered=True) as outcomes:
        found = await outcomes.collect()
    assert [type(None), ValueError, ImageRefusedError, type(None)] == [type(outcome.error) for outcome in found]
    assert [VerifyResult(confidence=80.0, is_match=True)] * 2 == [found[0].unwrap(), found[3].unwrap()]
    assert len(network.sent) == 2


def candidates(**confidences):
    return envelope(
        {"candidates": [{"person_id": p, "face_id": f"{p}{c}", "confidence": c} for p, c in confidences.items()]}
    )


class Groups(Network):
    """Answers identify by the group that is asked for."""

    def __init__(self, **groups):
        super().__init__([])
        self.groups = groups

    async def handle_async_request(self, request):
        body = await request.aread()
        group = next(
            name for name in self.groups if f"\r\n\r\n{name}\r\n".encode() in body or f'"{name}"'.encode() in body
        )
        self.answers = [self.groups[group]]
        return await super().handle_async_request(request)


def in_groups(**groups):
    network = Groups(**groups)
    return FaceSession("1", "b", CREDENTIALS, transport=network), network


async def test_candidates_of_groups_are_merged_by_person():
    """Every person once with the best confidence, the most confident first, at most top of them."""
    session, _ = in_groups(
        staff=candidates(ada=70.0, bob=90.0), guests=candidates(ada=95.0, eve=10.0), empty=candidates()
    )
    found = await session.identify_in_groups(JPEG, ["staff", "guests", "empty"])
    assert [("ada", 95.0), ("bob", 90.0), ("eve", 10.0)] == [
        (each.person_id, each.confidence) for each in found.candidates
    ]
    assert found.best == Candidate(person_id="ada", face_id="ada95.0", confidence=95.0)
    assert ["staff", "guests", "empty"] == list(found.by_group)
    assert found.by_group["empty"] == IdentifyResult(candidates=())
    assert found.errors == {}
    top = await session.identify_in_groups(JPEG, ["staff", "guests"], top=1)
    assert [found.best] == list(top.candidates)
    assert (await session.identify_in_groups(JPEG, ["empty"])).best is None


async def test_a_group_that_fails_need_not_fail_the_others():
    """With errors="collect" they stand beside the results, by their groups."""
    session, _ = in_groups(staff=candidates(ada=70.0), gone=envelope(code=-1306))
    found = await session.identify_in_groups(JPEG, ["gone", "staff", "bad id"], errors="collect")
    assert ["staff"] == list(found.by_group)
    assert {"gone": NotFoundError, "bad id": ValueError} == {
        group: type(error) for group, error in found.errors.items()
    }
    assert found.best.person_id == "ada"


async def test_a_group_that_fails_fails_all():
    """The first error is raised, and nothing more is asked."""
    session, network = in_groups(staff=candidates(ada=70.0), gone=envelope(code=-1306))
    with pytest.raises(NotFoundError):
        await session.identify_in_groups(JPEG, ["gone", "staff"], max_at_once=1)
    assert len(network.sent) == 1
    found = await session.identify_in_groups(JPEG, ["staff"])
    assert found.best.person_id == "ada"


def test_errors_of_groups_are_raised_by_default_wherever_they_may_be_collected():
    """The best candidate may be in the group that failed, so that nobody may take the rest for the whole by mistake."""
    owners = (BulkApi, ShardedGroup)
    verbs = [verb for owner in owners for name, verb in inspect.getmembers(owner, inspect.isfunction) if name[0] != "_"]
    defaults = [found.default for verb in verbs if (found := inspect.signature(verb).parameters.get("errors"))]
    assert ["raise"] * 3 == defaults


async def test_a_wrong_key_fails_all_groups():
    """A code after which nothing can succeed is raised, not collected."""
    session, _ = in_groups(staff=candidates(ada=70.0), guests=envelope(code=14))
    with pytest.raises(AuthError):
        await session.identify_in_groups(JPEG, ["staff", "guests"])


async def test_the_picture_of_many_groups_is_read_once(tmp_path, rng, monkeypatch):
    """A file object serves all groups, a path is opened once, and a URL is passed on."""
    opened = []
    real = os.open
    monkeypatch.setattr(images.os, "open", lambda path, *rest: opened.append(path) or real(path, *rest))
    photo = JPEG + rng.randbytes(300_000)
    (tmp_path / "a.jpg").write_bytes(photo)
    for source in (io.BytesIO(photo), tmp_path / "a.jpg"):
        session, network = in_groups(g1=candidates(ada=1.0), g2=candidates(ada=2.0), g3=candidates(ada=3.0))
        found = await session.identify_in_groups(source, ["g1", "g2", "g3"])
        assert found.best.confidence == 3.0
        assert [True] * 3 == [photo in sent.body for sent in network.sent]
    assert [str(tmp_path / "a.jpg")] == [path for path in opened if str(path).endswith("a.jpg")]
    await session.identify_in_groups("https://example.com/a.jpg", ["g1", "g2"])
    assert ["https://example.com/a.jpg"] * 2 == [json.loads(sent.body)["url"] for sent in network.sent[3:]]


async def test_a_picture_that_cannot_be_read_fails_all_groups():
    """What is wrong with the picture is raised, once, and nothing is sent."""
    session, network = in_groups(a=candidates())
    with pytest.raises(ImageRefusedError, match="No such file"):
        await session.identify_in_groups("missing.jpg", ["a"])
    with pytest.raises(TypeError, match="not int"):
        await session.identify_in_groups(7, ["a"])
    assert network.sent == []


async def test_a_picture_over_the_limit_is_refused_for_every_group(tmp_path):
    """A huge picture is sent to no group; a file object of it is not taken for its beginning."""
    session, network = in_groups(a=candidates())
    path = tmp_path / "large.jpg"
    path.write_bytes(JPEG + bytes(2_000_000))
    for source in (path, io.BytesIO(path.read_bytes()), path.read_bytes()):
        found = await session.identify_in_groups(source, ["a"], errors="collect")
        assert [RequestTooLargeError] == [type(error) for error in found.errors.values()]
    assert network.sent == []


async def test_groups_are_named_once_each():
    """No group, a group twice, a single str or top below 1 are wrong arguments."""
    session, network = in_groups(a=candidates())
    with pytest.raises(ValueError, match="at least one group"):
        await session.identify_in_groups(JPEG, [])
    with pytest.raises(ValueError, match="none twice"):
        await session.identify_in_groups(JPEG, ["a", "b", "a"])
    with pytest.raises(TypeError, match=r"write \['staff'\]"):
        await session.identify_in_groups(JPEG, "staff")
    with pytest.raises(ValueError, match="top must be 1"):
        await session.identify_in_groups(JPEG, ["a"], top=0)
    with pytest.raises(ValueError, match="max_at_once"):
        await session.identify_in_groups(JPEG, ["a"], max_at_once=0)
    with pytest.raises(ValueError, match="errors must be 'collect' or 'raise'"):
        await session.identify_in_groups(JPEG, ["a"], errors="ignore")
    assert network.sent == []


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
