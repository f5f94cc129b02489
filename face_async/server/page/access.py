"""Who may use the page: whoever opens its link, once, and then has a cookie; and no page of another site.

- The link holds a token that is good once; whoever shows it gets a session, in a cookie that scripts cannot read.
- The Host of a request must be an address of this machine or a name that is allowed. Otherwise a site whose name is
  made to lead here (DNS rebinding) would be of the page's own origin.
- A request with an effect must come from the page's own origin, by Origin and Sec-Fetch-Site, and show the session's
  second token, which only the page's own scripts can read.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cachetools import TTLCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

SESSION_SECONDS = 12 * 60 * 60
"""How long a session lasts after its link was opened, in seconds."""

MAX_SESSIONS = 16
"""How many sessions there may be at once; one more ends the oldest."""

FORGERY_HEADER = "X-CSRF-Token"
"""The header that shows a session's second token."""


class PageAccess:
    """The sessions of one page.

    Args:
        hosts: Names by which browsers may ask for the page; addresses and ``localhost`` always may.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._sessions: TTLCache[str, str] = TTLCache[str, str](MAX_SESSIONS, SESSION_SECONDS)
        # Cookies know no ports: pages of several servers on one machine need names of their own.
        self.cookie = f"face_async_{secrets.token_hex(4)}"
        self.token = secrets.token_urlsafe(32)

    def open(self, token: str) -> str | None:
        """Return a new session's cookie for the token of the link, which is then used up; None for any other text."""
        if not _same(token, self.token):
            return None
        self.token = secrets.token_urlsafe(32)
        session = secrets.token_urlsafe(32)
        self._sessions[session] = secrets.token_urlsafe(32)
        return session

    def second_token(self, request: Request) -> str | None:
        """Return the second token of the session that a request belongs to; None when it belongs to none."""
        return self._sessions.get(request.cookies.get(self.cookie, ""))

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


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
