"""The tables of a store, and how a database is told from a stranger's."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from face_async._version import Migrations
from face_async.server.storage.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

# Lists are in the order of enrollment: the order of the integer keys. A group's version counts the changes of its
# gallery, whichever process made them.
MIGRATIONS = Migrations(
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
    # Small pictures of faces, of those that were added while they were to be kept.
    """
CREATE TABLE thumbnails (id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE, jpeg BLOB NOT NULL)
""",
)

SIGNATURE_MIGRATIONS = Migrations(
    # Files from before there were versions have these tables, too.
    """
CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS signatures (
    account INTEGER NOT NULL, digest BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (account, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signatures_by_expiry ON signatures (account, expires)
""",
)
"""The tables of the file of used signatures."""


def preparing(migrations: Migrations, *, table: str) -> Callable[[sqlite3.Connection, str], None]:
    """Return what makes the tables of a new database, or brings those of an earlier version to this one.

    ``table`` is one that databases of this kind have. It raises StoreError for a database of a newer version of this
    package, or of something else, which is left as it was; and sqlite3.Error when it cannot be read or written.
    """

    def prepare(db: sqlite3.Connection, path: str) -> None:
        version = _version(db, path, migrations, table)
        # Write-ahead log: readers and the writer do not wait for each other.
        db.execute("PRAGMA journal_mode = WAL")
        if version < migrations.version:
            with db:
                db.execute("BEGIN IMMEDIATE")
                # Asked again: another process may have been faster.
                migrations.apply(_version(db, path, migrations, table), db.execute)
                db.execute(f"PRAGMA user_version = {migrations.version}")

    return prepare


def _version(db: sqlite3.Connection, path: str, migrations: Migrations, table: str) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if refusal := migrations.refusal(path, version):
        raise StoreError(refusal)
    tables = {name for (name,) in db.execute("SELECT tbl_name FROM sqlite_master")}
    if tables and table not in tables:
        raise StoreError(f"{path} is a database of something else: name another file")
    return version


prepare = preparing(MIGRATIONS, table="faces")
prepare_signatures = preparing(SIGNATURE_MIGRATIONS, table="signatures")


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
