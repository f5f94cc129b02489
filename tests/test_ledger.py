"""The ledger: never over a limit, never a false refusal, nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import itertools

import anyio
import anyio.lowlevel
import httpx
import pytest
from serverkit import ToyRecognizer, picture

from face_async import (
    Credentials,
    FaceError,
    FaceLimitError,
    FaceSession,
    GroupLimitError,
    NotFoundError,
    PersonLimitError,
    ResponseError,
    ServiceLimits,
    TransportError,
)
from face_async.bulk.allowances import Allowance, Ticket
from face_async.bulk.ledger import GROUPS, Balance, Key, LimitLedger
from face_async.endpoints import FaceApi
from face_async.errors import service_error
from face_async.server import Store, create_app

pytestmark = pytest.mark.anyio

ADA = Key("faces", "ada")
STAFF = Key("persons", "staff")
LIST_FAILED = TransportError("no answer", endpoint="getfaceids", maybe_applied=False)


class Service(FaceApi):
    """A service that keeps names, answers the three lists, and notes who asked; it answers when it is let."""

    def __init__(self, *, faces=(), **groups):
        self.faces = {"ada": list(faces)}
        self.groups = {group: list(persons) for group, persons in groups.items()}
        self.asked = []
        self.failures = []
        self.open = anyio.Event()
        self.open.set()
        self._ids = itertools.count()

    async def _call(self, endpoint, fields, images=None):
        self.asked.append(" ".join([endpoint.name, *fields.values()]))
        await anyio.lowlevel.checkpoint()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        known = {"getfaceids": self.faces, "getpersonids": self.groups, "getgroupids": {None: tuple(self.groups)}}
        missing = {"getfaceids": -1303, "getpersonids": -1306}
        try:
            return tuple(known[endpoint.name][next(iter(fields.values()), None)])
        except KeyError:
            raise service_error(missing[endpoint.name], endpoint=endpoint.name) from None

    def shut(self):
        self.open = anyio.Event()

    def add(self, count=1, person="ada"):
        """Add faces, and return their ids."""
        new = [f"face{next(self._ids)}" for _ in range(count)]
        self.faces[person] += new
        return new

    def join(self, groups):
        """Put a new person into groups."""
        name = f"person{next(self._ids)}"
        for group in groups:
            self.groups.setdefault(group, []).append(name)


async def settled():
    """Let all tasks go on as far as they get without the outside world."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


def is_unused(ledger):
    """Whether nothing is reserved, nobody waits, and no key is taken for used."""
    return repr(ledger).endswith(" 0 in use, 0 reserved, 0 waiting>")


# Counting


async def test_a_person_is_counted_by_one_list_call_and_then_by_what_happens():
    """Seeded once; reserve, commit, release and doubt move the counts, and what was not used is given back."""
    service = Service(faces=["a", "b"])
    ledger = LimitLedger(service)
    assert ledger.snapshot(ADA) is None

    used, unused, unclear = [await ledger.faces("ada", count) for count in (3, 4, 5)]
    assert Balance(confirmed=2, reserved=12, ambiguous=0, limit=20) == ledger.snapshot(ADA)
    used.commit(2, ["c", "d"])
    assert Balance(confirmed=4, reserved=9, ambiguous=0, limit=20) == ledger.snapshot(ADA)
    unused.release()
    unclear.doubt()
    assert Balance(confirmed=4, reserved=0, ambiguous=5, limit=20) == ledger.snapshot(ADA)
    assert ["getfaceids ada"] == service.asked


async def test_what_is_granted_is_all_or_as_much_as_will_do():
    """Without at_least exactly what was asked for; with it as much as there is room for."""
    ledger = LimitLedger(Service(faces=range(14)))
    exact = await ledger.faces("ada", 3)
    some = await ledger.faces("ada", 20, at_least=1)
    assert (3, 3) == (exact.granted, some.granted)


