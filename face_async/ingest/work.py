"""The work on one person: create them, read the pictures, send them in packs, and find out what became of them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from face_async._call.settle import Doubt
from face_async._call.settle import settle as find_out
from face_async.bulk.api import NewPerson, create_person
from face_async.bulk.fitting import max_image_bytes
from face_async.bulk.ledger import Key
from face_async.endpoints import ADD_FACE
from face_async.errors import (
    AlreadyExistsError,
    CallError,
    DuplicateFaceError,
    FaceError,
    FaceLimitError,
    ImageError,
    InvalidParameterError,
    LimitError,
    NotFoundError,
    ReturnCode,
    TransportError,
)
from face_async.images import is_url
from face_async.ingest import journal as notes
from face_async.ingest.journal import State, Unit
from face_async.ingest.pictures import PhotoReader, failed
from face_async.models import AddFaceResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from face_async.ingest.journal import Journal, Person
    from face_async.ingest.pictures import Photo
    from face_async.ingest.service import Service
    from face_async.models import FaceOutcome
    from face_async.session import FaceSession


@define(eq=False)
class Place:
    """A person in work, shared by all turns of theirs; one of them at a time.

    Attributes:
        number: The person's number in the journal.
        waiting: What the turns to come are about, in order.
        turn: Whose turn it is. What a lost request has done can be told exactly only if no other was under way.
        faces: The ids of the faces that the person has, None while they are not known.
        exists: Whether the person is known to exist.
        in_doubt: Whether some of the person's pictures may have been added or not.
    """

    number: int
    waiting: deque[tuple[Unit, ...]] = field(factory=deque[tuple[Unit, ...]])
    turn: anyio.Lock = field(factory=anyio.Lock)
    faces: list[str] | None = None
    exists: bool = False
    in_doubt: bool = False


class Enroller:
    """Enrolls persons.

    Args:
        session: What to enroll them with.
        journal: Where all is noted.
        service: Who makes the calls.
        pack: False sends every picture alone.
        fit: Makes pictures that are too large for a request smaller.
        dry: Goes as far as sending, and does not.
    """

    def __init__(
        self, session: FaceSession, journal: Journal, service: Service, *, pack: bool, fit: bool, dry: bool
    ) -> None:
        self._session = session
        self._journal = journal
        self._service = service
        self._limits = session.limits
        self._most = session.limits.max_faces_per_person if pack else 1
        self._reader = PhotoReader(session.limits, fit=fit)
        self._dry = dry

    async def enroll(self, place: Place) -> list[Unit]:
        """Send what waits next, and return what became of it.

        Of some or all pictures nothing becomes when the run is told to stop, or others of the person are in doubt.

        Raises:
            RunEndedError: Nothing more can be sent.
            JournalError: Nothing more can be noted.
        """
        ended: list[Unit] = []
        async with place.turn:
            left = deque(place.waiting.popleft())
            while left and not self._service.stopping:
                try:
                    faces = await self._prepare(place)
                except (CallError, LimitError, ValueError) as error:
                    return ended + await self._note([failed(unit, error) for unit in left])
                if place.in_doubt:  # what is in doubt can be told only from what was there before
                    break
                ended += await self._send(place, faces, self._cut(left))
        return ended

    async def settle(self, place: Place) -> list[Unit]:
        """Find out what became of pictures of one person that a former run has left in doubt.

        What can be read as it was is sent again: the service refuses what it has, and the faces that the person did not
        have before tell what that is. Units that turn out to be still unsent are not returned.
        """
        async with place.turn:
            units = place.waiting.popleft()
            if self._dry:
                return list(units)
            person = await self._journal.do(partial(notes.person, number=place.number))
            before = person.before or ()
            place.faces = list(before)
            photos, unread = await self._reader.read(units, again=True)
            try:
                faces = await self._faces_of(person)
            except NotFoundError:  # then nothing of it has happened
                await self._note([evolve(unit, state=State.PENDING, sha256=None) for unit in units])
                return []
            except CallError as error:
                return await self._note([evolve(failed(unit, error), state=State.AMBIGUOUS) for unit in units])
            ended = await self._request(place, photos, in_doubt=True) if photos else []
            explained = {*before, *(unit.face_id for unit in ended)}
            theirs = [face_id for face_id in faces if face_id not in explained]
            return await self._note(ended + _account_for(unread, theirs, units))

    async def _note(self, units: list[Unit]) -> list[Unit]:
        await self._journal.do(partial(notes.settle, units=units))
        return units

    # The person

    async def _prepare(self, place: Place) -> list[str]:
        """Return the faces of a person, who is created if need be, and left alone while in doubt."""
        if place.faces is None:
            person = await self._journal.do(partial(notes.person, number=place.number))
            place.in_doubt = person.in_doubt
            if place.in_doubt:
                return []
            place.faces = list(person.before or ()) if self._dry else await self._look_up(person, place)
            place.exists = True
        return place.faces

    async def _look_up(self, person: Person, place: Place) -> list[str]:
        if place.exists or person.before is not None or not person.group_ids:
            try:
                return await self._faces_of(person)
            except NotFoundError:  # whom somebody has deleted
                if not person.group_ids:
                    raise
        new = NewPerson(person.person_id, person_name=person.person_name, tag=person.tag)
        try:
            created = await self._service.call(lambda: create_person(self._session, new, person.group_ids))
        except AlreadyExistsError:
            return await self._faces_of(person)
        return await self._faces_of(person) if created.meta.settled else []

    async def _faces_of(self, person: Person) -> list[str]:
        return await self._service.call(lambda: self._session.get_face_ids(person.person_id))

    # The pictures

    def _cut(self, left: deque[Unit]) -> list[Unit]:
        """Take from the front what fits one request: of one kind, with one tag."""
        first = left[0]
        pack: list[Unit] = []
        room = max_image_bytes(self._limits)
        while left and len(pack) < self._most:
            unit = left[0]
            room -= 2 * len(unit.source.encode()) if is_url(unit.source) else unit.size
            if pack and (room < 0 or unit.tag != first.tag or is_url(unit.source) != is_url(first.source)):
                break
            pack.append(left.popleft())
        return pack

    # The requests

    async def _send(self, place: Place, faces: list[str], units: Sequence[Unit]) -> list[Unit]:
        """Send a pack, but for what cannot be read, what is there already and what there is no room for."""
        photos, ended = await self._reader.read(units)

        def intend(db: Connection) -> set[int]:
            notes.settle(db, ended)
            contents = [(photo.unit.id, photo.unit.sha256) for photo in photos]
            return notes.intend(db, place.number, faces, contents)

        fresh = await self._journal.do(intend)
        ended += [
            evolve(photo.unit, state=State.COLLAPSED, code=None, reason=None)
            for photo in photos
            if photo.unit.id not in fresh
        ]
        photos = [photo for photo in photos if photo.unit.id in fresh]
        room = max(0, self._limits.max_faces_per_person - len(faces))
        if photos[room:]:
            error = FaceLimitError(f"the person has {len(faces)} faces and these; {room} more may be added")
            ended += await self._note([failed(photo.unit, error) for photo in photos[room:]])
        if self._dry:
            faces += [""] * len(photos[:room])
            ended += await self._note([evolve(photo.unit, state=State.PENDING) for photo in photos[:room]])
        elif photos[:room]:
            ended += await self._note(await self._request(place, photos[:room]))
        return ended

    async def _request(self, place: Place, photos: Sequence[Photo], *, in_doubt: bool = False) -> list[Unit]:
        """Add a pack with one request, or with more if one of its pictures stands in the way of the others."""
        batch = _Batch(self._session, photos, in_doubt=in_doubt)
        try:
            batch.before = tuple(await self._prepare(place))
            result = await self._service.call(batch.add, proves=True)
        except (FaceError, ValueError) as error:
            if batch.in_doubt:
                place.in_doubt = True
                return [evolve(failed(photo.unit, error), state=State.AMBIGUOUS) for photo in photos]
            if len(photos) > 1 and isinstance(error, LimitError | ImageError | DuplicateFaceError):
                half = len(photos) // 2
                return await self._request(place, photos[:half]) + await self._request(place, photos[half:])
            return [failed(photo.unit, error) for photo in photos]
        finally:
            self._session.ledger.forget(Key("faces", batch.person_id))  # which it has not seen
        units = [_told(photo.unit, face) for photo, face in zip(photos, result.faces, strict=True)]
        if (
            any(unit.state is State.DONE and not unit.face_id for unit in units)
            or ReturnCode.ERROR_FACE_NUM_EXCEED in result.ret_codes
        ):
            place.faces = None  # to be looked at again
        elif place.faces is not None:
            place.faces += [unit.face_id for unit in units if unit.face_id]
        return units


class _Batch:
    """One addface request, as often as it takes."""

    def __init__(self, session: FaceSession, photos: Sequence[Photo], *, in_doubt: bool) -> None:
        self.before: tuple[str, ...] = ()
        self.person_id = photos[0].unit.person_id
        self.in_doubt = in_doubt
        self._session = session
        self._tag = photos[0].unit.tag
        self._images = [photo.image for photo in photos]

    async def add(self) -> AddFaceResult:
        """Send it, and look what became of it if it may have been applied before."""
        try:
            ended = await self._session._add_face(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # one package
                self.person_id, self._images, tag=self._tag, before=self.before
            )
        except (ImageError, InvalidParameterError, NotFoundError):
            self.in_doubt = False  # so was every other request like it
            raise
        except (FaceLimitError, DuplicateFaceError) as error:
            if not self.in_doubt:
                raise
            return await self._look(error)
        except CallError as error:
            self.in_doubt = self.in_doubt or error.maybe_applied
            raise
        return await self._look(ended) if self.in_doubt else ended

    async def _look(self, ended: AddFaceResult | FaceLimitError | DuplicateFaceError) -> AddFaceResult:
        fields = {"person_id": self.person_id, "tag": self._tag}
        doubt = Doubt(ADD_FACE.name, fields, self._images, ended, self.before)
        finding = await find_out(self._session, doubt)
        if isinstance(finding.result, AddFaceResult):
            return evolve(finding.result, images=tuple(self._images))
        if isinstance(ended, FaceError) and set(await self._session.get_face_ids(self.person_id)) <= set(self.before):
            self.in_doubt = False
            raise ended
        message = "addface: the person's faces do not tell which of the pictures were added"
        raise TransportError(message, endpoint=ADD_FACE.name, maybe_applied=True)


def _account_for(unread: Sequence[Unit], face_ids: Sequence[str], units: Sequence[Unit]) -> list[Unit]:
    """Return what became of pictures that cannot be read again: they have the faces that no other one explains."""
    if not face_ids or len(face_ids) != len(unread):
        hint = "; it may have been added by the former run" if face_ids else ""
        # Without their hashes, so that other files that have those bytes are units of their own.
        return [evolve(unit, sha256=None, reason=f"{unit.reason}{hint}") for unit in unread]
    only = face_ids[0] if len(face_ids) == 1 else None
    unreadable = {unit.id for unit in unread}
    return [_done(unit, only) for unit in units if unit.id in unreadable]


def _done(unit: Unit, face_id: str | None) -> Unit:
    return evolve(unit, state=State.DONE, face_id=face_id, code=None, reason=None)


def _told(unit: Unit, face: FaceOutcome) -> Unit:
    if face.error is not None:
        return failed(unit, face.error)
    return _done(unit, face.face_id or None)
