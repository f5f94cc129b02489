"""What is asked of a journal and noted in it: functions of its connection, each a part of one transaction."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, TypeAlias, cast
from zlib import crc32

from attrs import evolve

from face_async.images import is_url
from face_async.ingest.journal import ListedPerson, State, Unit
from face_async.ingest.objects import is_object_url
from face_async.ingest.rows import BadRow, Row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from face_async.ingest.sources import Source

_UNFINISHED = "state IN ('pending', 'intent', 'ambiguous')"  # word for word as in the index, or it is not used
_UNIT = (
    "units.id, units.person, person_id, source, size, stamp, units.tag, state, sha256, face_id, code, reason "
    "FROM units JOIN persons ON persons.id = units.person"
)

_NOTE_AS_NAMED = "DELETE FROM unnamed WHERE id = (SELECT id FROM units WHERE person = ? AND source = ? AND stamp = ?)"

Listed: TypeAlias = tuple[Row | BadRow, int, str]
"""A row, and the size and stamp of its file."""

Failure: TypeAlias = tuple[str, str, str, str]
"""Person id, source, code and reason of what failed; of a bad row no person, the file and line, and ``"row"``."""


def look_at(row: Row | BadRow) -> Listed:
    """Return a row with its file's size and stamp, as :func:`stamp_of`."""
    return (row, 0, "") if isinstance(row, BadRow) else (row, *stamp_of(row.source))


def stamp_of(source: str) -> tuple[int, str]:
    """Return a file's size in bytes and what tells a changed one; 0 and ``""`` for a URL or a missing file.

    What is in object storage is asked for once, when it is read: a request for each before that takes too long.
    """
    if is_url(source) or is_object_url(source):
        return 0, ""
    try:
        status = os.stat(source)  # noqa: PTH116 - for each of millions
    except (OSError, ValueError):
        return 0, ""
    return status.st_size, f"{status.st_size:x}.{status.st_mtime_ns:x}"


# Listing a source


