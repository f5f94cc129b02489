"""Settlement: what became of an effect whose answer was lost on the way.

An effect that may have happened is tried again, and then looked at through the other endpoints:

=========== ==========================================================================================================
newperson   -1302 says that a person of this id is there: it is ours if name, tag, groups and face are; a face that is
            missing is added, a group that is missing is missing in the result, too
delperson   -1303: the person is gone
addface     -1312 or -1309 say of a picture that it, or room for it, is gone: it was added if the person has a face
            that was not there before, and whose picture it is
delface     -1305: none of the faces is left
setinfo     the values are the ones that were set
addgroupids the person is in all of the groups
delgroupids the person is in none of them
=========== ==========================================================================================================

All requests are made by the verbs of a :class:`FaceApi`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from attrs import frozen

from face_async._call.observation import logger
from face_async.endpoints import (
    ADD_FACE,
    ADD_GROUP_IDS,
    DEL_FACE,
    DEL_GROUP_IDS,
    DEL_PERSON,
    NEW_PERSON,
    SET_INFO,
    subject_of,
)
from face_async.errors import (
    FaceError,
    FaceLimitError,
    ImageError,
    InvalidParameterError,
    NotFoundError,
    ReturnCode,
    ServiceError,
    call_label,
)
from face_async.models import (
    AddFaceResult,
    AddGroupIdsResult,
    DelFaceResult,
    DelGroupIdsResult,
    DelPersonResult,
    NewPersonResult,
    SetInfoResult,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from face_async.endpoints import FaceApi, Fields
    from face_async.images import ImageSource
    from face_async.models import Candidate, PersonInfo, Result

_NOT_FETCHED = frozenset({ReturnCode.ERROR_DOWNLOAD_IMAGE_FAILED, ReturnCode.ERROR_IMAGE_DOWNLOAD_FAILED})
"""Codes of a picture that the service could not fetch this time."""

_UNTOLD = frozenset({ReturnCode.ERROR_SAME_FACE_ADDED, ReturnCode.ERROR_FACE_NUM_EXCEED, *_NOT_FETCHED, None})
"""What a picture's code may be in a later answer although an earlier request has added it."""

_DETERMINED = (
    frozenset(code for code in ReturnCode if code < 0 and code.error in {ImageError, InvalidParameterError})
    - _NOT_FETCHED
)
"""Codes that follow from the bytes of the request, whenever it is sent."""

_SAME_PICTURE = 99.0
"""Confidence from which on a face was made from this very picture: other pictures of a person stay well below."""


@frozen
class Doubt:
    """An effect in doubt.

    Attributes:
        endpoint: The specification's name of the endpoint.
        fields: The text parameters of the call.
        images: The images of the call.
        ended: What its last attempt ended with.
        before: The person's faces before the call, None when they are not known.
    """

    endpoint: str
    fields: Fields
    images: Sequence[ImageSource]
    ended: Result | FaceError
    before: Collection[str] | None = None

    def text(self, name: str) -> str:
        """Return a text parameter, empty if it was not given."""
        return cast("str", self.fields.get(name) or "")

    def texts(self, name: str) -> list[str]:
        """Return a parameter that is a list."""
        return list(cast("Sequence[str]", self.fields[name]))


@frozen
class Finding:
    """What became of an effect in doubt.

    Attributes:
        result: The result that it had, None when the last attempt's error stands.
        how: How the result is known, empty when the last answer tells it all.
        certain: Whether an error that stands is the whole truth; else the effect may have happened all the same.
    """

    result: Result | None = None
    how: str = ""
    certain: bool = True

    def log(self, label: str) -> None:
        """Log what became of the effect of a call."""
        if self.certain:
            how = self.how or ("the last answer tells it" if self.result else "it had no effect")
            logger.info("%s: an answer was lost, and the doubt is settled: %s", label, how)
        else:
            logger.warning("%s: an answer was lost, and looking does not tell whether the effect has happened", label)


_REFUSED = Finding()
_UNKNOWN = Finding(certain=False)


async def settle(api: FaceApi, doubt: Doubt) -> Finding:
    """Find out what became of an effect; whatever asking raises leaves it unknown."""
    finding = await _find(api, doubt)
    finding.log(call_label(doubt.endpoint, subject_of(doubt.fields)))
    return finding


async def _find(api: FaceApi, doubt: Doubt) -> Finding:
    if isinstance(doubt.ended, ServiceError) and doubt.ended.code in _DETERMINED:
        return _REFUSED  # every attempt would have been, so that none can have had an effect
    try:
        return await _SETTLERS[doubt.endpoint](api, doubt)
    except FaceError:
        return _UNKNOWN  # looking failed


