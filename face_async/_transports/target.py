"""Where a request goes: host, port and path of a URL, and who vouches for servers."""

from __future__ import annotations

import os
import re
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

from attrs import frozen

from face_async.errors import innermost, quoted

if TYPE_CHECKING:
    import ssl
    from urllib.parse import SplitResult

Verify: TypeAlias = "str | os.PathLike[str] | ssl.SSLContext"
"""Who vouches for servers: a file or folder of certificates of authorities (PEM), or a context of one's own."""

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?")
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~"


@frozen
class Target:
    """What a URL means to a client.

    Attributes:
        secure: Whether TLS is spoken.
        host: The name or address to connect to, in ASCII and without brackets.
        port: The port to connect to.
        path: What stands in the request line: printable ASCII without spaces.
    """

    secure: bool
    host: str
    port: int
    path: str

    def is_beside(self, other: Target) -> bool:
        """Return whether a connection to one of the two serves the other."""
        return (self.host, self.port, self.secure) == (other.host, other.port, other.secure)


def context_of(verify: Verify | None) -> ssl.SSLContext:
    """Return what decides whether a server's certificate is good; None is :func:`trusted_authorities`.

    Raises:
        ValueError: The certificates cannot be read.
        TypeError: It is nothing of the kind.
    """
    import ssl  # noqa: PLC0415 - plain http does not need it

    if verify is None:
        return trusted_authorities()
    if isinstance(verify, ssl.SSLContext):
        return verify
    if not isinstance(verify, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
        raise TypeError(
            f"verify must be a file of certificates (PEM) or an ssl.SSLContext, not {type(verify).__name__}; "
            "without it the authorities that certifi knows are trusted"
        )
    return _context("verify", os.fspath(verify))


def trusted_authorities() -> ssl.SSLContext:
    """Return the context of all who name none: what ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` says, or else certifi.

    Loading it takes 20 ms, so a process does it once.

    Raises:
        ValueError: The certificates cannot be read.
    """
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if path := os.environ.get(variable):
            return _lasting_context(variable, path)
    import certifi  # noqa: PLC0415 - plain http does not need it

    return _lasting_context("certifi", certifi.where())


def _context(origin: str, path: str) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - as above

    folder = os.path.isdir(path)  # noqa: PTH112 - a str, as a variable has it
    try:
        context = ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a NUL in the path
        reason = "it holds no certificates in PEM" if isinstance(error, ssl.SSLError) else innermost(error)
        raise ValueError(f"{origin}: the certificates in {quoted(path)} cannot be read: {reason}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


_lasting_context = cache(_context)


def host_of(base_url: str) -> str:
    """Return the Host header for a URL, in ASCII.

    Raises:
        ValueError: It is no URL that can be called.
    """
    target = target_of(base_url)
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == _PORTS["https" if target.secure else "http"] else f"{host}:{target.port}"


@lru_cache(maxsize=256)  # taking one apart costs more than signing the request
def target_of(url: str) -> Target:
    """Return where a request to a URL goes.

    Raises:
        ValueError: It is no URL that can be called.
    """
    try:
        parts = urlsplit(url)
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        return Target(parts.scheme == "https", _host(parts), port, quote(parts.path or "/", safe=_SAFE_IN_PATH))
    except (ValueError, KeyError) as error:
        raise ValueError(f"base_url cannot be called: {error}") from None


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        return str(ip_address(host))
    if not host.isascii():
        import idna  # noqa: PLC0415 - few hosts need it

        host = idna.encode(host).decode("ascii")  # its errors are UnicodeErrors, which are ValueErrors
    if not _HOST.fullmatch(host):
        raise ValueError(f"{quoted(host)} is no host")
    return host
