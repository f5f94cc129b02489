"""What became of an effect whose answer was lost: found out, never guessed, and said."""

from __future__ import annotations

import io

import anyio
import pytest
from attrs import evolve
from serverkit import ToyRecognizer, picture
from timing import PATIENCE, in_time

from face_async import (
    AlreadyExistsError,
    AuthError,
    CallError,
    FaceLimitError,
    ImageError,
    ImageRefusedError,
    NotFoundError,
    RetryPolicy,
    ServiceLimits,
    TransportError,
    UnavailableError,
)
from face_async.testing import FaceServer

pytestmark = pytest.mark.anyio

AT_ONCE = RetryPolicy(base_delay=0)


@pytest.fixture
def server():
    with FaceServer(recognizer=ToyRecognizer(), limits=ServiceLimits(max_faces_per_person=4)) as server:
        yield server
        assert server.faults.pending == ()


@pytest.fixture
async def session(server, anyio_backend):
    async with server.session(retry=AT_ONCE) as session:
        yield session


def counted(server):
    """Return how often each endpoint was called."""
    counts: dict[str, int] = {}
    for call in server.calls():
        counts[call.endpoint] = counts.get(call.endpoint, 0) + 1
    return counts


async def face_of(session, person_id, image, group_id="staff"):
    """Return the id of the person's face that was made from a picture."""
    best = next(one for one in (await session.identify(group_id, image)).candidates if one.person_id == person_id)
    assert best.confidence == 100
    return best.face_id


LOST = [
    pytest.param({"drop_response": True}, id="answer lost"),
    pytest.param({"code": 213, "after": True}, id="213 after the effect"),
    pytest.param({"code": -1200, "after": True}, id="-1200 after the effect"),
    pytest.param({"code": 13, "after": True}, id="13 after the effect"),
    pytest.param({"status": 502, "after": True}, id="502 after the effect"),
    pytest.param({"drop_response": True, "late": 1}, id="late, before the retry"),
]
NEVER = [
    pytest.param({"drop_request": True}, id="request lost"),
    pytest.param({"code": 213}, id="213 before the effect"),
    pytest.param({"status": 500}, id="500 before the effect"),
]


# new_person


@pytest.mark.parametrize("fault", LOST)
async def test_a_person_made_by_a_lost_answer_is_ours(server, session, fault):
    """-1302 after it is no error: the person that is there is the one that was made, with its face."""
    server.faults.add("newperson", **fault)
    made = await session.new_person("ada", ["staff", "hq"], picture(1), person_name="Ada", tag="t")

    info = await session.get_info("ada")
    assert (made.suc_group, made.suc_face, (made.face_id,)) == (2, 1, info.face_ids)
    assert (made.meta.settled, made.meta.attempts) == ("the person was there already", 2)
    assert counted(server) == {"newperson": 2, "getinfo": 2, "identify": 1}


@pytest.mark.parametrize("fault", NEVER)
async def test_a_person_not_made_by_a_lost_request_is_made_by_the_next(server, session, fault):
    """Nothing has to be looked at: the second answer tells it all."""
    server.faults.add("newperson", **fault)
    made = await session.new_person("ada", ["staff"], picture(1))

    assert (made.suc_face, made.meta.settled, made.meta.attempts) == (1, "", 2)
    assert counted(server) == {"newperson": 2}


async def test_a_person_that_was_there_is_somebody_elses(server, session):
    """-1302 on a clean first attempt; after a lost request, with other texts, groups or face, nobody can be sure."""
    await session.new_person("ada", ["staff"], person_name="Ada")
    with pytest.raises(AlreadyExistsError):
        await session.new_person("ada", ["staff"], person_name="Ada")
    assert counted(server) == {"newperson": 2}
    await session.add_face("ada", [picture(1)])
    for groups, name, image in ((["staff"], "Eve", None), (["guests"], "Ada", None), (["staff"], "Ada", picture(7))):
        server.faults.add("newperson", drop_request=True)
        with pytest.raises(AlreadyExistsError) as caught:
            await session.new_person("ada", groups, image, person_name=name)
        assert (caught.value.maybe_applied, caught.value.attempts) == (True, 2)


