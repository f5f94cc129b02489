"""Signatures that were used, remembered until they expire: so that each is good once, in all processes on a store."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face_async.server.storage.base import Engine, Transaction

CAPACITY = 1_000_000
"""Signatures remembered for each account; at 300 s each that is 3,333 requests a second without an end."""

# More than one for each new one, so that what has expired never adds up.
_FORGET_SOME = (
    "DELETE FROM signatures WHERE (account, digest) IN "
    "(SELECT account, digest FROM signatures WHERE account = ? AND expires < ? LIMIT 2)"
)


class UsedSignatures:
    """What was signed and used.

    It outlives the process; the last moments of it may be lost when the machine loses its power.

    Args:
        engine: A database of its own, or connections of its own to one: a request that only reads must not wait for
            those who write faces.
        capacity: How many signatures are remembered for each account, None for :data:`CAPACITY`. Beyond it new ones
            are refused until some have expired; none is forgotten while it is good.
    """

    def __init__(self, engine: Engine, capacity: int | None = None) -> None:
        self._database = engine
        self._capacity = CAPACITY if capacity is None else capacity

    def close(self) -> None:
        """Close the database; twice does no harm."""
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


def _remember(db: Transaction, *, account: str, digest: bytes, expires: int, now: float, capacity: int) -> bool:
    db.execute("INSERT INTO accounts (name, used) VALUES (?, 0) ON CONFLICT DO NOTHING", (account,))
    number, used = db.execute(f"SELECT id, used FROM accounts WHERE name = ?{db.for_update}", (account,)).fetchone()  # noqa: S608 - a constant
    used -= db.execute(_FORGET_SOME, (number, now)).rowcount
    insert = "INSERT INTO signatures VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    is_new = used < capacity and bool(db.execute(insert, (number, digest, expires)).rowcount)
    db.execute("UPDATE accounts SET used = ? WHERE id = ?", (used + is_new, number))
    return is_new
