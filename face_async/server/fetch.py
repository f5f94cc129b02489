"""Pictures by URL: fetched only from listed hosts, and by a name never from a private address."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from typing import TYPE_CHECKING

import anyio
from attrs import frozen

from face_async.errors import ReturnCode, quoted
from face_async.images.threads import Workers
from face_async.server.operations.calls import note_reason
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Iterable

    import httpx

    from face_async.server.bounds.bodies import HeldBody

CONNECTION_BYTES = 400_000
"""What a connection takes of the memory beside its picture: event loops read up to 256 KiB ahead."""

_OK = 200
_DEFAULT_PORTS = {"http": 80, "https": 443}
_names = Workers("server.names", 40, abandon=True)


class _Refused(Exception):  # noqa: N818 - becomes a Refusal; its message is for the log
    """Why a URL is not fetched."""


@frozen
class AllowedHost:
    """An entry of the allow-list.

    Attributes:
        host: A name, a literal address, or ``*.`` and a name for all names below it (not the name itself).
        port: The only port; None for the scheme's default port.
    """

    host: str
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        """Read ``example.com``, ``*.example.com:8080``, ``127.0.0.1:9000``, ``[::1]:9000`` or ``::1``.

        Raises:
            ValueError: It is none of these.
        """
        host, port = entry, ""
        if entry.startswith("["):
            host, _, port = entry[1:].partition("]")
            port = port.removeprefix(":")
        elif entry.count(":") == 1:
            host, port = entry.split(":")
        if not host or "/" in host or (port and not (port.isdecimal() and 0 < int(port) < 65_536)):  # noqa: PLR2004
            raise ValueError(f"{quoted(entry)} in url_allow_list is no host name or address with an optional port")
        return cls(host.lower().rstrip("."), int(port) if port else None)

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Return whether it allows this host and port."""
        if port != (self.port or _DEFAULT_PORTS[scheme]):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and host != self.host[1:] and _address(host) is None
        return host == self.host


class Fetcher:
    """Fetches pictures for the server.

    Args:
        allow_list: Hosts that may be fetched from; empty means none.
        max_bytes: The largest picture.
        timeout: Seconds for one whole picture.

    Raises:
        ValueError: An entry of the list cannot be read.
    """

    def __init__(self, allow_list: Iterable[str], *, max_bytes: int, timeout: float = 10.0) -> None:
        self._allowed = tuple(AllowedHost.parse(entry) for entry in allow_list)
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def fetch(self, url: str, body: HeldBody | None = None) -> bytes:
        """Return the bytes at ``url``.

        Args:
            url: Where they are.
            body: The memory that they take while they arrive; None: they are not counted.

        Raises:
            Refusal: -1308 for any failure, of which the log has the reason; 15: the memory is needed by others.
        """
        import httpx  # noqa: PLC0415 - a sixth of a server's start, and most fetch nothing

        try:
            with _arriving(body), anyio.fail_after(self._timeout):
                target = self._allow(httpx.URL(url))
                return await self._get(target, await self._resolve(target), body)
        except (_Refused, OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            # OSError is also timeouts and unknown names, ValueError a host that cannot be a name.
            note_reason(f"a picture was not fetched: {str(error) or type(error).__name__}")
            raise Refusal(ReturnCode.ERROR_DOWNLOAD_IMAGE_FAILED) from None

    def _allow(self, target: httpx.URL) -> httpx.URL:
        if target.scheme in _DEFAULT_PORTS and not target.userinfo:
            port = target.port or _DEFAULT_PORTS[target.scheme]
            if any(entry.matches(target.scheme, _host(target), port) for entry in self._allowed):
                return target
        raise _Refused("its host is not allowed by url_allow_list (--allow-url)")

    async def _resolve(self, target: httpx.URL) -> str:
        """Return the address to connect to: a public one, unless the list names the very address."""
        host = _host(target)
        if _address(host) is not None:
            return host  # listed itself: no other entry matches an address
        infos = await _names.run(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in infos]
        for text in addresses:
            address = _address(text)
            if address is None or not _is_public(address):
                raise _Refused("its name leads to an address that is not public")
        return addresses[0]

    async def _get(self, target: httpx.URL, address: str, body: HeldBody | None) -> bytes:
        import httpx  # noqa: PLC0415 - as above

        # The connection goes to the address that was checked: a second look-up could return another one.
        request = httpx.Request(
            "GET",
            target.copy_with(host=address),
            headers={"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity", "Connection": "close"},
            extensions={"sni_hostname": _host(target), "timeout": httpx.Timeout(self._timeout).as_dict()},
        )
        async with httpx.AsyncHTTPTransport(verify=_tls(), trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            try:
                if response.status_code != _OK:  # redirects included: they could lead anywhere
                    raise _Refused(f"HTTP status {response.status_code}")
                return await self._read(response, body)
            finally:
                await response.aclose()

    async def _read(self, response: httpx.Response, body: HeldBody | None) -> bytes:
        content, taken = bytearray(), int(response.headers.get("Content-Length", 0))
        if taken > self._max_bytes:
            raise _Refused("it is too large")
        if body is not None:
            body.take(taken)
        with anyio.CancelScope() as reading:
            async for chunk in response.aiter_raw():
                content += chunk
                if body is not None:
                    body.take(max(0, len(content) - taken))
                taken = max(taken, len(content))
                if len(content) > self._max_bytes:
                    reading.cancel()  # not "break": httpx's generators left half-way are a warning on trio
        if len(content) > self._max_bytes:
            raise _Refused("it is too large")
        return bytes(content)


@contextlib.contextmanager
def _arriving(body: HeldBody | None) -> Generator[None]:
    if body is None:
        yield
        return
    with body.arriving():
        body.take(CONNECTION_BYTES)
        try:
            yield
        finally:
            body.take(-CONNECTION_BYTES)


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").lower().strip("[]").rstrip(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that carry an IPv4 address lead to it.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return _is_public(inner)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@functools.cache
def _tls() -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - as above

    return httpx.create_ssl_context(trust_env=False)  # loads the certificates once: 20 ms and more
