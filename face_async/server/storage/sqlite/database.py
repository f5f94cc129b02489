"""One SQLite file for many threads: reads that wait for no write, and writes that share their commits."""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal
from face_async.server.storage import base
from face_async.server.storage.base import StoreError
from face_async.server.storage.writes import WriteQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from face_async.server.storage.writes import Write

MEMORY = ":memory:"
"""The path of a database that is kept nowhere."""

BUSY_SECONDS = 10.0
"""How long a write waits while another process holds the file's lock."""

_READERS = 8  # connections; reads are short
_POLL_SECONDS = 0.2  # how often writes that wait for the file's lock are looked at for those that waited too long

T = TypeVar("T")

_NEXT_FACE = "UPDATE last_face SET id = max(id, (SELECT coalesce(max(faces.id), 0) FROM faces)) + 1 RETURNING id"


class SqliteTransaction(sqlite3.Connection):
    """A connection as storages use it. There is one writer at a time, so nothing needs a lock of its own."""

    for_update = ""

    def blocks(self, query: str, parameters: Sequence[object], size: int) -> Iterator[list[Any]]:
        """Return the rows of a query in lists of so many."""
        rows = self.execute(query, parameters)
        while block := rows.fetchmany(size):
            yield block

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert many rows."""
        places = ", ".join("?" * len(columns))
        self.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)  # noqa: S608 - constants

    def keys_were_given(self) -> None:
        """Do nothing: new keys follow the largest one."""

    def lock_groups(self, appid: str) -> None:
        """Do nothing: nobody else writes."""

    def insert_face(self, columns: Sequence[str], values: Sequence[object]) -> int:
        """Insert a face; return its integer key, which no face has had before in files of all versions."""
        key = int(self.execute(_NEXT_FACE).fetchone()[0])
        places = ", ".join("?" * len(columns))
        self.execute(f"INSERT INTO faces (id, {', '.join(columns)}) VALUES (?, {places})", (key, *values))  # noqa: S608 - constants
        return key

    def move(self, group: int, faces: Sequence[int], *, persons: int = 0, max_persons: int | None = None) -> None:
        """Note that faces come to a group or go. -1310 when it has more than ``max_persons``."""
        if persons > 0 and max_persons is not None:
            (count,) = self.execute("SELECT count(*) FROM memberships WHERE grp = ?", (group,)).fetchone()
            if count > max_persons:
                raise Refusal(ReturnCode.ERROR_PERSON_NUM_EXCEED)
        if faces:
            raised = "UPDATE groups SET version = version + 1 WHERE id = ? RETURNING version"
            (version,) = self.execute(raised, (group,)).fetchone()
            self.executemany("INSERT INTO changes VALUES (?, ?, ?)", [(group, version, face) for face in faces])
            self.execute("DELETE FROM changes WHERE grp = ? AND version <= ?", (group, version - base.KEPT_VERSIONS))


class DatabaseLostError(sqlite3.OperationalError):
    """The file was deleted or replaced while it was in use, so that nothing written to it would last."""


class Database:
    """A database file; safe to use from several threads, and from several processes at once.

    Args:
        path: The file, made with mode 0600 when it is new; ``":memory:"`` for none.
        prepare: Makes the tables of a new database, or checks those of an old one.
        synchronous: SQLite's setting of this name: ``"FULL"`` syncs the file before a write returns, so that the write
            outlives a power cut; with ``"NORMAL"`` it is faster, and outlives only the process.

    Attributes:
        path: The file as it was given.
        file: The file itself, whatever symbolic links lead to it; None when there is none.

    Raises:
        StoreError: The file cannot be opened, or ``prepare`` says that it is of another kind.
    """

    def __init__(
        self, path: str, prepare: Callable[[sqlite3.Connection, str], None], *, synchronous: str = "FULL"
    ) -> None:
        self.path = path
        self.file = None if path == MEMORY else _resolved(path)
        self._synchronous = synchronous
        self._identity = None if self.file is None else _claimed(self.file, path)
        self._queue = WriteQueue[SqliteTransaction](self._work_off, 1)
        self._writer = _Pool(self._open_writer, 1)
        self._reader = self._writer if self.file is None else _Pool(self._open_reader, _READERS)
        try:
            with self._writer.connection() as db:
                prepare(db, path)
                db.execute(f"PRAGMA busy_timeout = {_POLL_SECONDS * 1000:.0f}")
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"{path} cannot be opened as a database: {error}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finish the writes that wait, and close; twice does no harm."""
        self._queue.close()
        self._reader.close()
        self._writer.close()  # the last: it empties the write-ahead log, which readers may not

    @contextlib.contextmanager
    def reading(self) -> Generator[SqliteTransaction]:
        """Lend a connection that sees the database as it is at the first statement, whatever is written meanwhile.

        Raises:
            StoreError: It cannot be read.
        """
        with _explained(), self._reader.connection() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.rollback()

    def write(self, work: Callable[[SqliteTransaction], T]) -> T:
        """Do ``work`` within a transaction, and return its result once that is committed.

        Writes that wait at the same time share a transaction, each in a savepoint of its own: when ``work`` raises,
        only its own changes are undone.

        Raises:
            StoreError: Nothing was written: the file is locked by another process for :data:`BUSY_SECONDS`, was
                deleted or replaced, or cannot be written.
        """
        with _explained():
            return self._queue.wait_for(work)

    @contextlib.contextmanager
    def exclusively(self) -> Generator[SqliteTransaction]:
        """Lend the connection for writing, outside of any transaction; other writes of this process wait."""
        with _explained(), self._writer.connection() as db:
            yield db

    def _work_off(self) -> None:
        waiting = self._queue.waiting
        while waiting:
            try:
                with self._writer.connection() as db:
                    self._require_same_file()
                    db.execute("BEGIN IMMEDIATE")
                    _commit(db, [waiting.popleft() for _ in range(len(waiting))])
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        # The last 8 bits are the primary result code; an error that is none of SQLite's has no code.
        is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        waiting = self._queue.waiting
        too_long_ago = time.monotonic() - BUSY_SECONDS
        # They came in the order of their deadlines.
        while waiting and (not is_locked or waiting[0].since <= too_long_ago):
            waiting.popleft().outcome.set_exception(error)

    def _require_same_file(self) -> None:
        if self.file is not None and _identity(self.file) != self._identity:
            raise DatabaseLostError(f"{self.path} was deleted or replaced while it was in use: restart the server")

    def _open_writer(self) -> SqliteTransaction:
        return self._open()

    def _open_reader(self) -> SqliteTransaction:
        db = self._open()
        db.execute("PRAGMA query_only = ON")
        return db

    def _open(self) -> SqliteTransaction:
        self._require_same_file()
        # Not "rwc": a file that has just been deleted must not come back empty.
        name = MEMORY if self.file is None else f"{self.file.as_uri()}?mode=rw"
        db = sqlite3.connect(
            name,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            uri=True,
            factory=SqliteTransaction,
        )
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
        except BaseException:
            db.close()
            raise
        return db


