"""The tables of a store, and how a database is told from a stranger's."""

from __future__ import annotations

import contextlib
import sqlite3

from face_async.errors import FaceError

# What each version adds to the one before; what stands here is never changed, since files of all versions are opened.
# Lists are in the order of enrollment: the order of the integer keys. A group's version counts the changes of its
# gallery, whichever process made them.
_STEPS = (
    """
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
CREATE INDEX faces_by_person ON faces (person)
""",
    # The faces that came or went with each version of a group, so that galleries follow without being loaded anew;
    # and the last face's integer key, because a key that came back for another face would be taken for the old one.
    """
CREATE TABLE changes (
    grp INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE, version INTEGER NOT NULL, face INTEGER NOT NULL,
    PRIMARY KEY (grp, version, face)
) WITHOUT ROWID;
CREATE TABLE last_face (id INTEGER NOT NULL);
INSERT INTO last_face VALUES (0)
""",
    # What tells this database from all others, and goes with its copies.
    """
CREATE TABLE identity (id TEXT NOT NULL);
INSERT INTO identity SELECT lower(hex(randomblob(16)))
""",
)

SCHEMA_VERSION = len(_STEPS)
"""What ``PRAGMA user_version`` says in a database of this layout."""


class StoreError(FaceError):
    """The file cannot be used as a store."""


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make a new database a store, bring one of an earlier version to this one, or check that it is one.

    Raises:
        StoreError: It belongs to a newer version of this package, or to something else; it is left as it was.
        sqlite3.Error: It cannot be read or written.
    """
    version = _version(db, path)
    # Write-ahead log: readers and the writer do not wait for each other.
    db.execute("PRAGMA journal_mode = WAL")
    if version < SCHEMA_VERSION:
        with db:
            db.execute("BEGIN IMMEDIATE")
            for step in _STEPS[_version(db, path) :]:  # asked again: another process may have been faster
                for statement in step.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(db: sqlite3.Connection, path: str) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer version of face_async (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): update face_async"
        )
    if version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise StoreError(f"{path} is a database of something else: name another file")
    return version


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
