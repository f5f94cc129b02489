"""The shape that every answer has (Spec: 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from face_async.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Mapping


def envelope(
    code: int, data: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer with this code.

    The specification documents no HTTP status for errors: the server's own envelopes all come with status 200.
    """
    message = CODES[code].name if code else "OK"
    return JSONResponse({"data": data, "code": code, "message": message}, status, headers)
