"""One run of ``enroll``: what it is asked for, and its result."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import anyio
import typer
from attrs import define, field

from face_async.cli.enroll.output import (
    MOST_FAILURES,
    Display,
    as_json,
    say_summary,
    say_unit,
    tell_comparison,
    tell_differences,
    tell_failures,
)
from face_async.cli.exits import Exit, exit_code, fail, one_line
from face_async.cli.output import say_json_line, tell
from face_async.cli.progress import ProgressDisplay, ProgressStyle
from face_async.errors import FaceError, NotFoundError, printable
from face_async.ingest import (
    Difference,
    Ingestion,
    JournalError,
    Row,
    RunOptions,
    Summary,
    ingest,
    retry_failed,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from face_async.session import FaceSession


@define
class Work:
    """What the arguments of ``enroll`` ask for, and its result.

    Attributes:
        person: Whose pictures they are, if all are one person's; then the journal is not kept.
        summary: The counts of the run.
        failed: The first of what was not enrolled, as :meth:`Ingestion.failures` returns it.
        error: The error that ended it early.
        signals: How often the user has pressed Ctrl-C.
        compared: Persons and faces that were compared, None when that was not done.
        differences: The differences between the service and the journal.
        repaired: The differences that were there before.
    """

    source: Path | Sequence[Row]
    journal: Path
    group_ids: Sequence[str]
    at_once: int
    options: RunOptions
    failures: Path | None
    person: str | None = field(kw_only=True)
    allow_outside: bool = field(kw_only=True)
    dry_run: bool = field(kw_only=True)
    retry: bool = field(kw_only=True)
    check: bool = field(kw_only=True)
    repair: bool = field(kw_only=True)
    quiet: bool = field(kw_only=True)
    json: bool = field(kw_only=True)
    progress: ProgressStyle | None = field(kw_only=True)
    summary: Summary = field(init=False)
    failed: Sequence[tuple[str, str, str, str]] = field(default=(), init=False)
    error: FaceError | None = field(default=None, init=False)
    signals: int = field(default=0, init=False)
    compared: tuple[int, int] | None = field(default=None, init=False)
    differences: list[Difference] = field(factory=list[Difference], init=False)
    repaired: list[Difference] = field(factory=list[Difference], init=False)

    async def run(self, session: FaceSession) -> None:
        """Enroll all pictures, or as many as is possible before a second Ctrl-C."""
        if self.person is not None:
            await self._introduce(session, self.person)
        if self.repair and self.journal.exists():
            self.repaired = await self._compare(session, repair=True)
        with ProgressDisplay(self.progress, quiet=self.quiet) as progress:
            display = Display(lambda: session.stats.throttle, progress, quiet=self.quiet)
            async with self._begin(session, display) as run, anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, run, tasks.cancel_scope)
                try:
                    async for unit in run:
                        if self.json:
                            say_unit(unit)
                    self.failed = await run.failures(MOST_FAILURES)
                except FaceError as error:
                    self.error = error
                if self.failures is not None:
                    await run.write_failures(self.failures)
                tasks.cancel_scope.cancel()
            self.summary = run.summary
        if (self.check or self.repair) and not self.signals and self.error is None:
            self.differences = await self._compare(session, repair=False)

    async def _introduce(self, session: FaceSession, person_id: str) -> None:
        """Say whether a person is new, and where one who exists is.

        Raises:
            ValueError: The person is new, and no group is named.
        """
        name = printable(person_id)
        try:
            known = await session.get_info(person_id)
        except NotFoundError:
            if not self.group_ids:
                raise ValueError(f"say --group GROUP: {name} is new, and every person is in a group") from None
            said = f"{name} is new, and is put into {', '.join(self.group_ids)}"
        else:
            groups = ", ".join(map(printable, known.group_ids)) or "no group"
            said = f"{name} exists already, in {groups} (faces: {len(known.face_ids):,})"
            if not set(self.group_ids) <= set(known.group_ids):
                said += f", and stays in {groups}: --group is for new people"
        if not self.quiet:
            tell(said)

    async def _compare(self, session: FaceSession, *, repair: bool) -> list[Difference]:
        async with verify(session, self.journal, repair=repair, max_at_once=self.at_once) as differences:
            found = [difference async for difference in differences]
        self.compared = differences.persons, differences.faces
        return found

    def _begin(self, session: FaceSession, display: Display) -> Ingestion:
        options: RunOptions = {**self.options, "max_at_once": self.at_once, "on_progress": display.show}
        if self.retry:
            return retry_failed(session, journal=self.journal, **options)
        return ingest(
            session,
            self.source,
            journal=self.journal,
            group_ids=self.group_ids,
            dry_run=self.dry_run,
            allow_outside=self.allow_outside,
            **options,
        )

    async def _heed_signals(self, run: Ingestion, everything: anyio.CancelScope) -> None:
        """Stop the run at the first Ctrl-C, and everything at the second."""
        # Where event loops handle no signals, as on Windows, the first one ends everything.
        with (
            contextlib.suppress(NotImplementedError),
            anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received,
        ):
            async for _ in received:
                self.signals += 1
                if self.signals > 1:
                    everything.cancel()
                    return
                run.stop()
                tell("finishing the requests under way; Ctrl-C again stops at once")


def conclude(work: Work) -> None:
    """Print the result, and exit."""
    summary, quiet = work.summary, work.quiet
    if isinstance(work.error, JournalError):  # then its counts may be another database's
        raise fail(one_line(work.error), exit_code(work.error))
    if work.json:
        say_json_line(as_json(summary, work.differences if work.compared is not None else None))
    elif not quiet:
        say_summary(summary, person=work.person, dry_run=work.dry_run)
    tell_failures(work.failed, summary.failed + summary.ambiguous + summary.bad_rows, listed=work.failures is not None)
    if work.failures is not None and not quiet:
        tell(f"wrote {work.failures}")
    if work.error is not None:
        raise fail(f"{one_line(work.error)}; the same command goes on from here", exit_code(work.error))
    if work.signals:
        left = summary.pending + summary.ambiguous
        where = f" (journal {work.journal})" if work.person is None else ""
        line = f"stopped with {left:,} pictures left; the same command goes on with them{where}"
        raise fail(line, Exit.INTERRUPTED)
    if work.compared is not None and not quiet:
        tell_comparison(work.compared, repaired=len(work.repaired), differ=len(work.differences))
    tell_differences(work.differences)
    complete = summary.complete or (work.dry_run and not summary.failed and not summary.bad_rows)
    raise typer.Exit(Exit.OK if complete and not work.differences else Exit.NO)