@pytest.mark.parametrize("image", [None, picture(1)])
async def test_a_person_with_more_faces_than_the_call_would_give_is_somebody_elses(server, session, image):
    """Who has no name, no tag and the same groups is told by that alone."""
    await session.new_person("ada", ["staff"], picture(1))
    await session.add_face("ada", [picture(2)])
    for exist_ok in (False, True):
        server.faults.add("newperson", drop_request=True)
        if exist_ok:
            assert not (await session.new_person("ada", ["staff", "hq"], image, exist_ok=True)).created
            continue
        with pytest.raises(AlreadyExistsError) as caught:
            await session.new_person("ada", ["staff", "hq"], image)
        assert (caught.value.maybe_applied, caught.value.attempts) == (True, 2)


async def test_a_face_that_is_missing_is_added(server, session):
    """A person half made is completed, and the result says how."""
    await session.new_person("ada", ["staff"])
    server.faults.add("newperson", drop_request=True)
    made = await session.new_person("ada", ["staff"], picture(1))

    assert (made.suc_face, made.face_id) == (1, await face_of(session, "ada", picture(1)))
    assert made.meta.settled == "the person was there already, the face was added"


async def test_a_face_that_cannot_be_added_is_missing_in_the_result(server, session):
    """suc_face says so, and so does meta."""
    await session.new_person("ada", ["staff"])
    server.faults.add("newperson", drop_request=True)
    made = await session.new_person("ada", ["staff"], b"nobody is here")

    assert (made.suc_face, made.face_id) == (0, "")
    assert made.meta.settled == "the person was there already, the face was refused"


async def test_a_group_that_is_missing_is_missing_in_the_result(server, session):
    """A partial result counts the groups that there are."""
    await session.new_person("ada", ["staff"])
    server.faults.add("newperson", drop_request=True)
    made = await session.new_person("ada", ["staff", "hq"])

    assert (made.suc_group, made.group_ids) == (1, ("staff",))


async def test_a_person_who_may_exist_is_left_as_they_are(server, session):
    """exist_ok=True creates who is missing; who is there gets no face, no group and no text, and the result says so."""
    made = await session.new_person("ada", ["staff"], picture(1), person_name="Ada", exist_ok=True)
    assert (made.created, made.suc_group, made.suc_face) == (True, 1, 1)
    assert counted(server) == {"newperson": 1}
    before = await session.get_info("ada")
    server.faults.add("newperson", drop_request=True)  # makes no difference: nobody has changed anything
    for _ in range(2):
        found = await session.new_person("ada", ["hq"], picture(7), person_name="Eve", tag="t", exist_ok=True)
        assert (found.created, found.suc_group, found.suc_face, found.face_id) == (False, 0, 0, "")
        assert (found.person_id, found.group_ids, found.meta.status) == ("ada", ("staff",), 200)
    assert before == evolve(await session.get_info("ada"), session_id=before.session_id)


@pytest.mark.parametrize("fault", LOST)
async def test_who_was_created_by_a_lost_answer_did_not_exist(server, session, fault):
    """Also where an existing person would have done."""
    server.faults.add("newperson", **fault)
    made = await session.new_person("ada", ["staff"], picture(1), exist_ok=True)
    assert (made.created, made.suc_face, made.meta.settled) == (True, 1, "the person was there already")


async def test_only_existing_is_permitted_by_exist_ok(server, session):
    """Every other error is raised as ever, and nothing is looked at."""
    with pytest.raises(ImageError):
        await session.new_person("ada", ["staff"], b"nobody is here", exist_ok=True)
    assert counted(server) == {"newperson": 1}


# del_person


@pytest.mark.parametrize("fault", LOST)
async def test_a_person_deleted_by_a_lost_answer_is_deleted(server, session, fault):
    """-1303 after it is success."""
    await session.new_person("ada", ["staff"])
    server.faults.add("delperson", **fault)
    gone = await session.del_person("ada")

    assert (gone.person_id, gone.deleted, gone.meta.settled) == ("ada", 1, "the person was already absent")
    assert counted(server) == {"newperson": 1, "delperson": 2}


async def test_a_person_who_was_never_there_is_not_found(server, session):
    """-1303 on a clean first attempt."""
    with pytest.raises(NotFoundError) as caught:
        await session.del_person("ada")
    assert caught.value.maybe_applied is False


# set_info