async def _new_person(api: FaceApi, doubt: Doubt) -> Finding:
    if isinstance(doubt.ended, NewPersonResult):
        return Finding(doubt.ended)
    person_id, group_ids = doubt.text("person_id"), doubt.texts("group_ids")
    info = await _person_info(api, person_id)
    if info is None:
        return _UNKNOWN
    texts = doubt.text("person_name"), doubt.text("tag")
    is_changed = texts != (info.person_name, info.tag) or len(info.face_ids) > len(doubt.images)
    if is_changed or not set(info.group_ids) <= set(group_ids):
        return _UNKNOWN  # another client's person, or ours, changed since by another client
    how, face_id = "the person was there already", ""
    if doubt.images and info.face_ids:
        seen = await _recognize(api, doubt, 0, info)
        if seen is None or seen.confidence < _SAME_PICTURE:
            return _UNKNOWN  # the face was not made from this picture, so the person may be another client's
        face_id = seen.face_id
    elif doubt.images:
        added = await api.add_face(person_id, doubt.images, tag=doubt.text("tag") or None)
        face_id = added.faces[0].face_id or ""
        how += ", the face was added" if face_id else ", the face was refused"
    result = NewPersonResult(
        person_id=person_id,
        suc_group=len(info.group_ids),
        suc_face=1 if face_id else 0,
        face_id=face_id,
        group_ids=info.group_ids,
    )
    return Finding(result, how)


async def _del_person(api: FaceApi, doubt: Doubt) -> Finding:
    if isinstance(doubt.ended, DelPersonResult):
        return Finding(doubt.ended)
    person_id = doubt.text("person_id")
    if not _is_absent(doubt.ended) and await _person_info(api, person_id) is not None:
        return _UNKNOWN
    return Finding(DelPersonResult(person_id=person_id, deleted=1), "the person was already absent")


async def _set_info(api: FaceApi, doubt: Doubt) -> Finding:
    if isinstance(doubt.ended, SetInfoResult):
        return Finding(doubt.ended)
    if _is_absent(doubt.ended):
        return _REFUSED
    info = await api.get_info(doubt.text("person_id"))
    there = {"person_name": info.person_name, "tag": info.tag}
    if any(doubt.fields.get(name) not in {None, value} for name, value in there.items()):
        return _UNKNOWN
    return Finding(SetInfoResult(person_id=info.person_id), "the person has these values")


async def _del_face(api: FaceApi, doubt: Doubt) -> Finding:
    wanted = doubt.texts("face_ids")
    if _is_absent(doubt.ended):
        return _REFUSED
    if isinstance(doubt.ended, DelFaceResult) and set(doubt.ended.face_ids) >= set(wanted):
        return Finding(doubt.ended)
    left = set(await api.get_face_ids(doubt.text("person_id")))
    if left.isdisjoint(wanted):
        return Finding(DelFaceResult(deleted=len(wanted), face_ids=tuple(wanted)), "none of the faces is left")
    return Finding(doubt.ended) if isinstance(doubt.ended, DelFaceResult) else _UNKNOWN


async def _add_face(api: FaceApi, doubt: Doubt) -> Finding:
    """Find out which pictures of an addface call were added."""
    if _is_absent(doubt.ended):
        return _REFUSED
    pictures = _SentPictures(doubt)
    if pictures.unknown:
        after = await api.get_face_ids(doubt.text("person_id"))
        known = {*pictures.added.values(), *(doubt.before or ())}
        pictures.fresh = [face_id for face_id in after if face_id not in known]
        await _attribute(api, pictures)
    left = [place for place in pictures.unknown if place not in pictures.found]
    if pictures.fresh and any(pictures.codes[place] in _NOT_FETCHED for place in left):
        return _UNKNOWN  # the picture cannot be looked at any more
    if isinstance(doubt.ended, AddFaceResult) and not pictures.found:
        return Finding(doubt.ended)
    if not pictures.found or (left and None in pictures.codes):
        return _UNKNOWN
    return Finding(pictures.result(), f"faces that were there already: {len(pictures.found)}")


async def _add_group_ids(api: FaceApi, doubt: Doubt) -> Finding:
    wanted = doubt.texts("group_ids")
    if isinstance(doubt.ended, AddGroupIdsResult) and set(doubt.ended.group_ids) >= set(wanted):
        return Finding(doubt.ended)
    if _is_absent(doubt.ended):
        return _REFUSED
    info = await api.get_info(doubt.text("person_id"))
    if not set(wanted) <= set(info.group_ids):
        return _UNKNOWN
    result = AddGroupIdsResult(person_id=info.person_id, added=len(wanted), group_ids=tuple(wanted))
    return Finding(result, "the person is in all of the groups")


async def _del_group_ids(api: FaceApi, doubt: Doubt) -> Finding:
    wanted = doubt.texts("group_ids")
    if isinstance(doubt.ended, DelGroupIdsResult) and set(doubt.ended.group_ids) >= set(wanted):
        return Finding(doubt.ended)
    if isinstance(doubt.ended, NotFoundError):
        return _REFUSED  # no operation deletes groups, so one that does not exist never did
    info = await api.get_info(doubt.text("person_id"))
    if not set(info.group_ids).isdisjoint(wanted):
        return _UNKNOWN
    result = DelGroupIdsResult(person_id=info.person_id, deleted=len(wanted), group_ids=tuple(wanted))
    return Finding(result, "the person is in none of the groups")


