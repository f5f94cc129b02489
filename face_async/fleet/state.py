"""The state of a run: a folder that the driver and all workers see.

::

    plan.json               what the run is, made last: a plan without it is none
    plan/00017.jsonl        the rows of part 17
    begun/00017             part 17 was begun
    journals/00017.journal  its journal
    progress/00017.json     its summary, a few seconds old
    units/00017.jsonl       what became of each picture
    done/00017.json         its result, made last: a part without it is to be begun again

Everything but a journal is made under another name and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from face_async.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import Generator


class StateError(FaceError):
    """The state cannot be used: it is another run's, or something is missing in it."""


def part_name(kind: str, rank: int, suffix: str = "") -> str:
    """Return the name of a part's file in a state."""
    return f"{kind}/{rank:05}{suffix}"


class StateFolder:
    """The state in a folder, on this machine's disk or one that all machines share.

    Args:
        location: The folder; made when there is none.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._folder = Path(os.path.abspath(location))  # noqa: PTH100 - resolve() would follow links, which may differ

    @property
    def location(self) -> str:
        """Where it is, for workers to open it."""
        return str(self._folder)

    def exists(self, name: str) -> bool:
        """Return whether something of this name was published."""
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes | None:
        """Return what was published under a name, None if nothing was."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def publish(self, name: str, content: bytes) -> None:
        """Make a file at once and as a whole, over one that is there."""
        with self.writing(name) as path:
            path.write_bytes(content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Generator[Path]:
        """Yield a file to write, which is published when the block ends, and gone if it ends with an error."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid4().hex}")
        try:
            yield draft
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing_all(self, kind: str) -> Generator[Path]:
        """Yield a folder to write a file for each part; they are published when the block ends without an error."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{kind}.{uuid4().hex}"
        draft.mkdir()
        try:
            yield draft
            (self._folder / kind).mkdir(exist_ok=True)
            for file in draft.iterdir():
                file.replace(self._folder / kind / file.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextlib.contextmanager
    def reading(self, name: str) -> Generator[Path]:
        """Yield the file of what was published under a name."""
        yield self._folder / name

    def journal(self, rank: int) -> Path:
        """Return the file of a part's journal."""
        path = self._folder / part_name("journals", rank, ".journal")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def open_state(location: str | os.PathLike[str]) -> StateFolder:
    """Return the state of a run.

    Args:
        location: A folder.
    """
    return StateFolder(location)
