"""Many of everything against the real local server: never over a limit, nobody refused falsely, and flat memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import resource
import sys
import weakref
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from albums import JPEG, Album
from serverkit import CREDENTIALS, picture, served
from timing import PATIENCE

from face_async import (
    AlreadyExistsError,
    AuthError,
    BulkApi,
    Candidate,
    Credentials,
    FaceLimitError,
    GroupLimitError,
    IdentifyResult,
    LimitLedger,
    NewPerson,
    NotFoundError,
    PersonLimitError,
    ServiceLimits,
    TransportError,
)

pytestmark = pytest.mark.anyio

ADDERS = 200


def shot(index):
    """Return a picture that is no duplicate of any other."""
    return picture(3 * index)


def kinds(outcomes):
    """Return how often each kind of error came, None for none."""
    found = [outcome.error for outcome in outcomes]
    return {
        kind: sum(isinstance(error, kind) if kind else error is None for error in found)
        for kind in (None, FaceLimitError, PersonLimitError, GroupLimitError)
    }


# Limits


@pytest.mark.parametrize("pack", [True, False])
async def test_of_200_faces_for_one_person_20_are_added(pack):
    """One run: exactly as many as there is room for, and the others are refused."""
    async with served() as [session]:
        await session.new_person("ada", ["staff"])
        async with session.add_faces((("ada", shot(index)) for index in range(ADDERS)), pack=pack) as outcomes:
            found = await outcomes.collect()
        assert 20 == len(await session.get_face_ids("ada"))
        assert (20, 180) == (kinds(found)[None], kinds(found)[FaceLimitError])
        assert session.stats.requests <= (5 if pack else 25), "those without room were refused here"


async def test_200_runs_at_once_add_20_faces_to_one_person():
    """As many runs as adders, which know of each other by the ledger alone (goal G5)."""
    async with served() as [session]:
        await session.new_person("ada", ["staff"])
        found = []

        async def add(index):
            async with session.add_faces([("ada", shot(index))]) as outcomes:
                found.extend(await outcomes.collect())

        async with anyio.create_task_group() as tasks:
            for index in range(ADDERS):
                tasks.start_soon(add, index)
        assert 20 == len(await session.get_face_ids("ada"))
        assert (20, 180) == (kinds(found)[None], kinds(found)[FaceLimitError])


async def test_duplicates_among_200_adders_cost_no_room():
    """Adders whose pictures are refused make place for others: twenty are added all the same."""
    async with served() as [session]:
        await session.new_person("ada", ["staff"])
        pairs = [("ada", shot(index % 25)) for index in range(ADDERS)]
        async with session.add_faces(pairs, max_at_once=200) as outcomes:
            found = await outcomes.collect()
        assert 20 == len(await session.get_face_ids("ada")) == kinds(found)[None]


async def test_a_second_writer_fills_the_person_meanwhile():
    """What another client has added shows when the server refuses: no more than fit are added, and no fewer."""
    async with served(count=2) as [session, other]:
        await session.new_person("ada", ["staff"])
        async with session.add_faces([("ada", shot(0))]) as outcomes:
            await outcomes.collect()
        await other.add_face("ada", [shot(100 + index) for index in range(12)])
        async with session.add_faces([("ada", shot(1 + index)) for index in range(15)]) as outcomes:
            found = await outcomes.collect()
        assert 20 == len(await session.get_face_ids("ada"))
        assert (7, 8) == (kinds(found)[None], kinds(found)[FaceLimitError])


async def test_two_sessions_at_once_never_exceed_the_limit():
    """Two programs that do not know of each other: exactly 20, whoever adds them."""
    async with served(count=2) as sessions:
        await sessions[0].new_person("ada", ["staff"])
        found = []

        async def add(session, start):
            pairs = [("ada", shot(start + index)) for index in range(40)]
            async with session.add_faces(pairs, max_at_once=3) as outcomes:
                found.extend(await outcomes.collect())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add, sessions[0], 0)
            tasks.start_soon(add, sessions[1], 50)
        assert 20 == len(await sessions[0].get_face_ids("ada")) == kinds(found)[None]
        assert 60 == kinds(found)[FaceLimitError]


async def test_new_persons_keep_groups_and_appid_within_their_limits():
    """Two hundred for a group of 50: exactly 50; ten groups for an appid of 4: exactly 4; each error says which."""
    limits = ServiceLimits(max_persons_per_group=50, max_groups_per_appid=4)
    async with served(limits) as [session]:
        async with session.new_persons(NewPerson(f"p{index}", ["staff"]) for index in range(200)) as outcomes:
            found = await outcomes.collect()
        assert 50 == len(await session.get_person_ids("staff"))
        assert (50, 150) == (kinds(found)[None], kinds(found)[PersonLimitError])
        persons = [NewPerson(f"g{index}", [f"group{index % 10}"]) for index in range(40)]
        async with session.new_persons(persons, ordered=True) as outcomes:
            found = await outcomes.collect()
        assert 4 == len(await session.get_group_ids())
        assert (12, 28) == (kinds(found)[None], kinds(found)[GroupLimitError])


async def test_new_persons_are_created_as_they_are_described():
    """Groups, picture, name and tag; one that exists costs one outcome, and its place is free again."""
    async with served(ServiceLimits(max_persons_per_group=3)) as [session]:
        await session.new_person("ada", ["others"])
        persons = [
            NewPerson("ada", ["staff"]),
            NewPerson("bob", ["staff", "guests"], picture(1), person_name="Bob", tag="hq"),
            NewPerson("bad id", ["staff"]),
            NewPerson("eve", []),
            NewPerson("ken", ["staff"]),
            NewPerson("liz", ["staff"]),
        ]
        async with session.new_persons(persons, max_at_once=1) as outcomes:
            found = await outcomes.collect()
        kinds_found = [outcome.error and type(outcome.error) for outcome in found]
        assert [AlreadyExistsError, None, ValueError, ValueError, None, None] == kinds_found
        assert persons == [outcome.item for outcome in found]
        info = await session.get_info("bob")
        assert ("Bob", "hq", {"staff", "guests"}) == (info.person_name, info.tag, set(info.group_ids))
        assert (found[1].result.face_id,) == info.face_ids
        with pytest.raises(TypeError, match="every item must be a NewPerson, not tuple"):
            async with session.new_persons([("ada", ["staff"])]) as outcomes:
                await outcomes.collect()


async def test_a_wrong_key_ends_a_run_at_once():
    """The server's code is raised where outcomes are taken, and few requests are made for nothing."""
    async with served(credentials=Credentials(CREDENTIALS.secret_id, "another")) as [session]:
        pairs = (("ada", shot(index)) for index in itertools.count())
        for run in (session.add_faces(pairs), session.new_persons(NewPerson(f"p{n}", ["g"]) for n in range(999))):
            with pytest.raises(AuthError):
                async with run as outcomes:
                    await outcomes.collect()
        assert session.stats.requests <= 4 * 64