class _SentPictures:
    """The pictures of one addface call, by their places.

    Attributes:
        codes: Every picture's code in the last answer, None where that says nothing of single pictures.
        added: The ids of the faces that the last answer says were added.
        named: The ids that the last answer has beside other codes: those of the older faces, as far as it was seen.
        unknown: The pictures that an earlier attempt may have added.
        fresh: The person's faces that were not there before the call, or may not have been.
        found: The ids of those that an earlier attempt added, empty where they cannot be told.
    """

    def __init__(self, doubt: Doubt) -> None:
        self.doubt = doubt
        self.added: dict[int, str] = {}
        self.named: dict[int, str] = {}
        self.codes: list[int | None] = [None] * len(doubt.images)
        if isinstance(doubt.ended, AddFaceResult):
            faces = doubt.ended.faces
            self.codes = [face.code for face in faces]
            self.added = {place: face.face_id or "" for place, face in enumerate(faces) if face.added}
            if len(doubt.ended.face_ids) == len(faces):
                self.named = dict(enumerate(doubt.ended.face_ids))
        elif isinstance(doubt.ended, FaceLimitError):
            self.codes = [ReturnCode.ERROR_FACE_NUM_EXCEED] * len(doubt.images)
        self.unknown = [place for place, code in enumerate(self.codes) if code in _UNTOLD]
        self.fresh: list[str] = []
        self.found: dict[int, str] = {}

    def claim(self, place: int, face_id: str) -> bool:
        """Give a fresh face to a picture, unless another one has it."""
        if face_id not in self.fresh:
            return False
        self.fresh.remove(face_id)
        self.found[place] = face_id
        return True

    def result(self) -> AddFaceResult:
        """Return what became of all pictures together."""
        face_ids = self.added | self.found
        codes = [ReturnCode.OK if place in face_ids else cast("int", code) for place, code in enumerate(self.codes)]
        return AddFaceResult(
            added=len(face_ids),
            face_ids=tuple(face_ids.get(place, "") for place in range(len(codes))),
            ret_codes=tuple(map(int, codes)),  # plain numbers, as an answer has them
        )


async def _attribute(api: FaceApi, pictures: _SentPictures) -> None:
    """Find the faces of the unknown pictures.

    Neither by their order, nor because a face is the only new one: another client may have added it. A face belongs to
    a picture if the server names it beside the picture's code, or recognizes the picture as it.
    """
    unnamed = [
        place
        for place in pictures.unknown
        if pictures.codes[place] != ReturnCode.ERROR_SAME_FACE_ADDED
        or not pictures.claim(place, pictures.named.get(place, ""))
    ]
    if not (unnamed and pictures.fresh):
        return
    info = await _person_info(api, pictures.doubt.text("person_id"))
    nameless: list[int] = []
    for place in unnamed:
        duplicate = pictures.codes[place] == ReturnCode.ERROR_SAME_FACE_ADDED
        seen = await _recognize(api, pictures.doubt, place, info)
        if seen is not None and (duplicate or seen.confidence >= _SAME_PICTURE):
            pictures.claim(place, seen.face_id)
        elif seen is None and duplicate:
            nameless.append(place)
    if len(nameless) == len(pictures.fresh) == 1 and pictures.doubt.before is not None:
        pictures.claim(nameless[0], pictures.fresh[0])  # a person without groups cannot be recognized
    # A duplicate is there, whatever its id; but with more of them than new faces, some are older than the call.
    elif len(nameless) <= len(pictures.fresh):
        pictures.found |= dict.fromkeys(nameless, "")


async def _recognize(api: FaceApi, doubt: Doubt, place: int, info: PersonInfo | None) -> Candidate | None:
    """Return the person's face that is most like a picture, None when the service does not tell."""
    if info is None or not info.group_ids:
        return None
    try:
        candidates = (await api.identify(info.group_ids[0], doubt.images[place])).candidates
    except ImageError:
        return None
    return next((candidate for candidate in candidates if candidate.person_id == info.person_id), None)


async def _person_info(api: FaceApi, person_id: str) -> PersonInfo | None:
    """Return what the service knows of a person, None when there is no such person."""
    try:
        return await api.get_info(person_id)
    except NotFoundError as error:
        if not _is_absent(error):
            raise
        return None


def _is_absent(ended: object) -> bool:
    """Return whether what a call ended with is the error that the person does not exist."""
    return isinstance(ended, ServiceError) and ended.code == ReturnCode.ERROR_PERSON_NOT_EXISTED


_SETTLERS: Mapping[str, Callable[[FaceApi, Doubt], Awaitable[Finding]]] = MappingProxyType(
    {
        NEW_PERSON.name: _new_person,
        DEL_PERSON.name: _del_person,
        ADD_FACE.name: _add_face,
        DEL_FACE.name: _del_face,
        SET_INFO.name: _set_info,
        ADD_GROUP_IDS.name: _add_group_ids,
        DEL_GROUP_IDS.name: _del_group_ids,
    }
)
