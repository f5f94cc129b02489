"""The work on one person: create them, read the pictures, send them in packs, and find out what became of them."""

from __future__ import annotations

import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from face_async.bulk.ledger import Key, LimitLedger, Reservation
from face_async.bulk.limited import room_for_image
from face_async.bulk.packs import AddRequest, ItemError, Packer, images_of
from face_async.bulk.persons import NewPerson, create_person
from face_async.endpoints import ADD_FACE
from face_async.errors import (
    AlreadyExistsError,
    CallError,
    ImageError,
    ImageRefusedError,
    LimitError,
    NotFoundError,
    RequestTooLargeError,
    ReturnCode,
)
from face_async.ingest import queries
from face_async.ingest.journal import State, Unit
from face_async.ingest.pictures import UnitPhoto, UnitReader, failed
from face_async.models import FaceOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Sequence

    from face_async.bulk.outage import OutageHandler
    from face_async.ingest.journal import Journal, ListedPerson
    from face_async.models import NewPersonResult
    from face_async.session import FaceSession

_DUPLICATE = FaceOutcome(code=ReturnCode.ERROR_SAME_FACE_ADDED, face_id=None)
_ADDED = FaceOutcome(code=0, face_id=None)


@define(eq=False)
class CreateRequest:
    """One newperson request that can be sent again after an outage.

    Attributes:
        in_doubt: Whether it was sent before, and may have had its effect.
    """

    session: FaceSession
    person: NewPerson
    group_ids: Sequence[str]
    in_doubt: bool = False

    async def send(self) -> NewPersonResult:
        """Send it; raises what ``new_person`` raises."""
        try:
            return await create_person(self.session, self.person, self.group_ids)
        except CallError as error:
            self.in_doubt = self.in_doubt or error.maybe_applied
            raise


@define(eq=False)
class PersonQueue:
    """The pictures of one person that wait to be sent, in turns of which one is under way at a time.

    Attributes:
        person: The person, as the journal knew them when the run came to them.
        waiting: The units of each turn that waits, in order.
        turn: Held by the turn that is under way: only if no other request for the person was under way can it be told
            exactly what a lost request has done.
        exists: Whether the person is known to exist.
        in_doubt: Whether some of the person's pictures may have been added or not.
        resent_before: While pictures that a former run has left in doubt are sent again, the faces before that run.
        ended: The units that have come to an end in this turn.
    """

    person: ListedPerson
    waiting: deque[tuple[Unit, ...]] = field(factory=deque[tuple[Unit, ...]])
    turn: anyio.Lock = field(factory=partial(anyio.Lock, fast_acquire=True))
    exists: bool = False
    in_doubt: bool = False
    resent_before: tuple[str, ...] | None = None
    ended: list[Unit] = field(factory=list[Unit])

    @property
    def number(self) -> int:
        """The person's number in the journal."""
        return self.person.number

    @property
    def person_id(self) -> str:
        """The person's id."""
        return self.person.person_id


