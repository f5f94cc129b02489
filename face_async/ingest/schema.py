"""The journal's file: its tables, whose journal it is, and that nobody else is writing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from attrs import astuple, frozen

from face_async._version import Migrations
from face_async.errors import FaceError, printable

if TYPE_CHECKING:
    from collections.abc import Generator

_APPLICATION_ID = int.from_bytes(b"faJ\x01", "big")  # shown by file(1); no other kind of database has it
_LONGEST_PATH = 500  # characters in a message
_CACHE_KIB = 16_384  # one run's memory is flat, whatever the journal's size

MIGRATIONS = Migrations(
    """
CREATE TABLE project (
    appid TEXT NOT NULL,
    bucket TEXT NOT NULL,
    rank INTEGER NOT NULL,      -- this journal is for the persons of one part,
    world INTEGER NOT NULL,     -- of so many
    listing INTEGER NOT NULL    -- how often a source was listed
);
CREATE TABLE persons (
    id INTEGER PRIMARY KEY,
    person_id TEXT NOT NULL UNIQUE,
    group_ids TEXT NOT NULL,    -- JSON
    name TEXT,
    tag TEXT,
    listing INTEGER NOT NULL,   -- the listing that last named the person
    before TEXT                 -- JSON: the person's faces before the latest request; NULL until there was one
);
CREATE TABLE units (
    id INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES persons (id),
    source TEXT NOT NULL,
    size INTEGER NOT NULL,      -- of the file when it was listed; 0 for URLs and what was not there
    stamp TEXT NOT NULL,        -- tells a file that has changed since; '' for URLs and what was not there
    tag TEXT,
    sha256 BLOB,                -- of the picture's bytes, or of the URL, once it was read
    state TEXT NOT NULL DEFAULT 'pending',
    face_id TEXT,
    code TEXT,                  -- why it failed, and with 'pending' why it is to be tried again
    reason TEXT
);
CREATE UNIQUE INDEX unit_sources ON units (person, source, stamp);
CREATE UNIQUE INDEX unit_contents ON units (person, sha256) WHERE sha256 IS NOT NULL AND state <> 'collapsed';
CREATE INDEX unit_unfinished ON units (person) WHERE state IN ('pending', 'intent', 'ambiguous');
CREATE TABLE bad_rows (
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (file, line)
) WITHOUT ROWID;
""",
    # The identity of the server's database, '' where it is not known.
    """
ALTER TABLE project ADD COLUMN database TEXT NOT NULL DEFAULT ''
""",
    # A number for the folder or manifest that first named a picture (see origin_of); NULL for rows of a program.
    """
ALTER TABLE units ADD COLUMN origin INTEGER
""",
)
"""The tables of a journal."""


class JournalError(FaceError):
    """The journal cannot be used: it is another project's, in use, damaged, or its disk is full."""


class JournalInUseError(JournalError):
    """Another run holds the journal's lock; it is free once that run has ended, or its process has."""


@frozen
class Project:
    """Whose journal it is, and for which part of the persons (see :class:`~face_async.ingest.Shard`)."""

    appid: str
    bucket: str
    rank: int = 0
    world: int = 1

    def __str__(self) -> str:
        part = "" if self.world == 1 else f", part {self.rank} of {self.world}"
        return f"appid {self.appid}, bucket {self.bucket}{part}"


def open_journal(path: str, project: Project | None) -> sqlite3.Connection:
    """Open the journal of a project, or make it, and hold its lock until the connection or the process ends.

    If ``project`` is None, the journal that is there is opened, of whatever project it is.

    Raises:
        JournalError: It is another project's, in use, or damaged.
    """
    if project is not None:
        _make_file(path)
    with explained(path):
        # "rw": a file that is missing now is missing, and not to be made with any mode.
        uri = f"file:{_quoted(path)}?mode=rw"
        db = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, project)
        except BaseException:
            db.close()
            raise
        return db


