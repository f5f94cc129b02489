"""Packs: images of one person that share a request, as many as the limits allow.

Both ``add_faces`` and enrollments hold a :class:`Packer`, and tell it how one request is made: by a plain call, or by
one that is noted in the journal before and after.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from attrs import define, field

from face_async._call.settle import Doubt, settle
from face_async.bulk.ledger import Key
from face_async.bulk.limited import add_face_knowing, request_size
from face_async.endpoints import ADD_FACE, subject_of
from face_async.errors import (
    CallError,
    DuplicateFaceError,
    FaceError,
    FaceLimitError,
    FaceLimitRefusal,
    ImageError,
    InvalidParameterError,
    LimitError,
    NotFoundError,
    TransportError,
)
from face_async.images import ImageUrl
from face_async.models import AddFaceResult

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from face_async.bulk.ledger import Reservation
    from face_async.bulk.limited import LimitedApi
    from face_async.images import ImageSource, Picture
    from face_async.models import FaceOutcome


@define(eq=False)
class Photo:
    """An image that is to be added to a person, with the tag of its face."""

    image: Picture | ImageUrl | None = field(default=None, repr=False)  # None before it was looked at
    tag: str | None = None

    def shares_with(self, other: Photo) -> bool:
        """Return whether one request can carry both: it has one tag, and either pictures or URLs (Spec: 2.3)."""
        return self.tag == other.tag and isinstance(self.image, ImageUrl) == isinstance(other.image, ImageUrl)


ItemError: TypeAlias = CallError | LimitError | ValueError
"""An error that keeps images from being added, and does not concern other images."""

ErrorT = TypeVar("ErrorT", bound=Exception)
PhotoT = TypeVar("PhotoT", bound=Photo)


def bare(error: ErrorT) -> ErrorT:
    """Return an error without its traceback, whose frames hold on to the pictures of a whole pack."""
    return copy.copy(error)


class Packer(Generic[PhotoT]):
    """Adds images to persons, in requests that are as full as the limits allow.

    A pack may be refused as a whole because of one image: then it is sent again in halves, until that image is alone.
    No person gets more faces than there is room for: the ledger is asked before every request.

    Args:
        api: What the requests are for.
        add: Adds a pack with one request: ``await add(person_id, photos)`` returns what became of each image.
        end: ``await end(photos, what)`` is called when nothing more will be done about some images; ``what`` is what
            ``add`` returned for them, or the error of all of them.
        reserve: ``await reserve(person_id, count)`` reserves room for 1 to ``count`` faces.
        going: Whether further requests may be made; if not, ``end`` is not called for the images that are left.
        pack: False sends every image alone.
    """

    def __init__(
        self,
        api: LimitedApi,
        *,
        add: Callable[[str, Sequence[PhotoT]], Awaitable[Sequence[FaceOutcome]]],
        end: Callable[[Sequence[PhotoT], Sequence[FaceOutcome] | ItemError], Awaitable[None]],
        reserve: Callable[[str, int], Awaitable[Reservation]],
        going: Callable[[], bool] = lambda: True,
        pack: bool = True,
    ) -> None:
        self.most = api.limits.max_faces_per_person if pack else 1
        self._api = api
        self._add = add
        self._end = end
        self._reserve = reserve
        self._going = going

    def wants(self, count: int, size: int) -> bool:
        """Return whether so many images of so many bytes together may fit one request; one alone is always tried."""
        return count <= 1 or (count <= self.most and size <= self._api.planned_request_bytes)

    def cut(self, person_id: str, line: deque[PhotoT]) -> list[PhotoT]:
        """Take from the front of a line of images, which were looked at, what fits one request."""
        together: list[PhotoT] = []
        for photo in islice(line, self.most):
            if photo.image is None or not photo.shares_with(line[0]):
                break
            together.append(photo)
        count = len(together)
        room = self._api.planned_request_bytes
        if count > 1 and self._size(person_id, together) > room:
            count = 1 + bisect_right(range(2, count), room, key=lambda n: self._size(person_id, together[:n]))
        return [line.popleft() for _ in range(count)]

    async def send(self, person_id: str, pack: Sequence[PhotoT]) -> None:
        """Add a pack, in as many requests as it takes, one after another."""
        while pack and self._going():
            try:
                reservation = await self._reserve(person_id, len(pack))
            except (CallError, LimitError, ValueError) as error:
                await self._end(pack, bare(error))
                return
            now, pack = pack[: reservation.granted], pack[reservation.granted :]
            await self.submit(person_id, now, reservation)

    async def submit(self, person_id: str, pack: Sequence[PhotoT], reservation: Reservation) -> None:
        """Add a pack for which there is room with one request, or with more if it is refused as a whole."""
        ended = await self._request(person_id, pack, reservation)
        if isinstance(ended, ItemError) and len(pack) > 1 and _may_be_due_to_one(ended):
            for half in (pack[: len(pack) // 2], pack[len(pack) // 2 :]):
                await self.send(person_id, half)
        else:
            await self._end(pack, ended)

    async def _request(
        self, person_id: str, pack: Sequence[PhotoT], reservation: Reservation
    ) -> Sequence[FaceOutcome] | ItemError:
        try:
            with reservation:
                faces = await self._add(person_id, pack)
                added = [face for face in faces if face.added]
                reservation.commit(len(added), [face.face_id for face in added if face.face_id])
        except (CallError, LimitError, ValueError) as error:
            return bare(error)
        if any(isinstance(face.error, FaceLimitRefusal) for face in faces):
            self._api.ledger.forget(Key("faces", person_id))  # somebody else fills the person
        return faces

    def _size(self, person_id: str, pack: Sequence[PhotoT]) -> int:
        fields = {"person_id": person_id, "tag": pack[0].tag}
        return request_size(self._api, ADD_FACE, fields, {"images": images_of(pack)})


def images_of(pack: Sequence[Photo]) -> list[ImageSource]:
    """Return the images of a pack."""
    # A picture that was looked at is taken wherever a source is; only the public type does not say so.
    return [cast("ImageSource", photo.image) for photo in pack]


def _may_be_due_to_one(error: ItemError) -> bool:
    """Return whether one image may be why a whole request was refused, so that the others can do without it."""
    settled = not getattr(error, "maybe_applied", False)
    return settled and isinstance(error, LimitError | ImageError | DuplicateFaceError)


@define(eq=False)
class AddRequest:
    """One addface request that can be sent again after an outage, until it is known what became of it.

    Attributes:
        before: The ids of the person's faces before it was sent for the first time, None if they are not known.
        in_doubt: Whether it was sent before, and may have had its effect.
    """

    api: LimitedApi
    person_id: str
    images: Sequence[ImageSource]
    tag: str | None
    before: Collection[str] | None
    in_doubt: bool = False

    async def send(self) -> AddFaceResult:
        """Send it, and find out what became of it if an earlier sending may have had its effect.

        Raises:
            CallError: With ``maybe_applied`` as long as it is not known what became of it.
            FaceError, ValueError: Otherwise as ``add_face``.
        """
        try:
            ended = await add_face_knowing(self.api, self.person_id, self.images, tag=self.tag, before=self.before)
        except (FaceLimitError, DuplicateFaceError, ImageError, InvalidParameterError, NotFoundError) as error:
            if not self.in_doubt:
                raise
            return await self._settle(error)
        except CallError as error:
            self.in_doubt = self.in_doubt or error.maybe_applied
            if self.in_doubt:
                raise error.in_doubt() from None
            raise
        return await self._settle(ended) if self.in_doubt else ended

    async def _settle(self, ended: AddFaceResult | FaceError) -> AddFaceResult:
        fields = {"person_id": self.person_id, "tag": self.tag}
        finding = await settle(self.api, Doubt(ADD_FACE.name, fields, self.images, ended, self.before))
        if isinstance(finding.result, AddFaceResult):
            return finding.result
        if isinstance(ended, FaceError) and (finding.certain or await self._has_nothing_new()):
            self.in_doubt = False
            raise ended
        subject = subject_of(fields)
        message = f"{ADD_FACE.name} for {subject}: the person's faces do not tell which of the pictures were added"
        raise TransportError(message, endpoint=ADD_FACE.name, subject=subject, maybe_applied=True)

    async def _has_nothing_new(self) -> bool:
        return self.before is not None and set(await self.api.get_face_ids(self.person_id)) <= set(self.before)
