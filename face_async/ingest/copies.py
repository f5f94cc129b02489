"""Journals beside a run: what one says when its run has ended, and one that was lost, made anew."""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from face_async.images import is_url
from face_async.ingest import queries
from face_async.ingest.journal import State
from face_async.ingest.schema import JournalError, Project, explained, open_journal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable

    from face_async.ingest.journal import Unit
    from face_async.ingest.parts import Shard
    from face_async.ingest.rows import BadRow, Row

_NOTED_AT_ONCE = 2_000


def read_units(journal: str | os.PathLike[str]) -> Generator[Unit]:
    """Yield all units of a journal, one person's after another's. Blocks, and holds the journal's lock meanwhile.

    Args:
        journal: A journal's file that no run has in use.

    Raises:
        JournalInUseError: A run has it in use.
        JournalError: It is no journal, or damaged.
    """
    path = os.fspath(journal)
    with contextlib.closing(open_journal(path, None)) as db, explained(path):
        yield from queries.all_units(db)


def rebuild_journal(
    journal: str | os.PathLike[str], rows: Iterable[Row | BadRow], *, appid: str, bucket: str, shard: Shard
) -> None:
    """Make the journal of a run anew that was lost, with every picture in doubt. Blocks, and reads all pictures.

    The next run with it sends all of them again, and finds out from the service which faces were there already, and
    which picture each was made from.

    Args:
        journal: The file to make.
        rows: What the lost run was to enroll.
        appid: The id of the project whose journal it is.
        bucket: The project's bucket.
        shard: For which part of the persons.

    Raises:
        JournalError: The file is there already, or cannot be written.
    """
    path = Path(journal)
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        project = Project(appid, bucket, shard.rank, shard.world)
        with contextlib.closing(open_journal(os.fspath(draft), project)) as db, explained(os.fspath(draft)), db:
            db.execute("BEGIN")
            _note_in_doubt(db, iter(rows))
        try:
            # A link is never made over a file that is there, which another run may have in use.
            path.hardlink_to(draft)
        except FileExistsError:
            raise JournalError(f"{path} is there already, so it is not lost") from None
    finally:
        draft.unlink(missing_ok=True)


def _note_in_doubt(db: sqlite3.Connection, rows: Iterable[Row | BadRow]) -> None:
    queries.begin_listing(db)
    listed = map(queries.look_at, rows)
    while some := list(islice(listed, _NOTED_AT_ONCE)):
        queries.list_rows(db, some)
    doubt = "UPDATE OR IGNORE units SET state = ?, sha256 = ? WHERE id = ?"
    units = db.execute("SELECT id, source FROM units").fetchall()
    for number, source in units:
        content = _sha256_of(source)
        if content is not None and not db.execute(doubt, (State.AMBIGUOUS, content, number)).rowcount:
            db.execute("UPDATE units SET state = ? WHERE id = ?", (State.COLLAPSED, number))


def _sha256_of(source: str) -> bytes | None:
    """Return the hash of a picture's bytes, or of its URL; None if it cannot be read."""
    if is_url(source):
        return sha256(source.encode()).digest()
    try:
        return sha256(Path(source).read_bytes()).digest()
    except OSError:
        return None
