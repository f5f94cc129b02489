"""From parsed JSON to results."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import cattrs

T = TypeVar("T")


class SchemaViolation(Exception):  # noqa: N818 - it becomes a ResponseError, which knows the endpoint
    """JSON does not have the structure that a result needs.

    Attributes:
        path: Where, such as ``"$.data.candidates[0].confidence"``.
        problem: What is wrong there.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{problem} at {path}")
        self.path = path
        self.problem = problem


def structure(value: object, kind: type[T], path: str) -> T:
    """Build a result of class ``kind`` from parsed JSON, coercing nothing and ignoring unknown fields.

    Args:
        value: The parsed JSON.
        kind: A class of this module, or a tuple of str.
        path: Where in the answer ``value`` stands, for the error.

    Raises:
        SchemaViolation: The JSON has another structure; the error tells the first place that is wrong.
    """
    fast, diagnose = _converters()
    try:
        return fast.structure(value, kind)
    except Exception:  # noqa: BLE001 - the other converter tells what is wrong, and where
        problem, where = diagnose(value, kind, path)
    raise SchemaViolation(where, problem)


@cache
def _converters() -> tuple[cattrs.Converter, Callable[[object, type[object], str], tuple[str, str]]]:
    # Importing cattrs and making the converters is an eighth of what importing the package would cost.
    from face_async.models.converters import diagnose, fast  # noqa: PLC0415

    return fast, diagnose
