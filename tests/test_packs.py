"""add_faces: what shares a request, in which order, and what an image costs that cannot be added."""

from __future__ import annotations

import collections
import io
import os
import random
import time

import anyio
import anyio.lowlevel
import pytest
from albums import JPEG, Album, refusal
from doubles import CREDENTIALS, Network, envelope, session_on
from timing import PATIENCE

from face_async import (
    DuplicateFaceError,
    FaceLimitError,
    FaceSession,
    ImageError,
    ImageFile,
    ImageRefusedError,
    ImageUrl,
    NewPerson,
    NotFoundError,
    Outcomes,
    RequestTooLargeError,
    ServiceLimits,
    TransportError,
    images,
)
from face_async.bulk.limited import request_size
from face_async.bulk.packs import AddRequest
from face_async.endpoints import ADD_FACE
from face_async.local import local_session
from face_async.portraits import draw_portrait

pytestmark = pytest.mark.anyio

NO_FACE = -1101


def shots(person, count, start=0):
    """Return pairs of a person and images that are all different."""
    return [(person, JPEG + f"{person} {shot}".encode()) for shot in range(start, start + count)]


async def added(album, pairs, **options):
    async with album.add_faces(pairs, **options) as outcomes:
        return sorted(await outcomes.collect(), key=lambda outcome: outcome.index)


def errors_of(outcomes):
    return [type(outcome.error) for outcome in outcomes if outcome.error is not None]


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


# What cannot be added


async def test_an_image_that_cannot_be_sent_costs_its_neighbors_nothing(tmp_path):
    """A GIF, an empty, a missing and an unreadable one get their errors, the others share a request."""
    album = Album()
    closed = io.BytesIO(JPEG)
    closed.close()
    bad = [b"GIF89a", b"", tmp_path / "missing.jpg", tmp_path, "http://bad url"]
    good = [image for _, image in shots("ada", 6)]
    sources = [good[0], bad[0], good[1], bad[1], good[2], bad[2], good[3], bad[3], good[4], bad[4], good[5]]
    found = await added(album, [("ada", source) for source in sources])
    assert [("ada", good)] == album.requests
    assert [ImageRefusedError] * 4 + [ValueError] == errors_of(found)
    assert [source in good for source in sources] == [outcome.error is None for outcome in found]


async def test_an_image_that_is_too_large_is_refused_alone(tmp_path):
    """More than any request may have is an error of that image; its neighbors are added."""
    path = tmp_path / "large.jpg"
    path.write_bytes(JPEG + bytes(2_000_000))
    listed, one = envelope({"face_ids": []}), envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})
    session, network = session_on(listed, one)
    found = await added(session, [("ada", JPEG), ("ada", path), ("ada", JPEG + b"!")])
    assert [None, RequestTooLargeError, None] == [outcome.error and type(outcome.error) for outcome in found]
    assert 3 == len(network.sent)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ImageRefusedError("it changed"), ImageRefusedError),
        (refusal(-1102), ImageError),
        (refusal(-1312), DuplicateFaceError),
        (refusal(-1309), FaceLimitError),
        (refusal(23), RequestTooLargeError),
    ],
)
@pytest.mark.parametrize("place", [0, 7, 19])
async def test_a_pack_that_is_refused_for_one_image_is_sent_again_without_it(error, kind, place):
    """Halved until the culprit is alone, in order: all others are added, and it alone gets the error."""
    album, pairs = Album(), shots("ada", 20)
    culprit = pairs[place][1]
    album.refusals = {culprit: error}
    found = await added(album, pairs)
    assert [place] == [outcome.index for outcome in found if outcome.error is not None]
    assert isinstance(found[place].error, kind)
    assert 19 == len(album.faces["ada"])
    accepted = [image for _, group in album.requests if culprit not in group for image in group]
    assert [image for _, image in pairs if image != culprit] == accepted
    assert len(album.requests) <= 11


