"""The endpoints: one row each, and the verbs over one abstract call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from attrs import evolve, frozen

from face_async.errors import AlreadyExistsError, quoted
from face_async.models import (
    AddFaceResult,
    AddGroupIdsResult,
    CompareResult,
    DelFaceResult,
    DelGroupIdsResult,
    DelPersonResult,
    DetectResult,
    FaceInfo,
    IdentifyResult,
    MultiIdentifyResult,
    NewPersonResult,
    PersonInfo,
    SetInfoResult,
    VerifyResult,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Mapping, Sequence

    from face_async.images import ImageSource

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Fields: TypeAlias = "Mapping[str, str | int | Sequence[str] | None]"
"""Text parameters by the specification's names; None leaves one out."""

Images: TypeAlias = "Mapping[str, ImageSource | Sequence[ImageSource]]"
"""Picture parameters by the specification's names."""

URL_FIELDS: Mapping[str, str] = {"image": "url", "images": "urls", "imageA": "urlA", "imageB": "urlB"}
"""The parameter that carries a picture's URL instead of its bytes."""


@frozen
class Endpoint(Generic[T_co]):
    """One row of the table.

    Attributes:
        name: The last part of the path: ``/face/<name>``.
        section: The section of the specification, "" for an endpoint of a later revision of the API.
        result: The class of a good answer's data.
        effect: Whether a call changes what the service stores, so that a lost answer leaves a question.
        inside: The one field of the answer's data that is the result; the data itself when None.
    """

    name: str
    section: str
    result: type[T_co]
    effect: bool = False
    inside: str | None = None

    @property
    def later(self) -> bool:
        """Whether it is of a later revision of the API, so that a server may lack it."""
        return not self.section

    @property
    def path(self) -> str:
        """The path of the URL."""
        return f"/face/{self.name}"


NEW_PERSON = Endpoint("newperson", "2.1", NewPersonResult, effect=True)
DEL_PERSON = Endpoint("delperson", "2.2", DelPersonResult, effect=True)
ADD_FACE = Endpoint("addface", "2.3", AddFaceResult, effect=True)
DEL_FACE = Endpoint("delface", "2.4", DelFaceResult, effect=True)
SET_INFO = Endpoint("setinfo", "2.5", SetInfoResult, effect=True)
GET_INFO = Endpoint("getinfo", "2.6", PersonInfo)
GET_GROUP_IDS = Endpoint("getgroupids", "2.7", tuple[str, ...], inside="group_ids")
GET_PERSON_IDS = Endpoint("getpersonids", "2.8", tuple[str, ...], inside="person_ids")
GET_FACE_IDS = Endpoint("getfaceids", "2.9", tuple[str, ...], inside="face_ids")
GET_FACE_INFO = Endpoint("getfaceinfo", "2.10", FaceInfo, inside="face_info")
VERIFY = Endpoint("verify", "2.11", VerifyResult)
IDENTIFY = Endpoint("identify", "2.12", IdentifyResult)
COMPARE = Endpoint("compare", "2.13", CompareResult)

DETECT = Endpoint("detect", "", DetectResult)
ADD_GROUP_IDS = Endpoint("addgroupids", "", AddGroupIdsResult, effect=True)
DEL_GROUP_IDS = Endpoint("delgroupids", "", DelGroupIdsResult, effect=True)
MULTI_IDENTIFY = Endpoint("multidentify", "", MultiIdentifyResult)

ENDPOINTS: tuple[Endpoint[object], ...] = (
    NEW_PERSON,
    DEL_PERSON,
    ADD_FACE,
    DEL_FACE,
    SET_INFO,
    GET_INFO,
    GET_GROUP_IDS,
    GET_PERSON_IDS,
    GET_FACE_IDS,
    GET_FACE_INFO,
    VERIFY,
    IDENTIFY,
    COMPARE,
)
"""The rows of the specification, in its order."""

LATER_ENDPOINTS: tuple[Endpoint[object], ...] = (DETECT, ADD_GROUP_IDS, DEL_GROUP_IDS, MULTI_IDENTIFY)
"""The rows beyond the specification, which not every server has."""


_SUBJECTS = {"person_id": "person", "group_id": "group", "group_ids": "group", "face_id": "face", "face_ids": "face"}


def subject_of(fields: Fields) -> str:
    """Return what a call is about, such as ``"person 'ada', group 'staff' and 2 more"``; ``""`` if it names nothing."""
    named: list[str] = []
    for field, kind in _SUBJECTS.items():
        value = fields.get(field)
        ids = [value] if isinstance(value, str) else cast("Sequence[str]", value or ())
        if ids:
            more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
            named.append(f"{kind} {quoted(ids[0])}{more}")
    return ", ".join(named)


