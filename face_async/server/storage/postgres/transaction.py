"""A transaction on PostgreSQL, in the words of a storage."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import psycopg
from attrs import define, field

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal
from face_async.server.storage import base

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOVE = b"""
WITH moved AS (
    UPDATE groups SET persons = persons + %(persons)s, version = version + %(versions)s
    WHERE id = %(group)s AND (%(persons)s <= 0 OR persons + %(persons)s <= %(max_persons)s)
    RETURNING id, version
), logged AS (
    INSERT INTO changes SELECT id, version, face FROM moved, unnest(%(faces)s::bigint[]) AS face
    ON CONFLICT DO NOTHING
), forgotten AS (
    DELETE FROM changes USING moved WHERE changes.grp = moved.id AND changes.version <= moved.version - %(kept)s
)
SELECT count(*) FROM moved
"""


@define
class _Move:
    """What comes to a group or goes in one transaction."""

    faces: list[int] = field(factory=list)
    persons: int = 0
    max_persons: int | None = None


class PostgresTransaction:
    """A transaction, in which several works may be done.

    Many writers of many processes meet at the rows of groups. So these rows are written last of all, by
    :meth:`finish`, in one order, and once for all works of the transaction.
    """

    for_update = " FOR NO KEY UPDATE"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._moves: dict[int, _Move] = {}
        self.changed = 0
        """How many rows were changed so far."""

    def execute(self, query: str, parameters: Sequence[object] = (), /) -> psycopg.Cursor[Any]:
        """Execute one statement."""
        cursor = self._connection.execute(_translated(query), parameters, binary=True)
        if not query.startswith("SELECT"):
            self.changed += cursor.rowcount
        return cursor

    def blocks(self, query: str, parameters: Sequence[object], size: int) -> Iterator[list[Any]]:
        """Return the rows of a query in lists of so many, each of them read when it is asked for."""
        with psycopg.ServerCursor(self._connection, "blocks") as cursor:
            cursor.execute(_translated(query), parameters, binary=True)
            while block := cursor.fetchmany(size):
                yield block

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert many rows."""
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        self.changed += len(rows)

    def keys_were_given(self) -> None:
        """Go on after the keys of rows that were inserted with their keys, and count the groups' persons."""
        for table in ("groups", "persons", "memberships", "faces"):
            query = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608 - constants
            self.execute(query)
        self.execute("UPDATE groups SET persons = (SELECT count(*) FROM memberships WHERE grp = groups.id)")

    def lock_groups(self, appid: str) -> None:
        """Let nobody else make a group of this appid until the transaction ends."""
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (appid,))

    def insert_face(self, columns: Sequence[str], values: Sequence[object]) -> int:
        """Insert a face; return its integer key, which no face has had before."""
        places = ", ".join("?" * len(columns))
        insert = f"INSERT INTO faces ({', '.join(columns)}) VALUES ({places}) RETURNING id"  # noqa: S608 - constants
        (key,) = self.execute(insert, values).fetchall()[0]
        return int(key)

    def move(self, group: int, faces: Sequence[int], *, persons: int = 0, max_persons: int | None = None) -> None:
        """Note that faces and persons come to a group or go."""
        move = self._moves.setdefault(group, _Move())
        move.faces.extend(faces)
        move.persons += persons
        move.max_persons = max_persons if max_persons is not None else move.max_persons

    def finish(self) -> None:
        """Write what was noted; everybody else who writes to these groups waits from here to the commit.

        Raises:
            Refusal: -1310 when a group has more persons than it may.
        """
        for group, move in sorted(self._moves.items()):
            values = {
                "group": group,
                "persons": move.persons,
                "max_persons": move.max_persons,
                "versions": int(bool(move.faces)),
                "faces": move.faces,
                "kept": base.KEPT_VERSIONS,
            }
            if self._connection.execute(_MOVE, values).fetchone() == (0,):
                raise Refusal(ReturnCode.ERROR_PERSON_NUM_EXCEED)


@functools.lru_cache(maxsize=256)
def _translated(query: str) -> bytes:
    return query.replace("?", "%s").encode()
