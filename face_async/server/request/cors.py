"""Which web pages may call the endpoints: browsers ask, by CORS (Fetch Standard, 3.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from face_async.errors import ReturnCode, quoted
from face_async.server.envelope import envelope
from face_async.server.request.target import ROOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from starlette.datastructures import Headers
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_ORIGIN = re.compile(r"\*|null|([a-z][a-z0-9+.-]*://)([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
_DEFAULT_PORTS = {"http://": ":80", "https://": ":443"}
_SUCCESS = 200


def check_origins(origins: Iterable[str]) -> list[str]:
    """Return origins such as ``"https://example.com"`` or ``"http://localhost:3000"``; ``"*"`` is all.

    They are returned as browsers send them: in small letters, and without the port that the scheme implies.

    Raises:
        ValueError: One of them is no origin.
    """
    return [_as_sent(origin) for origin in origins]


def _as_sent(origin: str) -> str:
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        raise ValueError(
            f"{quoted(origin)} is no origin: write scheme and host alone, such as 'https://example.com', "
            "each by itself, other letters than English ones as 'xn--…'; or '*' for all"
        )
    scheme, port = found[1], found[3]
    return found[0].removesuffix(port) if port and port == _DEFAULT_PORTS.get(scheme) else found[0]


class Cors(CORSMiddleware):
    """Lets pages of some origins call the endpoints; a signature, and never a cookie, says for whom."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=["POST"], allow_headers=["*"], expose_headers=["Date"]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of ASGI."""
        if scope["type"] == "http" and scope["path"].startswith(ROOT):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight; a refusal is an envelope without leave, as for any other method than POST."""
        response = super().preflight_response(request_headers)
        if response.status_code == _SUCCESS:
            return response
        return envelope(ReturnCode.BAD_REQUEST, {}, headers={"Vary": response.headers["vary"]})
