"""The state and the result of a run: its summary, and the file of failures."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

from face_async.ingest import queries
from face_async.ingest.journal import Journal, State, journals
from face_async.ingest.output_file import OutputFile
from face_async.ingest.tables.spreadsheets import SheetWriter

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from sqlite3 import Connection

    from face_async.ingest.journal import Unit

Phase: TypeAlias = Literal["listing", "sending", "waiting", "stopping", "ended"]
"""What a run does: it waits while the service is away, and stops once it was told to."""

FAILURE_COLUMNS = ("person_id", "source", "code", "reason")
"""The columns of the file of failures."""


@frozen
class Summary:
    """The state of a run. The counts are the journal's, so those of former runs are among them.

    Attributes:
        phase: What the run does.
        listed: Rows that this run has listed, bad ones among them.
        pending: Pictures to be sent; after a dry run, those that would be.
        ambiguous: Pictures that may have been added; the next run finds out.
        done: Pictures that were added.
        failed: Pictures that were not.
        collapsed: Rows with the same picture as another row of the person.
        bad_rows: Rows that are not a picture of a person.
        codes: Pictures that were not added, or may have been, by code or word.
        added: Pictures that were added by this run.
        added_bytes: Bytes of their files.
        seconds: Seconds since the run began, without the listing.
        away: Why the service is waited for, None while it is not.
        passed_over: Files and folders that this run has passed over, as systems and programs leave them in folders.
    """

    phase: Phase
    listed: int
    pending: int
    ambiguous: int
    done: int
    failed: int
    collapsed: int
    bad_rows: int
    codes: Mapping[str, int]
    added: int
    added_bytes: int
    seconds: float
    away: str | None
    passed_over: int = 0

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


class Progress:
    """What a run counts while it goes on."""

    def __init__(self) -> None:
        self.phase: Phase = "listing"
        self.listed = 0
        self.passed_over = 0
        self._states: Counter[State] = Counter()
        self._codes: Counter[str] = Counter()
        self._bad_rows = 0
        self._added = 0
        self._added_bytes = 0
        self._began = 0.0
        self._ended = 0.0

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        if phase == "sending":
            self._began = time.monotonic()
        elif phase == "ended":
            self._ended = time.monotonic()

    def pass_over(self, path: str) -> None:
        """Count a file or folder that a system or a program has left in a folder."""
        del path
        self.passed_over += 1

    def recount(self, db: Connection) -> None:
        """Take the counts from the journal."""
        self._states.clear()
        self._codes.clear()
        for state, code, count in queries.count_units(db):
            self._states[state] += count
            if code is not None and state in {State.FAILED, State.AMBIGUOUS}:
                self._codes[code] += count
        self._bad_rows = queries.count_bad_rows(db)

    def count(self, units: Sequence[Unit], *, in_doubt: bool) -> None:
        """Count units that have come to an end; they were PENDING or in doubt before."""
        self._states[State.AMBIGUOUS if in_doubt else State.PENDING] -= len(units)
        self._states.update(unit.state for unit in units)
        self._codes.update(unit.code for unit in units if unit.code is not None)
        done = [unit for unit in units if unit.state is State.DONE]
        self._added += len(done)
        self._added_bytes += sum(unit.size for unit in done)

    def summary(self, *, stopping: bool, away: str | None) -> Summary:
        """Return the state of the run."""
        phase = self.phase
        if phase != "ended":
            phase = "stopping" if stopping else "waiting" if away is not None else phase
        states = self._states
        return Summary(
            phase=phase,
            listed=self.listed,
            pending=states[State.PENDING],
            ambiguous=states[State.AMBIGUOUS] + states[State.INTENT],
            done=states[State.DONE],
            failed=states[State.FAILED],
            collapsed=states[State.COLLAPSED],
            bad_rows=self._bad_rows,
            codes=dict(self._codes),  # a plain dict, so that a summary can be pickled
            added=self._added,
            added_bytes=self._added_bytes,
            seconds=((self._ended or time.monotonic()) - self._began) if self._began else 0.0,
            away=away,
            passed_over=self.passed_over,
        )


async def write_failures(
    journal: Journal | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> int:
    """Write everything that failed, or is in doubt, into a CSV file for spreadsheets; return how many rows it has.

    Its columns are ``person_id, source, code, reason``. Bad rows have no person, the file and line as their source,
    and the code ``row``. It begins with a byte order mark, and what would be a formula has an apostrophe before it.

    Args:
        journal: A journal's file that no run has in use, or an open journal.
        path: The file to write, with mode 0600; one that is there is replaced once all is written.
        sources: Manifests and folders of pictures, in which nothing may be written.

    Raises:
        JournalError: The journal cannot be read.
        OutputError: It would be written over a source, a journal, a database, a picture, a program, or whatever is no
            regular file.
        OSError: The file cannot be written.
    """
    if isinstance(journal, Journal):
        kept = (*sources, journal.path)
        return await journals.run(
            journal.do_now, lambda db: write_failure_rows(queries.failures(db), path, sources=kept)
        )
    async with Journal(journal, None) as opened:
        return await write_failures(opened, path, sources=sources)


def write_failure_rows(
    failures: Iterable[queries.Failure],
    path: str | os.PathLike[str],
    *,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> int:
    """Write what failed, wherever it is noted, as :func:`write_failures` does. Blocks."""
    # A file's name need not be text in any encoding.
    with OutputFile(path, sources=sources, newline="", errors="backslashreplace") as output:
        table = SheetWriter(output.file, FAILURE_COLUMNS)
        count = 0
        for count, row in enumerate(failures, 1):  # noqa: B007 - the last one is the count
            table.write(row)
    return count
