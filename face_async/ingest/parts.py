"""Dividing a large run among processes or machines: each enrolls some of the persons, with a journal of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen
from attrs.validators import ge, instance_of

from face_async.ingest import queries
from face_async.ingest.journal import State
from face_async.ingest.output_file import check_output
from face_async.ingest.pictures import sha256_of
from face_async.ingest.schema import (
    JournalError,
    Project,
    database_of,
    explained,
    note_database,
    open_journal,
    project_of,
    shown,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from face_async.ingest.journal import Unit
    from face_async.ingest.rows import BadRow, Row

T = TypeVar("T")

_PERSON_COLUMNS = "person_id, group_ids, name, tag, listing, before"
_UNIT_COLUMNS = "source, size, stamp, tag, sha256, state, face_id, code, reason, origin"
_NOTED_AT_ONCE = 2_000
_READ_AT_ONCE = 32
_BEST = ("done", "ambiguous", "intent", "failed", "collapsed", "pending")  # where journals differ, the first counts


@frozen
class Shard:
    """One part of all persons.

    Attributes:
        rank: Which one, from 0.
        world: How many there are, 1 or more.

    Raises:
        ValueError: There is no such part.
    """

    rank: int = field(default=0, validator=[instance_of(int), ge(0)])
    world: int = field(default=1, validator=[instance_of(int), ge(1)])

    def __attrs_post_init__(self) -> None:
        if self.rank >= self.world:
            raise ValueError(f"rank must be 0 to {self.world - 1}, not {self.rank}")

    def has(self, person_id: str) -> bool:
        """Return whether a person is in this part; the same on every machine and in every run."""
        return self.world == 1 or part_of(person_id, self.world) == self.rank


def part_of(person_id: str, world: int) -> int:
    """Return the rank of the part, of ``world``, that a person is in; the same on every machine and in every run."""
    digest = blake2b(person_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % world


def merge_journals(paths: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str]) -> None:
    """Make one journal of the journals of several parts of a run; it is for all persons. Blocks.

    Where two of them know the same picture of a person, the one that has come further counts.

    Args:
        paths: The journals, at least one, none of them in use. They are left as they are.
        into: The new journal's file.

    Raises:
        ValueError: There is nothing to merge.
        JournalError: A journal is another project's, in use or damaged, or the new file is there already.
        OutputError, OSError: The new file cannot be there.
    """
    if not paths:
        raise ValueError("paths must name at least one journal")
    into = Path(into)
    if os.path.lexists(into):
        raise JournalError(f"{shown(str(into))} is there already; choose a new name to merge into")
    check_output(into, sources=paths)
    beside = into.with_name(f".face_async-{secrets.token_hex(8)}.part")
    try:
        with contextlib.ExitStack() as stack:
            sources = [stack.enter_context(_opened(path, None)) for path in paths]
            target = stack.enter_context(_opened(beside, _common(sources)))
            with explained(str(into)), target:
                target.execute("BEGIN")
                for source in sources:
                    _copy(source, target)
                databases = {database_of(source) for source in sources}
                note_database(target, databases.pop() if len(databases) == 1 else "")
        beside.rename(into)
    finally:
        beside.unlink(missing_ok=True)


def _common(sources: Sequence[sqlite3.Connection]) -> Project:
    projects = {(found.appid, found.bucket) for found in map(project_of, sources)}
    if len(projects) > 1:
        raise JournalError(f"the journals are of several projects: {sorted(projects)}; merge those of one")
    return Project(*projects.pop())


def _opened(path: str | os.PathLike[str], project: Project | None) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(open_journal(os.fspath(path), project))


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    numbers: dict[int, int] = {}
    for number, *person in source.execute(f"SELECT id, {_PERSON_COLUMNS} FROM persons ORDER BY id"):  # noqa: S608 - constants
        target.execute(f"INSERT OR IGNORE INTO persons ({_PERSON_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", person)  # noqa: S608
        (numbers[number],) = target.execute("SELECT id FROM persons WHERE person_id = ?", person[:1]).fetchone()
    for number, *unit in source.execute(f"SELECT person, {_UNIT_COLUMNS} FROM units ORDER BY id"):  # noqa: S608
        _copy_unit(target, numbers[number], unit)
    target.executemany("INSERT OR IGNORE INTO bad_rows VALUES (?, ?, ?)", source.execute("SELECT * FROM bad_rows"))
    (listing,) = source.execute("SELECT listing FROM project").fetchone()
    target.execute("UPDATE project SET listing = max(listing, ?)", (listing,))


def _copy_unit(target: sqlite3.Connection, person: int, unit: Sequence[object]) -> None:
    source, _, stamp, _, sha256, state, *_ = unit
    query = (
        "SELECT id, state FROM units WHERE person = ? AND ((source = ? AND stamp = ?) OR "
        "(sha256 = ? AND state <> 'collapsed' AND ? <> 'collapsed'))"
    )
    for number, known in target.execute(query, (person, source, stamp, sha256, state)).fetchall():
        if _BEST.index(known) <= _BEST.index(str(state)):
            return
        target.execute("DELETE FROM units WHERE id = ?", (number,))
    new = f"INSERT INTO units (person, {_UNIT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    target.execute(new, (person, *unit))


def read_units(journal: str | os.PathLike[str]) -> Generator[Unit]:
    """Yield all units of a journal, one person's after another's. Blocks, and holds the journal's lock meanwhile.

    Args:
        journal: A journal's file that no run has in use.

    Raises:
        JournalInUseError: A run has it in use.
        JournalError: It is no journal, or damaged.
    """
    yield from _read(journal, queries.all_units)


def read_failures(journal: str | os.PathLike[str]) -> Generator[queries.Failure]:
    """Yield everything that failed or is in doubt, as :func:`read_units` yields units."""
    yield from _read(journal, queries.failures)


def _read(journal: str | os.PathLike[str], query: Callable[[sqlite3.Connection], Iterator[T]]) -> Generator[T]:
    path = os.fspath(journal)
    with contextlib.closing(open_journal(path, None)) as db, explained(path):
        yield from query(db)


def rebuild_journal(
    journal: str | os.PathLike[str],
    rows: Iterable[Row | BadRow],
    *,
    appid: str,
    bucket: str,
    shard: Shard,
    copy: str | os.PathLike[str] | None = None,
) -> None:
    """Make the journal of a run anew that was lost, with every picture in doubt. Blocks, and reads all pictures.

    If there is an earlier copy of it, only what had not come to an end by then is in doubt. The next run with it sends
    those pictures again, and finds out from the service which faces were there already, and which picture each was made
    from.

    Args:
        journal: The file to make.
        rows: What the lost run was to enroll.
        appid: The id of the project whose journal it is.
        bucket: The project's bucket.
        shard: For which part of the persons.
        copy: An earlier copy of the lost journal; it is left as it is.

    Raises:
        JournalError: The file is there already, or cannot be written; or the copy is another project's, or damaged.
    """
    path = Path(journal)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        project = Project(appid, bucket, shard.rank, shard.world)
        if copy is not None:
            draft.touch(mode=0o600)
            shutil.copyfile(copy, draft)
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
    units = db.execute("SELECT id, source FROM units WHERE state = ?", (State.PENDING,)).fetchall()
    with ThreadPoolExecutor(_READ_AT_ONCE) as readers:
        contents = readers.map(sha256_of, [source for _, source in units])
    for (number, _), content in zip(units, contents, strict=True):
        if content is not None and not db.execute(doubt, (State.AMBIGUOUS, content, number)).rowcount:
            db.execute("UPDATE units SET state = ? WHERE id = ?", (State.COLLAPSED, number))
