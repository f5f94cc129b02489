"""Who may use the page: whoever opens its link, once, and then has a cookie; and no page of another site.

- The link holds a token that is good once; whoever shows it gets a session, in a cookie that scripts cannot read.
- The Host of a request must be an address of this machine or a name that is allowed. Otherwise a site whose name is
  made to lead here (DNS rebinding) would be of the page's own origin.
- A request with an effect must come from the page's own origin, by Origin and Sec-Fetch-Site, and show the session's
  second token, which only the page's own scripts can read.

Tokens and cookies are derived from a key by HMAC-SHA256, so that every process of a server knows each session without
being told of it. All that the processes share is the count of links that have been used.
"""

from __future__ import annotations

import hmac
import ipaddress
import multiprocessing
import re
import secrets
import threading
import time
from ctypes import c_uint64
from multiprocessing.sharedctypes import RawValue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from face_async.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.requests import Request

PAGE_ROOT = "/ui"
"""Where the page is: all that is below is its own, and all else the application's."""

SESSION_SECONDS = 12 * 60 * 60
"""How long a session lasts after its link was opened, in seconds."""

MAX_SESSIONS = 16
"""How many sessions there may be at once; one more ends the oldest."""

FORGERY_HEADER = "X-CSRF-Token"
"""The header that shows a session's second token."""

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_LOCK_SECONDS = 1.0  # a process that is killed with the lock never gives it back


class PageAccess:
    """The sessions of one page, in one process or, handed to workers as they start, in several.

    Args:
        hosts: Names by which browsers may ask for the page, at any port; addresses and ``localhost`` always may.
        shared: Whether several processes serve the page.

    Raises:
        ValueError: One of the hosts is no name of a host.

    Attributes:
        cookie: The name of the cookie.
        on_link: Called in the process where a link has been used, with the one that is good then.
    """

    def __init__(self, hosts: Iterable[str] = (), *, shared: bool = False) -> None:
        self._hosts = {"localhost", *map(_checked, hosts)}
        self._key = secrets.token_bytes(32)
        self._used = RawValue(c_uint64, 0) if shared else c_uint64(0)
        self._lock = multiprocessing.get_context("spawn").Lock() if shared else threading.Lock()
        # Cookies know no ports: pages of several servers on one machine need names of their own.
        self.cookie = f"face_async_{secrets.token_hex(4)}"
        self.on_link: Callable[[str], object] | None = None

    @property
    def link(self) -> str:
        """The path that opens the page; it is good once, and then another one is."""
        return f"{PAGE_ROOT}/?token={self._derived('link', self._used.value)}"

    def announce(self, tell: Callable[[str], object]) -> None:
        """Tell the link, and each that follows when one has been used."""
        self.on_link = tell
        tell(self.link)

    def open(self, token: str) -> str | None:
        """Return a new session's cookie for the token of the link, which is then used up; None for any other text."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return None
        try:
            if not _same(token, self._derived("link", self._used.value)):
                return None
            self._used.value += 1
            session = f"{self._used.value}.{int(time.monotonic()) + SESSION_SECONDS}"
        finally:
            self._lock.release()
        if self.on_link is not None:
            self.on_link(self.link)
        return f"{session}.{self._derived('session', session)}"

    def second_token(self, request: Request) -> str | None:
        """Return the second token of the session that a request belongs to; None when it belongs to none."""
        session, _, proof = request.cookies.get(self.cookie, "").rpartition(".")
        if not _same(proof, self._derived("session", session)):
            return None
        number, end = map(int, session.split("."))
        is_kept = number > self._used.value - MAX_SESSIONS and time.monotonic() < end
        return self._derived("second", session) if is_kept else None

    def is_for_us(self, request: Request) -> bool:
        """Return whether the Host of a request is one by which the page may be asked for."""
        try:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        except ValueError:  # a bracket that is not closed
            return False
        return name in self._hosts or _is_address(name)

    def is_ours(self, request: Request) -> bool:
        """Return whether a request with an effect comes from the page itself."""
        headers, token = request.headers, self.second_token(request)
        return (
            token is not None
            and headers.get("origin") in {f"{scheme}://{headers.get('host')}" for scheme in ("http", "https")}
            and headers.get("sec-fetch-site", "same-origin") == "same-origin"
            and _same(headers.get(FORGERY_HEADER, ""), token)
        )

    def _derived(self, purpose: str, what: object) -> str:
        return hmac.digest(self._key, f"{purpose} {what}".encode(), "sha256").hex()


def _checked(host: str) -> str:
    name = host.lower()
    if not (_HOST.fullmatch(name) or _is_address(name)):
        raise ValueError(
            f"{quoted(host)} is no name of a host: write it without scheme, port and path, such as "
            "'faces.example.com', other letters than English ones as 'xn--…'"
        )
    return name


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
