"""The refusal of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_async.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 - it becomes the answer's code; nothing is broken
    """A return code other than 0 for the request, or for one image of it.

    Attributes:
        code: The return code (Spec: 3).
        data: Further values in the answer's ``data``.
        retry_after: Seconds after which the same request may succeed, which the answer's Retry-After says; None: never.
    """

    def __init__(self, code: int, data: Mapping[str, object] | None = None, *, retry_after: int | None = None) -> None:
        self.code = CODES[code]
        super().__init__(f"{code} {self.code.name}")
        self.data = dict(data or {})
        self.retry_after = retry_after
