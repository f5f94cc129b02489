"""add_faces: what shares a request, and in which order images are added."""

from __future__ import annotations

import collections
import io
import os
import random
import time

import anyio
import anyio.lowlevel
import pytest
from albums import JPEG, Album, added, errors_of, shots
from doubles import envelope, session_on
from timing import PATIENCE

from face_async import DuplicateFaceError, ImageError, ImageFile, images
from face_async.bulk.limited import request_size
from face_async.endpoints import ADD_FACE

pytestmark = pytest.mark.anyio

NO_FACE = -1101


# What shares a request


async def test_neighbors_share_a_request():
    """Forty images of one person, none of which is accepted, are two requests of twenty."""
    album, pairs = Album(), shots("ada", 40)
    album.codes = dict.fromkeys((image for _, image in pairs), NO_FACE)
    found = await added(album, pairs, max_at_once=64)
    assert {"ada": [20, 20]} == album.packs
    assert [ImageError] * 40 == errors_of(found)


async def test_each_image_has_its_own_outcome():
    """A pack's outcomes say of each image whether it was added, and as which face."""
    album, pairs = Album(), shots("ada", 5)
    album.codes = {pairs[1][1]: -1312, pairs[3][1]: NO_FACE}
    found = await added(album, pairs)
    assert [5] == album.packs["ada"]
    assert [DuplicateFaceError, ImageError] == errors_of(found)
    assert [pairs[index][1] for index in (0, 2, 4)] == [each.result.image for each in found if each.result]
    assert album.faces["ada"] == [each.result.face_id for each in found if each.result]


@pytest.mark.parametrize(("max_at_once", "most"), [(64, 1.3), (20, 4), (7, 8)])
@pytest.mark.parametrize("slow", [False, True])
async def test_packs_are_as_full_as_places_allow(max_at_once, most, slow):
    """Whoever takes the outcomes at once or slowly: twenty images of a person take one request, or few with few places.

    No more than a third of the places waits for neighbors, so that a slow request does not hold up all others.
    """
    album, persons = Album(), 30
    pairs = (pair for index in range(persons) for pair in shots(f"p{index}", 20))
    async with album.add_faces(pairs, max_at_once=max_at_once) as outcomes:
        async for outcome in outcomes:
            assert outcome.error is None
            if slow:
                await anyio.lowlevel.checkpoint()
    assert persons <= len(album.requests) <= most * persons


async def test_a_slow_request_holds_up_few_others():
    """Of 20 places one is taken by a request that does not end: all but a few of the other images are added."""

    class Stuck(Album):
        async def _add(self, person, images):
            if person == "slow":
                await self.gate.wait()
            return await super()._add(person, images)

    album = Stuck()
    album.gate = anyio.Event()
    pairs = shots("slow", 1) + shots("ada", 19)
    async with album.add_faces(pairs, max_at_once=20) as outcomes:
        while len(album.under_way) < 1:
            await anyio.lowlevel.checkpoint()
        assert [("ada", [image for _, image in pairs[1:]])] == album.requests
        album.gate.set()
        await outcomes.collect()


async def test_a_slow_input_is_not_waited_for():
    """An image that is there is sent, although its neighbor is not there yet."""
    album, taken = Album(), anyio.Event()

    async def pairs():
        yield shots("ada", 1)[0]
        await taken.wait()
        for pair in shots("ada", 3, start=1):
            yield pair

    async with album.add_faces(pairs()) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
            taken.set()
    assert [1, 3] == [album.packs["ada"][0], sum(album.packs["ada"][1:])]


async def test_images_gather_while_a_request_is_under_way():
    """What comes for a person meanwhile goes together, when the request has ended."""
    album, more = Album(), anyio.Event()
    album.gate = anyio.Event()

    async def pairs():
        yield shots("ada", 1)[0]
        await more.wait()
        for pair in shots("ada", 9, start=1):
            yield pair

    async with album.add_faces(pairs()) as outcomes:
        while not album.under_way:
            await anyio.lowlevel.checkpoint()
        more.set()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        album.gate.set()
        await outcomes.collect()
    assert [1, 9] == album.packs["ada"]


async def test_pack_false_sends_one_by_one():
    """Each image in a request of its own, a person's one after another and in order."""
    album, pairs = Album(), shots("ada", 12)
    await added(album, pairs, pack=False)
    assert [("ada", [image]) for _, image in pairs] == album.requests
    assert album.most_of_one_person == 1


