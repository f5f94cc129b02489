"""The throttle: places, rate and bytes, lent in order, never too many, and less of all after code 15."""

from __future__ import annotations

import itertools
import time

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from doubles import CREDENTIALS, envelope, session_on

from face_async import DeadlineError, FaceSession, RateLimitedError, RetryPolicy, Throttle, ThrottleState
from face_async._call.throttle import RunningThrottle, WeightedLimiter

pytestmark = pytest.mark.anyio

PERSON = envelope({"person_id": "p", "session_id": ""})
AT_ONCE = RetryPolicy(base_delay=0)


class Clock:
    """A clock that stands still until it is told otherwise."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrency": 0},
        {"max_rate": 0},
        {"max_rate": -1.5},
        {"burst": 0},
        {"max_bytes_in_flight": 0},
    ],
)
def test_bounds_are_more_than_nothing(wrong):
    """A throttle that would let nothing through is a ValueError."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Throttle(**wrong)


@pytest.mark.parametrize("wrong", [{"max_concurrency": 1.5}, {"burst": "3"}, {"max_bytes_in_flight": None}])
def test_bounds_are_numbers(wrong):
    """Half a call is a TypeError."""
    with pytest.raises(TypeError, match=next(iter(wrong))):
        Throttle(**wrong)


# Limiter


async def test_a_room_lends_in_the_order_of_asking():
    """Who came first is served first, also when a later one would fit sooner."""
    limiter = WeightedLimiter(10)
    served = []

    async def ask(name, amount):
        await limiter.acquire(amount)
        served.append(name)

    assert limiter.acquire_now(8)
    async with anyio.create_task_group() as tasks:
        for name, amount in [("large", 6), ("small", 5)]:
            tasks.start_soon(ask, name, amount)
            await anyio.wait_all_tasks_blocked()
        assert (not limiter.acquire_now(1), limiter.waiting, served) == (True, 2, [])
        limiter.release(8)
        await anyio.wait_all_tasks_blocked()
        assert (served, limiter.held, limiter.waiting) == (["large"], 6, 1)
        limiter.release(6)
    assert (served, limiter.held, limiter.waiting) == (["large", "small"], 5, 0)


async def test_who_wants_more_than_there_is_goes_alone():
    """A body larger than all that may be in flight is sent when nothing else is."""
    limiter = WeightedLimiter(10)
    assert limiter.acquire_now(25)
    assert not limiter.acquire_now(1)
    limiter.release(25)
    assert limiter.acquire_now(1)


async def test_a_room_made_smaller_waits_until_it_is_so():
    """What is lent stays lent; nobody enters until less than the new size is."""
    limiter = WeightedLimiter(4)
    assert [limiter.acquire_now(1) for _ in range(4)] == [True] * 4
    limiter.resize(2)
    for expected in (False, False, True):
        limiter.release(1)
        assert limiter.acquire_now(1) is expected or not expected
    limiter.resize(8)
    assert limiter.held <= 8


async def test_a_cancelled_one_gives_its_turn_to_the_next():
    """Cancelled while waiting, or at the very moment of its turn: nothing stays lent, nobody is stuck."""
    limiter = WeightedLimiter(1)
    assert limiter.acquire_now(1)
    served = []

    async def ask(name, scope):
        with scope:
            await limiter.acquire(1)
            served.append(name)
            limiter.release(1)

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for name, scope in enumerate(scopes):
            tasks.start_soon(ask, name, scope)
            await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()  # while it waits
        await anyio.wait_all_tasks_blocked()
        limiter.release(1)  # now it is the first one's turn,
        scopes[0].cancel()  # who is cancelled before it can take it
    assert (served[-1], limiter.held, limiter.waiting) == (2, 0, 0)
    assert 1 not in served


async def test_a_cancelled_large_one_makes_way_for_small_ones_behind_it():
    """Those who waited only because of the order go on at once."""
    limiter = WeightedLimiter(10)
    assert limiter.acquire_now(5)
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def large():
            with scope:
                await limiter.acquire(10)

        tasks.start_soon(large)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(limiter.acquire, 2)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert (limiter.held, limiter.waiting) == (7, 0)