@pytest.mark.parametrize("fault", [*LOST, *NEVER])
async def test_values_are_set_again(server, session, fault):
    """Setting twice is setting once."""
    await session.new_person("ada", ["staff"])
    server.faults.add("setinfo", **fault)
    done = await session.set_info("ada", tag="new")

    assert (done.meta.attempts, done.meta.settled) == (2, "")
    assert (await session.get_info("ada")).tag == "new"


# del_face


@pytest.mark.parametrize("fault", LOST)
async def test_faces_deleted_by_a_lost_answer_are_deleted(server, session, fault):
    """-1305 after it is success when none of the ids is left."""
    await session.new_person("ada", ["staff"])
    face_ids = [face.face_id for face in (await session.add_face("ada", [picture(1), picture(1, 9)])).faces]
    server.faults.add("delface", **fault)
    gone = await session.del_face("ada", face_ids)

    assert (gone.deleted, gone.face_ids, gone.meta.settled) == (2, tuple(face_ids), "none of the faces is left")
    assert await session.get_face_ids("ada") == []


async def test_faces_that_were_never_there_are_not_found(server, session):
    """-1305 on a clean first attempt, and -1303 whenever the person is gone."""
    await session.new_person("ada", ["staff"], picture(1))
    with pytest.raises(NotFoundError):
        await session.del_face("ada", ["1"])
    server.faults.add("delface", drop_request=True)
    with pytest.raises(NotFoundError) as caught:
        await session.del_face("bob", ["1"])
    assert caught.value.maybe_applied is False


# add_face


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("known", [True, False], ids=["faces known", "faces unknown"])
async def test_a_face_added_by_a_lost_answer_is_added(server, session, fault, known):
    """-1312 after it is success, with the id of the new face."""
    before = (await session.new_person("ada", ["staff"], picture(1))).face_id
    server.faults.add("addface", **fault)
    added = await session._add_face("ada", [picture(1, 9)], before=[before] if known else None)

    assert [(face.code, face.face_id) for face in added.faces] == [(0, await face_of(session, "ada", picture(1, 9)))]
    assert (added.added, added.meta.settled) == (1, "faces that were there already: 1")
    assert [int] == [type(code) for code in added.ret_codes]
    assert len(await session.get_face_ids("ada")) == 2


@pytest.mark.parametrize("known", [True, False], ids=["faces known", "faces unknown"])
async def test_every_picture_of_a_batch_gets_its_own_face(server, session, known):
    """Part of a batch was done before the answer was lost: no face is given to another's picture."""
    before = [(await session.new_person("ada", ["staff"], picture(1))).face_id]
    pictures = [picture(1, shot) for shot in (30, 10, 20)]
    server.faults.add("addface", code=213, partial=2)
    added = await session._add_face("ada", pictures, before=before if known else None)

    expected = [(0, await face_of(session, "ada", one)) for one in pictures]
    assert [(face.code, face.face_id) for face in added.faces] == expected
    assert added.added == 3


async def test_an_older_duplicate_stays_one_when_the_faces_before_are_known(server, session):
    """The one that the lost request added is told from the one that was there."""
    before = [(await session.new_person("ada", ["staff"], picture(1))).face_id]
    server.faults.add("addface", drop_response=True)
    added = await session._add_face("ada", [picture(1, 9), picture(1)], before=before)

    assert [face.code for face in added.faces] == [0, -1312]


async def test_a_picture_twice_in_a_batch_is_added_once(server, session):
    """The second one is a duplicate, whatever happens to the answer."""
    await session.new_person("ada", ["staff"])
    server.faults.add("addface", drop_response=True)
    added = await session._add_face("ada", [picture(1), picture(1)], before=[])

    assert [face.code for face in added.faces] == [0, -1312]


@pytest.mark.parametrize("known", [True, False], ids=["faces known", "faces unknown"])
async def test_a_person_filled_by_the_lost_answer_is_no_error(server, session, known):
    """-1309 after it: those that are there were added, those for which there was no room were not."""
    before = [(await session.new_person("ada", ["staff"], picture(1))).face_id]
    pictures = [picture(1, shot) for shot in (10, 20, 30, 40)]
    server.faults.add("addface", drop_response=True)
    added = await session._add_face("ada", pictures, before=before if known else None)

    expected = [*[(0, await face_of(session, "ada", one)) for one in pictures[:3]], (-1309, None)]
    assert [(face.code, face.face_id) for face in added.faces] == expected
    assert len(await session.get_face_ids("ada")) == 4


