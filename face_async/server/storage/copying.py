"""From one storage into another, of any kinds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from face_async.errors import quoted
from face_async.server.storage.base import StoreError
from face_async.server.storage.rows import FACE_COLUMNS
from face_async.server.storage.sqlite.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from face_async.server.storage.base import Transaction
    from face_async.server.storage.storage import Storage

_TABLES = {
    "groups": ("id", "appid", "group_id", "version"),
    "persons": ("id", "appid", "person_id", "name", "tag"),
    "memberships": ("id", "grp", "person"),
    "faces": ("id", "face_id", "person", "tag", *FACE_COLUMNS, "recognizer", "embedding"),
    "thumbnails": ("id", "jpeg"),
}
_ROWS = 1_000  # at once


def copy_storage(
    source: Storage, target: Storage, *, progress: Callable[[str, int], object] | None = None
) -> dict[str, int]:
    """Copy all groups, persons and faces into an empty storage: all of them, or nothing.

    The source is copied as it is at one moment, and may be in use. The copy has the same identity, so that journals go
    on with it. Signatures that were used are not copied.

    Args:
        source: What is copied.
        target: What it is copied into.
        progress: Called with the name of a table and how many of its rows were copied so far.

    Returns:
        How many groups, persons, memberships, faces and thumbnails were copied.

    Raises:
        StoreError: The target is not empty, or one of them cannot be used.
    """

    def work(db: Transaction) -> dict[str, int]:
        if (
            db.execute("SELECT 1 FROM groups LIMIT 1").fetchone()
            or db.execute("SELECT 1 FROM persons LIMIT 1").fetchone()
        ):
            raise StoreError(f"{quoted(target)} is not empty: name a new database")
        counts = dict.fromkeys(_TABLES, 0)
        with source.reading() as origin:
            for table, columns in _TABLES.items():
                query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY id"  # noqa: S608 - constants
                for rows in origin.blocks(query, (), _ROWS):
                    db.insert(table, columns, rows)
                    counts[table] += len(rows)
                    if progress is not None:
                        progress(table, counts[table])
        db.execute("UPDATE identity SET id = ?", (source.identity(),))
        db.keys_were_given()
        return counts

    return target.write(work)


def back_up_storage(
    source: Storage, path: str | os.PathLike[str], *, progress: Callable[[str, int], object] | None = None
) -> dict[str, int]:
    """Copy a storage into a new SQLite file of mode 0600, which is there when it is whole.

    Until then it is beside its place, with ``.part`` at its end; a process that is killed leaves that.

    Args:
        source: What is copied; it may be in use.
        path: The file.
        progress: As for :func:`copy_storage`.

    Raises:
        StoreError: The file is there already, cannot be written, or the source cannot be read.
    """
    path = Path(path)
    _require_new(path)
    # A name of its own: of two backups into one file, each would else take the other's part for its own.
    try:
        handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    os.close(handle)
    part = Path(name)
    try:
        with Store(part) as target:
            counts = copy_storage(source, target, progress=progress)
        _require_new(path)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return counts


def _require_new(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path} is there already: name a new file")
