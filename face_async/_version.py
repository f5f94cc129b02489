"""Versions: the package's, and how a database of an earlier one is brought up to this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__version__ = "0.1.0"


class Migrations:
    """What each version of a database's layout adds to the one before.

    Args:
        *steps: SQL statements for each version, separated by semicolons at ends of lines. What was released once is
            never changed, since databases of all versions are opened.
    """

    def __init__(self, *steps: str) -> None:
        self._steps = steps

    @property
    def version(self) -> int:
        """The version that this package knows; 0 is an empty database."""
        return len(self._steps)

    def apply(self, found: int, execute: Callable[[str], object]) -> None:
        """Bring a database from the version ``found`` to this one, within a transaction of the caller's."""
        for step in self._steps[found:]:
            for statement in step.split(";\n"):
                if statement.strip():
                    execute(statement)

    def refusal(self, name: str, found: int) -> str | None:
        """Return why a database called ``name`` of the version ``found`` cannot be used, or None if it can."""
        if found <= self.version:
            return None
        return (
            f"{name} was written by a newer version of face_async (schema {found}, this one knows {self.version}): "
            "update face_async"
        )