def copy_of(path: str, project: Project) -> sqlite3.Connection:
    """Return a copy of a journal that is gone when it is closed, whatever is written to it; an empty one if it is new.

    Raises:
        JournalError: It is another project's, in use, or damaged.
    """
    copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        if os.path.exists(path) and os.path.getsize(path):  # noqa: PTH110, PTH202 - paths are str down here
            with contextlib.closing(open_journal(path, None)) as db:
                _check_project(db, path, project)
                db.backup(copy)
        else:
            _create(copy, project)
    except BaseException:
        copy.close()
        raise
    return copy


@contextlib.contextmanager
def explained(path: str) -> Generator[None]:
    """Turn SQLite's errors into ones that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
    else:
        return
    if "locked" in reason:
        raise JournalInUseError(
            f"{shown(path)} is in use by another run; wait for it to end, or give this one a journal of its own"
        )
    if "full" in reason or "disk I/O" in reason:
        message = f"{shown(path)} cannot be written: {reason}; free some space and run again, nothing is lost"
    elif "readonly" in reason or "unable to open" in reason:
        message = f"{shown(path)} cannot be opened as a journal: {reason}"
    else:
        message = f"{shown(path)} is damaged, or no journal: {reason}; restore it from a copy, or begin a new one"
    raise JournalError(message)


def project_of(db: sqlite3.Connection) -> Project:
    """Return whose journal it is."""
    return Project(*db.execute("SELECT appid, bucket, rank, world FROM project").fetchone())


def database_of(db: sqlite3.Connection) -> str:
    """Return the identity of the server's database that it belongs to, "" where it is not known."""
    return str(db.execute("SELECT database FROM project").fetchone()[0])


def note_database(db: sqlite3.Connection, database: str) -> None:
    """Note the identity of the server's database."""
    db.execute("UPDATE project SET database = ?", (database,))


def _make_file(path: str) -> None:
    # Never open a file that is there: closing it again would release the lock that this process may hold on it.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.path.isfile(path):  # noqa: PTH113 - paths are str down here
            raise JournalError(f"{path} cannot be opened as a journal: it is no regular file") from None
    except OSError as error:
        raise JournalError(f"{shown(path)} cannot be made: {error.strerror}") from None


def _prepare(db: sqlite3.Connection, path: str, project: Project | None) -> None:
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")  # takes the lock; rolls back what a killed run left half written
    db.execute("COMMIT")
    # Four syncs a commit where a write-ahead log needs one: but that is a second file with the newest commits, which
    # whoever copies the journal after a kill would leave behind, and SQLite promises nothing for it on network drives.
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = FULL")
    if project is not None and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _create(db, project)
        return
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))
    _check_project(db, path, project)
    _migrate(db)
    db.execute("UPDATE units SET state = 'ambiguous' WHERE state = 'intent'")  # its run is dead


def _create(db: sqlite3.Connection, project: Project) -> None:
    with db:
        db.execute("BEGIN")
        MIGRATIONS.apply(0, db.execute)
        db.execute("INSERT INTO project VALUES (?, ?, ?, ?, 0, '')", astuple(project))
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {MIGRATIONS.version}")


def _migrate(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version < MIGRATIONS.version:
        with db:
            db.execute("BEGIN")
            MIGRATIONS.apply(version, db.execute)
            db.execute(f"PRAGMA user_version = {MIGRATIONS.version}")


def _check_project(db: sqlite3.Connection, path: str, project: Project | None) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise JournalError(f"{shown(path)} is no journal, but some other database; choose another name")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if refusal := MIGRATIONS.refusal(shown(path), version):
        raise JournalError(refusal)
    found = project_of(db)
    if project is not None and found != project:
        raise mismatch(path, found, project)


def mismatch(path: str, found: Project, wanted: Project) -> JournalError:
    """Return the error for somebody else's journal."""
    return JournalError(f"{shown(path)} is the journal of {found}, not of {wanted}; begin another one for that")


def shown(path: str) -> str:
    """Return a path as messages have it: as it is, unless it is no text or longer than any that there is."""
    return printable(path, _LONGEST_PATH)


def _quoted(path: str) -> str:
    return os.path.abspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")  # noqa: PTH100 - as above
