"""The checks of a request's signature: codes 4 to 16."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from attrs import field, frozen
from cachetools import TLRUCache

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal
from face_async.signature import MAX_LIFETIME, Credentials, Signature, parse, verify_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_CLOCK_LEAD = 15 * 60
"""How far in the future a signature may be dated, in seconds.

The specification says nothing. Clocks drift, and Node's client rounds up; a signature dated further ahead
gets code 9, so that a client with a wrong clock learns of it the same way in both directions.
"""


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"buckets must be several names, not one str: write ({names!r},)")
    return tuple(names)


@frozen
class Account:
    """An appid that exists, its buckets, and one key to it. Several accounts may share an appid.

    Attributes:
        appid: The project's identifier.
        buckets: The project's buckets; any other one is refused with code 16.
        credentials: A key that may sign for this appid.
    """

    appid: str
    buckets: tuple[str, ...] = field(converter=_names)
    credentials: Credentials


class Guard:
    """Admits requests, or refuses them.

    Args:
        credentials: One key that is good for every appid and bucket, or the accounts that exist.
        replay_protection: Whether a signature is good for one request only.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        credentials: Credentials | Sequence[Account],
        *,
        replay_protection: bool,
        clock: Callable[[], float],
    ) -> None:
        self._master = credentials if isinstance(credentials, Credentials) else None
        accounts = () if isinstance(credentials, Credentials) else tuple(credentials)
        self._keys = {(account.appid, account.credentials.secret_id): account.credentials for account in accounts}
        self._secret_ids = {account.credentials.secret_id for account in accounts}
        self._buckets: dict[str, set[str]] = {}
        for account in accounts:
            self._buckets.setdefault(account.appid, set()).update(account.buckets)
        self._seen = SeenSignatures(clock) if replay_protection else None
        self._clock = clock

    def admit(self, authorization: str) -> Signature:
        """Check an Authorization value, before the body is read, and return the signature in it.

        Raises:
            Refusal: 4, 5, 10, 11, 12, 14, 9 or 13, in this order of checks.
        """
        if not authorization.strip():
            raise Refusal(ReturnCode.SIGNATURE_EMPTY)
        try:
            signature = parse(authorization)
        except ValueError:
            raise Refusal(ReturnCode.SIGNATURE_MALFORMED) from None
        if not verify_signature(signature, self._credentials(signature)):
            raise Refusal(ReturnCode.SIGNATURE_MISMATCH)
        self._check_time(signature, self._clock())
        if self._seen is not None and not self._seen.add(signature):
            raise Refusal(ReturnCode.REPLAY_ATTACK)
        return signature

    def check_target(self, signature: Signature, appid: str, bucket: str | None) -> None:
        """Check that the request is for what was signed, and that the bucket exists.

        Official clients leave the bucket out of the signature (Node) or of the request (Java): then the other
        one counts.

        Raises:
            Refusal: 6 or 16.
        """
        if signature.appid != appid:
            raise Refusal(ReturnCode.SIGNATURE_TARGET_MISMATCH)
        if bucket and signature.bucket and signature.bucket != bucket:
            raise Refusal(ReturnCode.SIGNATURE_TARGET_MISMATCH)
        target = bucket or signature.bucket
        if self._master is None and target and target not in self._buckets[appid]:
            raise Refusal(ReturnCode.BUCKET_NOT_EXISTED)

    def _credentials(self, signature: Signature) -> Credentials:
        if self._master is not None:
            if signature.secret_id != self._master.secret_id:
                raise Refusal(ReturnCode.SECRETID_NOT_EXISTED)
            return self._master
        if signature.appid not in self._buckets:
            raise Refusal(ReturnCode.APPID_NOT_EXISTED)
        if signature.secret_id not in self._secret_ids:
            raise Refusal(ReturnCode.SECRETID_NOT_EXISTED)
        credentials = self._keys.get((signature.appid, signature.secret_id))
        if credentials is None:
            raise Refusal(ReturnCode.APPID_SECRETID_MISMATCH)
        return credentials

    @staticmethod
    def _check_time(signature: Signature, now: float) -> None:
        lifetime = signature.expires - signature.signed_at
        if not 0 < lifetime <= MAX_LIFETIME or signature.expires < now or signature.signed_at > now + MAX_CLOCK_LEAD:
            raise Refusal(ReturnCode.SIGNATURE_EXPIRED)


class SeenSignatures:
    """Remembers signatures until they expire.

    Args:
        clock: Unix time in seconds.
        capacity: How many signatures are remembered; beyond it, the one that came first is forgotten.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = 100_000) -> None:
        # A signature is still good in the second in which it expires.
        self._expiries = TLRUCache[bytes, int, float](capacity, lambda _digest, expiry, _now: expiry + 1, clock)
        self._lock = threading.Lock()

    def add(self, signature: Signature) -> bool:
        """Remember a signature; return whether it is new."""
        with self._lock:
            is_new = signature.digest not in self._expiries
            self._expiries[signature.digest] = signature.expires
            return is_new

    def __len__(self) -> int:
        return len(self._expiries)
