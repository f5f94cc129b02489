"""The tables of a store, and how a database is told from a stranger's."""

from __future__ import annotations

import contextlib
import sqlite3

from face_async.errors import FaceError

SCHEMA_VERSION = 1
"""What ``PRAGMA user_version`` says in a database of this layout."""

# A group's version counts the changes of its gallery, so that a cached one is known to be stale whichever
# process made the change. Lists are in the order of enrollment: the order of the integer keys.
_TABLES = """
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, group_id TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 0,
    UNIQUE (appid, group_id)
);
CREATE TABLE persons (
    id INTEGER PRIMARY KEY, appid TEXT NOT NULL, person_id TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL,
    UNIQUE (appid, person_id)
);
CREATE TABLE memberships (
    id INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    UNIQUE (grp, person)
);
CREATE INDEX memberships_by_person ON memberships (person);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY, face_id TEXT NOT NULL UNIQUE,
    person INTEGER NOT NULL REFERENCES persons ON DELETE CASCADE,
    tag TEXT NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, width REAL NOT NULL, height REAL NOT NULL,
    gender INTEGER NOT NULL, age INTEGER NOT NULL, expression INTEGER NOT NULL, glass INTEGER NOT NULL,
    pitch INTEGER NOT NULL, yaw INTEGER NOT NULL, roll INTEGER NOT NULL,
    recognizer TEXT NOT NULL, embedding BLOB NOT NULL
);
CREATE INDEX faces_by_person ON faces (person);
"""


class StoreError(FaceError):
    """The file cannot be used as a store."""


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make a new database a store, or check that an old one is.

    Raises:
        StoreError: It belongs to a newer version of this package, or to something else.
        sqlite3.Error: It cannot be read or written.
    """
    db.execute("PRAGMA foreign_keys = ON")
    # Write-ahead log, synced at every commit: what was answered survives a kill and a power cut.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    with db:
        db.execute("BEGIN IMMEDIATE")  # another process may be making the same tables at this moment
        _check_version(db, path)


def _check_version(db: sqlite3.Connection, path: str) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version of face_async (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): update face_async"
        )
    if version == SCHEMA_VERSION:
        return
    if db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise StoreError(f"{path} is a database of something else: name another file")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def dump(db: sqlite3.Connection) -> bytes:
    """Return a store's whole content."""
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        db.backup(copy)
        content = copy.serialize()
    # Bytes 18 and 19 say that there is a write-ahead log (SQLite file format, 1.3), which memory cannot have.
    return content[:18] + b"\x01\x01" + content[20:]


def load(db: sqlite3.Connection, content: bytes) -> None:
    """Replace a store's whole content by what :func:`dump` returned.

    Raises:
        StoreError: It is no such content; nothing was replaced.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        try:
            copy.deserialize(content)
            prepare(copy, "the snapshot")
        except (sqlite3.Error, MemoryError) as error:  # memory: what Python makes of no bytes at all
            raise StoreError(f"the snapshot cannot be read: {error}") from None
        copy.backup(db)