async def test_a_file_that_changes_while_its_pack_is_sent_is_left_out(tmp_path):
    """The others of the pack, small and large, reach the server whole; the changed one is refused."""
    paths = [tmp_path / f"{index}.jpg" for index in range(4)]
    for path in paths:
        path.write_bytes(JPEG + f"photo {path.stem}".encode() + bytes(300_000))

    class Changing(Network):
        async def handle_async_request(self, request):
            if request.url.path.endswith("addface") and paths[2].stat().st_size > 300_000:
                paths[2].write_bytes(JPEG + bytes(300))
            return await super().handle_async_request(request)

    one = envelope({"added": 1, "face_ids": ["f"], "ret_codes": [0]})
    two = envelope({"added": 2, "face_ids": ["f", "g"], "ret_codes": [0, 0]})
    network = Changing([envelope({"face_ids": []}), two, one])
    session = FaceSession("1", "b", CREDENTIALS, transport=network)
    found = await added(session, [("ada", path) for path in paths])
    assert [2] == [outcome.index for outcome in found if outcome.error is not None]
    assert "changed while it was being sent" in str(found[2].error)
    whole = [[path for path in paths if f"photo {path.stem}".encode() in sent.body] for sent in network.sent[1:]]
    assert [paths[:2], paths[3:]] == whole


async def test_what_may_have_happened_is_not_sent_again():
    """An answer that was lost for good is the outcome of all its images; nothing is sent twice."""
    album, pairs = Album(), shots("ada", 6)
    album.refusals = {pairs[2][1]: TransportError("lost", endpoint="addface", maybe_applied=True)}
    found = await added(album, pairs)
    assert [6] == album.packs["ada"]
    assert [True] * 6 == [outcome.error.maybe_applied for outcome in found]
    assert 6 == len({id(outcome.error) for outcome in found}), "each has an error of its own"
    assert [None] * 6 == [outcome.error.__traceback__ for outcome in found], "which holds no picture"


@pytest.mark.parametrize(
    ("code", "faces", "kind"),
    [
        (-1102, ["new"], ImageError),  # the same bytes were refused before, so that the face is somebody else's
        (-1308, ["new"], TransportError),  # the picture may have been there to be fetched before
        (-1308, [], ImageError),
    ],
)
async def test_a_refusal_ends_a_doubt_only_if_earlier_requests_were_refused_too(code, faces, kind):
    """A request may have been applied, and is sent again: whether it was is told by the code, or by the faces."""

    class Forgetful(Album):
        async def _call(self, endpoint, fields, images=None, **options):
            if endpoint.name == "getinfo":
                raise refusal(213)
            return await super()._call(endpoint, fields, images, **options)

    album, url = Forgetful(), "https://example.com/a.jpg"
    album.faces["ada"] = list(faces)
    album.refusals = {url: refusal(code)}
    request = AddRequest(album, "ada", [ImageUrl(url)], None, before=[], in_doubt=True)
    with pytest.raises(kind) as caught:
        await request.send()
    assert (kind is TransportError) is caught.value.maybe_applied is request.in_doubt


async def test_a_person_who_does_not_exist_costs_their_own_images():
    """NotFoundError for each of them, and nothing is sent for them."""
    album = Album()
    album.missing = {"eve"}
    found = await added(album, shots("ada", 3) + shots("eve", 3) + [("bad id", JPEG)])
    assert [NotFoundError] * 3 + [ValueError] == errors_of(found)
    assert {"ada": [3]} == album.packs


async def test_a_wrong_type_ends_the_run():
    """An image that is an int, or an id that is one, raises TypeError where outcomes are taken."""
    for pair in (("ada", 7), (7, JPEG)):
        with pytest.raises(TypeError, match="int"):
            await added(Album(), [pair])


# Room


async def test_no_more_than_there_is_room_for():
    """A person with 15 faces takes 5 more; the others are refused here, and nothing is sent for them."""
    album = Album()
    album.faces["ada"] = [f"old{index}" for index in range(15)]
    found = await added(album, shots("ada", 12))
    assert [None] * 5 + [FaceLimitError] * 7 == [outcome.error and type(outcome.error) for outcome in found]
    assert [5] == album.packs["ada"]