async def test_a_person_filled_by_somebody_else_is_full(server, session):
    """-1309 after a lost request, and none of the faces is ours: the refusal stands."""
    await session.new_person("ada", ["staff"])
    await session.add_face("ada", [picture(1, shot) for shot in (1, 2, 3, 4)])
    server.faults.add("addface", drop_request=True)
    with pytest.raises(FaceLimitError) as caught:
        await session.add_face("ada", [picture(1, 20)])
    assert caught.value.maybe_applied is True  # a request that was lost may come late


async def test_a_file_object_is_sent_and_looked_at_as_often_as_it_takes(server, session):
    """It was read once, and is remembered."""
    await session.new_person("ada", ["staff"])
    server.faults.add("addface", drop_response=True, times=3)
    added = await session.add_face("ada", [io.BytesIO(picture(1, 3))])

    assert [face.face_id for face in added.faces] == await session.get_face_ids("ada")
    assert counted(server)["addface"] == 3


async def test_without_a_group_an_only_new_face_is_still_known(server, session):
    """Nobody can be identified outside of groups: the lists of faces must do."""
    await session.new_person("ada", ["staff"])
    server.faults.add("addface", drop_response=True)
    server.faults.add("identify", code=107, times=3)
    added = await session._add_face("ada", [picture(1)], before=[])
    server.faults.clear()

    assert [face.face_id for face in added.faces] == await session.get_face_ids("ada")


# When all attempts are used up

EFFECTS = {
    "newperson": lambda session: session.new_person("eve", ["staff"], picture(5)),
    "delperson": lambda session: session.del_person("ada"),
    "addface": lambda session: session.add_face("ada", [picture(1, 9), picture(1, 19)]),
    "delface": lambda session: session.del_face("ada", ["1"]),
    "setinfo": lambda session: session.set_info("ada", person_name="Ada", tag="new"),
}


@pytest.fixture
async def ada(server, session):
    """A person with two faces, one of them with the id 1."""
    await session.new_person("ada", ["staff"], picture(1))
    server._store._database.write(lambda db: db.execute("UPDATE faces SET face_id = '1'").rowcount)
    await session.add_face("ada", [picture(1, 5)])


@pytest.mark.parametrize("endpoint", EFFECTS)
async def test_an_effect_that_happened_is_found_although_no_attempt_was_answered(server, session, ada, endpoint):
    """A last look settles it."""
    server.faults.add(endpoint, drop_response=True, times=3)
    result = await EFFECTS[endpoint](session)

    assert result.meta.settled
    assert (result.meta.attempts, counted(server)[endpoint] - (endpoint in {"newperson", "addface"})) == (3, 3)


@pytest.mark.parametrize("endpoint", EFFECTS)
@pytest.mark.parametrize("fault", [{"drop_request": True}, {"code": 213}, {"status": 503}], ids=["lost", "213", "503"])
async def test_an_effect_that_is_not_found_stays_in_doubt(server, session, ada, endpoint, fault):
    """It may still come late: the error says so, and says to look."""
    server.faults.add(endpoint, times=3, **fault)
    before = server.snapshot()
    with pytest.raises(CallError, match="look before repeating") as caught:
        await EFFECTS[endpoint](session)

    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 3)
    assert before == server.snapshot()


@pytest.mark.parametrize("endpoint", EFFECTS)
async def test_a_doubt_is_not_forgotten_for_what_comes_after(server, session, ada, endpoint):
    """The first request may have had its effect, whatever the second was refused with; and looking fails as well."""
    server.faults.add(endpoint, drop_request=True)
    server.faults.add(endpoint, code=14)
    for look in ("getinfo", "getfaceids"):
        server.faults.add(look, code=14)
    with pytest.raises(AuthError, match="look before repeating") as caught:
        await EFFECTS[endpoint](session)
    server.faults.clear()

    assert (caught.value.code, caught.value.maybe_applied) == (14, True)


