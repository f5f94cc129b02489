"""Adding faces in packs: neighboring images of one person share a request.

Every person has a line of images. While a request of theirs is under way the line grows, and when it has ended as many
as fit leave the line together. So a person's images keep their order, packs form by themselves, and no slow input is
waited for. Only the last image that was pulled may wait for its neighbors, while they are kept out by others that are
not done with; otherwise most packs would be cut in two.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import define, evolve

from face_async._call.multipart import WHOLE_BYTES
from face_async.bulk.ledger import Key
from face_async.bulk.outcomes import Job, Outcome, Outcomes
from face_async.endpoints import ADD_FACE
from face_async.errors import (
    DuplicateFaceError,
    FaceError,
    FaceLimitRefusal,
    ImageError,
    ImageRefusedError,
    LimitError,
    RequestTooLargeError,
)
from face_async.images import ImageSource, ImageUrl, Picture, as_image
from face_async.limits import check_id, check_image
from face_async.models import AddFaceResult, FaceOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence

    from anyio.abc import TaskGroup

    from face_async.bulk.ledger import LimitLedger, Reservation
    from face_async.limits import ServiceLimits

PersonImage: TypeAlias = "tuple[str, ImageSource]"
Fit: TypeAlias = "Callable[[ImageSource], Awaitable[ImageSource]]"

_REQUEST_BYTES = 4_096
"""Room in a body for everything but its images: appid, bucket, person_id and a tag of 1,024 bytes, with their names."""

_PART_BYTES = 256
"""Room for an image's boundary and headers, its file name excepted."""


