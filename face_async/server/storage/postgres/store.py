"""The storage for several machines: a PostgreSQL database."""

from __future__ import annotations

import threading

import psycopg

from face_async.server.storage.base import StoreError
from face_async.server.storage.names import quotes_password, without_password
from face_async.server.storage.postgres.database import (
    CONNECTION,
    PostgresDatabase,
    configure,
    require_utf8,
    storage_error,
)
from face_async.server.storage.postgres.schema import prepare
from face_async.server.storage.signatures import UsedSignatures
from face_async.server.storage.storage import Storage

_READERS, _WRITERS = 6, 3  # connections of a process at most; as many threads write, and more would write less together


class PostgresStore(Storage):
    """A storage in a PostgreSQL database, for several processes on several machines.

    Every process has its own galleries in memory; they follow by the log of changes in the database. A process opens
    12 connections at most.

    Args:
        url: ``postgresql://user@host:5432/database``, with what else libpq takes behind a question mark. The password
            is better in the environment (PGPASSWORD) or in ``~/.pgpass``.
        gallery_memory: As for :class:`Store`.

    Raises:
        StoreError: The database cannot be reached, is not encoded in UTF8, is no store, or is one of a newer version.
    """

    def __init__(self, url: str, *, gallery_memory: int | None = None) -> None:
        self._url = url
        self._name = without_password(url)
        try:
            with psycopg.connect(url, **CONNECTION) as first:
                require_utf8(first, self._name)
                configure(first)
                prepare(first, self._name)
        except psycopg.Error as error:
            if quotes_password(str(error), url):  # libpq has taken it for something else
                raise StoreError(
                    f"{self._name} is no URL that PostgreSQL can read: in its password, write % as %25, @ as %40, / as "
                    "%2F, ? as %3F and & as %26; or put it into PGPASSWORD or ~/.pgpass"
                ) from None
            raise storage_error(self._name, error) from error
        super().__init__(
            PostgresDatabase(url, self._name, readers=_READERS, writers=_WRITERS), gallery_memory=gallery_memory
        )
        self._lock = threading.Lock()
        self._signatures: UsedSignatures | None = None  # connections that most stores do without

    def close(self) -> None:
        """Close the connections; once is enough, twice does no harm."""
        with self._lock:
            if self._signatures is not None:
                self._signatures.close()
        super().close()

    def __repr__(self) -> str:
        return f"PostgresStore({self._name!r})"

    def used_signatures(self) -> UsedSignatures:
        """Return the memory of signatures that were used, shared by all processes on this database.

        What was remembered within the last moments before PostgreSQL itself crashes may be forgotten.
        """
        with self._lock:
            if self._signatures is None:
                engine = PostgresDatabase(self._url, self._name, readers=1, writers=2, durable=False)
                self._signatures = UsedSignatures(engine)
            return self._signatures