# Fan-out


async def test_two_hundred_groups_with_a_slow_and_a_failing_one():
    """Everyone is asked at once; the slow one is waited for, the failing one stands beside the others."""
    groups = [f"g{index}" for index in range(200)]
    asked, slow = set(), anyio.Event()

    class Fan(BulkApi):
        limits = ServiceLimits()

        async def _call(self, endpoint, fields, images=None):
            group = fields["group_id"]
            asked.add(group)
            if group == "g7":
                raise NotFoundError(-1306, endpoint="identify")
            if group == "g8":
                await slow.wait()
            elif len(asked) == 200:
                slow.set()
            await anyio.lowlevel.checkpoint()
            number = int(group[1:])
            person = {"person_id": f"p{number % 50}", "face_id": f"f{number}", "confidence": float(number % 100)}
            return IdentifyResult(candidates=[Candidate(**person)])

    with anyio.fail_after(PATIENCE):
        found = await Fan().identify_in_groups(JPEG, groups, top=3, max_at_once=50, errors="collect")
    assert {"g7": NotFoundError} == {group: type(error) for group, error in found.errors.items()}
    assert [group for group in groups if group != "g7"] == list(found.by_group)
    assert [99.0, 98.0, 97.0] == [each.confidence for each in found.candidates]
    assert 3 == len({each.person_id for each in found.candidates})


# Memory


class Nobody(BulkApi):
    """A service that finds nobody, at once."""

    limits = ServiceLimits()

    async def _call(self, endpoint, fields, images=None):
        await anyio.lowlevel.checkpoint()
        return IdentifyResult(candidates=())


class Item:
    """An image that can be told to be alive."""

    alive = 0
    most = 0
    left = JPEG

    def __init__(self):
        Item.alive += 1
        Item.most = max(Item.most, Item.alive)
        weakref.finalize(self, Item.gone)

    async def read(self, size=-1):
        """Return the content, once."""
        piece, self.left = self.left, b""
        return piece

    @classmethod
    def gone(cls):
        """Count one that is no more."""
        cls.alive -= 1


def resident():
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_a_million_pictures_are_identified_in_flat_memory(full, anyio_backend):
    """After the first thousands no more memory is taken, however many follow."""
    count, step = (1_000_000, 10_000) if full else (6_000, 1_000)
    async with Nobody().identify_many((JPEG + bytes(10_000) for _ in range(count)), "staff") as outcomes:
        measured = [resident() async for outcome in outcomes if outcome.index % step == step - 1]
    assert count // step == len(measured)
    grown = max(measured) - measured[1]
    assert grown < 8 * 1024 * 1024, "one picture in ten that is not forgotten would be more"
    if full:
        rise = f"{measured[1] / 2**20:.1f} MiB after {2 * step:,}, at most {grown / 2**20:.1f} MiB more later"
        sys.stderr.write(f"\n{anyio_backend}: {count:,} pictures, {rise}\n")  # pytest -s shows it