@pytest.mark.parametrize(
    ("size", "packs"), [(74_000, [20]), (75_000, [19, 1]), (400_000, [3] * 6 + [2]), (1_500_000, [1] * 20)]
)
@pytest.mark.parametrize("kind", ["bytes", "path"])
async def test_no_request_is_planned_over_the_limit(size, packs, kind, tmp_path, rng):
    """As many images as fit 1,500,000 bytes, by the size of the body that is really sent."""

    def source(index):
        photo = JPEG + rng.randbytes(20) + bytes(size - 24)
        if kind == "bytes":
            return ImageFile(photo, name='a long name, "quoted".jpg' * 5)
        (tmp_path / f"{index}.jpg").write_bytes(photo)
        return tmp_path / f"{index}.jpg"

    bodies = []

    class Counting(Album):
        async def _add(self, person, images):
            bodies.append(sum(map(len, images)))
            return await super()._add(person, images)

    await added(Counting(), [("ada", source(index)) for index in range(20)])
    assert [count * size for count in packs] == bodies
    listed = envelope({"face_ids": []})
    answers = [listed, *(envelope({"added": n, "face_ids": list("a" * n), "ret_codes": [0] * n}) for n in packs)]
    session, network = session_on(*answers)
    found = await added(session, [("ada", source(index)) for index in range(20)])
    assert [None] * 20 == [outcome.error for outcome in found]
    assert max(len(sent.body) for sent in network.sent) <= max(1_500_000, size + 1_000)


@pytest.mark.parametrize(("more", "packs"), [(0, [3, 1]), (1, [2, 2])])
async def test_a_request_is_filled_to_the_last_byte(more, packs):
    """Three pictures share a request of just the planned size; one byte more, and they do not."""
    answers = [envelope({"added": n, "face_ids": list("a" * n), "ret_codes": [0] * n}) for n in packs]
    session, network = session_on(envelope({"face_ids": []}), *answers)
    fields, photo = {"person_id": "ada", "tag": "hq"}, JPEG + bytes(400_000)
    rest = 1_500_000 - request_size(session, ADD_FACE, fields, {"images": [photo, photo, JPEG]})
    sources = [photo, photo, JPEG + bytes(rest + more), JPEG]
    found = await added(session, [("ada", source) for source in sources], tag="hq")
    assert [None] * 4 == [outcome.error for outcome in found]
    assert len(packs) + 1 == len(network.sent)
    assert (len(network.sent[1].body) == 1_500_000) is (more == 0)


async def test_urls_and_pictures_do_not_share_a_request():
    """A change from one to the other ends a pack, since one request carries either (Spec: 2.3)."""
    album = Album()
    urls = [f"https://example.com/{index}.jpg" for index in range(3)]
    sources = [JPEG + b"0", JPEG + b"1", urls[0], urls[1], JPEG + b"2", urls[2]]
    found = await added(album, [("ada", source) for source in sources])
    assert [sources[0:2], sources[2:4], sources[4:5], sources[5:6]] == [sent for _, sent in album.requests]
    assert sources == [outcome.result.image for outcome in found]


async def test_a_small_file_is_opened_once(tmp_path, monkeypatch):
    """What is looked at for its size is kept, and not read again when it is sent."""
    opened = collections.Counter()
    real = os.open
    monkeypatch.setattr(images.os, "open", lambda path, *rest: opened.update([str(path)]) or real(path, *rest))
    paths = [tmp_path / f"{index}.jpg" for index in range(20)]
    for path in paths:
        path.write_bytes(JPEG + path.name.encode() + bytes(60_000))
    session, network = session_on(
        envelope({"face_ids": []}), envelope({"added": 20, "face_ids": list("a" * 20), "ret_codes": [0] * 20})
    )
    found = await added(session, [("ada", path) for path in paths])
    assert paths == [outcome.unwrap().image for outcome in found]
    assert 2 == len(network.sent)
    assert dict.fromkeys(map(str, paths), 1) == {path: times for path, times in opened.items() if path.endswith(".jpg")}


class SlowFile:
    """A file that takes its time in a worker thread, as one in an archive does."""

    def __init__(self, content):
        self._inner = io.BytesIO(content)

    def read(self, size=-1):
        time.sleep(0.002)
        return self._inner.read(size)


@pytest.mark.parametrize("kind", [io.BytesIO, SlowFile])
async def test_file_objects_are_packed_too(kind):
    """They are read, once, before their pack is sent."""
    album = Album()
    found = await added(album, [("ada", kind(image)) for _, image in shots("ada", 5)])
    assert [("ada", [image for _, image in shots("ada", 5)])] == album.requests
    assert [None] * 5 == [outcome.error for outcome in found]


