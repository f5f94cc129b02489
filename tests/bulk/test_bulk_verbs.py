"""The bulk verbs that stand on the bounded map."""

from __future__ import annotations

import inspect
import io
import json
import os
from pathlib import Path

import pytest
from albums import JPEG
from doubles import CREDENTIALS, Network, envelope, session_on

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
    RequestTooLargeError,
    ServiceError,
    ShardedGroup,
    VerifyResult,
    images,
)

pytestmark = pytest.mark.anyio


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
