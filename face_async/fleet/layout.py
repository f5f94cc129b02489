"""What is where in the state of a run, and what every kind of place for one can do.

::

    plan.json               what the run is, made last: a plan without it is none
    plan/00017.jsonl        the rows of part 17
    journals/00017.journal  its journal
    progress/00017.json     its summary, a few seconds old
    units/00017.jsonl       what became of each picture
    failures/00017.jsonl    what failed of it, and why
    done/00017.json         its result, made last: a part without it is to be begun again
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Protocol, cast

from face_async import FaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from pathlib import Path


class StateError(FaceError):
    """The state cannot be used: it is another run's, another driver has it, or something is missing in it."""


def part_name(kind: str, rank: int, suffix: str = "") -> str:
    """Return the name of a part's file in a state."""
    return f"{kind}/{rank:05}{suffix}"


@contextlib.contextmanager
def reporting_damage(location: str, name: str, *, remove: str = "") -> Generator[None]:
    """Make what fails within the block, when something in a state is not what was published, say so.

    Args:
        location: The state.
        name: What is read.
        remove: What is made again when it is missing, by which the run can go on; by default ``name`` itself.

    Raises:
        StateError: It is damaged, or another version's.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"{location}: {name} is damaged, or of another version: {error}; remove {remove or name} and run again"
        ) from None


def lines_of(state: RunState, name: str, values: int, *, remove: str = "") -> Generator[list[object]]:
    """Yield the lines of a file in a state, each a list of so many values; none if nothing of this name was published.

    Raises:
        StateError: One is damaged (see :func:`reporting_damage`).
    """
    if not state.exists(name):
        return
    with state.reading(name) as path, path.open("rb") as file:
        for line in file:
            with reporting_damage(state.location, name, remove=remove):
                found: object = json.loads(line)
                row = cast("list[object]", found) if isinstance(found, list) else []
                if len(row) != values:
                    raise ValueError(f"a line has not {values} values")
            yield row


class RunState(Protocol):
    """The state of a run, in a folder or in object storage. Whatever has a name in it is made as a whole."""

    @property
    def location(self) -> str:
        """Where it is, for workers to open it."""
        ...

    def driving(self) -> AbstractContextManager[Callable[[], None]]:
        """Let nobody else drive the run within the block; yield what checks that this still is so.

        Raises:
            StateError: Another driver has it; from the check: another driver has taken it over.
        """
        ...

    def exists(self, name: str) -> bool:
        """Return whether something of this name was published."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return what was published under a name, None if nothing was."""
        ...

    def publish(self, name: str, content: bytes) -> None:
        """Publish something that may get lost, over what is there."""
        ...

    def publish_once(self, name: str, content: bytes) -> bool:
        """Publish something unless there is something by this name; return whether it was published."""
        ...

    def withdraw(self, name: str) -> None:
        """Take back what was published under a name, if anything was."""
        ...

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yield a file to write, which is published when the block ends, and gone if it ends with an error."""
        ...

    def writing_parts(self, kind: str) -> AbstractContextManager[tuple[Path, str]]:
        """Yield a folder to write a file for each part, and under which name they are published at the block's end."""
        ...

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yield a file with what was published under a name."""
        ...

    def journal(self, rank: int) -> PartJournal:
        """Return the journal of a part."""
        ...


class PartJournal(Protocol):
    """The journal of a part, which one worker at a time writes.

    Attributes:
        copy_every: After how many seconds a copy is to be published, None if none is needed.
    """

    copy_every: float | None

    @property
    def is_held(self) -> bool:
        """Whether no other worker can have taken the part over; once it is not, nothing more may be sent."""
        ...

    def holding(self) -> AbstractContextManager[Path]:
        """Have the journal to oneself within the block; yield its file, which is missing if it is new or was lost.

        Raises:
            JournalInUseError: Another worker has it.
        """
        ...

    def lost(self) -> tuple[bool, Path | None]:
        """Return whether the journal was lost with its worker, and an earlier copy of it if there is one."""
        ...

    def publish_copy(self, copy: Path) -> None:
        """Publish a copy of the journal as it is now."""
        ...