@pytest.mark.parametrize("round_", range(12))
async def test_images_that_wait_for_a_file_that_is_read_never_wait_for_ever(round_, seed):
    """Whosever it is, whether it can be read, however busy the service and the caller are."""
    rng = random.Random(seed + round_)

    class Slow(Album):
        async def _add(self, person, images):
            await anyio.sleep(rng.choice([0, 0.002, 0.006]))
            return await super()._add(person, images)

    persons = "abcdefghij"[: rng.choice([4, 6, 10])]
    pairs = [(rng.choice(persons), SlowFile(JPEG + b"%d" % index)) for index in range(40)]
    for _, file in pairs[:: rng.choice([7, 50])]:
        file.read(-1)  # it was read before, and costs its own outcome
    with anyio.fail_after(PATIENCE):
        async with Slow().add_faces(pairs, max_at_once=rng.choice([1, 6, 7, 64])) as outcomes:
            taken = 0
            async for _ in outcomes:
                taken += 1
                await anyio.sleep(rng.choice([0, 0, 0, 0.002]))
    assert taken == 40


async def test_no_more_file_objects_are_read_than_may_be_alive():
    """Each is read before the next is pulled, and pulled only as outcomes are taken."""
    read, at_request = [], []

    class File(io.BytesIO):
        def read(self, size=-1):
            read.append(self)
            return super().read(size)

    class Watched(Album):
        async def _add(self, person, images):
            at_request.append(len(set(read)))
            return await super()._add(person, images)

    await added(Watched(), [("ada", File(JPEG + b"%d" % index + bytes(700_000))) for index in range(20)], max_at_once=6)
    assert len(at_request) == 10
    assert all(count <= 6 + 2 * done for done, count in enumerate(at_request))


async def test_the_tag_goes_with_every_request():
    """One remark for all; a tag that is no text is a wrong argument, at once."""
    session, network = session_on(
        envelope({"face_ids": []}), envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})
    )
    await added(session, [("ada", JPEG)], tag="hq-2")
    assert b'name="tag"\r\n\r\nhq-2\r\n' in network.sent[-1].body
    with pytest.raises(ValueError, match="tag has 2,000 bytes"):
        session.add_faces([], tag="x" * 2_000)


# Order


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("max_at_once", [1, 5, 30])
@pytest.mark.parametrize("pack", [False, True])
async def test_a_person_s_images_are_added_in_input_order(ordered, max_at_once, pack, seed):
    """Whatever the persons' order and the service's speed: one request at a time, and one image after another."""
    rng = random.Random(seed)

    class Moody(Album):
        async def _add(self, person, images):
            for _ in range(rng.randrange(6)):
                await anyio.lowlevel.checkpoint()
            return await super()._add(person, images)

    album = Moody()
    persons = [f"p{index}" for index in range(8)]
    pairs = [(person, JPEG + b"%d" % index) for index, person in enumerate(rng.choices(persons, k=120))]

    async def later():
        for pair in pairs:
            if rng.random() < 0.3:
                await anyio.lowlevel.checkpoint()
            yield pair

    async with album.add_faces(later(), max_at_once=max_at_once, ordered=ordered, pack=pack) as outcomes:
        found = await outcomes.collect()
    sent = collections.defaultdict(list)
    for person, group in album.requests:
        sent[person] += group
    for person in persons:
        mine = [image for who, image in pairs if who == person]
        assert mine[: len(sent[person])] == sent[person]
        assert min(20, len(mine)) == len(album.faces[person])
    if ordered:
        assert list(range(120)) == [outcome.index for outcome in found]
    assert album.most_of_one_person <= 1
    assert max(map(len, sent.values())) <= 20


@pytest.mark.parametrize("max_at_once", [2, 3, 5])
@pytest.mark.parametrize("ordered", [False, True])
async def test_images_that_wait_for_their_neighbors_never_block_others(max_at_once, ordered):
    """Alternating persons, few places, outcomes in input order: it ends, although each waits for others."""
    album = Album()
    pairs = [pair for both in zip(shots("ada", 15), shots("bob", 15), strict=True) for pair in both]
    with anyio.fail_after(PATIENCE):
        found = await added(album, iter(pairs), max_at_once=max_at_once, ordered=ordered)
    assert [None] * 30 == [outcome.error for outcome in found]
