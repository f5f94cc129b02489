"""The checks of a request's signature: codes 4 to 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from face_async.errors import ReturnCode, quoted
from face_async.server.operations.calls import note_reason
from face_async.server.refusal import Refusal
from face_async.server.storage.workers import reads
from face_async.signature import MAX_LIFETIME, Credentials, Signature, parse, verify_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from face_async.server.storage.signatures import UsedSignatures

MAX_CLOCK_LEAD = 15 * 60
"""How far in the future a signature may be dated, in seconds.

The specification says nothing. Clocks drift, and Node's client rounds up; a signature dated further ahead
gets code 9, so that a client with a wrong clock learns of it the same way in both directions.
"""

MAX_ONE_TIME_LIFETIME = 60 * 60
"""How long a signature may be good that is good for one request only, in seconds; a longer one gets code 9.

So whoever fills up the memory of used signatures has room again within the hour.
"""


ANY_BUCKET = "tencentyun"
"""What programs name instead of a bucket that were made from the vendor's sample code for the later revision."""

MAX_AUTHORIZATION_BYTES = 4_096
"""A longer value is no signature: reading one costs time, and that of the longest ids has a quarter of this."""


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"buckets must be several names, not one str: write ({quoted(names)},)")
    return tuple(names)


@frozen
class Account:
    """An appid that exists, one key to it, and the buckets for which the key is good.

    Several accounts may share an appid: then each key is good for its own buckets. Persons and groups are the appid's,
    whatever the bucket.

    Attributes:
        appid: The project's identifier.
        buckets: The buckets of this key; for any other one it is refused with code 16.
        credentials: A key that may sign for this appid.
    """

    appid: str
    buckets: tuple[str, ...] = field(converter=_names)
    credentials: Credentials


def keys_of(accounts: Iterable[Account]) -> dict[tuple[str, str], Credentials]:
    """Return the key for each appid and SecretID.

    Raises:
        ValueError: There are two for one SecretID of an appid.
    """
    keys: dict[tuple[str, str], Credentials] = {}
    for account in accounts:
        appid, secret_id = account.appid, account.credentials.secret_id
        if keys.setdefault((appid, secret_id), account.credentials) != account.credentials:
            raise ValueError(f"appid {appid} has two keys for the SecretID {secret_id}: name one")
    return keys


class Guard:
    """Admits requests, or refuses them.

    Args:
        credentials: One key that is good for every appid and bucket, or the accounts that exist.
        used: The memory of used signatures when each is good for one request only; None: until it expires.
        strict: Whether a signature must be written as the official clients do, and :data:`ANY_BUCKET` is no bucket.
        clock: Unix time in seconds.

    Raises:
        ValueError: The accounts have two keys for one SecretID of an appid.
    """

    def __init__(
        self,
        credentials: Credentials | Sequence[Account],
        *,
        used: UsedSignatures | None,
        strict: bool = False,
        clock: Callable[[], float],
    ) -> None:
        self._master = credentials if isinstance(credentials, Credentials) else None
        accounts = () if isinstance(credentials, Credentials) else tuple(credentials)
        self._appids = {account.appid for account in accounts}
        self._secret_ids = {account.credentials.secret_id for account in accounts}
        self._keys = keys_of(accounts)
        self._buckets: dict[tuple[str, str], set[str]] = {}
        for account in accounts:
            self._buckets.setdefault((account.appid, account.credentials.secret_id), set()).update(account.buckets)
        self._used = used
        self._strict = strict
        self._clock = clock

    async def admit(self, authorization: str) -> Signature:
        """Check an Authorization value, before the body is read, and return the signature in it.

        Raises:
            Refusal: 4, 5, 10, 11, 12, 14, 9 or 13, in this order of checks.
        """
        if not authorization.strip():
            raise Refusal(ReturnCode.SIGNATURE_EMPTY)
        if len(authorization) > MAX_AUTHORIZATION_BYTES:
            raise Refusal(ReturnCode.SIGNATURE_MALFORMED)
        try:
            signature = parse(authorization, strict=self._strict)
        except ValueError:
            raise Refusal(ReturnCode.SIGNATURE_MALFORMED) from None
        if not verify_signature(signature, self._credentials(signature)):
            raise Refusal(ReturnCode.SIGNATURE_MISMATCH)
        now = self._clock()
        self._check_time(signature, now)
        if self._used is not None:
            # A key that is good for every appid is one account, or each appid it makes up would have room of its own.
            account = signature.secret_id if self._master else f"{signature.appid} {signature.secret_id}"
            if not await reads.run(self._used.remember, account, signature.digest, signature.expires, now):
                raise Refusal(ReturnCode.REPLAY_ATTACK)
        return signature

    def check_target(self, signature: Signature, appid: str, bucket: str | None) -> None:
        """Check that the request is for what was signed, and for a bucket of the key that signed it.

        Official clients leave the bucket out of the signature (Node) or of the request (Java): then the other one
        counts. Where neither names one, it is the key's only bucket.

        Raises:
            Refusal: 6 or 16.
        """
        if signature.appid != appid:
            raise Refusal(ReturnCode.SIGNATURE_TARGET_MISMATCH)
        exist = self._buckets.get((appid, signature.secret_id), set())
        named = {name for name in (bucket, signature.bucket) if name and not self._stands_for_any(name, exist)}
        if len(named) > 1:
            raise Refusal(ReturnCode.SIGNATURE_TARGET_MISMATCH)
        if self._master is not None:
            return
        if not named <= exist or not (named or len(exist) == 1):
            raise Refusal(ReturnCode.BUCKET_NOT_EXISTED)

    def _stands_for_any(self, bucket: str, exist: set[str]) -> bool:
        return bucket == ANY_BUCKET and not self._strict and bucket not in exist

    def _credentials(self, signature: Signature) -> Credentials:
        if self._master is not None:
            if signature.secret_id != self._master.secret_id:
                raise Refusal(ReturnCode.SECRETID_NOT_EXISTED)
            return self._master
        if signature.appid not in self._appids:
            raise Refusal(ReturnCode.APPID_NOT_EXISTED)
        if signature.secret_id not in self._secret_ids:
            raise Refusal(ReturnCode.SECRETID_NOT_EXISTED)
        credentials = self._keys.get((signature.appid, signature.secret_id))
        if credentials is None:
            raise Refusal(ReturnCode.APPID_SECRETID_MISMATCH)
        return credentials

    def _check_time(self, signature: Signature, now: float) -> None:
        lifetime = signature.expires - signature.signed_at
        longest = MAX_LIFETIME if self._used is None else MAX_ONE_TIME_LIFETIME
        if not 0 < lifetime <= longest:
            reason = f"its life of {lifetime:,} s is not above 0, and at most {longest:,} s"
        elif signature.expires < now:
            reason = f"it expired {now - signature.expires:,.0f} s ago"
        elif signature.signed_at > now + MAX_CLOCK_LEAD:
            reason = f"it was signed {signature.signed_at - now:,.0f} s in the future"
        else:
            return
        note_reason(reason)
        raise Refusal(ReturnCode.SIGNATURE_EXPIRED)
