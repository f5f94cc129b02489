"""Who waits for the ledger: one list for all, errors and cancellations that leave nothing behind, and fair costs."""

from __future__ import annotations

import contextlib
import gc

import anyio
import anyio.lowlevel
import pytest
from bulkkit import ADA, Service, is_unused, settled

from face_async import FaceError, FaceLimitError, NotFoundError, PersonLimitError, ServiceLimits, TransportError
from face_async.bulk.allowances import Allowance, Ticket
from face_async.bulk.ledger import Key, LimitLedger
from face_async.errors import service_error

pytestmark = pytest.mark.anyio

LIST_FAILED = TransportError("no answer", endpoint="getfaceids", maybe_applied=False)


async def test_hundreds_at_once_ask_for_one_list():
    service = Service()
    ledger = LimitLedger(service)

    async def add():
        with await ledger.faces("ada", 1):
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(add)
    assert ["getfaceids ada"] == service.asked


async def test_a_failed_list_is_the_answer_for_all_who_waited_for_it():
    """An outage is not multiplied by the number of tasks; each gets an error of its own; the next one asks again."""
    service = Service()
    service.failures = [LIST_FAILED]
    ledger = LimitLedger(service)
    errors = []

    async def add():
        try:
            await ledger.faces("ada", 1)
        except FaceError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(add)
    assert [("no answer", "getfaceids")] * 5 == [(str(error), error.endpoint) for error in errors]
    assert 5 == len({id(error) for error in errors})
    assert (1, None) == (len(service.asked), ledger.snapshot(ADA))
    assert 1 == (await ledger.faces("ada", 1)).granted


async def test_a_failed_list_lets_those_go_on_who_only_stood_behind():
    """Whose own groups can be listed is served, though somebody before them in line was not."""
    service = Service(a=[], b=[])
    ledger = LimitLedger(service)
    (await ledger.person(["b"])).release()
    service.shut()
    granted, failed = [], []

    async def join(*groups):
        try:
            granted.append(await ledger.person(groups))
        except TransportError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for groups in (["a"], ["b", "a"], ["b"]):
            tasks.start_soon(join, *groups)
            await settled()
        service.failures = [LIST_FAILED]
        service.open.set()
    assert (1, 2) == (len(granted), len(failed))


async def test_errors_of_the_list_go_to_the_caller():
    """A person or bucket that does not exist is not an empty one."""
    service = Service()
    ledger = LimitLedger(service)
    with pytest.raises(NotFoundError, match="-1303"):
        await ledger.faces("nobody", 1)
    service.failures = [service_error(16, endpoint="getpersonids")]
    with pytest.raises(NotFoundError, match="16"):
        await ledger.person(["staff"])
    assert "<LimitLedger: 0 keys known, 0 in use, 0 reserved, 0 waiting>" == repr(ledger)


async def test_an_error_leaves_no_garbage_behind():
    """Errors do not hang on themselves, so that what the tasks hold goes with them."""
    service = Service(faces=range(20))
    ledger = LimitLedger(service)

    async def add(person):
        with pytest.raises(FaceError):
            await ledger.faces(person, 1)

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        async with anyio.create_task_group() as tasks:
            for person in ["ada", "nobody"] * 3:
                tasks.start_soon(add, person)
        gc.collect()
        assert [] == [item for item in gc.garbage if isinstance(item, Ticket | FaceError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_when_the_asking_task_is_cancelled_another_one_asks():
    """Also when it fails by something else than the service, which is its own affair."""
    service = Service()
    service.shut()
    ledger = LimitLedger(service)
    granted = []

    async def add(scope):
        with scope:
            granted.append(await ledger.faces("ada", 1))

    async def stumble():
        with pytest.raises(RuntimeError, match="the session is closed"):
            await ledger.faces("ada", 1)

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(3)]
        tasks.start_soon(add, scopes[0])
        await settled()
        tasks.start_soon(stumble)
        await settled()
        for scope in scopes[1:]:
            tasks.start_soon(add, scope)
        await settled()
        scopes[0].cancel()
        await settled()
        assert 2 == len(service.asked)
        service.failures = [RuntimeError("the session is closed")]
        service.open.set()
    assert (2, 3) == (len(granted), len(service.asked))


@pytest.mark.parametrize(("end", "faces"), [("commit", 14), ("release", 17), ("doubt", 17)])
@pytest.mark.parametrize("checkpoints", range(20))
async def test_cancelled_at_any_await_it_leaves_nothing_behind(checkpoints, end, faces):
    """While waiting for what is in flight, for a list, for room, in the instant of the grant: others never notice."""
    ledger = LimitLedger(service := Service(faces=range(faces)))
    in_flight = await ledger.faces("ada", 1)
    ledger.forget(ADA)  # so that the first in line waits for what is in flight, and then asks for a list
    scopes = [anyio.CancelScope() for _ in range(4)]
    granted = []

    async def add(name, count):
        with scopes[name], await ledger.faces("ada", count) as reservation:
            granted.append(name)
            await anyio.lowlevel.checkpoint()
            if end == "commit":
                reservation.commit(count, service.add(count))
            elif end == "doubt":
                reservation.doubt()

    async with anyio.create_task_group() as tasks:
        for name, count in enumerate((1, 1, 2, 1)):
            tasks.start_soon(add, name, count)
            await anyio.lowlevel.checkpoint()
        for checkpoint in range(20):
            if checkpoint == 5:
                in_flight.release()
            if checkpoint == checkpoints:
                scopes[0].cancel()
                scopes[2].cancel()
            await anyio.lowlevel.checkpoint()
    assert {1, 3} <= set(granted)
    assert is_unused(ledger)
    (await ledger.faces("ada", 20 - len(service.faces["ada"]))).release()


async def test_ten_thousand_cancellations_leave_nothing_behind(rng, full):
    """Persons and groups, lists that fail, every end, cancelled anywhere: no reservation and no waiter stays."""
    limits = ServiceLimits(max_faces_per_person=4, max_persons_per_group=3, max_groups_per_appid=3)
    ledger = LimitLedger(service := Service(a=["x"]), limits, max_idle=2)
    cancelled = 0

    async def use():
        ask = rng.choice([lambda: ledger.faces("ada", rng.randint(1, 4), at_least=1), lambda: ledger.person(groups)])
        groups = rng.sample(["a", "b", "c", "d"], rng.randint(1, 3))
        try:
            with await ask() as reservation:
                for _ in range(rng.randint(0, 3)):
                    await anyio.lowlevel.checkpoint()
                rng.choice([lambda: reservation.commit(rng.randint(0, 1)), reservation.doubt, int])()
        except FaceError:
            ledger.forget()

    async def one(delay):
        nonlocal cancelled
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                for _ in range(delay):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        cancelled += scope.cancelled_caught

    wanted = 10_000 if full else 300
    while cancelled < wanted:
        service.failures = [LIST_FAILED] * rng.randint(0, 1)
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one, rng.randint(0, 12))
        assert is_unused(ledger)
    service.failures = []
    ledger.forget()
    assert 4 == (await ledger.faces("ada", 4)).granted


