"""The ledger of persons and groups: places in several groups at once, and groups that are to be made."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from bulkkit import Service, is_unused, settled

from face_async import FaceError, GroupLimitError, PersonLimitError, ServiceLimits
from face_async.bulk.ledger import GROUPS, Balance, Key, LimitLedger
from face_async.errors import service_error

pytestmark = pytest.mark.anyio

STAFF = Key("persons", "staff")


async def test_a_person_takes_one_place_in_every_group_and_makes_those_that_are_missing():
    service = Service(staff=["bob"])
    ledger = LimitLedger(service)
    reservation = await ledger.person(["staff", "hq", "guests"])
    assert 1 == reservation.granted
    assert ["getpersonids staff", "getpersonids hq", "getpersonids guests", "getgroupids"] == service.asked
    assert Balance(confirmed=1, reserved=2, ambiguous=0, limit=5_000) == ledger.snapshot(GROUPS)
    reservation.commit(1, ["staff", "hq"])  # a partial result
    assert Balance(confirmed=2, reserved=0, ambiguous=0, limit=5_000) == ledger.snapshot(GROUPS)
    assert [2, 1, 0] == [ledger.snapshot(Key("persons", group)).confirmed for group in ("staff", "hq", "guests")]
    (await ledger.person(["hq"])).commit(1)
    assert 2 == ledger.snapshot(Key("persons", "hq")).confirmed


async def test_a_group_that_two_persons_create_counts_once():
    """Both reserve it, since neither may get to it; the second finds it there."""
    ledger = LimitLedger(Service(), ServiceLimits(max_groups_per_appid=2))
    reservations = [await ledger.person(["new"]) for _ in range(2)]
    assert 2 == ledger.snapshot(GROUPS).reserved
    for reservation in reservations:
        reservation.commit(1)
    assert Balance(confirmed=1, reserved=0, ambiguous=0, limit=2) == ledger.snapshot(GROUPS)
    assert 2 == ledger.snapshot(Key("persons", "new")).confirmed


async def test_who_waits_for_a_new_group_goes_on_when_somebody_else_has_made_it():
    """It is not refused though the appid is full by then."""
    ledger = LimitLedger(Service(staff=[]), ServiceLimits(max_groups_per_appid=2))
    granted = []

    async def join():
        granted.append(await ledger.person(["new"]))

    async with anyio.create_task_group() as tasks:
        maker = await ledger.person(["new"])
        tasks.start_soon(join)
        await settled()
        assert [] == granted
        maker.commit(1)
    assert 1 == len(granted)
    with pytest.raises(GroupLimitError, match=r"has 2 of the 2 groups .*groups that exist"):
        await ledger.person(["another"])


async def test_who_needs_no_new_group_does_not_wait_for_those_who_do():
    ledger = LimitLedger(Service(staff=[]), ServiceLimits(max_groups_per_appid=2))
    maker = await ledger.person(["new"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.person, ["new"])
        await settled()
        (await ledger.person(["staff"])).release()
        maker.release()


@pytest.mark.parametrize("wanted", [["hq", "fourth"], ["hq", "third", "fourth"]])
async def test_who_is_refused_while_asking_for_a_list_leaves_it_to_the_next(wanted):
    """One list is under way at most, and nothing is granted meanwhile, not even to who needs less."""
    service = Service(staff=["bob"], hq=[])
    ledger = LimitLedger(service, ServiceLimits(max_persons_per_group=2, max_groups_per_appid=4))
    for groups in (["hq", "first"], ["second", "third"], ["fourth"]):
        (await ledger.person(groups)).release()
    (await ledger.person(["first"])).doubt()
    in_flight = await ledger.person(["staff"])
    granted, refused = [], []

    async def join(*groups):
        try:
            granted.append(await ledger.person(groups))
        except PersonLimitError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        service.shut()
        sent = len(service.asked)
        tasks.start_soon(join, "staff", "first", "second")
        await settled()
        tasks.start_soon(join, *wanted)
        await settled()
        in_flight.commit(1)
        await settled()
        assert [] == granted
        service.open.set()
    assert (1, 1) == (len(refused), len(granted))
    assert ["getgroupids"] == service.asked[sent:]


async def test_full_groups_are_refused_and_nothing_is_held():
    limits = ServiceLimits(max_persons_per_group=2, max_groups_per_appid=3)
    ledger = LimitLedger(Service(staff=["a", "b"], hq=["a"]), limits)
    with pytest.raises(PersonLimitError, match="'staff' has 2 of the 2 persons"):
        await ledger.person(["hq", "staff"])
    with pytest.raises(GroupLimitError, match="no room for 2 more"):
        await ledger.person(["hq", "new", "newer"])
    assert is_unused(ledger)
    (await ledger.person(["hq", "new"])).commit(1)


@pytest.mark.parametrize(("code", "distrusted"), [(-1310, STAFF), (-1311, GROUPS)])
async def test_a_refusal_tells_persons_from_groups(code, distrusted):
    ledger = LimitLedger(Service(staff=["a"]))
    with pytest.raises(FaceError), await ledger.person(["staff", "new"]) as reservation:
        raise service_error(code, endpoint="newperson")
    assert repr(reservation).endswith("persons staff, persons new, groups: refused>")
    trusted = [key for key in (STAFF, GROUPS) if ledger.snapshot(key) is not None]
    assert [key for key in (STAFF, GROUPS) if key != distrusted] == trusted


async def test_an_appid_without_groups_may_say_so_by_a_code():
    service = Service()
    service.failures = [service_error(-1306, endpoint="getpersonids"), service_error(-1307, endpoint="getgroupids")]
    ledger = LimitLedger(service)
    (await ledger.person(["staff"])).release()
    assert Balance(confirmed=0, reserved=0, ambiguous=0, limit=5_000) == ledger.snapshot(GROUPS)


async def test_overlapping_groups_never_block_each_other_for_ever(rng, full):
    """All come to an end, no group is ever over its limit, and none is refused that is not full."""
    limits = ServiceLimits(max_persons_per_group=12, max_groups_per_appid=5)
    names = ["a", "b", "c", "d", "e", "f", "g"]
    for _ in range(50 if full else 5):
        service = Service(a=["x"] * 5, b=[])
        ledger = LimitLedger(service, limits, max_idle=3)

        async def join(groups, end, ledger=ledger, service=service):
            try:
                with await ledger.person(groups) as reservation:
                    await anyio.lowlevel.checkpoint()
                    if end in {"commit", "doubt"}:
                        service.join(groups)
                    getattr(reservation, end.removeprefix("vain "))(*[1] * (end == "commit"))
            except PersonLimitError:
                assert 12 in [len(service.groups.get(group, ())) for group in groups]
            except GroupLimitError:
                assert len(service.groups.keys() | groups) > 5
            assert len(service.groups) <= 5
            assert all(len(persons) <= 12 for persons in service.groups.values())

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                groups = rng.sample(names, rng.randint(1, 3))
                tasks.start_soon(join, groups, rng.choice(["commit", "release", "doubt", "vain doubt"]))
        assert is_unused(ledger)