@pytest.mark.parametrize("ordered", [False, True])
async def test_of_a_long_lazy_input_few_items_are_alive(full, ordered):
    """Of 100,000 items never more than max_at_once, and one that is just being made."""
    count, Item.alive, Item.most = 100_000 if full else 3_000, 0, 0
    async with Nobody().identify_many((Item() for _ in range(count)), "g", max_at_once=20, ordered=ordered) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
            del outcome
    assert Item.most <= 20
    assert Item.alive == 0


async def test_of_faces_to_be_added_few_are_alive_either(full):
    """Pictures that wait in their persons' lines count as well."""
    count, Item.alive, Item.most = 100_000 if full else 3_000, 0, 0
    async with Album().add_faces(((f"p{n // 7}", Item()) for n in range(count)), max_at_once=30) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
            del outcome
    assert Item.most <= 30
    assert Item.alive == 0


async def test_persons_leave_nothing_behind(full):
    """However many persons get faces, no line of theirs is left, nor anything else."""
    count = 1_000_000 if full else 4_000

    class Forgetful(Album):
        async def _add(self, person, images):
            result = await super()._add(person, images)
            self.requests.clear()
            self.faces.clear()
            return result

    album = Forgetful()
    album.ledger = LimitLedger(album, album.limits, max_idle=100)
    blocks = []
    async with album.add_faces((f"p{index}", JPEG) for index in range(count)) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
            if outcome.index % 1_000 == 999:
                blocks.append(sys.getallocatedblocks())
        assert outcomes._runner._lines == {}
    assert max(blocks) - blocks[0] < 3_000, "one object a person would be more"


# Cancellation


class Fickle(Album):
    """Answers late, often refuses, and sometimes loses the answer."""

    def __init__(self, rng):
        super().__init__()
        self.rng = rng

    async def _call(self, endpoint, fields, images=None):
        for _ in range(self.rng.randrange(8)):
            await anyio.lowlevel.checkpoint()
        if self.rng.random() < 0.05:
            raise TransportError("lost", endpoint=endpoint.name, maybe_applied=endpoint.effect)
        result = await super()._call(endpoint, fields, images)
        for _ in range(self.rng.randrange(8)):
            await anyio.lowlevel.checkpoint()
        return result


class Run:
    """One run of add_faces over three persons that ends early at random, and what it told."""

    def __init__(self, rng, ways):
        self.album = Fickle(rng)
        self.pulled, self.taken = [], []
        self.how, self.at, self.turns = rng.choice(ways), rng.randrange(60), rng.randrange(150)
        self.outcomes = self.album.add_faces(
            self.pairs(rng), max_at_once=rng.randrange(1, 40), ordered=rng.random() < 0.5
        )

    def pairs(self, rng):
        for index in range(60):
            self.pulled.append((f"p{rng.randrange(3)}", JPEG + b"%d" % index))
            yield self.pulled[-1]

    async def go(self):
        async with self.outcomes:
            async for outcome in self.outcomes:
                self.taken.append(outcome)
                if len(self.taken) > self.at and self.how == "break":
                    break
                if len(self.taken) > self.at and self.how == "error":
                    raise ZeroDivisionError

    async def go_in_a_task(self):
        task = asyncio.ensure_future(self.go())
        await turns_of_the_loop(self.turns)
        task.cancel()
        await asyncio.wait([task])

    async def go_in_a_scope(self):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope, contextlib.suppress(ZeroDivisionError):
                if self.how == "scope":
                    tasks.start_soon(cancel_after, scope, self.turns)
                await self.go()
            tasks.cancel_scope.cancel()

    def check(self):
        told = [*self.taken, *self.outcomes.untaken]
        assert sorted(outcome.index for outcome in told) == list(range(len(self.pulled)))
        added = sum(outcome.error is None for outcome in told)
        in_doubt = sum(getattr(outcome.error, "maybe_applied", False) for outcome in told)
        stored = list(map(len, self.album.faces.values()))
        assert added <= sum(stored) <= added + in_doubt
        assert max(stored, default=0) <= 20
        sent = {image for _, images in self.album.requests for image in images}
        assert all(outcome.error is not None for outcome in told if outcome.item[1] not in sent)
        assert "0 reserved, 0 waiting" in repr(self.album.ledger)


async def test_whenever_a_bulk_run_ends_early_its_report_is_true(seed, full, anyio_backend):
    """Cancelled, left or failing at any point: every item that was pulled has one outcome, and it is true (goal G3).

    What may have happened is told as such, no reservation is left, and all the room there is can be had afterwards.
    """
    rng = random.Random(seed)
    ways = ["scope", "break", "error", *(["task"] if anyio_backend == "asyncio" else [])]
    for _ in range(10_000 if full else 150):
        run = Run(rng, ways)
        await (run.go_in_a_task() if run.how == "task" else run.go_in_a_scope())
        run.check()
        with anyio.fail_after(PATIENCE):
            for person, faces in list(run.album.faces.items()):
                if len(faces) < 20:
                    (await room(run.album, person, 20 - len(faces))).release()


async def turns_of_the_loop(turns):
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def cancel_after(scope, turns):
    await turns_of_the_loop(turns)
    scope.cancel()


async def room(album, person, count):
    while True:
        with contextlib.suppress(TransportError):
            return await album.ledger.faces(person, count)
