"""The signature of a request (鉴权签名, document 275/3805): pure functions of credentials, time and nonce.

The layout is ``base64(HMAC-SHA1(SecretKey, original) + original)`` in one line, where ``original`` is
``a=<appid>&b=<bucket>&k=<SecretID>&e=<expires>&t=<now>&r=<nonce>&u=0&f=`` with no URL-encoding inside.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

from attrs import field, frozen

ACCOUNT_VARIABLES = ("FACE_ASYNC_APPID", "FACE_ASYNC_BUCKET", "FACE_ASYNC_SECRET_ID", "FACE_ASYNC_SECRET_KEY")
"""The environment variables that have what is signed, and with what."""

MAX_LIFETIME = 90 * 24 * 60 * 60
"""The longest time that a signature may be valid: 3 months, in seconds."""

MAX_NONCE = 10**10 - 1
"""The largest nonce: 10 digits."""

_DIGEST_BYTES = hashlib.sha1(usedforsecurity=False).digest_size
_TOKEN = re.compile(r"[\x21-\x25\x27-\x7e]+")
_BEARER = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]{1,12})")
_SECONDS_WITH_DECIMALS = re.compile(r"([0-9]{1,12})(?:\.[0-9]{1,20})?")


def check_token(name: str, value: str) -> None:
    """Check a value that stands in signatures or makes them; the message never repeats it.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or has other characters than printable ASCII without ``&``, which separates fields.
    """
    if error := _token_error(name, value):
        raise error


def _token_error(name: str, value: object) -> TypeError | ValueError | None:
    if not isinstance(value, str):
        return TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not _TOKEN.fullmatch(value):
        return ValueError(f"{name} must be printable ASCII without spaces and '&', and not empty")
    return None


@frozen
class Credentials:
    """A SecretID and its SecretKey; the key shows neither in a repr nor in the traceback of a refusal.

    Raises:
        TypeError: Either is no str.
        ValueError: Either is empty or has characters that cannot stand in a signature (a stray line break, say).
    """

    secret_id: str
    secret_key: str = field(repr=False)

    def __init__(self, secret_id: str, secret_key: str) -> None:
        error = _token_error("secret_id", secret_id) or _token_error("secret_key", secret_key)
        if error is not None:
            del self, secret_id, secret_key  # this frame hangs on the error, and tools print what frames hold
            raise error
        object.__setattr__(self, "secret_id", secret_id)
        object.__setattr__(self, "secret_key", secret_key)


@frozen
class Signature:
    """The fields of a received Authorization value, which :func:`verify_signature` checks."""

    appid: str
    bucket: str | None
    secret_id: str
    expires: int
    signed_at: int
    nonce: str
    digest: bytes = field(repr=False)
    original: bytes = field(repr=False)


class Signer:
    """Signs requests for one appid and bucket; what their signatures have in common is computed once."""

    def __init__(self, credentials: Credentials, *, appid: str, bucket: str) -> None:
        self._mac = _mac(credentials)
        self._account = f"a={appid}&b={bucket}&k={credentials.secret_id}&e="

    def sign(self, *, now: int, nonce: int, lifetime: int = 300) -> str:
        """As :func:`sign`."""
        original = f"{self._account}{now + lifetime}&t={now}&r={nonce}&u=0&f=".encode()
        mac = self._mac.copy()
        mac.update(original)
        return base64.b64encode(mac.digest() + original).decode("ascii")


def sign(credentials: Credentials, *, appid: str, bucket: str, now: int, nonce: int, lifetime: int = 300) -> str:
    """Return the value of the Authorization header.

    Args:
        credentials: Who signs.
        appid: The appid that the request is for.
        bucket: The bucket that the request is for.
        now: Unix time in seconds.
        nonce: A random number, 0 to :data:`MAX_NONCE`.
        lifetime: Seconds from ``now`` until the signature expires, 1 to :data:`MAX_LIFETIME`.
    """
    if not 1 <= lifetime <= MAX_LIFETIME:
        raise ValueError(f"lifetime must be 1 to {MAX_LIFETIME} seconds, not {lifetime}")
    if not 0 <= nonce <= MAX_NONCE:
        raise ValueError(f"nonce must be 0 to {MAX_NONCE}, not {nonce}")
    return Signer(credentials, appid=appid, bucket=bucket).sign(now=now, nonce=nonce, lifetime=lifetime)


def parse(authorization: str, *, strict: bool = True) -> Signature:
    """Read an Authorization value as any official client writes it.

    The order of fields is free; ``a``, ``k``, ``e`` and ``t`` are required, ``b``, ``r``, ``u`` and ``f`` optional.

    Args:
        authorization: The value.
        strict: False also takes what hand-written programs were seen to send: the word ``Bearer`` before the
            signature, decimals in ``e`` and ``t``, and white space around the bucket.

    Raises:
        ValueError: The value is no signature. The message never repeats it.
    """
    try:
        token = authorization if strict else _BEARER.sub("", authorization, count=1)
        raw = base64.b64decode(token.strip(), validate=True)
        original = raw[_DIGEST_BYTES:]
        pairs = [pair.split("=", 1) for pair in original.decode("utf-8").split("&")]
        fields = dict(pairs)
        seconds = _SECONDS if strict else _SECONDS_WITH_DECIMALS
        bucket = fields.get("b", "")
        signature = Signature(
            appid=fields["a"],
            bucket=(bucket if strict else bucket.strip()) or None,
            secret_id=fields["k"],
            expires=_seconds(fields["e"], seconds),
            signed_at=_seconds(fields["t"], seconds),
            nonce=fields.get("r", ""),
            digest=raw[:_DIGEST_BYTES],
            original=original,
        )
    except (binascii.Error, UnicodeError, ValueError, KeyError):
        raise ValueError("not a signature") from None
    if len(fields) != len(pairs) or not signature.appid or not signature.secret_id:
        raise ValueError("not a signature")
    return signature


def verify_signature(signature: Signature, credentials: Credentials) -> bool:
    """Return whether ``credentials`` made this signature, in time that does not depend on how wrong it is."""
    mac = _mac(credentials)
    mac.update(signature.original)
    return hmac.compare_digest(mac.digest(), signature.digest)


def _mac(credentials: Credentials) -> hmac.HMAC:
    # Not hmac.digest: it lets go of the GIL, and where other threads wait for that, getting it back costs far more.
    return hmac.new(credentials.secret_key.encode(), digestmod="sha1")


def _seconds(text: str, form: re.Pattern[str]) -> int:
    match = form.fullmatch(text)
    if match is None:
        raise ValueError("not unix seconds")
    return int(match[1])
