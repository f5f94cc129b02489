"""The 13 endpoints (Spec: 2.1 to 2.13): the effect and the answer of each.

The return codes, about in the order of the checks; a strict server alone refuses what is marked with an asterisk. The
later endpoints (:mod:`face_async.server.later`) return the same codes.

=====  =====================================================================================================
Code   When
=====  =====================================================================================================
4      there is no Authorization header, or an empty one
5      it is no signature; * the word Bearer stands before it, or it has decimals in ``e`` or ``t``
10     no account has the appid that it names (only with a list of accounts)
11     no account has the SecretID that it names
12     the SecretID belongs to another appid's account (only with a list of accounts)
14     it was made with another SecretKey, or altered
9      it has expired, is good for no time or more than 3 months, or is dated over 15 minutes ahead; or, with
       ``replay_protection``, is good for more than an hour
13     it was used before, or the account has used too many (only with ``replay_protection``)
23     the body is larger than ``max_request_bytes``
3      there is no such endpoint, or the method is not POST (both before all other checks); the body is neither JSON
       nor multipart/form-data, or is cut short; * JSON is not labeled as such
21     a parameter has the wrong type, is no UTF-8, or is given twice; a picture in JSON is no base64, or stands under
       the name of another endpoint; * an id is a number, or a picture is in JSON
-1301  a required parameter is missing or empty
6      the signature is for another appid or bucket than the request; * ``tencentyun`` is such another bucket
16     the key has no such bucket, or has several and none is named (only with a list of accounts); * a bucket is
       ``tencentyun`` or has white space around it, which otherwise stand for no bucket and for the bucket inside
-1307  the list of groups is empty
-1304  an id or a text is too long
-1313  an id has white space, a slash or a control character
-1300  a picture is needed and none was sent, or an empty one
-1302  newperson: the person exists
-1303  no such person
-1306  getpersonids, identify, delgroupids, multidentify: no such group
-1309  addface: the person had all faces before the request; in ``ret_codes``: no room for this picture
-1308  the URL is not in ``url_allow_list``, or nothing could be fetched from it
15     more pictures wait than the server looks at in 10 s, or than its memory has room for; Retry-After says when to
       come again
-1400  the picture's format is not taken, such as GIF
-1102  the picture cannot be decoded
-1101  no face was found in it
-1103  the face's features could not be computed
-1104  shape: the recognizer in use has no points
-1312  addface, in ``ret_codes``: the person has almost the same face, which ``face_ids`` names
-1311  newperson, addgroupids: the appid would have too many groups
-1310  newperson, addgroupids: a group is full
-1305  delface, getfaceinfo: no such face
-1200  the database failed: disk full, read-only, away for 5 s, file deleted, or locked by another process for 10 s
213    an error in the server itself; its log has the traceback
=====  =====================================================================================================

Never returned unless scripted: 24, 107, 108, -1105 to -1109 and -1403 (:mod:`face_async.server.faults`).
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from face_async.errors import ReturnCode
from face_async.server.recognition import MATCH_SIMILARITY
from face_async.server.refusal import Refusal
from face_async.server.storage.workers import rankings, reads, writes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from face_async.limits import ServiceLimits
    from face_async.server.pictures import FaceFinder
    from face_async.server.recognition import Face
    from face_async.server.request.parameters import Parameters
    from face_async.server.storage.storage import Storage

TOP_CANDIDATES = 5
"""Persons that identify answers (Spec: 2.12)."""


@frozen
class Call:
    """One admitted request, and everything that handlers need to answer it."""

    appid: str
    parameters: Parameters
    store: Storage
    finder: FaceFinder
    limits: ServiceLimits


async def new_person(call: Call) -> dict[str, object]:
    """Spec: 2.1. All or nothing: a refusal of any kind creates neither person nor groups."""
    parameters = call.parameters
    group_ids = parameters.ids("group_ids", empty=ReturnCode.ERROR_GROUPLIST_NOT_EXISTED)
    person_id = parameters.id("person_id")
    name, tag = parameters.text("person_name") or "", parameters.text("tag") or ""
    picture = parameters.optional_picture()
    await reads.run(call.store.require_new, call.appid, person_id)  # before the expensive search for a face
    face = None if picture is None else await call.finder.find(picture)
    face_id = await writes.run(
        call.store.add_person,
        call.appid,
        person_id,
        group_ids,
        name=name,
        tag=tag,
        face=face,
        recognizer=call.finder.recognizer,
        limits=call.limits,
    )
    return {
        "person_id": person_id,
        "suc_group": len(group_ids),
        "suc_face": int(face is not None),
        "face_id": face_id,
        "group_ids": group_ids,
    }


async def del_person(call: Call) -> dict[str, object]:
    """Spec: 2.2. Groups stay even when nobody is left in them: no operation deletes groups."""
    person_id = call.parameters.id("person_id")
    await writes.run(call.store.delete_person, call.appid, person_id)
    return {"person_id": person_id, "deleted": 1}


async def add_face(call: Call) -> dict[str, object]:
    """Spec: 2.3. ``face_ids`` is positional like ``ret_codes``, as the hosted service was seen to answer."""
    person_id = call.parameters.id("person_id")
    tag = call.parameters.text("tag") or ""
    pictures = call.parameters.pictures("images", "urls")
    room = call.limits.max_faces_per_person
    await reads.run(call.store.require_room, call.appid, person_id, room)
    # Pictures beyond the room that any person has are refused unseen: that bounds the work of one request.
    faces = await call.finder.find_all(pictures[:room])
    additions = await writes.run(
        call.store.add_faces,
        call.appid,
        person_id,
        faces,
        tag=tag,
        recognizer=call.finder.recognizer,
        max_faces=room,
    )
    beyond = len(pictures[room:])
    return {
        "added": sum(addition.code == ReturnCode.OK for addition in additions),
        "face_ids": [*(addition.face_id for addition in additions), *[""] * beyond],
        "ret_codes": [*(addition.code for addition in additions), *[ReturnCode.ERROR_FACE_NUM_EXCEED] * beyond],
    }


async def del_face(call: Call) -> dict[str, object]:
    """Spec: 2.4."""
    person_id = call.parameters.id("person_id")
    face_ids = call.parameters.ids("face_ids", empty=ReturnCode.ERROR_PARAMETER_EMPTY)
    deleted = await writes.run(call.store.delete_faces, call.appid, person_id, face_ids)
    return {"deleted": len(deleted), "face_ids": deleted}


async def set_info(call: Call) -> dict[str, object]:
    """Spec: 2.5. What is not sent stays; an empty text clears."""
    person_id = call.parameters.id("person_id")
    name, tag = call.parameters.text("person_name"), call.parameters.text("tag")
    await writes.run(call.store.set_info, call.appid, person_id, name=name, tag=tag)
    return {"person_id": person_id}


async def get_info(call: Call) -> dict[str, object]:
    """Spec: 2.6."""
    person = await reads.run(call.store.person, call.appid, call.parameters.id("person_id"))
    return {
        "person_id": person.person_id,
        "person_name": person.name,
        "face_ids": person.face_ids,
        "group_ids": person.group_ids,
        "tag": person.tag,
    }


async def get_group_ids(call: Call) -> dict[str, object]:
    """Spec: 2.7. An appid without groups has an empty list."""
    return {"group_ids": await reads.run(call.store.group_ids, call.appid)}


async def get_person_ids(call: Call) -> dict[str, object]:
    """Spec: 2.8."""
    return {"person_ids": await reads.run(call.store.person_ids, call.appid, call.parameters.id("group_id"))}


async def get_face_ids(call: Call) -> dict[str, object]:
    """Spec: 2.9."""
    return {"face_ids": await reads.run(call.store.face_ids, call.appid, call.parameters.id("person_id"))}


async def get_face_info(call: Call) -> dict[str, object]:
    """Spec: 2.10."""
    return {"face_info": await reads.run(call.store.face_info, call.appid, call.parameters.id("face_id"))}


async def verify(call: Call) -> dict[str, object]:
    """Spec: 2.11. The person's most similar face counts; a person without faces matches no picture."""
    person_id = call.parameters.id("person_id")
    picture = call.parameters.picture("image", "url")
    recognizer = call.finder.recognizer
    embeddings = await reads.run(call.store.embeddings, call.appid, person_id, recognizer)
    face = await call.finder.find(picture)
    similarities = recognizer.similarities(face.embedding, embeddings) if len(embeddings) else ()
    confidence = float(max(similarities, default=0.0))
    return {"confidence": confidence, "ismatch": confidence >= MATCH_SIMILARITY}


