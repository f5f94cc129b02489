"""Comparing the server with the journal: is it the journal's, does it have what was added, and nothing else?"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from attrs import evolve, frozen

from face_async.bulk.once import EnteredOnce
from face_async.bulk.outcomes import Outcomes
from face_async.endpoints import GET_GROUP_IDS
from face_async.errors import CallError, LimitError, NotFoundError, ReturnCode, UnsupportedError, quoted
from face_async.ingest.journal import Journal
from face_async.ingest.schema import JournalError, database_of, mismatch, note_database, project_of

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from sqlite3 import Connection

    from face_async.bulk.outage import OutageHandler
    from face_async.session import FaceSession

T = TypeVar("T")

_READ_AT_ONCE = 500
_NAMED = 3
_DATABASE_HEADER = "x-face-database"  # of a getgroupids answer; beyond the specification, and of the local server only
_LONGEST_IDENTITY = 128
_SAMPLES = 5  # of the first persons and of the last, who are looked for until one is found


async def check_server(journal: Journal, session: FaceSession, outages: OutageHandler | None) -> None:
    """Check that the server has the database that a journal tells of, before anything of the journal is trusted.

    Otherwise pictures would count as enrolled on a server that is new, or another one of the same account. A server
    that states the identity of its database is known by that. With any other, one known person decides.

    Args:
        journal: The journal; an identity that is stated is noted in it.
        session: The session that asks the server.
        outages: Makes the calls, and waits while the service is away; None makes each once.

    Raises:
        JournalError: The server has no face of any of some known persons.
        RunEndedError, CallError: The service cannot be asked.
    """
    answer = await _made(outages, lambda: session.request(GET_GROUP_IDS.name, {}))
    stated = answer.headers.get(_DATABASE_HEADER, "")[:_LONGEST_IDENTITY]
    if stated and stated == await journal.do(database_of):
        return
    samples = await journal.do(_sampled)
    if samples and not await _is_any_known(samples, session, outages):
        who = ", ".join(quoted(known.person_id) for known in samples[:_NAMED])
        raise JournalError(
            f"{quoted(journal.path)} says that faces of {who} are enrolled, but the server does not have them: it has "
            "another database now, or they were deleted. Begin another journal, name the right server, or repair the "
            "journal (face-async enroll --repair), which enrolls again what is missing"
        )
    if stated:
        await journal.do(partial(note_database, database=stated))


async def check_server_if_possible(journal: Journal, session: FaceSession) -> None:
    """Check as :func:`check_server` does, if the journal tells of anything and the service answers."""
    if await journal.do(_sampled):
        with contextlib.suppress(CallError):
            await check_server(journal, session, None)


async def _made(outages: OutageHandler | None, call: Callable[[], Awaitable[T]]) -> T:
    return await (call() if outages is None else outages.call(call))


async def _is_any_known(samples: Sequence[_Expected], session: FaceSession, outages: OutageHandler | None) -> bool:
    for known in samples:
        try:
            faces = await _made(outages, partial(session.get_face_ids, known.person_id))
        except NotFoundError:
            continue
        if set(faces) & set(known.face_ids) or (faces and None in known.face_ids):
            return True
    return False


@frozen
class Difference:
    """What differs between the server and the journal for one person.

    Attributes:
        person_id: The person's id.
        absent: Whether the server does not know the person at all.
        missing: Faces that the journal has as DONE, and the server does not have.
        missing_unnamed: How many more the server lacks, of which the journal does not know the ids.
        extra: Faces that the server has, and the journal did not add.
        missing_groups: Groups that the source wants, and the person is not in.
    """

    person_id: str
    absent: bool = False
    missing: tuple[str, ...] = ()
    missing_unnamed: int = 0
    extra: tuple[str, ...] = ()
    missing_groups: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.absent or self.missing or self.missing_unnamed or self.extra or self.missing_groups)


@frozen
class _Expected:
    """What the journal says of a person."""

    number: int
    person_id: str
    group_ids: tuple[str, ...]
    face_ids: tuple[str | None, ...]


def verify_enrollment(
    session: FaceSession, journal: str | os.PathLike[str], *, repair: bool = False, max_at_once: int = 64
) -> Verification:
    """Compare the server with a journal, for every person who was sent a face.

    ::

        async with verify(session, "enroll.journal") as differences:
            async for difference in differences:
                print(difference)
        print(differences.persons, "persons with", differences.faces, "faces looked at")

    Args:
        session: The session that asks the server.
        journal: The journal's file; no run may have it in use.
        repair: Whether to note in the journal that missing faces are to be sent again, which the next run does, and to
            put persons in missing groups at once, where the server can. Extra faces stay.
        max_at_once: How many persons are asked for at once, 1 or more.

    Raises:
        JournalError: When it is entered: the journal is another project's, in use, or damaged.
        FaceError: While it is iterated: the server cannot be asked.
    """
    return Verification(session, journal, repair=repair, max_at_once=max_at_once)


class Verification(EnteredOnce):
    """The persons who differ, as an asynchronous context manager and iterator.

    Attributes:
        persons: Persons that were compared so far.
        faces: Faces that the journal says they were given.
    """

    def __init__(
        self, session: FaceSession, journal: str | os.PathLike[str], *, repair: bool, max_at_once: int
    ) -> None:
        self.persons = 0
        self.faces = 0
        self._repair = repair
        self._session = session
        self._journal = Journal(journal, None)
        self._outcomes = self.hold(Outcomes(self._compare, self._people(), max_at_once=max_at_once))
        self._stack = contextlib.AsyncExitStack()
        super().__init__("verify", "async with verify(...) as differences:")

    async def __aenter__(self) -> Self:
        self.enter_once()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._journal)
            found = await self._journal.do(project_of)
            wanted = evolve(found, appid=self._session.appid, bucket=self._session.bucket)
            if found != wanted:
                raise mismatch(self._journal.path, found, wanted)
            await stack.enter_async_context(self._outcomes)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Difference:
        self.check_entered()
        while True:
            outcome = await anext(self._outcomes)
            difference = outcome.unwrap()
            if difference and self._repair:
                await self._mend(outcome.item, difference)
            self.persons += 1
            self.faces += len(outcome.item.face_ids)
            if difference:
                return difference

    async def _people(self) -> AsyncGenerator[_Expected]:
        after = 0
        while people := await self._journal.do(partial(_enrolled, after=after)):
            for person in people:
                yield person
            after = people[-1].number

    async def _compare(self, expected: _Expected) -> Difference:
        try:
            info = await self._session.get_info(expected.person_id)
        except NotFoundError as error:
            if error.code != ReturnCode.ERROR_PERSON_NOT_EXISTED:
                raise
            return Difference(expected.person_id, absent=True)
        named = [face_id for face_id in expected.face_ids if face_id]
        extra = [face_id for face_id in info.face_ids if face_id not in named]
        unnamed = len(expected.face_ids) - len(named)
        return Difference(
            expected.person_id,
            missing=tuple(face_id for face_id in named if face_id not in info.face_ids),
            missing_unnamed=max(0, unnamed - len(extra)),
            extra=tuple(extra) if len(extra) > unnamed else (),
            missing_groups=tuple(group for group in expected.group_ids if group not in info.group_ids),
        )

    async def _mend(self, expected: _Expected, difference: Difference) -> None:
        await self._journal.do(partial(_send_again, expected=expected, difference=difference))
        if difference.missing_groups:
            # A server of the specification alone cannot, and a group may be full: then the difference stays.
            with contextlib.suppress(UnsupportedError, LimitError):
                await self._session.add_group_ids(expected.person_id, difference.missing_groups)


def _send_again(db: Connection, expected: _Expected, difference: Difference) -> None:
    """Make units pending whose faces are missing."""
    change = (
        "UPDATE units SET state = 'pending', sha256 = NULL, face_id = NULL, code = NULL, reason = NULL "
        "WHERE person = ? AND state = 'done'"
    )
    if difference.absent:
        db.execute(change, (expected.number,))
        db.execute("UPDATE persons SET before = NULL WHERE id = ?", (expected.number,))
    for face_id in difference.missing:
        db.execute(f"{change} AND face_id = ?", (expected.number, face_id))
    if difference.missing_unnamed:
        db.execute(f"{change} AND face_id IS NULL", (expected.number,))  # the server refuses those that it has


def _sampled(db: Connection) -> list[_Expected]:
    """Return some of the persons who were given faces: the last and the first."""
    query = (
        "SELECT person, person_id, json_group_array(face_id) FROM units JOIN persons ON persons.id = person "
        "WHERE state = 'done' GROUP BY person ORDER BY person {} LIMIT ?"
    )
    rows = [row for order in ("DESC", "ASC") for row in db.execute(query.format(order), (_SAMPLES,))]
    return [
        _Expected(number, person_id, (), tuple(json.loads(face_ids)))
        for number, person_id, face_ids in dict.fromkeys(rows)
    ]


def _enrolled(db: Connection, after: int) -> list[_Expected]:
    query = (
        "SELECT id, person_id, group_ids, (SELECT json_group_array(face_id) FROM units "
        "WHERE person = persons.id AND state = 'done') FROM persons WHERE id > ? AND EXISTS "
        "(SELECT 1 FROM units WHERE person = persons.id AND state = 'done') ORDER BY id LIMIT ?"
    )
    return [
        _Expected(number, person_id, tuple(json.loads(group_ids)), tuple(json.loads(face_ids)))
        for number, person_id, group_ids, face_ids in db.execute(query, (after, _READ_AT_ONCE))
    ]
