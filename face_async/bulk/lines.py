"""The lines of ``add_faces``: every person's images wait in one, and leave it in packs.

While a request of a person is under way their line grows; when it has ended, as many images as fit are sent together.
So a person's images keep their order, and nothing waits for a slow input. Only the last image that was pulled may wait:
while as many items are alive as may be, the next images of its person cannot be pulled yet, and would need a further
request.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import anyio
import anyio.lowlevel
from attrs import define, evolve, field

from face_async._call.multipart import WHOLE_BYTES
from face_async.bulk.limited import fit_into, taken
from face_async.bulk.outcomes import Job, JobBoard, JobRunner, Outcome, StayingTasks
from face_async.bulk.packs import AddRequest, ItemError, Packer, Photo, bare, images_of
from face_async.endpoints import ADD_FACE
from face_async.errors import CallError, ImageRefusedError, LimitError
from face_async.images import ImageSource, Picture, as_image
from face_async.images.thread_jobs import ThreadJobs
from face_async.limits import check_id, check_image
from face_async.models import FaceOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from face_async.bulk.ledger import Reservation
    from face_async.bulk.limited import LimitedApi
    from face_async.bulk.outage import BulkOutages

PersonImage: TypeAlias = "tuple[str, ImageSource]"

PairT = TypeVar("PairT", bound=PersonImage)


def check_pair(pair: object) -> PersonImage:
    """Return an item that is a pair of person id and image, or raise TypeError."""
    if not isinstance(pair, tuple | list) or len(cast("Sequence[object]", pair)) != 2:  # noqa: PLR2004 - a pair
        raise TypeError("every item must be a pair (person_id, image)")
    return cast("PersonImage", pair)


async def take_pair(api: LimitedApi, pair: PairT, *, fit: bool) -> PairT:
    """Return a pair whose picture was read if it is a file object; see :func:`taken`."""
    person_id, image = check_pair(pair)
    taking = taken(api, image, fit=fit)
    return cast("PairT", (person_id, image if taking is None else await taking))


@define(eq=False)
class _JobPhoto(Photo):
    """An image in its person's line, and the job of the bounded map that it belongs to."""

    job: Job[PersonImage] = field(kw_only=True)

    async def open(self, api: LimitedApi, *, fit: bool) -> None:
        """Learn what it is, make it fit, and read it if it is a file object."""
        person_id, source = self.job.taken
        if fit:
            source = await fit_into(api, source, ADD_FACE, {"person_id": person_id, "tag": self.tag})
        self.image = as_image(source)
        if isinstance(self.image, Picture):
            await self.image.read_file_object(api.limits.max_request_bytes)

    @property
    def bytes_known(self) -> int:
        """Its size: 0 for a URL, -1 for a file that was not looked at."""
        return self.image.size if isinstance(self.image, Picture) else 0


def _look_at(photos: Sequence[_JobPhoto]) -> list[tuple[_JobPhoto, ItemError]]:
    """Learn the sizes of pictures, and return those that cannot be sent; blocks where they are in files."""
    refused: list[tuple[_JobPhoto, ItemError]] = []
    for photo in photos:
        if isinstance(photo.image, Picture):
            try:
                if photo.image.size < 0:
                    photo.image.look(keep_up_to=WHOLE_BYTES)
                check_image(photo.image.label, photo.image.size, photo.image.head)
            except ImageRefusedError as error:
                refused.append((photo, bare(error)))
    return refused


