"""The ledger: never over a limit, never a false refusal, nothing left behind."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import httpx
import pytest
from bulkkit import ADA, Service, is_unused, settled
from serverkit import ToyRecognizer, picture

from face_async import (
    Credentials,
    FaceLimitError,
    FaceSession,
    GroupLimitError,
    PersonLimitError,
    ResponseError,
    ServiceLimits,
    TransportError,
)
from face_async.bulk.ledger import Balance, LimitLedger
from face_async.errors import service_error
from face_async.server import Store, create_app

pytestmark = pytest.mark.anyio

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
        (("ada", 1.5), {}, TypeError),
        (("ada", 3), {"at_least": 1.5}, TypeError),
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


async def test_a_person_who_is_new_has_no_faces_of_another_one(connect):
    """Whoever had the id before was deleted by another client, of which the ledger has not heard."""
    async with connect() as session, connect() as other:
        await session.new_person("ada", ["staff"])
        shots = [("ada", picture(0, 10 * shot)) for shot in range(20)]
        async with session.add_faces(shots) as outcomes:
            assert [None] * 20 == [outcome.error async for outcome in outcomes]
        await other.del_person("ada")
        await session.new_person("ada", ["staff"])
        async with session.add_faces(shots[:1]) as outcomes:
            assert [None] == [outcome.error async for outcome in outcomes]


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
