"""Runs that are context managers: what is entered twice raises, and what is never entered warns."""

from __future__ import annotations

import warnings
from typing import TypeVar

RunT = TypeVar("RunT", bound="EnteredOnce")


class EnteredOnce:
    """Base of runs that begin when their block is entered, and can do so once.

    Args:
        name: What to call the run in messages.
        use: The block that enters it, as an example.
    """

    _entered: bool | None = None  # None while it is not made: its arguments may be refused

    def __init__(self, name: str, use: str) -> None:
        self._name = name
        self._use = use
        self._entered = False

    def enter_once(self) -> None:
        """Note that the block is entered.

        Raises:
            RuntimeError: It was entered before.
        """
        if self._entered:
            raise RuntimeError(f"{self._name} can be entered once; make a new one for every block: {self._use}")
        self._entered = True

    def check_entered(self) -> None:
        """Check that the block was entered.

        Raises:
            RuntimeError: It was not.
        """
        if not self._entered:
            raise RuntimeError(f"{self._name} is a context manager: {self._use}")

    @staticmethod
    def hold(part: RunT) -> RunT:
        """Return another run, which will be entered by this one, and warns no more by itself."""
        part._entered = None  # noqa: SLF001 - a run like this one
        return part

    def __del__(self) -> None:
        if self._entered is False:
            message = f"{self._name} was never entered, so nothing was done: {self._use}"
            warnings.warn(message, RuntimeWarning, stacklevel=2, source=self)
