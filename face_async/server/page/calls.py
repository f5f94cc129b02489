"""The page's calls of the endpoints: the body as the browser sent it, signed here, to the application itself."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from face_async.server.request.target import ROOT
from face_async.signature import MAX_NONCE, sign

if TYPE_CHECKING:
    from starlette.types import Scope

    from face_async.server.guard import Account

_OF_THE_BODY = {b"content-type", b"content-length", b"transfer-encoding"}
_OF_THE_CONNECTION = ("type", "asgi", "http_version", "method", "scheme", "client", "server")


def signed_scope(scope: Scope, endpoint: str, account: Account) -> Scope:
    """Return the ASGI scope of a call that an account makes, by that of the request that asked for it."""
    authorization = sign(
        account.credentials,
        appid=account.appid,
        bucket=account.buckets[0],
        now=int(time.time()),
        nonce=secrets.randbelow(MAX_NONCE + 1),
    )
    of_body = [(name, value) for name, value in scope["headers"] if name in _OF_THE_BODY]
    path = f"{ROOT}{endpoint}"
    return {
        **{name: scope[name] for name in _OF_THE_CONNECTION},
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*of_body, (b"authorization", authorization.encode())],
    }
