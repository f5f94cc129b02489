"""The JSON envelope of every answer (Spec: 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face_async.errors import ReturnCode


def envelope(
    code: ReturnCode, data: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer with this code.

    The specification documents no HTTP status for errors: those of endpoints all come with status 200. Its members are
    in the order in which the hosted service was seen to send them.
    """
    return JSONResponse({"code": code, "message": code.name, "data": data}, status, headers)
