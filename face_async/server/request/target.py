"""Where a request goes: targets in absolute form, as HTTP proxies get them, and paths with a slash too many.

Clients that were told of an HTTP proxy (``http_proxy``, ``setProxy``) send ``POST http://host/face/identify``, which
every server must accept (RFC 9112, 3.2.2). So a client whose proxy this server is reaches it whatever address it was
built with. Nothing is ever forwarded: targets outside of ``/face/`` and CONNECT are refused, with a status that says so
to HTTP clients of every kind, and an envelope.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen

from face_async.errors import ReturnCode
from face_async.server.envelope import envelope

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROOT = "/face/"
"""What the paths of all endpoints begin with."""

_ABSOLUTE = re.compile(r"https?://[^/]*", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")

_FORBIDDEN = 403
_METHOD_NOT_ALLOWED = 405


@frozen
class Targets:
    """Hands requests on with the path that they mean, and refuses what is for a proxy that forwards."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "CONNECT":
            # A status of success would turn the connection into a tunnel (RFC 9110, 9.3.6).
            refused = envelope(ReturnCode.BAD_REQUEST, {}, status=_METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
            await refused(scope, receive, send)
        else:
            await self._hand_on(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        absolute = _ABSOLUTE.match(scope["path"])
        path = meant(scope["path"][absolute.end() :] if absolute else scope["path"])
        if absolute and not path.startswith(ROOT):
            await envelope(ReturnCode.BAD_REQUEST, {}, status=_FORBIDDEN)(scope, receive, send)
        elif path == scope["path"]:
            await self.app(scope, receive, send)
        else:
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)


def meant(path: str) -> str:
    """Return a path without slashes that are doubled or trail; only an endpoint's, any other as it is."""
    single = _SLASHES.sub("/", path)
    return single.rstrip("/") if single.startswith(ROOT) and single != ROOT else path
