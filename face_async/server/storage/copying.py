"""From one storage into another, of any kinds."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from face_async.errors import quoted
from face_async.server.storage.base import StoreError
from face_async.server.storage.rows import FACE_COLUMNS
from face_async.server.storage.sqlite.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

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
    with _named(f"{quoted(source)} was not copied into {quoted(target)}"):
        return _copied(source, target, progress)


def _copied(source: Storage, target: Storage, progress: Callable[[str, int], object] | None) -> dict[str, int]:
    interrupted = threading.Event()  # the work is done in another thread, which hears of no Ctrl-C

    def work(db: Transaction) -> dict[str, int]:
        if (
            db.execute("SELECT 1 FROM groups LIMIT 1").fetchone()
            or db.execute("SELECT 1 FROM persons LIMIT 1").fetchone()
        ):
            raise StoreError("the target is not empty: name a new database")
        counts = dict.fromkeys(_TABLES, 0)
        with source.reading() as origin:
            for table, columns in _TABLES.items():
                query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY id"  # noqa: S608 - constants
                for rows in origin.blocks(query, (), _ROWS):
                    db.insert(table, columns, rows)
                    counts[table] += len(rows)
                    if progress is not None:
                        progress(table, counts[table])
                    if interrupted.is_set():
                        raise StoreError("interrupted")
        db.execute("UPDATE identity SET id = ?", (source.identity(),))
        db.keys_were_given()
        return counts

    try:
        return target.write(work)
    except BaseException:
        interrupted.set()
        raise


def back_up_storage(
    source: Storage, path: str | os.PathLike[str], *, progress: Callable[[str, int], object] | None = None
) -> dict[str, int]:
    """Copy a storage into a new SQLite file of mode 0600, which is there when it is whole.

    Until then it is in a folder beside its place, with ``.part`` at its end. That is removed whatever happens; only a
    process that is killed leaves it.

    To restore it in the place of a SQLite file: stop every process that uses that file; remove what lies beside it
    with ``-wal`` and ``-shm`` at its end, which SQLite would take for the newest part of the backup; copy the backup
    there.

    Args:
        source: What is copied; it may be in use.
        path: The file.
        progress: As for :func:`copy_storage`.

    Raises:
        StoreError: The file is there already, cannot be written, or the source cannot be read.
    """
    path = Path(path)
    _require_new(path)
    # A name of its own: of two backups into one file, each would else take the other's part for its own. A folder, for
    # SQLite has more files than one while it writes.
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    with folder as name:
        part = Path(name, path.name)
        with _named(f"{path} was not made"):
            with Store(part) as target:
                counts = _copied(source, target, progress)
            if list(Path(name).iterdir()) != [part]:  # SQLite says nothing when the last of it cannot be written
                raise StoreError("the end of it could not be written: is the disk full?")
        _require_new(path)
        part.rename(path)
    return counts


@contextlib.contextmanager
def _named(what: str) -> Generator[None]:
    """Begin the message of a storage's error, which may name no file, with what has failed."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{what}: {error}") from error


def _require_new(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path} is there already: name a new file")