@pytest.mark.parametrize("endpoint", ["newperson", "addface"])
async def test_a_picture_that_is_refused_leaves_no_doubt(server, session, ada, endpoint):
    """The lost request was refused alike: there is nothing to look for."""
    server.faults.add(endpoint, drop_request=True)
    server.faults.add(endpoint, code=-1101)
    with pytest.raises(ImageError) as caught:
        await EFFECTS[endpoint](session)
    assert caught.value.maybe_applied is False


async def test_a_picture_that_changes_before_it_is_sent_again_leaves_a_doubt(server, session, ada, tmp_path):
    """The error names the change, and that the first request may have had its effect."""
    path = tmp_path / "large.jpg"
    path.write_bytes(picture(1, 7).ljust(300_000, b"."))
    server.faults.add("addface", drop_request=True)
    original = server.faults.perform

    async def change_then(*arguments):
        path.write_bytes(b"other")
        return await original(*arguments)

    server.faults.perform = change_then
    with pytest.raises(TransportError, match=r"changed while.*look before repeating") as caught:
        await session.add_face("ada", [path])
    assert isinstance(caught.value.__cause__, ImageRefusedError)
    assert (caught.value.maybe_applied, caught.value.attempts) == (True, 2)


async def test_one_attempt_is_one_request(server, ada):
    """With max_attempts=1 nothing is tried again, and nothing is looked at."""
    server.faults.add("setinfo", code=213, after=True)
    calls = len(server.calls())
    async with server.session(retry=RetryPolicy(max_attempts=1)) as once:
        with pytest.raises(UnavailableError) as caught:
            await once.set_info("ada", tag="new")
    assert (caught.value.maybe_applied, len(server.calls()) - calls) == (True, 1)


# What says nothing of the effect


@pytest.mark.parametrize("code", [3, 16, 21])
@pytest.mark.parametrize("endpoint", EFFECTS)
async def test_a_code_that_may_come_and_go_settles_nothing(server, session, ada, endpoint, code):
    """A bucket gone, or an account unpaid, for a moment: looking tells, and if it fails, the doubt stays."""
    for look in ("getinfo", "getfaceids"):
        server.faults.add(look, code=14)
    server.faults.add(endpoint, drop_response=True)
    server.faults.add(endpoint, code=code)
    with pytest.raises(CallError, match="look before repeating") as caught:
        await EFFECTS[endpoint](session)
    server.faults.clear()

    assert (caught.value.code, caught.value.maybe_applied) == (code, True)


async def test_who_is_not_deleted_is_not_called_absent_for_a_missing_bucket(server, session, ada):
    """Code 16 after a lost request is no word about the person."""
    server.faults.add("delperson", drop_request=True)
    server.faults.add("delperson", code=16)
    with pytest.raises(NotFoundError) as caught:
        await session.del_person("ada")

    assert (caught.value.code, caught.value.maybe_applied) == (16, True)
    assert (await session.get_info("ada")).face_ids


async def test_large_pictures_in_files_are_recognized_one_by_one(server, session, tmp_path):
    """What was too large to be kept in memory with others is read again for looking."""
    paths = []
    for shot in (3, 13):
        paths.append(tmp_path / f"{shot}.jpg")
        paths[-1].write_bytes(picture(1, shot).ljust(150_000, b"\0"))
    await session.new_person("ada", ["staff"])
    server.faults.add("addface", drop_response=True)
    server.faults.add("addface", code=107, times=2)
    with pytest.raises(CallError) as caught:  # the toy takes all padded pictures for one, so they are one face
        await session.add_face("ada", paths)

    assert caught.value.maybe_applied
    sent = [call.pictures["image"][0] for call in server.calls("identify")]
    assert [path.read_bytes() for path in paths] == sent


async def test_looking_ends_with_the_call(server, ada):
    """However many looks there would be, the deadline is one for all of them."""

    async def act(deadline):
        server.faults.clear()
        server.faults.add("addface", drop_response=True)
        server.faults.add("addface", code=107, times=2)
        server.faults.add("getfaceids", delay=10 * PATIENCE)
        async with server.session(retry=AT_ONCE, deadline=deadline) as hasty:
            with anyio.fail_after(PATIENCE), pytest.raises(CallError) as caught:
                await hasty.add_face("ada", [picture(1, 9)])
        assert caught.value.maybe_applied is True

    await in_time(act)
