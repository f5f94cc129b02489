"""The storage for one machine: a SQLite file."""

from __future__ import annotations

import os
import threading

from face_async.server.storage.galleries import Galleries
from face_async.server.storage.signatures import UsedSignatures
from face_async.server.storage.sqlite.database import MEMORY, Database
from face_async.server.storage.sqlite.schema import dump, load, prepare, prepare_signatures
from face_async.server.storage.storage import Storage


class Store(Storage):
    """A storage in a SQLite file, for several threads and several processes of one machine.

    Reads do not wait for writes. Writes that wait at the same time share a commit; while another process holds the
    file's lock, they wait for 10 s at most.

    Args:
        path: The database file, made with mode 0600 when it is new; ``":memory:"`` keeps nothing.
        gallery_memory: Bytes that the galleries kept for :meth:`identify` may take, about 600 a face; None: a quarter
            of the machine's memory, or of the container's.

    Raises:
        StoreError: The file is no store, or one of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str] = MEMORY, *, gallery_memory: int | None = None) -> None:
        self._path = os.fspath(path)
        self._file = Database(self._path, prepare)
        super().__init__(self._file, gallery_memory=gallery_memory)
        self._lock = threading.Lock()
        self._signatures: UsedSignatures | None = None  # a file that most stores do without

    def close(self) -> None:
        """Close the database, after the writes that wait; once is enough, twice does no harm."""
        with self._lock:
            if self._signatures is not None:
                self._signatures.close()
        super().close()

    def __repr__(self) -> str:
        return f"Store({self._path!r})"

    def used_signatures(self) -> UsedSignatures:
        """Return the memory of signatures that were used, shared by all processes on this file and those after them.

        It is in a second file beside the database, named the same with ``-signatures`` behind, made at the first call.

        Raises:
            StoreError: That file cannot be used.
        """
        with self._lock:
            if self._signatures is None:
                # By its real name: whoever opens it through a symbolic link has the same memory.
                path = MEMORY if self._file.file is None else f"{self._file.file}-signatures"
                self._signatures = UsedSignatures(Database(path, prepare_signatures, synchronous="NORMAL"))
            return self._signatures

    def snapshot(self) -> bytes:
        """Return the whole content, for :meth:`restore`; embeddings are biometric data, so keep it as the file."""
        with self._file.reading() as db:
            return dump(db)

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole content by that of a snapshot, when no other process uses the file.

        Raises:
            StoreError: It is no snapshot of a store; nothing is replaced.
        """
        with self._file.exclusively() as db:
            load(db, snapshot)
            # Versions have gone back, and would come again for other galleries.
            self._galleries = Galleries(self._file, self._gallery_memory)
