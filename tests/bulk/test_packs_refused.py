"""add_faces: what an image costs that cannot be added, and what there is room for."""

from __future__ import annotations

import io

import pytest
from albums import JPEG, Album, added, errors_of, refusal, shots
from doubles import CREDENTIALS, Network, envelope, session_on

from face_async import (
    DuplicateFaceError,
    FaceLimitError,
    FaceSession,
    ImageError,
    ImageRefusedError,
    ImageUrl,
    NewPerson,
    NotFoundError,
    Outcomes,
    RequestTooLargeError,
    ServiceLimits,
    TransportError,
)
from face_async.bulk.packs import AddRequest
from face_async.local import local_session
from face_async.portraits import draw_portrait

pytestmark = pytest.mark.anyio

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
