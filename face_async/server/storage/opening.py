"""From the name of a database to a storage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from face_async.server.storage.names import is_postgres_url
from face_async.server.storage.sqlite.store import Store

if TYPE_CHECKING:
    from face_async.server.storage.storage import Storage


def open_storage(database: str | os.PathLike[str] = ":memory:", *, gallery_memory: int | None = None) -> Storage:
    """Open the storage of a server; whoever opened it closes it.

    Args:
        database: The path of a SQLite file, made with mode 0600 when it is new, for one machine; ``":memory:"`` keeps
            nothing. Or the URL of a PostgreSQL database, such as ``"postgresql://user@host/faces"``, for several
            machines; its tables are made when they are missing. It needs the extra ``postgres``.
        gallery_memory: Bytes that the galleries of this process may take, about 600 a face; None: a quarter of the
            machine's memory, or of the container's.

    Raises:
        StoreError: It cannot be opened, belongs to something else, or is of a newer version.
        ModuleNotFoundError: The extra ``postgres`` is not installed.
    """
    if not is_postgres_url(database):
        return Store(database, gallery_memory=gallery_memory)
    from face_async.server.storage.postgres.store import PostgresStore  # noqa: PLC0415 - needs the extra

    return PostgresStore(os.fspath(database), gallery_memory=gallery_memory)