async def test_two_hundred_at_once_never_exceed_the_limit_and_are_never_refused_falsely(rng, full):
    """Some commit, some release, some doubt what happened or did not: the person ends up with 20 faces."""
    for _ in range(30 if full else 3):
        service = Service(faces=range(rng.randint(0, 19)))
        ledger = LimitLedger(service)

        async def add(count, least, end, ledger=ledger, service=service):
            try:
                with await ledger.faces("ada", count, at_least=least) as reservation:
                    for _ in range(rng.randint(0, 3)):
                        await anyio.lowlevel.checkpoint()
                    balance = ledger.snapshot(ADA)
                    assert balance.confirmed + balance.reserved + balance.ambiguous <= 20
                    if end == "commit":
                        used = rng.randint(1, reservation.granted)
                        reservation.commit(used, service.add(used))
                    else:
                        service.add(reservation.granted if end == "doubt" else 0)
                        getattr(reservation, end.removeprefix("vain "))()
            except FaceLimitError:
                assert len(service.faces["ada"]) + least > 20
            assert len(service.faces["ada"]) <= 20

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                count = rng.randint(1, 3)
                end = rng.choice(["commit", "release", "doubt", "vain doubt"])
                tasks.start_soon(add, count, rng.randint(1, count), end)
        assert is_unused(ledger)
        assert 20 == len(service.faces["ada"])


async def test_a_thousand_waiters_cost_no_more_each_than_a_few(monkeypatch):
    """What is looked at grows with their number, not with its square."""
    looked_at = 0
    decide = Ticket.decide

    def counted(ticket, *changed):
        nonlocal looked_at
        looked_at += 1
        return decide(ticket, *changed)

    monkeypatch.setattr(Ticket, "decide", counted)
    ledger = LimitLedger(Service(faces=range(19)))

    async def add():
        with await ledger.faces("ada", 1):
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(1_000):
            tasks.start_soon(add)
    assert looked_at < 5 * 1_000


async def test_a_thousand_groups_cost_no_more_each_than_a_few(monkeypatch):
    """What is looked at grows with their number, not with its square: for a person alone, and for one who waits."""
    looked_at = 0
    is_first = Allowance.first.fget

    def counted(allowance):
        nonlocal looked_at
        looked_at += 1
        return is_first(allowance)

    monkeypatch.setattr(Allowance, "first", property(counted))
    groups = [f"group{index}" for index in range(1_000)]
    ledger = LimitLedger(Service(**dict.fromkeys(groups, ())), ServiceLimits(max_persons_per_group=1))

    async def put_in_all():
        with contextlib.suppress(PersonLimitError), await ledger.person(groups) as reservation:
            await anyio.lowlevel.checkpoint()
            reservation.commit(1, groups)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_in_all)
        tasks.start_soon(put_in_all)
    assert looked_at < 40 * 1_000


async def test_a_group_that_is_distrusted_while_a_person_waits_for_others_is_counted_anew():
    """Although there was room in it when the person entered its line."""
    service = Service(full=["bob"], free=[])
    ledger = LimitLedger(service, ServiceLimits(max_persons_per_group=2))
    held = await ledger.person(["full"])
    (await ledger.person(["free"])).release()
    async with anyio.create_task_group() as tasks:

        async def put_in_both():
            (await ledger.person(["free", "full"])).release()

        tasks.start_soon(put_in_both)
        await anyio.wait_all_tasks_blocked()
        service.asked.clear()
        ledger.forget(Key("persons", "free"))
        held.release()
    assert ["getpersonids free"] == service.asked


async def test_keys_that_nobody_uses_are_dropped_the_longest_unused_first():
    """Memory does not grow with the number of persons; what is in use stays."""
    service = Service()
    service.faces = {f"person{index}": [] for index in range(10)}
    ledger = LimitLedger(service, max_idle=3)
    held = await ledger.faces("person0", 1)
    for index in (*range(1, 5), 2, *range(5, 7)):
        (await ledger.faces(f"person{index}", 1)).release()
    known = [index for index in range(10) if ledger.snapshot(Key("faces", f"person{index}")) is not None]
    assert [0, 2, 5, 6] == known
    assert "<LimitLedger: 4 keys known, 1 in use, 1 reserved, 0 waiting>" == repr(ledger)
    assert 7 == len(service.asked)
    held.release()