async def identify(call: Call) -> dict[str, object]:
    """Spec: 2.12. Several ``group_ids`` instead of one ``group_id`` are searched as if they were one group.

    The hosted service was seen to add how many faces it searched, and how long it took.
    """
    begun = time.perf_counter()
    group_ids = call.parameters.groups()
    picture = call.parameters.picture("image", "url")
    await reads.run(call.store.require_groups, call.appid, group_ids)
    face = await call.finder.find(picture)
    [candidates], effort = await search(call, group_ids, [face], begun)
    return {"candidates": candidates, **effort}


async def search(
    call: Call, group_ids: Sequence[str], faces: Sequence[Face], begun: float
) -> tuple[list[list[dict[str, object]]], dict[str, object]]:
    """Return the persons of some groups whom each of some faces is most like, and what that has cost.

    The latter is with how many faces of the groups each was compared, and the milliseconds since the call began.

    Args:
        call: The call.
        group_ids: The groups.
        faces: The faces.
        begun: The performance counter when the call began.
    """
    probes = [face.embedding for face in faces]

    def find() -> tuple[list[list[dict[str, object]]], int]:
        found, size = call.store.search(call.appid, group_ids, probes, call.finder.recognizer, TOP_CANDIDATES)
        return [[asdict(match) for match in matches] for matches in found], size

    candidates, size = await rankings.run(find)  # all in one thread: handing over costs about as much as a small group
    return candidates, {"group_size": size, "time_ms": round(1_000 * (time.perf_counter() - begun))}


