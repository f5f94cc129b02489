"""The state of a run in object storage; see :mod:`face_async.fleet.layout`.

Other than in a folder, nothing can be renamed, locked or changed in place there:

- The parts of a plan are below ``plan/ID/``, and plan.json, which is made once, has the ID.
- ``claims/00017`` and ``claims/driver`` are what locks are in a folder (see :mod:`face_async.fleet.claims`).
- A worker has a journal on its own disk. It publishes copies, as ``journals/00017-ID.journal``, and notes in its claim
  where the latest one is. Whoever takes over the claim of one who has died goes on with that copy, with everything in
  doubt that had not come to an end by then. Nobody else writes below the ID of a claim, so that a worker that only
  seemed to be dead spoils nothing.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from face_async.fleet.claims import Claim
from face_async.fleet.layout import StateError, part_name
from face_async.ingest import JournalInUseError
from face_async.ingest.objects import ObjectFolder, ObjectStorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_DRIVER = "claims/driver"
_LOOK_EVERY = 0.5
_COPY_EVERY = 30.0
_SENT_AT_ONCE = 16


class ObjectState:
    """The state below a URL of object storage.

    Args:
        url: The URL; the bucket must be there.
        check: Asks at once whether the storage can be used.

    Raises:
        ValueError: It is a wrong URL, or has credentials in it.
        ModuleNotFoundError: obstore is missing (extra ``fleet``).
        ObjectStorageError: The storage cannot be used.
    """

    def __init__(self, url: str, *, check: bool = False) -> None:
        self._folder = ObjectFolder(url)
        if check:
            self._folder.check()

    @property
    def location(self) -> str:
        """As :class:`RunState` has it, like all below; the storage's errors are :class:`ObjectStorageError`."""
        return self._folder.url

    @contextlib.contextmanager
    def driving(self) -> Generator[Callable[[], None]]:
        """Hold the driver's claim."""
        claim = Claim(self._folder, _DRIVER)
        while (former := claim.take()) is None:
            if claim.other:
                raise StateError(f"{self.location} is in use by another driver ({claim.other}); wait for it to end")
            time.sleep(_LOOK_EVERY)
        try:
            # Asked once in a run: a storage that takes no notice of conditions would let two drivers have it.
            if former == "nobody" and not self._honors_conditions():
                raise StateError(
                    f"{self.location} cannot be the state of a run: its storage does not honor conditional writes"
                )
            yield lambda: self._check(claim)
        finally:
            claim.release()

    def _honors_conditions(self) -> bool:
        name = f"claims/{uuid4().hex}"
        try:
            return self._folder.create(name, b"1") is not None and self._folder.create(name, b"2") is None
        finally:
            self._folder.delete(name)

    def _check(self, claim: Claim) -> None:
        if not claim.is_held:
            raise StateError(
                f"{self.location} could not be reached for too long, or another driver has taken it over; run again"
            )

    def exists(self, name: str) -> bool:
        """Ask for the object."""
        return self._folder.has(name)

    def read(self, name: str) -> bytes | None:
        """Read the object."""
        return self._folder.get(name)

    def publish(self, name: str, content: bytes) -> None:
        """Put the object if that can be done at once: calls wait meanwhile."""
        with contextlib.suppress(ObjectStorageError):
            self._folder.put(name, content, hasty=True)

    def publish_once(self, name: str, content: bytes) -> bool:
        """Put the object on the condition that there is none."""
        return self._folder.create(name, content) is not None

    def withdraw(self, name: str) -> None:
        """Delete the object."""
        self._folder.delete(name)

    @contextlib.contextmanager
    def writing(self, name: str) -> Generator[Path]:
        """Yield a file on this disk, and put it."""
        with _scratch() as folder:
            yield folder / "draft"
            self._folder.put(name, folder / "draft")

    @contextlib.contextmanager
    def writing_parts(self, kind: str) -> Generator[tuple[Path, str]]:
        """Yield a folder on this disk, and put its files below an ID of their own."""
        below = f"{kind}/{uuid4().hex}"
        with _scratch() as folder:
            yield folder, below
            with ThreadPoolExecutor(_SENT_AT_ONCE) as senders:
                files = list(folder.iterdir())
                list(senders.map(self._folder.put, [f"{below}/{file.name}" for file in files], files))

    @contextlib.contextmanager
    def reading(self, name: str) -> Generator[Path]:
        """Yield a copy on this disk."""
        with _scratch() as folder:
            self._folder.fetch(name, folder / "copy")
            yield folder / "copy"

    def journal(self, rank: int) -> _ClaimedJournal:
        """Return the journal, which its claim guards."""
        return _ClaimedJournal(self._folder, rank)


class _ClaimedJournal:
    """A journal on this machine's disk, and its copies in object storage."""

    def __init__(self, folder: ObjectFolder, rank: int) -> None:
        self.copy_every: float | None = _COPY_EVERY
        self._folder = folder
        self._rank = rank
        self._claim = Claim(folder, part_name("claims", rank))
        self._name = part_name("journals", rank, f"-{uuid4().hex}.journal")
        self._former = ""  # the copy of whoever had it before
        self._lost: tuple[bool, Path | None] = (False, None)

    @property
    def is_held(self) -> bool:
        return self._claim.is_held

    @contextlib.contextmanager
    def holding(self) -> Generator[Path]:
        former = self._claim.take()
        if former is None:
            raise JournalInUseError(f"{self._folder.url}: another worker has part {self._rank}")
        try:
            with _scratch() as scratch:
                journal, copy = scratch / "journal", scratch / "copy"
                died, note = former == "lapsed", self._claim.note
                self._former = note
                known = bool(note) and self._folder.fetch(note, copy if died else journal)
                self._lost = died or bool(note and not known), copy if died and known else None
                yield from self._published(journal)
        finally:
            self._claim.abandon()

    def _published(self, journal: Path) -> Generator[Path]:
        try:
            yield journal
        finally:
            # Without a journal nothing is known of what was lost: then it stays lost.
            if self.is_held and (journal.exists() or not self._lost[0]):
                if journal.exists():
                    self.publish_copy(journal)
                former, self._former = self._former, ""
                self._claim.release()
                if former not in {"", self._name}:
                    self._folder.delete(former)

    def lost(self) -> tuple[bool, Path | None]:
        return self._lost

    def publish_copy(self, copy: Path) -> None:
        began = time.monotonic()
        self._folder.put(self._name, copy)
        self._claim.note = self._name
        self.copy_every = max(_COPY_EVERY, 20 * (time.monotonic() - began))  # which takes a twentieth of the time


@contextlib.contextmanager
def _scratch() -> Generator[Path]:
    with TemporaryDirectory(prefix="face_async-") as folder:
        yield Path(folder)