def check_pair(pair: object) -> PersonImage:
    """Return a pair of person id and image.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(pair, tuple | list) or len(cast("Sequence[object]", pair)) != 2:  # noqa: PLR2004 - a pair
        raise TypeError("every item must be a pair (person_id, image)")
    return cast("PersonImage", pair)


@define(eq=False)
class _Photo:
    """An image in its person's line.

    Attributes:
        job: The item that it is.
        image: What is to be sent, None before it was looked at.
        size: Bytes that it takes of a request at most.
        problem: Why it cannot be sent.
    """

    job: Job[PersonImage]
    image: Picture | ImageUrl | None = None
    size: int = 0
    problem: FaceError | ValueError | None = None

    async def open(self, limits: ServiceLimits, fit: Fit | None) -> None:
        """Learn what it is, make it fit, and read it if it is a file object."""
        try:
            source = self.job.item[1]
            self.image = as_image(source if fit is None else await fit(source))
            if isinstance(self.image, Picture):
                await self.image.read_file_object(limits.max_request_bytes)
        except (FaceError, ValueError) as error:
            self.problem = _bare(error)

    def look(self) -> None:
        """Look at its file, if it is in one, and learn its size; blocks, so call it in a worker thread."""
        if self.problem is not None:
            return
        try:
            if isinstance(self.image, Picture):
                if self.image.size < 0:
                    self.image.look(keep_up_to=WHOLE_BYTES)
                check_image(self.image.label, self.image.size, self.image.head)
                self.size = _PART_BYTES + 3 * len(self.image.filename(0).encode()) + self.image.size
            elif self.image is not None:
                self.size = 2 * len(self.image.url.encode())  # JSON may escape every character
        except ImageRefusedError as error:
            self.problem = _bare(error)

    @property
    def in_file(self) -> bool:
        """Whether looking at it means to open a file."""
        return isinstance(self.image, Picture) and self.image.size < 0

    @property
    def bytes_known(self) -> int:
        """Its own size, 0 while it is not known."""
        return max(self.image.size, 0) if isinstance(self.image, Picture) else 0

    def shares_with(self, other: _Photo) -> bool:
        """Whether one request can carry both: pictures and URLs cannot be mixed (Spec: 2.3)."""
        return isinstance(self.image, ImageUrl) == isinstance(other.image, ImageUrl)


def _look_at(photos: Sequence[_Photo]) -> None:
    for photo in photos:
        photo.look()


def _bare(error: FaceError | ValueError) -> FaceError | ValueError:
    """Return an error without its traceback, whose frames hold on to the pictures of a whole pack."""
    return copy.copy(error)


class Packs(Outcomes["PersonImage", FaceOutcome]):
    """The bounded map of ``add_faces``.

    Args:
        add: Adds images to a person with one request.
        pairs: What to add.
        ledger: Who keeps every person's faces within the limit.
        limits: What fits one request.
        pack: False sends every image alone.
        fit: Makes an image fit into a request, None leaves images as they are.
        max_at_once: As in :class:`Outcomes`.
        ordered: As there.
        progress: As there.
    """

    def __init__(
        self,
        add: Callable[[str, Sequence[ImageSource]], Awaitable[AddFaceResult]],
        pairs: Iterable[PersonImage] | AsyncIterable[PersonImage],
        *,
        ledger: LimitLedger,
        limits: ServiceLimits,
        pack: bool,
        fit: Fit | None,
        max_at_once: int,
        ordered: bool,
        progress: Callable[[int, int | None, Outcome[PersonImage, FaceOutcome]], object] | None,
    ) -> None:
        super().__init__(None, pairs, max_at_once=max_at_once, ordered=ordered, progress=progress, endpoint=ADD_FACE)
        self._add = add
        self._ledger = ledger
        self._limits = limits
        self._fit = fit
        self._most = limits.max_faces_per_person if pack else 1
        self._patience = min(self._most, max_at_once // 3)  # images that may wait, so that most places stay busy
        self._room = limits.planned_request_bytes
        self._lines: dict[str, deque[_Photo]] = {}  # of those persons only who have images waiting or under way
        self._last: deque[_Photo] | None = None  # the line of the last image pulled
        self._full = False  # whether the input waits for a place
        self._under_way = 0
        self._stir = anyio.Event()

    async def _next_place(self) -> None:
        self._full = not self._places.value
        await super()._next_place()
        self._full = False
        self._stir.set()

    def _begin(self, tasks: TaskGroup, job: Job[PersonImage]) -> None:
        person_id, _ = check_pair(job.item)
        try:
            check_id("person_id", person_id, self._limits)
        except ValueError as error:
            self._refuse([_Photo(job)], error)
            return
        line = self._lines.get(person_id)
        if line is None:
            line = self._lines[person_id] = deque()
            tasks.start_soon(self._serve, person_id, line)
        line.append(_Photo(job))
        self._last = line

    async def _serve(self, person_id: str, line: deque[_Photo]) -> None:
        """Send a person's images until none waits."""
        try:
            while line and self._failure is None:
                await self._gather(line)
                self._under_way += 1
                try:
                    await self._look(line)
                    await self._send(person_id, self._cut(line))
                finally:
                    self._under_way -= 1
                    self._stir.set()
        except Exception as error:  # noqa: BLE001 - a programming error is raised where outcomes are taken
            self._fail(error)
        finally:
            del self._lines[person_id]
            if self._last is line:
                self._last = None

    async def _gather(self, line: deque[_Photo]) -> None:
        """Let the last image pulled wait for its neighbors, while what keeps them out goes on by itself.

        That is the requests under way and the outcomes that wait to be taken. When there are none left it is sent at
        any rate, so nobody waits for ever.
        """
        while line is self._last and len(line) < self._patience and self._full and (self._under_way or self._ready):
            self._stir = anyio.Event()
            await self._stir.wait()
            # One turn in which outcomes are taken, and one in which images are pulled into their places.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()

    async def _look(self, line: deque[_Photo]) -> None:
        """Look at the images that come next, as many as one request may carry; they are in memory then, if small."""
        photos: list[_Photo] = []
        in_memory = 0
        while line and len(photos) < self._most and in_memory <= self._room:
            photo = line.popleft()
            photos.append(photo)
            if photo.image is None:
                await photo.open(self._limits, self._fit)
            in_memory += photo.bytes_known
        if any(photo.in_file for photo in photos):
            await anyio.to_thread.run_sync(_look_at, photos)
        else:
            _look_at(photos)
        for photo in photos:
            if photo.problem is not None:
                self._refuse([photo], photo.problem)
        line.extendleft(photo for photo in reversed(photos) if photo.problem is None)

    def _cut(self, line: deque[_Photo]) -> list[_Photo]:
        """Take from the front of a line what fits one request."""
        pack: list[_Photo] = []
        size = _REQUEST_BYTES
        while line and line[0].image is not None and len(pack) < self._most:
            size += line[0].size
            if pack and (size > self._room or not line[0].shares_with(pack[0])):
                break
            pack.append(line.popleft())
        return pack

    async def _send(self, person_id: str, pack: list[_Photo]) -> None:
        """Add a pack, in as many requests as it takes, and give every image its outcome."""
        while pack and self._failure is None:
            try:
                reservation = await self._ledger.faces(person_id, len(pack), at_least=1)
            except (FaceError, ValueError) as error:
                self._refuse(pack, error)
                return
            now, pack = pack[: reservation.granted], pack[reservation.granted :]
            result = await self._request(person_id, now, reservation)
            if isinstance(result, AddFaceResult):
                self._accept(person_id, now, result)
            elif len(now) > 1 and _may_be_due_to_one(result):
                if isinstance(result, RequestTooLargeError):
                    self._room = sum(photo.size for photo in now) // 2  # this server's limit is smaller
                for half in (now[: len(now) // 2], now[len(now) // 2 :]):
                    await self._send(person_id, half)
            else:
                self._refuse(now, result)

    async def _request(
        self, person_id: str, pack: list[_Photo], reservation: Reservation
    ) -> AddFaceResult | FaceError | ValueError:
        try:
            with reservation:
                for photo in pack:
                    photo.job.begun = True
                # A picture that was looked at is a source, too, for those who know.
                result = await self._add(person_id, [cast("ImageSource", photo.image) for photo in pack])
                reservation.commit(result.added, [face.face_id for face in result.faces if face.added and face.face_id])
                return result
        except (FaceError, ValueError) as error:
            for photo in pack:
                photo.job.begun = False
            return _bare(error)

    def _accept(self, person_id: str, pack: list[_Photo], result: AddFaceResult) -> None:
        for photo, face in zip(pack, result.faces, strict=True):
            job, error = photo.job, face.error
            if error is None:
                self._put(Outcome(job.index, job.item, result=evolve(face, image=job.item[1])))
            else:
                self._put(Outcome(job.index, job.item, error=error))
            if isinstance(error, FaceLimitRefusal):
                self._ledger.forget(Key("faces", person_id))  # somebody else fills the person

    def _refuse(self, pack: Sequence[_Photo], error: FaceError | ValueError) -> None:
        for photo in pack:
            self._put(Outcome(photo.job.index, photo.job.item, error=_bare(error)))


def _may_be_due_to_one(error: FaceError | ValueError) -> bool:
    """Return whether one image may be why a whole request was refused, so that the others can do without it."""
    settled = not getattr(error, "maybe_applied", False)
    return settled and isinstance(error, LimitError | ImageError | DuplicateFaceError)