@contextlib.contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


class _Pool:
    """Connections, opened as they are needed, up to a number; who finds none free waits."""

    def __init__(self, connect: Callable[[], SqliteTransaction], size: int) -> None:
        self._connect = connect
        self._size = size
        self._is_closed = False
        # The last one used comes first; None stands for one that is not open yet.
        self._free: queue.LifoQueue[SqliteTransaction | None] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(None)

    @contextlib.contextmanager
    def connection(self) -> Generator[SqliteTransaction]:
        db = self._free.get()
        try:
            if self._is_closed:
                raise sqlite3.ProgrammingError("the database is closed")
            if db is None:
                db = self._connect()
            yield db
        finally:
            self._free.put(db)

    def close(self) -> None:
        self._is_closed = True
        for db in [self._free.get() for _ in range(self._size)]:
            if db is not None:
                db.close()
            self._free.put(None)


def _commit(db: SqliteTransaction, writes: list[Write[SqliteTransaction, object]]) -> None:
    try:
        outcomes = [_attempt(db, write) for write in writes]
        db.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - all of them have failed, for one reason
        with contextlib.suppress(sqlite3.Error):
            db.rollback()
        for write in writes:
            write.outcome.set_exception(error)
        return
    # Not before the commit: even a refusal may rest on what another of these writes has written.
    for write, (result, failure) in zip(writes, outcomes, strict=True):
        if failure is None:
            write.outcome.set_result(result)
        else:
            write.outcome.set_exception(failure)


def _attempt(db: SqliteTransaction, write: Write[SqliteTransaction, object]) -> tuple[object, Exception | None]:
    db.execute("SAVEPOINT one")
    try:
        result = write.work(db)
    except Exception as error:
        if not db.in_transaction:  # SQLite has undone everything itself, as it may on a full disk
            raise
        db.execute("ROLLBACK TO one")
        db.execute("RELEASE one")
        return None, error
    db.execute("RELEASE one")
    return result, None


def _resolved(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symbolic links, a null character
        raise StoreError(f"{path} cannot be opened: {error}") from None


def _claimed(file: Path, path: str) -> tuple[int, int] | None:
    try:
        # SQLite gives its journal the mode of the database.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # It is not opened here: closing it would give up all locks that this process has on it (fcntl).
        if not file.is_file():
            raise StoreError(f"{path} cannot be opened: it is not a regular file") from None
        if not os.access(file, os.R_OK | os.W_OK):
            raise StoreError(f"{path} cannot be opened: it may not be read and written") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from None
    return _identity(file)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
