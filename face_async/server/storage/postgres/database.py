"""A PostgreSQL database for many threads of many processes: pools of connections, and transactions that start again."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected
from psycopg_pool import ConnectionPool, PoolTimeout

from face_async.server.refusal import Refusal
from face_async.server.storage.base import StoreError
from face_async.server.storage.postgres.texts import adapt_texts
from face_async.server.storage.postgres.transaction import PostgresTransaction
from face_async.server.storage.writes import WriteQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from face_async.server.storage.base import Transaction
    from face_async.server.storage.writes import Write

WAIT_SECONDS = 5.0
"""How long a request waits for a connection, and starts again when the database goes away."""

_LOCK_SECONDS = 10  # for a row that another transaction changes, as long as for the lock of a SQLite file
_IDLE_SECONDS = 30  # a process that froze within a transaction gives up its locks then
_RETRY_SECONDS = 0.05
_TOGETHER = 64  # writes in a transaction

CONNECTION: dict[str, Any] = {
    "client_encoding": "utf8",  # whatever the database's or PGCLIENTENCODING is: psycopg returns bytes for SQL_ASCII
    "autocommit": True,  # transactions begin by a statement of their own, which says of which kind
    "connect_timeout": int(WAIT_SECONDS),
    "tcp_user_timeout": int(2 * WAIT_SECONDS * 1_000),  # a machine that is gone says nothing
}
"""How connections are made."""

T = TypeVar("T")


class PostgresDatabase:
    """A database; safe to use from several threads, processes and machines at once.

    Writes that wait at the same time share a transaction, so that they share its commit, and the locks of rows at which
    all writers meet. When one of them cannot be done beside the others, each is done by itself.

    When a transaction cannot begin, or its connection breaks before the commit, it starts again, for
    :data:`WAIT_SECONDS` at most. What a broken connection leaves open is only whether a commit that was under way has
    happened.

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
        self._queue = WriteQueue[PostgresTransaction](self._work_off, writers)

    def close(self) -> None:
        """Finish the writes that wait, and close the connections; twice does no harm."""
        self._queue.close()
        self._readers.close()
        self._writers.close()

    @contextlib.contextmanager
    def reading(self) -> Generator[PostgresTransaction]:
        """Lend a transaction that sees the database as it is at the first statement, whatever is written meanwhile.

        Raises:
            StoreError: It cannot be read.
        """
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with store_errors(self._name), self._transaction(self._readers, begin, _deadline()) as connection:
            yield PostgresTransaction(connection)

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` within a transaction, and return its result once that is committed.

        Raises:
            StoreError: It cannot be written, or the connection broke while it was committed.
        """
        with store_errors(self._name):
            return self._queue.wait_for(work)

    def _work_off(self) -> None:
        waiting = self._queue.waiting
        writes: list[Write[PostgresTransaction, object]] = []
        with contextlib.suppress(IndexError):  # other threads take from it, too
            while len(writes) < _TOGETHER:
                writes.append(waiting.popleft())
        if not writes or self._perform(writes):
            return
        for write in writes:
            self._perform([write])

    def _perform(self, writes: Sequence[Write[PostgresTransaction, object]]) -> bool:
        """Do writes in one transaction, and set their outcomes; or return False if some must be done by themselves."""
        try:
            outcomes = self._committed(writes)
        except StoreError as error:
            _fail(writes, error)
            return True
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            if len(writes) == 1:
                _fail(writes, error)
            return len(writes) == 1
        # Not before the commit: even a refusal may rest on what another of these writes has written.
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                write.outcome.set_exception(outcome)
            else:
                write.outcome.set_result(outcome)
        return True

    def _committed(self, writes: Sequence[Write[PostgresTransaction, object]]) -> list[object]:
        """Do writes in one transaction, and return their outcomes.

        Raises:
            StoreError: The database is not there, or went away, perhaps with the transaction committed.
        """
        deadline = _deadline()
        while True:
            with self._transaction(self._writers, "BEGIN", deadline) as connection:
                transaction = PostgresTransaction(connection)
                try:
                    outcomes = [_attempt(transaction, write) for write in writes]
                    transaction.finish()
                except psycopg.Error as error:
                    is_deadlock = isinstance(error, DeadlockDetected) and len(writes) == 1
                    if not connection.closed and not is_deadlock:
                        raise
                    if time.monotonic() >= deadline:
                        raise storage_error(self._name, error) from error
                else:
                    with store_errors(self._name):
                        connection.execute("COMMIT")
                    return outcomes
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
        with store_errors(self._name):
            while True:
                connection = pool.getconn(max(0.0, deadline - time.monotonic()))
                try:
                    connection.execute(begin.encode())
                except psycopg.Error:
                    pool.putconn(connection)
                    if time.monotonic() >= deadline or not connection.closed:
                        raise
                else:
                    return connection


@contextlib.contextmanager
def store_errors(name: str) -> Generator[None]:
    """Turn errors of PostgreSQL into errors of a storage."""
    try:
        yield
    except psycopg.Error as error:
        raise storage_error(name, error) from error


def storage_error(name: str, error: psycopg.Error) -> StoreError:
    """Return what is said of an error of PostgreSQL: the same for every request that meets it."""
    if isinstance(error, PoolTimeout):
        return StoreError(f"{name}: no connection within {WAIT_SECONDS:g} s")
    return StoreError(f"{name}: {error.diag.message_primary or ' '.join(str(error).split())}")


def configure(connection: psycopg.Connection) -> None:
    """Bound the waiting for locks, and adapt texts."""
    adapt_texts(connection)
    connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'".encode())


def require_utf8(connection: psycopg.Connection, name: str) -> None:
    """Check that a database can have all texts.

    Raises:
        StoreError: It has another encoding than UTF8.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"{name} has the encoding {encoding}: make a database by createdb --encoding=UTF8 --template=template0"
        )


def _attempt(transaction: PostgresTransaction, write: Write[PostgresTransaction, object]) -> object:
    """Return what a write returns, or what it is refused with if it had changed nothing before."""
    changed = transaction.changed
    try:
        return write.work(transaction)
    except Refusal as refusal:
        if transaction.changed > changed:
            raise
        return refusal


def _fail(writes: Sequence[Write[PostgresTransaction, object]], error: Exception) -> None:
    for write in writes:
        write.outcome.set_exception(error)


def _deadline() -> float:
    return time.monotonic() + WAIT_SECONDS
