"""What a run has come to: the summary, and the file of failures."""

from __future__ import annotations

import csv
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

from face_async.ingest import journal as notes
from face_async.ingest.journal import Journal

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from sqlite3 import Connection

Phase: TypeAlias = Literal["listing", "sending", "waiting", "stopping", "ended"]
"""What a run does: it waits while the service is away, and stops once it was told to."""

FAILURE_COLUMNS = ("person_id", "source", "code", "reason")
"""The columns of the file of failures."""


@frozen
class Summary:
    """How a run stands. The counts are the journal's, so those of former runs are among them.

    Attributes:
        phase: What the run does.
        listed: Rows that this run has listed, bad ones among them.
        pending: Pictures to be sent; after a dry run, those that would be.
        ambiguous: Pictures that may have been added; the next run finds out.
        done: Pictures that were added.
        failed: Pictures that were not.
        collapsed: Rows with the same picture as another row of the person.
        bad_rows: Rows that are no picture of anybody.
        codes: Pictures that were not added, or may have been, by code or word.
        added: Pictures that were added by this run.
        added_bytes: Bytes of their files.
        seconds: Seconds since the run began, without the listing.
        away: Why the service is waited for, None while it is not.
    """

    phase: Phase = "listing"
    listed: int = 0
    pending: int = 0
    ambiguous: int = 0
    done: int = 0
    failed: int = 0
    collapsed: int = 0
    bad_rows: int = 0
    codes: Mapping[str, int] = MappingProxyType({})
    added: int = 0
    added_bytes: int = 0
    seconds: float = 0.0
    away: str | None = None

    @property
    def total(self) -> int:
        """All pictures, whatever their state; each counts once."""
        return self.pending + self.ambiguous + self.done + self.failed

    @property
    def complete(self) -> bool:
        """Whether every row's picture was added."""
        return self.done == self.total and not self.bad_rows

    @property
    def faces_per_second(self) -> float:
        """Pictures that this run adds a second."""
        return self.added / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes of files that this run adds a second."""
        return self.added_bytes / self.seconds if self.seconds else 0.0


async def write_failures(journal: Journal | str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Write everything that failed, or is in doubt, into a CSV file, and return how many rows it has.

    Its columns are ``person_id, source, code, reason``. Bad rows have no person, the file and line as their source,
    and the code ``row``.

    Args:
        journal: A journal's file that no run has in use, or an open journal.
        path: The file to write, over one that is there.

    Raises:
        JournalError: The journal cannot be read.
        OSError: The file cannot be written.
    """
    if isinstance(journal, Journal):
        return await journal.do(lambda db: _write(db, Path(path)))
    async with Journal(journal, None) as opened:
        return await write_failures(opened, path)


def _write(db: Connection, path: Path) -> int:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FAILURE_COLUMNS)
        count = 0
        for count, row in enumerate(notes.failures(db), 1):  # noqa: B007 - the last one is the count
            writer.writerow(row)
    return count