class PersonLines(JobRunner["PersonImage", FaceOutcome]):
    """Runs the jobs of ``add_faces``, whose options it takes."""

    def __init__(
        self, api: LimitedApi, outages: BulkOutages, *, tag: str | None, pack: bool, fit: bool, max_at_once: int
    ) -> None:
        self._api = api
        self._outages = outages
        self._tag = tag
        self._fit = fit
        self._jobs = ThreadJobs()
        self._tasks = StayingTasks(self._serve)
        self._packer = Packer[_JobPhoto](
            api, add=self._request, end=self._put, reserve=self._reserve, going=self._going, pack=pack
        )
        # Images that may wait, so that most places stay busy.
        self._patience = min(self._packer.most, max_at_once // 3)
        self._board: JobBoard[PersonImage, FaceOutcome]
        self._lines: dict[str, deque[_JobPhoto]] = {}  # of those persons only who have images waiting or under way
        self._last: deque[_JobPhoto] | None = None  # the line of the last image pulled
        self._under_way = 0
        self._stir = anyio.Event()

    def item_wanted(self) -> None:
        """Wake the lines that wait until another image can be pulled."""
        self._stir.set()

    def begin(self, board: JobBoard[PersonImage, FaceOutcome], tasks: TaskGroup, job: Job[PersonImage]) -> None:
        """Put an image into its person's line."""
        self._board = board
        self._stir.set()  # who has waited for this image learns whose it is, before somebody else waits
        person_id, _ = check_pair(job.item)
        try:
            check_id("person_id", person_id, self._api.limits)
        except ValueError as error:
            board.put(Outcome(job.index, job.item, error=bare(error)))
            return
        line = self._lines.get(person_id)
        if line is None:
            line = self._lines[person_id] = deque()
            self._tasks.start(tasks, (person_id, line))
        line.append(_JobPhoto(tag=self._tag, job=job))
        self._last = line

    def _going(self) -> bool:
        return self._board.failure is None

    async def _serve(self, work: tuple[str, deque[_JobPhoto]]) -> None:
        """Send a person's images until none waits."""
        person_id, line = work
        try:
            while line and self._going():
                await self._gather(line)
                self._under_way += 1
                try:
                    await self._look(line)
                    if line:
                        await self._packer.send(person_id, self._packer.cut(person_id, line))
                finally:
                    self._under_way -= 1
                    self._stir.set()
        except Exception as error:  # noqa: BLE001 - a programming error is raised where outcomes are taken
            self._board.fail(error)
        finally:
            del self._lines[person_id]
            if self._last is line:
                self._last = None

    async def _gather(self, line: deque[_JobPhoto]) -> None:
        """Let the last image pulled wait for the next images of its person.

        It waits only while the next one is being read, or while requests under way, or outcomes that wait to be taken,
        will make place for them.
        """
        board = self._board
        while (
            line is self._last
            and len(line) < self._patience
            and (board.taking or (board.full and (self._under_way or board.ready)))
        ):
            self._stir = anyio.Event()
            await self._stir.wait()
            # One turn in which outcomes are taken, and one in which images are pulled into their places.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()

    async def _look(self, line: deque[_JobPhoto]) -> None:
        """Look at the images that come next, as many as one request may carry; they are in memory then, if small."""
        photos: list[_JobPhoto] = []
        in_memory = 0
        while line and self._packer.wants(len(photos) + 1, in_memory):
            photo = line.popleft()
            try:
                if photo.image is None:
                    await photo.open(self._api, fit=self._fit)
            except (CallError, LimitError, ValueError) as error:
                await self._put([photo], error)
            else:
                photos.append(photo)
                in_memory += max(0, photo.bytes_known)
        in_files = any(photo.bytes_known < 0 for photo in photos)
        look = partial(_look_at, photos)
        refused = await self._jobs.run(look, files=len(photos)) if in_files else look()
        for photo, refusal in refused:
            photos.remove(photo)
            await self._put([photo], refusal)
        line.extendleft(reversed(photos))

    async def _reserve(self, person_id: str, count: int) -> Reservation:
        return await self._outages.call(lambda: self._api.ledger.faces(person_id, count, at_least=1), proves=False)

    async def _request(self, person_id: str, pack: Sequence[_JobPhoto]) -> Sequence[FaceOutcome]:
        for photo in pack:
            photo.job.begun = True
        try:
            before = self._api.ledger.known_faces(person_id)
            request = AddRequest(self._api, person_id, images_of(pack), self._tag, before)
            return (await self._outages.call(request.send)).faces
        except (CallError, LimitError, ValueError):
            for photo in pack:
                photo.job.begun = False
            raise

    async def _put(self, pack: Sequence[_JobPhoto], ended: Sequence[FaceOutcome] | ItemError) -> None:
        for place, photo in enumerate(pack):
            index, item = photo.job.index, photo.job.item
            error = bare(ended) if isinstance(ended, ItemError) else ended[place].error
            if isinstance(ended, ItemError) or error is not None:
                self._board.put(Outcome(index, item, error=error))
            else:
                self._board.put(Outcome(index, item, result=evolve(ended[place], image=item[1])))
