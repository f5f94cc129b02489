"""The journal: what is to be sent, what may have been, and what became of it, in one SQLite file.

The unit of work is a picture of a person: the same bytes, or the same URL, are sent once for one person, whatever the
number of rows and files that have them. A unit goes through these states::

    PENDING -> INTENT -> DONE          with a face id
                      -> FAILED        with a code and a reason
                      -> AMBIGUOUS     its run ended before it was known
            -> COLLAPSED               another unit of the person has the same bytes

An INTENT is on the disk before the first byte of its request is sent, so that a killed run leaves no effect that the
journal does not know of: what is still INTENT when a journal is opened has become AMBIGUOUS.

There is one writer, one lock and one connection. Everything that touches it is a function of that connection, run in
a worker thread; what several tasks want at the same time is one transaction, so that they share its cost.
"""

from __future__ import annotations

import enum
import json
import os
import threading
from typing import TYPE_CHECKING, Generic, Self, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from face_async.images import is_url
from face_async.ingest.schema import JournalError, Project, copy_of, explained, open_journal, project_of
from face_async.ingest.sources import BadRow, Row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

__all__ = ["Journal", "JournalError", "Person", "Project", "State", "Unit"]

T = TypeVar("T")

_UNFINISHED = "state IN ('pending', 'intent', 'ambiguous')"  # word for word as in the index, or it is not used
_UNIT = (
    "units.id, units.person, person_id, source, size, stamp, units.tag, state, sha256, face_id, code, reason "
    "FROM units JOIN persons ON persons.id = units.person"
)


class State(enum.StrEnum):
    """Where a unit of work stands."""

    PENDING = "pending"
    INTENT = "intent"
    AMBIGUOUS = "ambiguous"
    DONE = "done"
    FAILED = "failed"
    COLLAPSED = "collapsed"


@frozen
class Unit:
    """A picture of a person, and where it stands.

    Attributes:
        id: Its number in the journal.
        person: The person's number in the journal.
        person_id: The person's id.
        source: The picture's path or URL.
        size: The file's bytes when it was listed; 0 for a URL.
        stamp: What tells a file that has changed since then.
        tag: The remark for the face.
        state: Where it stands.
        sha256: Of the file's bytes, or of the URL; None until it was read.
        face_id: The face's id when it is DONE; None also if the server never told which it is.
        code: Why it FAILED: the service's return code, such as ``"-1101"``, or a word, such as ``"missing"``.
        reason: The same in a sentence.
    """

    id: int
    person: int
    person_id: str
    source: str
    size: int
    stamp: str
    tag: str | None
    state: State = field(converter=State)
    sha256: bytes | None = field(default=None, repr=False)
    face_id: str | None = None
    code: str | None = None
    reason: str | None = None


@frozen
class Person:
    """A person to be enrolled.

    Attributes:
        id: The person's number in the journal.
        person_id: The person's id.
        group_ids: The groups to create the person in.
        person_name: The person's name.
        tag: The remark for the person.
        before: The person's faces before the latest request, and what was added since; None when none was ever sent.
        in_doubt: Whether it is not known what became of some of the person's units.
    """

    id: int
    person_id: str
    group_ids: tuple[str, ...]
    person_name: str | None
    tag: str | None
    before: tuple[str, ...] | None
    in_doubt: bool


Listed: TypeAlias = tuple[Row | BadRow, int, str]
"""A row, and the size and stamp of its file."""


def look_at(row: Row | BadRow) -> Listed:
    """Return a row with its file's size and stamp, which are 0 and ``""`` if it has none."""
    if isinstance(row, BadRow) or is_url(row.source):
        return row, 0, ""
    size, stamp = stamp_of(row.source)
    return row, size, stamp