async def test_whatever_is_cancelled_a_room_never_lends_too_much_and_ends_empty(rng, full):
    """Random amounts, pauses and cancellations: the bound holds at every moment, and nothing stays lent."""
    limiter = WeightedLimiter(20)
    done = itertools.count()
    cancelled = 0

    async def borrower():
        nonlocal cancelled
        amount, steps = rng.randint(1, 9), rng.randint(0, 4)
        with anyio.CancelScope() as scope:
            if rng.random() < 0.5:
                scope.deadline = anyio.current_time() + rng.random() / 1_000
            await limiter.acquire(amount)
            try:
                assert limiter.held <= 20
                for _ in range(steps):
                    await checkpoint()
            finally:
                limiter.release(amount)
        cancelled += scope.cancelled_caught
        next(done)

    for _ in range(500 if full else 10):
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(borrower)
    assert (limiter.held, limiter.waiting) == (0, 0)
    assert cancelled


# Running throttle


def test_a_rate_lets_a_burst_through_and_then_one_at_a_time():
    """Ten a second with a burst of three: three at once, then one every tenth of a second; rest refills the burst."""
    clock = Clock()
    throttle = RunningThrottle(Throttle(max_rate=10, burst=3), clock)
    assert [throttle.seconds_to_wait() for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    clock.now += 1_000
    assert [throttle.seconds_to_wait() for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


@pytest.mark.parametrize(("rate", "burst"), [(5, 5), (2.5, 2), (0.2, 1)])
def test_a_burst_is_a_second_of_the_rate_by_default(rate, burst):
    """Slower than one a second it is one request."""
    throttle = RunningThrottle(Throttle(max_rate=rate), Clock())
    assert [throttle.seconds_to_wait() for _ in range(burst + 1)] == pytest.approx([0] * burst + [1 / rate])


def test_without_a_rate_nobody_waits():
    """The rate is unbounded by default."""
    throttle = RunningThrottle(Throttle())
    assert {throttle.seconds_to_wait() for _ in range(1_000)} == {0}


def test_code_15_halves_places_and_rate_once_for_a_burst():
    """Those who were sent before the slow-down count with it; then places grow back slowly."""
    throttle = RunningThrottle(Throttle(max_concurrency=64, max_rate=100), Clock())
    for _ in range(20):
        throttle.slow_down(0)
    assert (throttle.state.concurrency, throttle.state.rate, throttle.state.slowdowns) == (32, 50, 1)
    throttle.slow_down(1)
    assert (throttle.state.concurrency, throttle.state.rate, throttle.state.slowdowns) == (16, 25, 2)
    for _ in range(170):
        throttle.recover()
    assert throttle.state.concurrency == 17
    for _ in range(100_000):
        throttle.recover()
    assert (throttle.state.concurrency, throttle.state.rate) == (64, 100)


def test_slowing_down_and_recovering_set_no_request_free():
    """As many are sent at once after it as would have been before."""
    clock = Clock()
    throttle = RunningThrottle(Throttle(max_concurrency=8, max_rate=10, burst=10), clock)
    assert [throttle.seconds_to_wait() for _ in range(11)] == pytest.approx([0.0] * 10 + [0.1])
    clock.now += 0.5  # which frees five, one of them for the eleventh
    for turn in range(3):
        throttle.slow_down(turn)
    assert [throttle.seconds_to_wait() for _ in range(6)] == pytest.approx([0.0] * 4 + [0.8, 1.6], abs=1e-6)
    while throttle.state.rate < 10:
        throttle.recover()
    assert throttle.seconds_to_wait() == pytest.approx(0.3, abs=1e-6)


def test_there_is_always_one_place():
    """However often the service says 15, one call goes on."""
    throttle = RunningThrottle(Throttle(max_concurrency=3))
    for turn in range(10):
        throttle.slow_down(turn)
    assert throttle.state.concurrency == 1


# The session's throttle


async def test_a_session_slows_down_on_code_15_and_recovers():
    """The state stands in stats; a success brings a little of it back."""
    answers = [envelope(code=15)] * 3 + [PERSON]
    session, network = session_on(*answers, retry=AT_ONCE, throttle=Throttle(max_concurrency=8))
    with pytest.raises(RateLimitedError):
        await session.set_info("p", tag="x")
    assert session.stats.throttle == ThrottleState(concurrency=1, slowdowns=3)
    for _ in range(400):
        await session.set_info("p", tag="x")
    assert session.stats.throttle == ThrottleState(concurrency=8, slowdowns=3)
    assert len(network.sent) == 403


async def test_the_rate_counts_retries_too_and_shows_as_queueing():
    """Ten requests at a hundred a second with no burst take ninety milliseconds at least, whoever sends them."""
    session, _ = session_on(*[envelope(code=107), PERSON] * 5, retry=AT_ONCE, throttle=Throttle(max_rate=100, burst=1))
    started = time.monotonic()
    results = [await session.set_info("p", tag="x") for _ in range(5)]
    assert time.monotonic() - started >= 0.09
    assert sum(result.meta.queued for result in results) == pytest.approx(session.stats.seconds_queued)


async def test_a_turn_that_comes_after_the_deadline_is_not_waited_for():
    """The call fails at once, with nothing sent."""
    session, network = session_on(PERSON, throttle=Throttle(max_rate=0.001, burst=1))
    await session.set_info("p", tag="x")
    with pytest.raises(DeadlineError) as caught:
        await session.set_info("p", tag="x")
    assert (caught.value.maybe_applied, caught.value.attempts, len(network.sent)) == (False, 0, 1)


async def test_bytes_in_flight_are_bounded():
    """Pictures queue for their bytes; one larger than the bound goes alone; stats tell how much there is."""
    flying = most = 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            nonlocal flying, most
            size = int(request.headers["content-length"])
            flying += size
            most = max(most, flying)
            for _ in range(5):
                await checkpoint()
            assert session.stats.throttle.bytes_in_flight >= flying
            flying -= size
            return httpx.Response(200, content=envelope({"candidates": []}))

    throttle = Throttle(max_bytes_in_flight=100_000)
    async with (
        FaceSession("1", "b", CREDENTIALS, transport=Slow(), throttle=throttle) as session,
        anyio.create_task_group() as tasks,
    ):
        for size in [30_000] * 10 + [150_000] + [1_000] * 10:
            tasks.start_soon(session.identify, "g", b"\xff\xd8\xff" + bytes(size))
    assert 90_000 < most < 152_000
    assert session.stats.throttle == ThrottleState(concurrency=64)


async def test_a_copy_may_have_a_throttle_of_its_own():
    """It neither waits for the places of the others nor takes any."""
    session, _ = session_on(PERSON, throttle=Throttle(max_concurrency=1))
    apart = session.with_options(throttle=Throttle(max_concurrency=2))
    assert session._throttle.places.acquire_now(1)
    await apart.set_info("p", tag="x")
    with pytest.raises(DeadlineError):
        await session.with_options(deadline=0.01).set_info("p", tag="x")
    assert (session.stats.throttle.concurrency, apart.stats.throttle.concurrency) == (1, 2)


async def test_who_is_not_sent_gives_the_turn_back():
    """Calls that are too late or cancelled in the queue do not slow those down that come after them."""
    session, network = session_on(PERSON, throttle=Throttle(max_rate=0.01, burst=1), deadline=90)
    await session.set_info("p", tag="x")
    for _ in range(20):
        with pytest.raises(DeadlineError):
            await session.with_options(deadline=1).set_info("p", tag="x")
        with anyio.move_on_after(0):
            await session.with_options(deadline=1_000).set_info("p", tag="x")
    assert 90 < session._throttle.seconds_to_wait() <= 100
    assert len(network.sent) == 1


async def test_code_15_costs_no_retry_quota():
    """What the throttle bounds already needs no other bound: a busy service is asked again as often as it takes."""
    session, network = session_on(*[envelope(code=15), PERSON] * 500, retry=AT_ONCE)
    for _ in range(500):
        assert (await session.set_info("p", tag="x")).meta.attempts == 2
    assert len(network.sent) == 1_000


async def test_a_page_that_says_too_many_requests_slows_down_as_well():
    """HTTP 429 is code 15 from whatever stands before the service."""
    session, _ = session_on((b"<html>", 429), PERSON, retry=AT_ONCE)
    await session.set_info("p", tag="x")
    assert session.stats.throttle.slowdowns == 1


def test_a_rate_without_end_is_none():
    """Who wants no bound says None."""
    with pytest.raises(ValueError, match="max_rate"):
        Throttle(max_rate=float("inf"))
