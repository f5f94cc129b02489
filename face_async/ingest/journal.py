"""The journal: what is to be sent, what may have been, and what became of it, in one SQLite file.

The unit of work is a picture of a person: the same bytes, or the same URL, are sent once for one person, whatever the
number of rows and files that have them. A unit goes through these states::

    PENDING -> INTENT -> DONE          with a face id
                      -> FAILED        with a code and a reason
                      -> AMBIGUOUS     its run ended before it was known
            -> COLLAPSED               another unit of the person has the same bytes

An INTENT is on the disk before the first byte of its request is sent, so that a killed run leaves no effect that the
journal does not know of: what is still INTENT when a journal is opened has become AMBIGUOUS.

There is one writer, one lock and one connection. Everything that uses it is a function of that connection (see
:mod:`face_async.ingest.queries`), run in a worker thread; what several tasks ask for at the same time shares one
transaction.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import anyio
from attrs import define, field, frozen

from face_async.images.threads import Workers
from face_async.ingest.schema import JournalError, Project, copy_of, explained, open_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

journals = Workers("journals", 40)
"""For journals, and what is listed in them."""


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
class ListedPerson:
    """A person to be enrolled.

    Attributes:
        number: The person's number in the journal.
        before: The person's faces before the latest request, and those added since; None before the first request, and
            while that is to create the person.
        in_doubt: Whether some of the person's units may have been added or not.
    """

    number: int
    person_id: str
    group_ids: tuple[str, ...]
    person_name: str | None
    tag: str | None
    before: tuple[str, ...] | None
    in_doubt: bool


class Journal:
    """An open journal; use it as an asynchronous context manager.

    Args:
        path: The file, made with mode 0600 when it is new.
        project: Whose it must be; None takes any journal that is there.
        dry: Works on a copy, which is gone at the end.

    Raises:
        JournalError: When it is entered: it is another project's, in use, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], project: Project | None, *, dry: bool = False) -> None:
        if project is None and dry:
            raise ValueError("a dry journal needs a project")
        self.path = os.fspath(path)
        self._project = project
        self._dry = dry
        self._db: sqlite3.Connection | None = None
        self._using = threading.Lock()
        self._turn = anyio.Lock(fast_acquire=True)
        self._jobs: list[_Job[object]] = []
        self._failure: JournalError | None = None

    async def __aenter__(self) -> Self:
        self._db = await journals.run(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await journals.run(self._close)

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

        All work that waits when a transaction begins shares it, so ``work`` may raise only SQLite's errors.

        Raises:
            JournalError: The disk is full, or the file damaged. Then nothing more can be done with the journal.
        """
        job = _Job(work)
        self._jobs.append(cast("_Job[object]", job))
        async with self._turn:
            if not job.done and self._failure is None:
                jobs, self._jobs = self._jobs, []
                await journals.run(self._transact, jobs)
        return self._result(job)

    def do_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection in this worker thread; ``work`` may raise any exception."""
        job = _Job(work)
        self._transact([cast("_Job[object]", job)])
        return self._result(job)

    async def copy_into(self, path: str | os.PathLike[str]) -> None:
        """Copy the journal as it is now, between two transactions, into a file.

        Raises:
            JournalError: It cannot be read or written.
        """
        await journals.run(self._copy, os.fspath(path))

    def _copy(self, path: str) -> None:
        with self._using:
            if self._db is None:
                raise self._failure or RuntimeError("the journal is closed")
            # Never within a transaction that has written something: SQLite would wait for its end for ever.
            with explained(self.path), contextlib.closing(sqlite3.connect(path)) as copy:
                self._db.backup(copy)

    def _result(self, job: _Job[T]) -> T:
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