class FaceApi(ABC):
    """The 13 verbs, and the four of a later revision of the API.

    Every verb is one request, and its effect happens once or not at all. A lost answer does not change that: the
    request is sent again, and other endpoints are asked what became of it; ``result.meta.settled`` says how that is
    known. All verbs raise:

    - ``TypeError``, ``ValueError``: a wrong argument; nothing was sent.
    - ``LimitError``: a limit of the service; nothing was done.
    - ``ServiceError``: the service answered with a code other than 0, of the class that the code stands for.
    - ``TransportError``: no answer came.
    - ``ResponseError``: the answer breaks the specification.

    The ``maybe_applied`` of the last three says whether the effect may have happened all the same.

    Ids are str of 1 to 128 bytes in UTF-8, without white space and slashes; names and tags have at most 1,024 bytes.
    An image is a path, bytes, a binary file object, an ``ImageFile``, an ``ImageUrl`` or a URL as str, which the
    server fetches. A request, its pictures included, has at most 1.5 MB.
    """

    @abstractmethod
    def _call(self, endpoint: Endpoint[T], fields: Fields, images: Images | None = None) -> Awaitable[T]:
        """Send one request, as often as it takes, and return its result.

        Args:
            endpoint: What is called.
            fields: The text parameters.
            images: The picture parameters.
        """

    async def new_person(
        self,
        person_id: str,
        group_ids: Sequence[str],
        image: ImageSource | None = None,
        *,
        person_name: str | None = None,
        tag: str | None = None,
        exist_ok: bool = False,
    ) -> NewPersonResult:
        """Create a person in one or more groups, with a first face if an image is given (Spec: 2.1).

        Args:
            person_id: The new person's id.
            group_ids: The groups to put the person in; those that do not exist are created.
            image: A picture with the person's face.
            person_name: The person's name.
            tag: A remark.
            exist_ok: True is content with a person of this id who exists, and leaves them as they are: no face is
                added, and name, tag and groups stay. Then ``getinfo`` is asked, too, and the result has ``created``
                False, ``suc_group`` and ``suc_face`` 0, no ``face_id``, and in ``group_ids`` the groups that the
                person is in, which may be others.

        Raises:
            AlreadyExistsError: A person of this id exists, and ``exist_ok`` is False.
            PersonLimitError: A group is full: 10,000 persons.
            GroupLimitError: The appid has 5,000 groups already.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        fields: Fields = {"group_ids": group_ids, "person_id": person_id, "person_name": person_name, "tag": tag}
        try:
            return await self._call(NEW_PERSON, fields, {} if image is None else {"image": image})
        except AlreadyExistsError:
            if not exist_ok:
                raise
        there = await self.get_info(person_id)
        return NewPersonResult(
            person_id=there.person_id,
            suc_group=0,
            suc_face=0,
            group_ids=there.group_ids,
            session_id=there.session_id,
            meta=there.meta,
        )

    async def del_person(self, person_id: str) -> DelPersonResult:
        """Delete a person with all faces, from all groups (Spec: 2.2).

        Raises:
            NotFoundError: No person of this id exists.
        """
        return await self._call(DEL_PERSON, {"person_id": person_id})

    async def add_face(self, person_id: str, images: Sequence[ImageSource], *, tag: str | None = None) -> AddFaceResult:
        """Add faces to a person in one request (Spec: 2.3).

        Images that the service refuses (no face, almost the same face) do not fail the call: the result's ``faces``
        has one outcome per image in input order, and ``raise_for_failures()`` raises for those that failed.

        When an answer is lost and the batch is sent again, the service calls duplicates what the first request has
        added. They are reported as added then, although one of them may be older than the call.

        Args:
            person_id: The person.
            images: 1 to 20 images: either all to be sent, or all URLs.
            tag: A remark for the faces.

        Raises:
            FaceLimitError: More than 20 images, or the person has 20 faces already.
            RequestTooLargeError: The images together are larger than 1.5 MB.
            NotFoundError: No person of this id exists.
        """
        return await self._add_face(person_id, images, tag=tag)

    async def _add_face(
        self,
        person_id: str,
        images: Sequence[ImageSource],
        *,
        tag: str | None = None,
        before: Collection[str] | None = None,  # noqa: ARG002 - for subclasses that settle what is in doubt
    ) -> AddFaceResult:
        """Add faces to a person.

        Args:
            person_id: The person.
            images: The images.
            tag: A remark for the faces.
            before: The ids of the person's faces before the call, if they are known. A session tells by them which
                faces are new when it has to settle what became of the call.
        """
        result = await self._call(ADD_FACE, {"person_id": person_id, "tag": tag}, {"images": images})
        return evolve(result, images=tuple(images))

    async def del_face(self, person_id: str, face_ids: Sequence[str]) -> DelFaceResult:
        """Delete faces of a person (Spec: 2.4).

        Raises:
            NotFoundError: The person does not exist, or has none of the faces.
        """
        return await self._call(DEL_FACE, {"person_id": person_id, "face_ids": face_ids})

    async def set_info(
        self, person_id: str, *, person_name: str | None = None, tag: str | None = None
    ) -> SetInfoResult:
        """Set a person's name or tag; what is None stays as it is (Spec: 2.5).

        Raises:
            ValueError: Neither was given.
            NotFoundError: No person of this id exists.
        """
        if person_name is None and tag is None:
            raise ValueError("set_info needs a person_name or a tag")
        return await self._call(SET_INFO, {"person_id": person_id, "person_name": person_name, "tag": tag})

    async def get_info(self, person_id: str) -> PersonInfo:
        """Return a person's name, tag, faces and groups (Spec: 2.6).

        Raises:
            NotFoundError: No person of this id exists.
        """
        return await self._call(GET_INFO, {"person_id": person_id})

    async def get_group_ids(self) -> list[str]:
        """Return the ids of all groups of the appid, in the server's order (Spec: 2.7)."""
        return list(await self._call(GET_GROUP_IDS, {}))

    async def get_person_ids(self, group_id: str) -> list[str]:
        """Return the ids of a group's persons, in the server's order (Spec: 2.8).

        Raises:
            NotFoundError: No group of this id exists.
        """
        return list(await self._call(GET_PERSON_IDS, {"group_id": group_id}))

    async def get_face_ids(self, person_id: str) -> list[str]:
        """Return the ids of a person's faces, in the server's order (Spec: 2.9).

        Raises:
            NotFoundError: No person of this id exists.
        """
        return list(await self._call(GET_FACE_IDS, {"person_id": person_id}))

    async def get_face_info(self, face_id: str) -> FaceInfo:
        """Return a face's box and attributes (Spec: 2.10).

        Raises:
            NotFoundError: No face of this id exists.
        """
        return await self._call(GET_FACE_INFO, {"face_id": face_id})

    async def verify(self, person_id: str, image: ImageSource) -> VerifyResult:
        """Tell whether a picture shows a person (Spec: 2.11).

        Raises:
            NotFoundError: No person of this id exists.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        return await self._call(VERIFY, {"person_id": person_id}, {"image": image})

    async def identify(self, group_id: str | Sequence[str], image: ImageSource) -> IdentifyResult:
        """Find the at most five persons of a group who are most like the one in a picture (Spec: 2.12).

        Args:
            group_id: The group. Several are searched as if they were one, which is beyond the specification:
                ``identify_in_groups`` does that with any server, and reports each group by itself.
            image: The picture.

        Raises:
            NotFoundError: No group of this id exists.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        return await self._call(IDENTIFY, searched(group_id), {"image": image})

    async def compare(self, image_a: ImageSource, image_b: ImageSource) -> CompareResult:
        """Tell how alike the faces of two pictures are (Spec: 2.13).

        One of them may be a URL while the other is sent.

        Raises:
            ImageError: No face was found in a picture, or it cannot be decoded or fetched; ``data["fail_flag"]`` is 1
                for ``image_a`` and 2 for ``image_b``.
        """
        # The samples of 2.13 post to /face/identify, a slip: the section's own URL says compare.
        return await self._call(COMPARE, {}, {"imageA": image_a, "imageB": image_b})

    async def detect(self, image: ImageSource, *, largest_only: bool = False) -> DetectResult:
        """Find the faces in a picture, and describe them (beyond the specification: detect).

        Args:
            image: The picture.
            largest_only: True finds the largest face alone.

        Raises:
            UnsupportedError: The server does not have this endpoint.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        return await self._call(DETECT, {"mode": 1 if largest_only else None}, {"image": image})

    async def add_group_ids(self, person_id: str, group_ids: Sequence[str]) -> AddGroupIdsResult:
        """Put a person in further groups (beyond the specification: addgroupids).

        Args:
            person_id: The person.
            group_ids: The groups; those that do not exist are created.

        Raises:
            UnsupportedError: The server does not have this endpoint.
            NotFoundError: No person of this id exists.
            PersonLimitError: A group is full: 10,000 persons.
            GroupLimitError: The appid has 5,000 groups already.
        """
        return await self._call(ADD_GROUP_IDS, {"person_id": person_id, "group_ids": group_ids})

    async def del_group_ids(self, person_id: str, group_ids: Sequence[str]) -> DelGroupIdsResult:
        """Take a person out of groups; the person and the groups stay (beyond the specification: delgroupids).

        Args:
            person_id: The person.
            group_ids: The groups.

        Raises:
            UnsupportedError: The server does not have this endpoint.
            NotFoundError: No person of this id exists, or no group of one of these.
        """
        return await self._call(DEL_GROUP_IDS, {"person_id": person_id, "group_ids": group_ids})

    async def multi_identify(self, group_ids: str | Sequence[str], image: ImageSource) -> MultiIdentifyResult:
        """Find, for each face in a picture, the persons of some groups who are most like it.

        This is beyond the specification: multidentify.

        Args:
            group_ids: The group, or the groups, which are searched as if they were one.
            image: The picture.

        Raises:
            UnsupportedError: The server does not have this endpoint.
            NotFoundError: No group of one of these ids exists.
            ImageError: No face was found in the picture, or it cannot be decoded or fetched.
        """
        return await self._call(MULTI_IDENTIFY, searched(group_ids), {"image": image})


def searched(group_ids: str | Sequence[str]) -> Fields:
    """Return the parameters for one or several groups to search; one has the specification's, in any form."""
    if isinstance(group_ids, list | tuple) and len(group_ids) == 1:
        return {"group_id": group_ids[0]}
    return {"group_id" if isinstance(group_ids, str) else "group_ids": group_ids}