def stamp_of(path: str) -> tuple[int, str]:
    """Return a file's size in bytes and what tells a changed one, 0 and ``""`` when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for each of millions
    except (OSError, ValueError):
        return 0, ""
    return status.st_size, f"{status.st_size:x}.{status.st_mtime_ns:x}"


class Journal:
    """An open journal; use it as an asynchronous context manager.

    Args:
        path: The file, made with mode 0600 when it is new.
        project: Whose it must be; None takes any journal that is there.
        dry: Works on a copy, which is gone at the end.

    Raises:
        JournalError: When it is entered: it is another project's, in use, or no sound journal.
    """

    def __init__(self, path: str | os.PathLike[str], project: Project | None, *, dry: bool = False) -> None:
        if project is None and dry:
            raise ValueError("a dry journal needs a project")
        self.path = os.fspath(path)
        self._project = project
        self._dry = dry
        self._db: sqlite3.Connection | None = None
        self._using = threading.Lock()
        self._turn = anyio.Lock()
        self._jobs: list[_Job[object]] = []
        self._failure: JournalError | None = None

    async def __aenter__(self) -> Self:
        self._db = await anyio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)

    def _open(self) -> sqlite3.Connection:
        if self._dry and self._project is not None:
            return copy_of(self.path, self._project)
        return open_journal(self.path, self._project)

    def _close(self) -> None:
        with self._using:
            if self._db is not None:
                self._db.close()
                self._db = None

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection, and return once it is on the disk.

        What waits when a transaction begins is all part of it, and so must raise nothing but what SQLite does.

        Raises:
            JournalError: The disk is full, or the file damaged. Then nothing more can be done with the journal.
        """
        job = _Job(work)
        self._jobs.append(cast("_Job[object]", job))
        async with self._turn:
            if not job.done and self._failure is None:
                jobs, self._jobs = self._jobs, []
                await anyio.to_thread.run_sync(self._transact, jobs)
        if not job.done:
            raise self._failure or RuntimeError("the journal is closed")
        return cast("T", job.result)

    def do_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection in this thread, which is a worker's; it may raise what it likes."""
        job = _Job(work)
        self._transact([cast("_Job[object]", job)])
        if not job.done:
            raise self._failure or RuntimeError("the journal is closed")
        return cast("T", job.result)

    def _transact(self, jobs: Sequence[_Job[object]]) -> None:
        with self._using:
            if self._db is None or self._failure is not None:
                return
            try:
                with explained(self.path), self._db:
                    self._db.execute("BEGIN")
                    for job in jobs:
                        job.result = job.work(self._db)
            except JournalError as error:
                self._failure = error
                return
            for job in jobs:
                job.done = True


@define(eq=False)
class _Job(Generic[T]):
    """Something to do in a transaction."""

    work: Callable[[sqlite3.Connection], T]
    result: T | None = None
    done: bool = False


# What can be done with a journal. Listing a source:


def begin_listing(db: sqlite3.Connection) -> None:
    """Forget what is pending: the source says anew what is to be sent, and without what was taken out of it.

    What failed and was to be tried again stays so.
    """
    db.execute("UPDATE project SET listing = listing + 1")
    db.execute("DELETE FROM units WHERE state = 'pending' AND code IS NULL")
    db.execute("DELETE FROM bad_rows")


def list_rows(db: sqlite3.Connection, rows: Iterable[Listed]) -> None:
    """Note rows; those that are known with the same stamp are left as they stand."""
    (listing,) = db.execute("SELECT listing FROM project").fetchone()
    for row, size, stamp in rows:
        if isinstance(row, BadRow):
            db.execute("INSERT OR REPLACE INTO bad_rows VALUES (?, ?, ?)", (row.file, row.line, row.reason))
            continue
        person = _list_person(db, row, listing)
        key = (person, row.source, stamp)
        new = "INSERT OR IGNORE INTO units (person, source, stamp, size, tag) VALUES (?, ?, ?, ?, ?)"
        if db.execute(new, (*key, size, row.tag)).rowcount and listing > 1:
            # Another file by the same name: what the old one failed of says nothing of this one.
            old = "DELETE FROM units WHERE person = ? AND source = ? AND stamp <> ? AND state IN ('failed', 'pending')"
            db.execute(old, key)


def _list_person(db: sqlite3.Connection, row: Row, listing: int) -> int:
    """Return the number of a row's person, whose rows' groups count together, and their first name and tag."""
    query = "SELECT id, group_ids, name, tag, listing FROM persons WHERE person_id = ?"
    known = db.execute(query, (row.person_id,)).fetchone()
    if known is None:
        new = "INSERT INTO persons (person_id, group_ids, name, tag, listing) VALUES (?, ?, ?, ?, ?)"
        values = (row.person_id, json.dumps(row.group_ids), row.person_name, row.tag, listing)
        return cast("int", db.execute(new, values).lastrowid)
    number, *old, seen = known
    group_ids: list[str] = json.loads(old[0]) if seen == listing else []
    name, tag = (old[1], old[2]) if seen == listing else (None, None)
    group_ids += [group_id for group_id in row.group_ids if group_id not in group_ids]
    name = row.person_name if name is None else name
    tag = row.tag if tag is None else tag
    fresh = [json.dumps(group_ids), name, tag]
    if fresh != old or seen != listing:
        update = "UPDATE persons SET group_ids = ?, name = ?, tag = ?, listing = ? WHERE id = ?"
        db.execute(update, (*fresh, listing, number))
    return int(number)