async def test_a_full_person_is_refused_at_once_with_what_to_do():
    """Nothing waits for what cannot come, not even behind others that wait; the counts are in the message."""
    ledger = LimitLedger(Service(faces=range(18)))
    with pytest.raises(FaceLimitError, match=r"'ada' has 18 of the 20 faces .* no room for 3 more; delete faces"):
        await ledger.faces("ada", 3)
    async with anyio.create_task_group() as tasks:
        held = await ledger.faces("ada", 2)
        tasks.start_soon(ledger.faces, "ada", 2)
        await settled()
        with pytest.raises(FaceLimitError):
            await ledger.faces("ada", 3)
        held.release()


async def test_nobody_is_refused_for_what_is_only_reserved():
    """They wait until it is released, or until it is committed and the room really used up."""
    ledger = LimitLedger(Service(faces=range(18)))
    granted, refused = [], []

    async def one():
        try:
            granted.append(await ledger.faces("ada", 1))
        except FaceLimitError as error:
            refused.append(error)

    first, second = [await ledger.faces("ada", 1) for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
        await settled()
        assert ([], []) == (granted, refused)
        first.release()
        await settled()
        assert (1, 0) == (len(granted), len(refused))
        second.commit(1)
        granted[0].commit(1)
    assert (1, 1) == (len(granted), len(refused))


async def test_who_waits_is_served_in_the_order_of_coming():
    """A large wish is not overtaken by small ones for ever."""
    ledger = LimitLedger(Service(faces=range(17)))
    order = []

    async def take(count):
        with await ledger.faces("ada", count):
            order.append(count)
            await settled()

    async with anyio.create_task_group() as tasks:
        held = await ledger.faces("ada", 1)
        for count in (3, 2, 3):
            tasks.start_soon(take, count)
            await settled()
        held.release()
    assert [3, 2, 3] == order
    assert is_unused(ledger)


async def test_what_is_ambiguous_is_counted_anew_before_anyone_is_refused():
    """It counts as used while there is room beside it; then the service is asked, whose word is exact."""
    service = Service(faces=range(17))
    ledger = LimitLedger(service)
    (await ledger.faces("ada", 2)).doubt()
    (await ledger.faces("ada", 1)).release()
    assert 1 == len(service.asked)

    with await ledger.faces("ada", 2) as never_happened:
        assert 2 == len(service.asked)
        assert Balance(confirmed=17, reserved=2, ambiguous=0, limit=20) == ledger.snapshot(ADA)
        service.add(2)
        never_happened.doubt()
    with pytest.raises(FaceLimitError, match="19 of the 20"):
        await ledger.faces("ada", 2)
    assert 3 == len(service.asked)


async def test_nothing_is_counted_anew_while_something_is_in_flight():
    """A listed face may be one of those reserved: the list is asked for when the last of them has ended."""
    service = Service(faces=range(16))
    ledger = LimitLedger(service)
    (await ledger.faces("ada", 1)).doubt()
    in_flight = await ledger.faces("ada", 3)
    granted = []

    async def take():
        granted.append(await ledger.faces("ada", 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        ids = service.add(3)
        await settled()
        assert (1, []) == (len(service.asked), granted)
        in_flight.commit(3, ids)
    assert 2 == len(service.asked)
    assert Balance(confirmed=19, reserved=1, ambiguous=0, limit=20) == ledger.snapshot(ADA)


async def test_the_server_has_the_last_word():
    """After its refusal nothing is granted before it was asked again: another client may have filled the person."""
    service = Service(faces=range(10))
    ledger = LimitLedger(service)
    mine, other = [await ledger.faces("ada", 1) for _ in range(2)]
    service.add(10)
    mine.refused()
    assert not ledger.snapshot(ADA).listed
    other.release()
    with pytest.raises(FaceLimitError, match="has 20 of"):
        await ledger.faces("ada", 1)
    assert 2 == len(service.asked)


async def test_freed_room_is_seen_after_forget():
    """Of one key, or of all; what is in flight stays counted."""
    service = Service(faces=range(20), staff=["ada"])
    ledger = LimitLedger(service, ServiceLimits(max_persons_per_group=1))
    with pytest.raises(FaceLimitError):
        await ledger.faces("ada", 1)
    with pytest.raises(PersonLimitError):
        await ledger.person(["staff"])
    del service.faces["ada"][:5]
    ledger.forget(ADA)
    held = await ledger.faces("ada", 5)
    service.groups["staff"].clear()
    ledger.forget()
    assert Balance(confirmed=0, reserved=5, ambiguous=0, limit=20, listed=False) == ledger.snapshot(ADA)
    (await ledger.person(["staff"])).release()
    held.release()
    assert is_unused(ledger)


async def test_a_key_that_is_forgotten_while_it_is_listed_is_listed_again():
    """The list may be older than the deletion."""
    service = Service(faces=range(20))
    service.shut()
    ledger = LimitLedger(service)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.faces, "ada", 1)
        await settled()
        ledger.forget(ADA)
        del service.faces["ada"][:]
        service.open.set()
    assert 2 == len(service.asked)


async def test_known_faces_are_all_or_none():
    """Listed and committed ids together; None before the list, with an id missing, or with anything ambiguous."""
    service = Service(faces=["a"])
    ledger = LimitLedger(service)
    assert ledger.known_faces("ada") is None
    (await ledger.faces("ada", 3)).commit(2, ["b", "c"])
    assert {"a", "b", "c"} == ledger.known_faces("ada")
    (await ledger.faces("ada", 2)).commit(2, ["d"])
    assert ledger.known_faces("ada") is None
    ledger.forget(ADA)
    (await ledger.faces("ada", 1)).release()
    assert {"a"} == ledger.known_faces("ada")
    (await ledger.faces("ada", 1)).doubt()
    assert ledger.known_faces("ada") is None


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("ada", 0), {}, ValueError),
        (("ada", 21), {}, FaceLimitError),
        (("ada", 3), {"at_least": 0}, ValueError),
        (("ada", 3), {"at_least": 4}, ValueError),
        (("a da", 1), {}, ValueError),
        ((7, 1), {}, TypeError),
    ],
)
async def test_wrong_arguments_ask_for_nothing(arguments, options, error):
    service = Service()
    with pytest.raises(error):
        await LimitLedger(service).faces(*arguments, **options)
    with pytest.raises((TypeError, ValueError)):
        await LimitLedger(service).person("staff")
    with pytest.raises(ValueError, match="max_idle"):
        LimitLedger(service, max_idle=-1)
    assert [] == service.asked


