"""Galleries kept in memory, which follow what is written to the database, by this process or another one."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING

from face_async.images import machine
from face_async.server.storage.gallery import BLOCK_ROWS, Gallery

if TYPE_CHECKING:
    from face_async.server.storage.base import Engine, Transaction
    from face_async.server.storage.gallery import FaceRow

_LOADS_AT_ONCE = 2  # each takes the memory of a gallery before another one is dropped for it

_PRESENT = (
    "SELECT faces.id, faces.person, faces.embedding FROM memberships "
    "JOIN faces ON faces.person = memberships.person WHERE grp = ? AND recognizer = ?"
)
_CHANGES = "SELECT count(DISTINCT version) FROM changes WHERE grp = ? AND version > ?"
_CHANGED = "SELECT DISTINCT face FROM changes WHERE grp = ? AND version > ?"
_PRESENT_OF_CHANGED = f"{_PRESENT} AND faces.id IN ({_CHANGED}) ORDER BY faces.id"


def default_memory() -> int:
    """Return the bytes that galleries may take unless told otherwise: a quarter of what this process may use."""
    return machine.memory_limit() // 4


class Galleries:
    """The galleries used last, up to a number of bytes.

    A gallery that was loaded once follows by the log of changes; its first load, and every step after, happens once
    for all who ask at the same time, and nobody else waits for it.

    Args:
        database: Where faces are kept.
        max_bytes: What all kept galleries may take. The one used last stays even when it is larger alone; and up to
            two more are in memory while they are loaded.
    """

    def __init__(self, database: Engine, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[int, str], Gallery] = OrderedDict()
        self._flights: defaultdict[tuple[int, str], threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()  # held for moments only
        self._loads = threading.BoundedSemaphore(_LOADS_AT_ONCE)

    def get(self, group: int, recognizer: str, version: int) -> Gallery:
        """Return a group's gallery of at least this version.

        Args:
            group: The group's integer key.
            recognizer: The name of the recognizer whose faces they are.
            version: The group's version as it was just read.
        """
        key = (group, recognizer)
        gallery, flight = self._look_up(key)
        if gallery is None or gallery.version < version:
            with flight:
                gallery, _ = self._look_up(key)
                if gallery is None or gallery.version < version:
                    followed = None if gallery is None or gallery.is_sparse else self._followed(key, gallery)
                    gallery = self._loaded(key) if followed is None else followed
                    self._keep(key, gallery)
        return gallery

    def _look_up(self, key: tuple[int, str]) -> tuple[Gallery | None, threading.Lock]:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key), self._flights[key]

    def _keep(self, key: tuple[int, str], gallery: Gallery) -> None:
        with self._lock:
            previous = self._kept.pop(key, None)
            self._kept[key] = gallery
            self._bytes += gallery.nbytes - (0 if previous is None else previous.nbytes)
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _followed(self, key: tuple[int, str], gallery: Gallery) -> Gallery | None:
        group, recognizer = key
        with self._database.reading() as db:
            version = _version(db, group)
            since = (group, gallery.version)
            # Fewer than there should be: it is too far behind, or an earlier release has written without a log.
            if db.execute(_CHANGES, since).fetchone()[0] != version - gallery.version:
                return None
            changed = [face for (face,) in db.execute(_CHANGED, since).fetchall()]
            present: list[FaceRow] = db.execute(_PRESENT_OF_CHANGED, (group, recognizer, *since)).fetchall()
        return gallery.followed(version, changed, present)

    def _loaded(self, key: tuple[int, str]) -> Gallery:
        with self._loads, self._database.reading() as db:
            gallery = Gallery(_version(db, key[0]))
            for block in db.blocks(_PRESENT, key, BLOCK_ROWS):
                gallery = gallery.extended(block)
        return gallery


def _version(db: Transaction, group: int) -> int:
    return int(db.execute("SELECT version FROM groups WHERE id = ?", (group,)).fetchone()[0])