def origin_of(source: Source, journal: str) -> int | None:
    """Return the number of a folder or manifest, the same when it is moved with its journal; None for rows.

    What has failed counts until the source that has named it, which may be one of several, names it no more.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    name = os.fspath(source)
    if not is_object_url(name):
        with contextlib.suppress(ValueError):  # they are on different drives
            name = os.path.relpath(name, os.path.dirname(journal) or ".")  # noqa: PTH120 - paths are str down here
    return crc32(name.encode("utf-8", "surrogateescape"))


def begin_listing(db: sqlite3.Connection, origin: int | None = None) -> None:
    """Forget what is pending: the source says anew what is to be sent, and without what was taken out of it.

    What failed and was to be tried again stays so, if the source names it still (see :func:`end_listing`).
    """
    db.execute("UPDATE project SET listing = listing + 1")
    db.execute("DELETE FROM units WHERE state = 'pending' AND code IS NULL")
    # The picture that a collapsed one is the same as may be gone since, or have failed: then it counts for itself.
    db.execute(
        "DELETE FROM units WHERE state = 'collapsed' AND NOT EXISTS (SELECT 1 FROM units AS same WHERE "
        "same.person = units.person AND same.sha256 = units.sha256 AND same.state IN ('done', 'ambiguous'))"
    )
    db.execute("DELETE FROM bad_rows")
    db.execute("CREATE TEMP TABLE IF NOT EXISTS unnamed (id INTEGER PRIMARY KEY)")
    db.execute("DELETE FROM unnamed")
    failed = "INSERT INTO unnamed SELECT id FROM units WHERE state IN ('failed', 'pending') AND origin = ?"
    db.execute(failed, (origin,))


def end_listing(db: sqlite3.Connection) -> None:
    """Forget what has failed of the source and was taken out of it, once all of it was listed."""
    db.execute("DELETE FROM units WHERE id IN (SELECT id FROM unnamed)")
    db.execute("DELETE FROM unnamed")


def list_rows(db: sqlite3.Connection, rows: Iterable[Listed], origin: int | None = None) -> None:
    """Note rows of a source with this number; those that are known with the same stamp are left as they stand."""
    (listing,) = db.execute("SELECT listing FROM project").fetchone()
    (has_failed,) = db.execute("SELECT EXISTS (SELECT 1 FROM unnamed)").fetchone()
    for row, size, stamp in rows:
        if isinstance(row, BadRow):
            db.execute("INSERT OR REPLACE INTO bad_rows VALUES (?, ?, ?)", (row.file, row.line, row.reason))
            continue
        person = _list_person(db, row, listing)
        key = (person, row.source, stamp)
        new = "INSERT OR IGNORE INTO units (person, source, stamp, size, tag, origin) VALUES (?, ?, ?, ?, ?, ?)"
        if not db.execute(new, (*key, size, row.tag, origin)).rowcount:
            if has_failed:
                db.execute(_NOTE_AS_NAMED, key)
        elif listing > 1:
            # Another file by the same name: what the old one failed of says nothing of this one.
            old = "DELETE FROM units WHERE person = ? AND source = ? AND stamp <> ? AND state IN ('failed', 'pending')"
            db.execute(old, key)


def _list_person(db: sqlite3.Connection, row: Row, listing: int) -> int:
    """Return the number of a row's person, whose rows' groups count together, and their first name and tag."""
    query = "SELECT id, group_ids, name, tag, listing FROM persons WHERE person_id = ?"
    known = db.execute(query, (row.person_id,)).fetchone()
    if known is None:
        new = "INSERT INTO persons (person_id, group_ids, name, tag, listing) VALUES (?, ?, ?, ?, ?)"
        values = (row.person_id, json.dumps(row.group_ids), row.person_name, row.tag, listing)
        return cast("int", db.execute(new, values).lastrowid)
    number, *old, seen = known
    group_ids: list[str] = json.loads(old[0]) if seen == listing else []
    name, tag = (old[1], old[2]) if seen == listing else (None, None)
    group_ids += [group_id for group_id in row.group_ids if group_id not in group_ids]
    name = row.person_name if name is None else name
    tag = row.tag if tag is None else tag
    fresh = [json.dumps(group_ids), name, tag]
    if fresh != old or seen != listing:
        update = "UPDATE persons SET group_ids = ?, name = ?, tag = ?, listing = ? WHERE id = ?"
        db.execute(update, (*fresh, listing, number))
    return int(number)


def reopen_failed(db: sqlite3.Connection) -> None:
    """Make everything that failed pending again, as it is now; its code stays, to tell it from what never failed."""
    query = "SELECT id, source FROM units WHERE state = 'failed' AND id > ? ORDER BY id LIMIT 1000"
    change = "UPDATE OR IGNORE units SET state = 'pending', sha256 = NULL, size = ?, stamp = ? WHERE id = ?"
    number = 0
    while found := db.execute(query, (number,)).fetchall():
        for number, source in found:
            if not db.execute(change, (*stamp_of(source), number)).rowcount:
                db.execute("DELETE FROM units WHERE id = ?", (number,))  # the file as it is now is there already


# Sending


def unfinished(
    db: sqlite3.Connection, state: State, after: tuple[int, int], limit: int, *, failed_only: bool = False
) -> list[Unit]:
    """Return the next units in ``state``, PENDING or AMBIGUOUS, in the order of persons and numbers.

    They are at most ``limit`` units that come after the person and the unit with the numbers ``after``; with
    ``failed_only`` only those that have failed before.
    """
    query = (
        f"SELECT {_UNIT} WHERE {_UNFINISHED} AND state = ? AND (units.person, units.id) > (?, ?) "
        f"{'AND code IS NOT NULL' if failed_only else ''} ORDER BY units.person, units.id LIMIT ?"
    )
    return [Unit(*row) for row in db.execute(query, (state.value, *after, limit))]


def person(db: sqlite3.Connection, number: int) -> ListedPerson:
    """Return a person."""
    query = "SELECT person_id, group_ids, name, tag, before FROM persons WHERE id = ?"
    person_id, group_ids, name, tag, before = db.execute(query, (number,)).fetchone()
    known: tuple[str, ...] | None = None
    if before is not None:
        added = db.execute("SELECT face_id FROM units WHERE person = ? AND state = 'done'", (number,))
        known = (*json.loads(before), *(face_id for (face_id,) in added if face_id))
    query = f"SELECT EXISTS (SELECT 1 FROM units WHERE {_UNFINISHED} AND person = ? AND state <> 'pending')"  # noqa: S608
    (in_doubt,) = db.execute(query, (number,)).fetchone()
    return ListedPerson(number, person_id, tuple(json.loads(group_ids)), name, tag, known, bool(in_doubt))


def turns_of(
    db: sqlite3.Connection, state: State, after: tuple[int, int], limit: int, *, failed_only: bool = False
) -> list[tuple[ListedPerson, Unit]]:
    """Return the next units, as :func:`unfinished`, each with its person."""
    units = unfinished(db, state, after, limit, failed_only=failed_only)
    persons = {number: person(db, number) for number in dict.fromkeys(unit.person for unit in units)}
    return [(persons[unit.person], unit) for unit in units]


def intend(db: sqlite3.Connection, number: int, before: Iterable[str] | None, units: Iterable[Unit]) -> list[Unit]:
    """Note that a person's units are about to be sent, and return them as they are then: INTENT, or COLLAPSED.

    ``number`` is the person's, and ``before`` are the person's faces as they are now, None if the same request is to
    create the person; every unit must have its sha256.
    """
    if before is not None:
        _set_before(db, number, before)
    return record(db, [evolve(unit, state=State.INTENT) for unit in units])


def record_created(db: sqlite3.Connection, number: int, units: Iterable[Unit]) -> list[Unit]:
    """As :func:`record`, for units with which their person was created, who had no faces before."""
    _set_before(db, number, ())
    return record(db, units)


def _set_before(db: sqlite3.Connection, number: int, before: Iterable[str]) -> None:
    db.execute("UPDATE persons SET before = ? WHERE id = ?", (json.dumps(list(before)), number))


def record(db: sqlite3.Connection, units: Iterable[Unit]) -> list[Unit]:
    """Note where units stand, and return them; a unit is COLLAPSED if another one of the person has the same sha256."""
    change = "UPDATE OR IGNORE units SET state = ?, sha256 = ?, face_id = ?, code = ?, reason = ? WHERE id = ?"
    recorded: list[Unit] = []
    for unit in units:
        noted = unit
        if not db.execute(change, _columns(unit)).rowcount:
            noted = evolve(unit, state=State.COLLAPSED, face_id=None, code=None, reason=None)
            db.execute(change, _columns(noted))
        recorded.append(noted)
    return recorded


def _columns(unit: Unit) -> tuple[object, ...]:
    return unit.state.value, unit.sha256, unit.face_id, unit.code, unit.reason, unit.id


# Looking


def all_units(db: sqlite3.Connection) -> Iterator[Unit]:
    """Yield every unit, in the order of persons and numbers."""
    for row in db.execute(f"SELECT {_UNIT} ORDER BY units.person, units.id"):
        yield Unit(*row)


def count_units(db: sqlite3.Connection) -> Iterator[tuple[State, str | None, int]]:
    """Yield how many units there are of each state and code."""
    for state, code, count in db.execute("SELECT state, code, count(*) FROM units GROUP BY state, code"):
        yield State(state), code, count


def count_bad_rows(db: sqlite3.Connection) -> int:
    """Return how many rows of the source are bad."""
    return int(db.execute("SELECT count(*) FROM bad_rows").fetchone()[0])


def failures(db: sqlite3.Connection) -> Iterator[Failure]:
    """Yield everything that failed, bad rows first."""
    for file, line, reason in db.execute("SELECT file, line, reason FROM bad_rows ORDER BY file, line"):
        yield failure_of(BadRow(file, line, reason))
    yield from db.execute(
        "SELECT person_id, source, code, reason FROM units JOIN persons ON persons.id = person "
        "WHERE state IN ('failed', 'ambiguous') ORDER BY units.id"
    )


def failure_of(row: BadRow) -> Failure:
    """Return a bad row as what failed."""
    return "", f"{row.file}:{row.line}" if row.line else row.file, "row", row.reason