# Ends


async def test_a_reservation_has_exactly_one_end():
    """A second one is a programming error, as is more than was granted; both change nothing."""
    ledger = LimitLedger(Service())
    reservation = await ledger.faces("ada", 2)
    with pytest.raises(ValueError, match="0 to 2, what was granted, not 3"):
        reservation.commit(3)
    with pytest.raises(ValueError, match="2 ids are more than the 1 faces"):
        reservation.commit(1, ["a", "b"])
    assert "<Reservation of 2 for faces ada: held>" == repr(reservation)
    reservation.commit(1, ["a"])
    for again in (reservation.release, reservation.doubt, reservation.refused, lambda: reservation.commit(1)):
        with pytest.raises(RuntimeError, match="committed already"):
            again()
    assert Balance(confirmed=1, reserved=0, ambiguous=0, limit=20) == ledger.snapshot(ADA)


def maybe(error):
    error.maybe_applied = True
    return error


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (TransportError("lost", endpoint="addface", maybe_applied=False), "released"),
        (TransportError("lost", endpoint="addface", maybe_applied=True), "doubted"),
        (maybe(ResponseError("no JSON", endpoint="addface", status=200)), "doubted"),
        (maybe(service_error(213, endpoint="addface")), "doubted"),
        (service_error(-1303, endpoint="addface"), "released"),
        (service_error(-1309, endpoint="addface"), "refused"),
        (FaceLimitError("the client's own check"), "released"),
        (KeyError("the caller's own mistake, before the call or after it"), "doubted"),
    ],
)
async def test_leaving_the_block_with_an_error_ends_it_by_what_the_error_says(error, end):
    ledger = LimitLedger(Service())
    with pytest.raises(type(error)), await ledger.faces("ada", 1) as reservation:
        raise error
    assert f"<Reservation of 1 for faces ada: {end}>" == repr(reservation)
    assert is_unused(ledger)


