"""Signatures that were used, remembered until they expire: so that each is good once, in all processes on a store."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from face_async.server.storage.database import MEMORY, Database

if TYPE_CHECKING:
    import sqlite3

CAPACITY = 1_000_000
"""Signatures remembered for each account; at 300 s each that is 3,333 requests a second without an end."""

_TABLES = """
CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS signatures (
    account INTEGER NOT NULL, digest BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (account, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signatures_by_expiry ON signatures (account, expires)
"""

# More than one for each new one, so that what has expired never adds up.
_FORGET_SOME = (
    "DELETE FROM signatures WHERE (account, digest) IN "
    "(SELECT account, digest FROM signatures WHERE account = ? AND expires < ? LIMIT 2)"
)


class UsedSignatures:
    """What was signed and used.

    It is a file of its own beside the store's, so that a request that only reads waits for nobody who writes faces.
    What it remembers outlives the process; the last moments of it may be lost when the machine loses its power.

    Args:
        path: The store's database; the file is named the same with ``-signatures`` behind.
        capacity: How many signatures are remembered for each account, None for :data:`CAPACITY`. Beyond it new ones
            are refused until some have expired; none is forgotten while it is good.
    """

    def __init__(self, path: str, capacity: int | None = None) -> None:
        self._database = Database(path if path == MEMORY else f"{path}-signatures", _prepare, synchronous="NORMAL")
        self._capacity = CAPACITY if capacity is None else capacity

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._database.close()

    def remember(self, account: str, digest: bytes, expires: int, now: float) -> bool:
        """Remember a signature; return whether it may be used: it is new, and there was room to remember it.

        Args:
            account: Whose it is: what one account fills up leaves the others their room.
            digest: What tells it from all others.
            expires: When it need not be remembered any more, in Unix time.
            now: Unix time.
        """
        return self._database.write(
            functools.partial(
                _remember, account=account, digest=digest, expires=expires, now=now, capacity=self._capacity
            )
        )


def _prepare(db: sqlite3.Connection, _path: str) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    for statement in _TABLES.split(";"):
        db.execute(statement)


def _remember(db: sqlite3.Connection, *, account: str, digest: bytes, expires: int, now: float, capacity: int) -> bool:
    db.execute("INSERT OR IGNORE INTO accounts (name, used) VALUES (?, 0)", (account,))
    number, used = db.execute("SELECT id, used FROM accounts WHERE name = ?", (account,)).fetchone()
    used -= db.execute(_FORGET_SOME, (number, now)).rowcount
    is_new = used < capacity and bool(
        db.execute("INSERT OR IGNORE INTO signatures VALUES (?, ?, ?)", (number, digest, expires)).rowcount
    )
    db.execute("UPDATE accounts SET used = ? WHERE id = ?", (used + is_new, number))
    return is_new
