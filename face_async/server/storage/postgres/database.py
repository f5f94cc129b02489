"""A PostgreSQL database for many threads of many processes: pools of connections, and transactions that start again."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg_pool import ConnectionPool, PoolTimeout

from face_async.server.storage import base
from face_async.server.storage.base import StoreError
from face_async.server.storage.postgres.texts import adapt_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from face_async.server.storage.base import Transaction

WAIT_SECONDS = 5.0
"""How long a request waits for a connection, and starts again when the database goes away."""

_LOCK_SECONDS = 10  # for a row that another transaction changes, as long as for the lock of a SQLite file
_IDLE_SECONDS = 30  # a process that froze within a transaction gives up its locks then
_RETRY_SECONDS = 0.05

CONNECTION: dict[str, Any] = {
    "autocommit": True,  # transactions begin by a statement of their own, which says of which kind
    "connect_timeout": int(WAIT_SECONDS),
    "tcp_user_timeout": int(2 * WAIT_SECONDS * 1_000),  # a machine that is gone says nothing
}
"""How connections are made."""

T = TypeVar("T")

_MOVE = """
WITH moved AS (
    UPDATE groups SET persons = persons + %(persons)s, version = version + %(changes)s
    WHERE id = %(group)s AND (persons + %(persons)s <= %(max_persons)s OR %(persons)s <= 0)
    RETURNING id, version
), logged AS (
    INSERT INTO changes SELECT id, version, face FROM moved, unnest(%(faces)s::bigint[]) AS face
), forgotten AS (
    DELETE FROM changes USING moved WHERE changes.grp = moved.id AND changes.version <= moved.version - %(kept)s
)
SELECT count(*) FROM moved
"""


class PostgresTransaction:
    """A transaction on a connection."""

    for_update = " FOR NO KEY UPDATE"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, query: str, parameters: Sequence[object] = (), /) -> psycopg.Cursor[Any]:
        """Execute one statement."""
        return self._connection.execute(_translated(query), parameters, binary=True)

    def blocks(self, query: str, parameters: Sequence[object], size: int) -> Iterator[list[Any]]:
        """Return the rows of a query in lists of so many, each of them read when it is asked for."""
        with psycopg.ServerCursor(self._connection, "blocks") as cursor:
            cursor.execute(_translated(query), parameters, binary=True)
            while block := cursor.fetchmany(size):
                yield block

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert many rows."""
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def lock_groups(self, appid: str) -> None:
        """Let nobody else make a group of this appid until the transaction ends."""
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (appid,))

    def new_face_key(self) -> int:
        """Return an integer key that no face has had before."""
        row = self.execute("SELECT nextval(pg_get_serial_sequence('faces', 'id'))").fetchone()
        return 0 if row is None else int(row[0])

    def move(self, group: int, faces: Sequence[int], *, persons: int = 0, max_persons: int | None = None) -> bool:
        """Note that faces and persons come to a group or go; return whether it has no more than ``max_persons``.

        One statement, because everybody who writes to the group waits from here to the commit.
        """
        values = {
            "group": group,
            "persons": persons,
            "max_persons": max_persons,
            "changes": int(bool(faces)),
            "faces": list(faces),
            "kept": base.KEPT_VERSIONS,
        }
        row = self._connection.execute(_MOVE, values).fetchone()
        return row is not None and row[0] == 1


class PostgresDatabase:
    """A database; safe to use from several threads, processes and machines at once.

    When a transaction cannot begin, or its connection breaks before the commit, or it meets another one in a deadlock,
    it starts again, for :data:`WAIT_SECONDS` at most. What a broken connection leaves open is only whether a commit
    that was under way has happened.

    Args:
        url: What libpq takes for a connection.
        name: What the database is called in errors, without a password.
        readers: How many connections there may be for those who read.
        writers: How many for those who write.
        durable: Whether a write is on the disk before it returns; otherwise it is within a moment.
    """

    def __init__(self, url: str, name: str, *, readers: int, writers: int, durable: bool = True) -> None:
        self._name = name
        self._durable = durable
        self._readers = self._pool(url, readers)
        self._writers = self._pool(url, writers)

    def close(self) -> None:
        """Close the connections; twice does no harm."""
        self._readers.close()
        self._writers.close()

    @contextlib.contextmanager
    def reading(self) -> Generator[PostgresTransaction]:
        """Lend a transaction that sees the database as it is at the first statement, whatever is written meanwhile.

        Raises:
            StoreError: It cannot be read.
        """
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with explained(self._name), self._transaction(self._readers, begin, _deadline()) as connection:
            yield PostgresTransaction(connection)

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` within a transaction, and return its result once that is committed.

        Raises:
            StoreError: It cannot be written, or the connection broke while it was committed.
        """
        deadline = _deadline()
        with explained(self._name):
            while True:
                with self._transaction(self._writers, "BEGIN", deadline) as connection:
                    try:
                        result = work(PostgresTransaction(connection))
                    except psycopg.Error as error:
                        if time.monotonic() >= deadline or not _may_start_again(connection, error):
                            raise
                    else:
                        connection.execute("COMMIT")
                        return result
                time.sleep(_RETRY_SECONDS)

    def _pool(self, url: str, size: int) -> ConnectionPool[psycopg.Connection]:
        return ConnectionPool(
            url,
            kwargs=CONNECTION,
            min_size=0,
            max_size=size,
            open=True,
            configure=self._configure,
            name=self._name,
            timeout=WAIT_SECONDS,
            reconnect_timeout=WAIT_SECONDS,
            num_workers=2,
        )

    def _configure(self, connection: psycopg.Connection) -> None:
        configure(connection)
        if not self._durable:
            connection.execute("SET synchronous_commit = off")

    @contextlib.contextmanager
    def _transaction(
        self, pool: ConnectionPool[psycopg.Connection], begin: str, deadline: float
    ) -> Generator[psycopg.Connection]:
        """Lend a connection on which a transaction has begun; what is not committed is undone."""
        connection = self._begun(pool, begin, deadline)
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            pool.putconn(connection)

    def _begun(self, pool: ConnectionPool[psycopg.Connection], begin: str, deadline: float) -> psycopg.Connection:
        while True:
            connection = pool.getconn(max(0.0, deadline - time.monotonic()))
            try:
                connection.execute(begin.encode())
            except psycopg.Error as error:
                pool.putconn(connection)
                if time.monotonic() >= deadline or not _may_start_again(connection, error):
                    raise
            else:
                return connection


@contextlib.contextmanager
def explained(name: str) -> Generator[None]:
    """Turn errors of PostgreSQL into errors of a storage."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreError(f"{name}: no connection within {WAIT_SECONDS:g} s") from error
    except psycopg.Error as error:
        reason = error.diag.message_primary or " ".join(str(error).split())
        raise StoreError(f"{name}: {reason}") from error


def configure(connection: psycopg.Connection) -> None:
    """Bound the waiting for locks, and adapt texts."""
    adapt_texts(connection)
    connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'".encode())


def _may_start_again(connection: psycopg.Connection, error: psycopg.Error) -> bool:
    return connection.closed or isinstance(error, DeadlockDetected | SerializationFailure)


def _deadline() -> float:
    return time.monotonic() + WAIT_SECONDS


@functools.lru_cache(maxsize=256)
def _translated(query: str) -> bytes:
    return query.replace("?", "%s").encode()