class Enroller:
    """Enrolls persons.

    Args:
        session: The session that enrolls them.
        journal: Where everything is noted.
        outages: Makes the calls, and waits while the service is away.
        pack, fit: As in :class:`~face_async.ingest.RunOptions`.
        dry: Does everything but call the service.
    """

    def __init__(
        self, session: FaceSession, journal: Journal, outages: OutageHandler, *, pack: bool, fit: bool, dry: bool
    ) -> None:
        self._session = session
        self._journal = journal
        self._outages = outages
        self._dry = dry
        self._ledger = LimitLedger(session, session.limits) if dry else session.ledger
        self._reader = UnitReader(session.limits, self._room if fit else None)
        self._packer = Packer[UnitPhoto](session, add=self._add, end=self._end, reserve=self._reserve, pack=pack)
        self._queues: dict[str, PersonQueue] = {}  # of the turns that are under way

    async def enroll(self, queue: PersonQueue) -> list[Unit]:
        """Send what waits next, and return the units that have come to an end.

        Some or all do not if the run is told to stop, or if others of the person are in doubt.

        Raises:
            RunEndedError: Nothing more can be sent.
            JournalError: Nothing more can be noted.
        """
        async with self._turn(queue) as turn:
            units = deque(turn)
            photos: deque[UnitPhoto] = deque()
            try:
                await self._prepare(queue, units, photos)
            except (CallError, LimitError, ValueError) as error:
                left = [*(photo.unit for photo in photos), *units]
                queue.ended += await self._record([failed(unit, error) for unit in left]) if left else []
                return queue.ended
            # What is in doubt can be told only from what was there before.
            while (units or photos) and not (queue.in_doubt or self._outages.stopping):
                await self._read(queue, units, photos)
                if photos:
                    await self._packer.send(queue.person_id, self._packer.cut(queue.person_id, photos))
            return queue.ended

    async def settle(self, queue: PersonQueue) -> list[Unit]:
        """Find out what became of pictures of one person that a former run has left in doubt.

        What can be read as it was is sent again: the service refuses what it has, and the faces that the person did not
        have before tell what that is. Units that turn out to be still unsent are not returned.
        """
        async with self._turn(queue) as units:
            if self._dry:
                return list(units)
            person = await self._journal.do(partial(queries.person, number=queue.number))
            before = person.before
            photos, unread = await self._reader.read(units, again=True)
            try:
                faces = await self._list_faces(queue.person_id)
            except NotFoundError:  # then nothing of it has happened
                await self._record([evolve(unit, state=State.PENDING, sha256=None) for unit in units])
                return []
            except CallError as error:
                return await self._record([evolve(failed(unit, error), state=State.AMBIGUOUS) for unit in units])
            self._ledger.forget(Key("faces", queue.person_id))
            if photos:
                queue.resent_before = before or ()
                # The room that they take was reserved by the former run.
                await self._packer.submit(queue.person_id, photos, Reservation.of_nothing(len(photos)))
            explained = {*(before or ()), *(unit.face_id for unit in queue.ended)}
            if not queue.in_doubt:
                theirs = [face_id for face_id in faces if face_id not in explained]
                # Whoever has created the person, this journal does not know: they may have faces that are not ours.
                told = before is not None
                queue.ended += await self._record(_account_for(unread, theirs, units, told=told))
            return queue.ended

    @contextlib.asynccontextmanager
    async def _turn(self, queue: PersonQueue) -> AsyncGenerator[tuple[Unit, ...]]:
        async with queue.turn:
            self._queues[queue.person_id] = queue
            queue.ended = []
            try:
                yield queue.waiting.popleft()
            finally:
                del self._queues[queue.person_id]

    async def _record(self, units: list[Unit]) -> list[Unit]:
        return await self._journal.do(partial(queries.record, units=units))

    # The person

    async def _prepare(self, queue: PersonQueue, units: deque[Unit], photos: deque[UnitPhoto]) -> None:
        """Create a person if need be, and learn the faces; a person in doubt is left alone."""
        if queue.exists:
            return
        person = queue.person
        queue.in_doubt = person.in_doubt
        if self._dry:
            self._ledger.learn(person.person_id, person.before or ())
        elif not queue.in_doubt:
            await self._find_or_create(queue, units, photos)
        queue.exists = not queue.in_doubt

    async def _find_or_create(self, queue: PersonQueue, units: deque[Unit], photos: deque[UnitPhoto]) -> None:
        person = queue.person
        if person.before is not None or not person.group_ids:
            try:
                await self._learn(person.person_id)
            except NotFoundError:  # whom somebody has deleted
                if not person.group_ids:
                    raise
            else:
                return
        new = NewPerson(person.person_id, person_name=person.person_name, tag=person.tag)
        only = len(units) == 1 and units[0].tag == person.tag  # of several, the others would need a request as well
        if only:
            await self._read(queue, units, photos)
        try:
            if not (only and photos and await self._create_with(queue, new, photos)):
                await self._outages.call(lambda: create_person(self._session, new, person.group_ids))
        except AlreadyExistsError:
            await self._learn(person.person_id)

    async def _create_with(self, queue: PersonQueue, new: NewPerson, photos: deque[UnitPhoto]) -> bool:
        """Create a person with their only picture, and return whether it was not the picture that forbids that."""
        [photo], [image] = photos, images_of(photos)
        intend = partial(queries.intend, number=queue.number, before=None, units=[photo.unit])
        [photo.unit] = await self._journal.do(intend)
        request = CreateRequest(self._session, evolve(new, image=image), queue.person.group_ids)
        try:
            result = await self._outages.call(request.send, proves=True)
        except (AlreadyExistsError, ImageError, ImageRefusedError, RequestTooLargeError) as error:
            # If an earlier sending has created the person, the face tells it once the picture is sent again.
            queue.resent_before = () if request.in_doubt else None
            if isinstance(error, AlreadyExistsError):
                raise
            return False
        except (CallError, LimitError, ValueError) as error:
            photos.clear()
            await self._end([photo], error)
            raise
        if result.suc_face:
            photos.clear()
            created = partial(queries.record_created, number=queue.number, units=[_done(photo.unit, result.face_id)])
            queue.ended += await self._journal.do(created)
        return True

    async def _learn(self, person_id: str) -> None:
        self._ledger.learn(person_id, await self._list_faces(person_id))

    async def _list_faces(self, person_id: str) -> list[str]:
        return await self._outages.call(lambda: self._session.get_face_ids(person_id))

    # The pictures

    async def _read(self, queue: PersonQueue, units: deque[Unit], photos: deque[UnitPhoto]) -> None:
        """Read the pictures that come next, as many as one request may carry."""
        size = sum(photo.unit.size for photo in photos)
        some: list[Unit] = []
        while units and self._packer.wants(len(photos) + len(some) + 1, size + units[0].size):
            some.append(units.popleft())
            size += some[-1].size
        if some:
            read, unread = await self._reader.read(some)
            photos += read
            queue.ended += await self._record(unread) if unread else []

    def _room(self, unit: Unit) -> int:
        return room_for_image(self._session, ADD_FACE, {"person_id": unit.person_id, "tag": unit.tag})

    # The requests

    async def _reserve(self, person_id: str, count: int) -> Reservation:
        return await self._outages.call(lambda: self._ledger.faces(person_id, count, at_least=1))

    async def _add(self, person_id: str, photos: Sequence[UnitPhoto]) -> list[FaceOutcome]:
        """Send those of some pictures that no other one of the person is the same as, and note that before."""
        queue = self._queues[person_id]
        before: Collection[str] | None = queue.resent_before
        in_doubt, queue.resent_before = before is not None, None
        if before is None:
            before = self._ledger.known_faces(person_id)
            if before is None and not self._dry:
                before = await self._list_faces(person_id)
            units = [photo.unit for photo in photos]
            intend = partial(queries.intend, number=queue.number, before=before or (), units=units)
            for photo, unit in zip(photos, await self._journal.do(intend), strict=True):
                photo.unit = unit
        fresh = [photo for photo in photos if photo.unit.state is not State.COLLAPSED]
        faces = iter(await self._send(person_id, fresh, before or (), in_doubt=in_doubt))
        return [_DUPLICATE if photo.unit.state is State.COLLAPSED else next(faces) for photo in photos]

    async def _send(
        self, person_id: str, photos: Sequence[UnitPhoto], before: Collection[str], *, in_doubt: bool
    ) -> Sequence[FaceOutcome]:
        if self._dry or not photos:
            return [_ADDED] * len(photos)
        request = AddRequest(self._session, person_id, images_of(photos), photos[0].tag, before, in_doubt)
        return (await self._outages.call(request.send, proves=True)).faces

    async def _end(self, photos: Sequence[UnitPhoto], ended: Sequence[FaceOutcome] | ItemError) -> None:
        """Note what became of pictures."""
        queue = self._queues[photos[0].unit.person_id]
        if isinstance(ended, ItemError):
            units = [failed(photo.unit, ended) for photo in photos]
            if getattr(ended, "maybe_applied", False):
                queue.in_doubt = True
                units = [evolve(unit, state=State.AMBIGUOUS) for unit in units]
        else:
            units = [self._ended(photo.unit, face) for photo, face in zip(photos, ended, strict=True)]
        queue.ended += await self._record(units)

    def _ended(self, unit: Unit, face: FaceOutcome) -> Unit:
        if unit.state is State.COLLAPSED:
            return unit
        if self._dry:
            return evolve(unit, state=State.PENDING)
        return _done(unit, face.face_id) if face.error is None else failed(unit, face.error)


def _account_for(unread: Sequence[Unit], face_ids: Sequence[str], units: Sequence[Unit], *, told: bool) -> list[Unit]:
    """Return what became of pictures that cannot be read again: they have the faces that no other one explains."""
    if not told or not face_ids or len(face_ids) != len(unread):
        hint = "; it may have been added by the former run" if face_ids else ""
        # Without their hashes, so that other files that have those bytes are units of their own.
        return [evolve(unit, sha256=None, reason=f"{unit.reason}{hint}") for unit in unread]
    only = face_ids[0] if len(face_ids) == 1 else None
    unreadable = {unit.id for unit in unread}
    return [_done(unit, only) for unit in units if unit.id in unreadable]


def _done(unit: Unit, face_id: str | None) -> Unit:
    return evolve(unit, state=State.DONE, face_id=face_id or None, code=None, reason=None)
