"""The state of a run in a folder that the driver and all workers see; see :mod:`face_async.fleet.layout`.

There are two files more: ``begun/00017``, by which a journal that is missing is one that was lost, and ``driver.lock``.
Everything but a journal is made under another name, and gets its own when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from face_async.fleet.layout import StateError, part_name
from face_async.fleet.objects import ObjectState
from face_async.ingest.objects import is_object_url

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from face_async.fleet.layout import RunState


_DRAFT = ".parts."


class StateFolder:
    """The state in a folder, on this machine's disk or one that all machines share.

    Args:
        location: The folder; made when there is none.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._folder = Path(os.path.abspath(location))  # noqa: PTH100 - resolve() would follow links, which may differ

    @property
    def location(self) -> str:
        """As :class:`RunState` has it, like all below."""
        return str(self._folder)

    @contextlib.contextmanager
    def driving(self) -> Generator[Callable[[], None]]:
        """Hold the lock of a file, which ends with the process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._folder / "driver.lock", timeout=0, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise StateError(f"{self.location} is in use by another driver ({error}); wait for it to end") from None
            for left in self._folder.glob(f"{_DRAFT}*"):  # of a driver that was killed, as no other is here
                shutil.rmtree(left, ignore_errors=True)
            yield lambda: None

    def exists(self, name: str) -> bool:
        """Look for the file."""
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes | None:
        """Read the file."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def publish(self, name: str, content: bytes) -> None:
        """Write a draft, and rename it."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def publish_once(self, name: str, content: bytes) -> bool:
        """Write a draft, and link it, which is never done over a file that is there."""
        with self._draft(name) as (draft, target):
            draft.write_bytes(content)
            try:
                target.hardlink_to(draft)
            except FileExistsError:
                return False
        return True

    def withdraw(self, name: str) -> None:
        """Unlink the file."""
        (self._folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, name: str) -> Generator[Path]:
        """Yield a draft, and rename it."""
        with self._draft(name) as (draft, target):
            yield draft
            draft.replace(target)

    @contextlib.contextmanager
    def _draft(self, name: str) -> Generator[tuple[Path, Path]]:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid4().hex}")
        try:
            with _named(target):
                yield draft, target
        finally:
            draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing_parts(self, kind: str) -> Generator[tuple[Path, str]]:
        """Yield a folder of drafts, and rename them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"{_DRAFT}{uuid4().hex}"
        draft.mkdir()
        try:
            with _named(self._folder / kind):
                yield draft, kind
            (self._folder / kind).mkdir(exist_ok=True)
            for file in draft.iterdir():
                file.replace(self._folder / kind / file.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextlib.contextmanager
    def reading(self, name: str) -> Generator[Path]:
        """Yield the file itself."""
        yield self._folder / name

    def journal(self, rank: int) -> _FolderJournal:
        """Return the journal, which is in the folder."""
        return _FolderJournal(self, self._folder / part_name("journals", rank, ".journal"), part_name("begun", rank))


class _FolderJournal:
    """A journal that its own lock guards, which ends with its worker."""

    copy_every: float | None = None
    is_held = True

    def __init__(self, state: StateFolder, path: Path, begun: str) -> None:
        self._state = state
        self._path = path
        self._begun = begun
        self._lost = False

    @contextlib.contextmanager
    def holding(self) -> Generator[Path]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # What was begun and has no journal has lost it.
        self._lost = not self._state.publish_once(self._begun, b"") and not self._path.exists()
        yield self._path

    def lost(self) -> tuple[bool, Path | None]:
        return self._lost, None

    def publish_copy(self, copy: Path) -> None:
        raise NotImplementedError(f"{copy} is a copy of what the folder has itself")


@contextlib.contextmanager
def _named(path: Path) -> Generator[None]:
    """Give an error its file's name, which that of a full disk does not have."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def open_state(location: str | os.PathLike[str], *, check: bool = False) -> RunState:
    """Return the state of a run.

    Args:
        location: A folder, or a URL of object storage (extra ``fleet``).
        check: Asks at once whether object storage can be used, without the patience that workers have.

    Raises:
        ValueError: It is a wrong URL, or has credentials in it.
        ModuleNotFoundError: It is a URL, and obstore is missing.
        ObjectStorageError: The storage cannot be used.
    """
    name = os.fspath(location)
    return ObjectState(name, check=check) if is_object_url(name) else StateFolder(location)