async def compare(call: Call) -> dict[str, object]:
    """Spec: 2.13, whose samples post to ``/face/identify`` by mistake. One picture and one URL may be mixed."""
    pictures = [call.parameters.picture("imageA", "urlA"), call.parameters.picture("imageB", "urlB")]
    first, second = await call.finder.find_all(pictures)
    if isinstance(first, Refusal):
        raise Refusal(first.code, {"fail_flag": 1})
    if isinstance(second, Refusal):
        raise Refusal(second.code, {"fail_flag": 2})
    similarities = call.finder.recognizer.similarities(first.embedding, second.embedding[None, :])
    return {"similarity": float(similarities[0])}


HANDLERS: Mapping[str, Callable[[Call], Awaitable[dict[str, object]]]] = MappingProxyType(
    {
        "newperson": new_person,
        "delperson": del_person,
        "addface": add_face,
        "delface": del_face,
        "setinfo": set_info,
        "getinfo": get_info,
        "getgroupids": get_group_ids,
        "getpersonids": get_person_ids,
        "getfaceids": get_face_ids,
        "getfaceinfo": get_face_info,
        "verify": verify,
        "identify": identify,
        "compare": compare,
    }
)
"""The specification's name of each endpoint -> its handler."""

WITHOUT_SESSION_ID = frozenset({"getgroupids", "getpersonids", "getfaceids", "getfaceinfo"})
"""The endpoints whose answers have no ``session_id`` (Spec: 2.7 to 2.10)."""