async def test_what_was_refused_leaves_its_room_to_others():
    """Thirty images of which every other is a duplicate: fifteen are added, and none is refused for want of room."""
    album, pairs = Album(), shots("ada", 30)
    album.codes = {image: -1312 for _, image in pairs[::2]}
    found = await added(album, pairs)
    assert [DuplicateFaceError] * 15 == errors_of(found)
    assert 15 == len(album.faces["ada"])


async def test_a_face_that_was_deleted_leaves_its_room():
    """del_face and del_person tell the ledger, so that nobody is refused for faces that are gone."""

    class Editable(Album):
        async def _call(self, endpoint, fields, images=None):
            if endpoint.name == "delface":
                for face_id in fields["face_ids"]:
                    self.faces[fields["person_id"]].remove(face_id)
                return None
            if endpoint.name == "delperson":
                del self.faces[fields["person_id"]]
                return None
            return await super()._call(endpoint, fields, images)

    album = Editable()
    assert [] == errors_of(await added(album, shots("ada", 20)))
    await album.del_face("ada", album.faces["ada"][:2])
    assert [FaceLimitError] == errors_of(await added(album, shots("ada", 3, start=20)))
    await album.del_person("ada")
    assert [] == errors_of(await added(album, shots("ada", 20)))


async def test_all_bulk_verbs_of_a_session_share_one_ledger():
    """Copies too, whichever of them asks first."""
    session, _ = session_on(envelope())
    copy = session.with_options(deadline=5)
    assert copy.ledger is session.ledger
    assert session.with_options(timeout=3).ledger is session.ledger


@pytest.mark.parametrize("photo", [None, draw_portrait(2)])
async def test_a_person_who_was_just_created_is_not_asked_for_their_faces(photo):
    """There is the one of the picture that they were created with, and no other."""
    async with local_session(recognizer="fingerprint") as session:
        async with session.new_persons([NewPerson("ada", ["staff"], photo)]) as outcomes:
            await outcomes.collect()
        before = session.stats.requests
        assert [] == errors_of(await added(session, [("ada", draw_portrait(1))]))
        assert 1 == session.stats.requests - before
        assert set(await session.get_face_ids("ada")) == session.ledger.known_faces("ada")


async def test_a_misspelled_option_is_a_wrong_argument():
    with pytest.raises(TypeError, match="max_at_one"):
        Album().add_faces([], max_at_one=3)


async def test_packs_are_outcomes():
    """add_faces returns what all bulk verbs return."""
    async with Album().add_faces([]) as outcomes:
        assert isinstance(outcomes, Outcomes)


# Pictures that are too large


async def test_fit_makes_pictures_fit_a_request(tmp_path):
    """All bulk verbs take it: what is too large, from a path or a file object, is made smaller and accepted."""
    portrait = draw_portrait(1, size=1_000)
    limits = ServiceLimits(planned_request_bytes=len(portrait) // 2, max_request_bytes=len(portrait) // 2)
    (tmp_path / "large.jpg").write_bytes(portrait)
    sources = [tmp_path / "large.jpg", io.BytesIO(portrait)]
    async with local_session(recognizer="fingerprint", limits=limits) as session:
        async with session.new_persons([NewPerson("ada", ["staff"], portrait)], fit=True) as outcomes:
            assert (await anext(outcomes)).unwrap().suc_face == 1
        async with session.identify_many(sources, "staff", fit=True) as outcomes:
            assert ["ada", "ada"] == [outcome.unwrap().best.person_id async for outcome in outcomes]
        pairs = [("ada", io.BytesIO(portrait)), ("ada", tmp_path / "large.jpg")]
        async with session.verify_many(pairs, fit=True) as outcomes:
            assert [True, True] == [outcome.unwrap().is_match async for outcome in outcomes]
        other = draw_portrait(2, size=1_000)
        found = await added(session, [("ada", other), ("ada", b"GIF89a"), ("ada", io.BytesIO(other))], fit=True)
        assert [type(None), ImageRefusedError, DuplicateFaceError] == [type(outcome.error) for outcome in found]
        assert other is found[0].unwrap().image
        found = await added(session, [("ada", other)])
        assert [RequestTooLargeError] == errors_of(found)