def reopen_failed(db: sqlite3.Connection) -> None:
    """Make everything that failed pending again, as it is now; its code stays, to tell it from what never failed."""
    query = "SELECT id, source FROM units WHERE state = 'failed' AND id > ? ORDER BY id LIMIT 1000"
    change = "UPDATE OR IGNORE units SET state = 'pending', sha256 = NULL, size = ?, stamp = ? WHERE id = ?"
    number = 0
    while found := db.execute(query, (number,)).fetchall():
        for number, source in found:
            size, stamp = (0, "") if is_url(source) else stamp_of(source)
            if not db.execute(change, (size, stamp, number)).rowcount:
                db.execute("DELETE FROM units WHERE id = ?", (number,))  # the file as it is now is there already


# Sending:


def unfinished(
    db: sqlite3.Connection, state: State, after: tuple[int, int], limit: int, *, failed_only: bool = False
) -> list[Unit]:
    """Return the next units in a state, in the order of persons and numbers.

    Args:
        db: The journal.
        state: PENDING or AMBIGUOUS.
        after: The person and the number of the last unit that is known.
        limit: How many at most.
        failed_only: Only those that failed before.
    """
    query = (
        f"SELECT {_UNIT} WHERE {_UNFINISHED} AND state = ? AND (units.person, units.id) > (?, ?) "
        f"{'AND code IS NOT NULL' if failed_only else ''} ORDER BY units.person, units.id LIMIT ?"
    )
    return [Unit(*row) for row in db.execute(query, (state.value, *after, limit))]


def person(db: sqlite3.Connection, number: int) -> Person:
    """Return a person."""
    query = "SELECT person_id, group_ids, name, tag, before FROM persons WHERE id = ?"
    person_id, group_ids, name, tag, before = db.execute(query, (number,)).fetchone()
    known: tuple[str, ...] | None = None
    if before is not None:
        added = db.execute("SELECT face_id FROM units WHERE person = ? AND state = 'done'", (number,))
        known = (*json.loads(before), *(face_id for (face_id,) in added if face_id))
    query = f"SELECT EXISTS (SELECT 1 FROM units WHERE {_UNFINISHED} AND person = ? AND state <> 'pending')"  # noqa: S608
    (in_doubt,) = db.execute(query, (number,)).fetchone()
    return Person(number, person_id, tuple(json.loads(group_ids)), name, tag, known, bool(in_doubt))


def intend(
    db: sqlite3.Connection, number: int, before: Iterable[str], contents: Iterable[tuple[int, bytes | None]]
) -> set[int]:
    """Note what is about to be sent, and return the numbers of those units that are not sent already.

    Args:
        db: The journal.
        number: The person's number.
        before: The person's faces as they are now.
        contents: Units, and the sha256 of what each of them has.
    """
    db.execute("UPDATE persons SET before = ? WHERE id = ?", (json.dumps(list(before)), number))
    sent: set[int] = set()
    for unit, sha256 in contents:
        change = "UPDATE OR IGNORE units SET state = 'intent', sha256 = ? WHERE id = ?"
        if db.execute(change, (sha256, unit)).rowcount:
            sent.add(unit)
        else:
            change = "UPDATE units SET state = 'collapsed', sha256 = ?, code = NULL, reason = NULL WHERE id = ?"
            db.execute(change, (sha256, unit))
    return sent


def settle(db: sqlite3.Connection, units: Iterable[Unit]) -> None:
    """Note what became of units."""
    change = "UPDATE units SET state = ?, sha256 = ?, face_id = ?, code = ?, reason = ? WHERE id = ?"
    for unit in units:
        db.execute(change, (unit.state.value, unit.sha256, unit.face_id, unit.code, unit.reason, unit.id))


# Looking:


def tally(db: sqlite3.Connection) -> Iterator[tuple[State, str | None, int]]:
    """Yield how many units there are of each state and code."""
    for state, code, count in db.execute("SELECT state, code, count(*) FROM units GROUP BY state, code"):
        yield State(state), code, count


def count_bad_rows(db: sqlite3.Connection) -> int:
    """Return how many rows of the source are bad."""
    return int(db.execute("SELECT count(*) FROM bad_rows").fetchone()[0])


def failures(db: sqlite3.Connection) -> Iterator[tuple[str, str, str, str]]:
    """Yield person id, source, code and reason of everything that failed; of bad rows the file and the line."""
    for file, line, reason in db.execute("SELECT file, line, reason FROM bad_rows ORDER BY file, line"):
        yield "", f"{file}:{line}" if line else file, "row", reason
    yield from db.execute(
        "SELECT person_id, source, code, reason FROM units JOIN persons ON persons.id = person "
        "WHERE state IN ('failed', 'ambiguous') ORDER BY units.id"
    )


def project(db: sqlite3.Connection) -> Project:
    """Return whose journal it is."""
    return project_of(db)