async def test_leaving_the_block_otherwise():
    """Released on a clean exit, doubted when cancelled, and as it is when it was ended within."""
    ledger = LimitLedger(Service())
    with await ledger.faces("ada", 2):
        pass
    assert 0 == ledger.snapshot(ADA).ambiguous
    with anyio.CancelScope() as scope, await ledger.faces("ada", 2):
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert 2 == ledger.snapshot(ADA).ambiguous
    with await ledger.faces("ada", 2) as reservation:
        reservation.commit(2)
    assert Balance(confirmed=2, reserved=0, ambiguous=2, limit=20) == ledger.snapshot(ADA)


# Persons and groups


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


# Waiting


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


# With the local server


@pytest.fixture
def connect():
    """Sessions on one local server in process, which enforces its own limits."""
    credentials = Credentials("AKIDexampleSecretId", "exampleSecretKey")
    limits = ServiceLimits(max_persons_per_group=5, max_groups_per_appid=2)
    with Store(":memory:") as store:
        app = create_app(store, credentials=credentials, recognizer=ToyRecognizer(), limits=limits)
        yield lambda: FaceSession(
            "123456",
            "test",
            credentials,
            limits=limits,
            base_url="http://localhost",
            transport=httpx.ASGITransport(app),
        )


async def test_two_hundred_concurrent_adds_leave_the_server_nothing_to_refuse(connect):
    """Twenty faces, 180 refusals of our own, one list call, and not one request that the server had to refuse."""
    added, refused = [], []
    async with connect() as session:
        await session.new_person("ada", ["staff"])
        ledger = LimitLedger(session, session.limits)

        async def add(shot):
            try:
                with await ledger.faces("ada", 1) as reservation:
                    result = await session.add_face("ada", [picture(0, 10 * shot)])
                    reservation.commit(result.added, [face.face_id for face in result.faces if face.added])
                    added.extend(result.faces)
            except FaceLimitError as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks:
            for shot in range(200):
                tasks.start_soon(add, shot)
        assert (20, 180) == (len(added), len(refused))
        assert {FaceLimitError} == {type(error) for error in refused}
        assert set(await session.get_face_ids("ada")) == ledger.known_faces("ada")
        assert 1 + 1 + 20 + 1 == session.stats.requests


async def test_another_client_that_fills_a_person_is_seen_by_the_first_refusal(connect):
    """Its code is the answer for one; from then on the ledger knows."""
    async with connect() as session, connect() as other:
        await session.new_person("ada", ["staff"])
        ledger = LimitLedger(session, session.limits)
        (await ledger.faces("ada", 1)).release()
        await other.add_face("ada", [picture(0, 10 * shot) for shot in range(20)])
        with pytest.raises(FaceLimitError, match="-1309"), await ledger.faces("ada", 1):
            await session.add_face("ada", [picture(0, 900)])
        sent = session.stats.requests
        with pytest.raises(FaceLimitError, match="has 20 of the 20"):
            await ledger.faces("ada", 1)
        assert sent + 1 == session.stats.requests
        await session.del_face("ada", (await session.get_face_ids("ada"))[:3])
        ledger.forget(ADA)
        assert 3 == (await ledger.faces("ada", 20, at_least=1)).granted


async def test_persons_are_kept_within_the_servers_limits(connect):
    """Concurrent new persons, two of three groups possible: groups at 5, the appid at 2, no refusal by the server."""
    ours = []
    async with connect() as session:
        ledger = LimitLedger(session, session.limits)

        async def create(number):
            groups = [["staff"], ["hq"], ["staff", "hq"], ["third"]][number % 4]
            try:
                with await ledger.person(groups) as reservation:
                    result = await session.new_person(f"person{number}", groups)
                    reservation.commit(1, result.group_ids)
            except (PersonLimitError, GroupLimitError) as error:
                ours.append(type(error))

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(create, number)
        groups = await session.get_group_ids()
        assert 2 == len(groups)
        assert [5, 5] == [len(await session.get_person_ids(group)) for group in groups]
        assert {PersonLimitError, GroupLimitError} == set(ours)
