"""The enrollment with one journal."""

from __future__ import annotations

import contextlib
import signal
from gettext import gettext as _
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from face_async.cli.enroll.output import MOST_FAILURES, Display, say_unit
from face_async.cli.enroll.result import EnrollRequest, EnrollResult
from face_async.cli.output import tell
from face_async.cli.progress import ProgressDisplay
from face_async.errors import FaceError, NotFoundError, printable
from face_async.ingest import Difference, Ingestion, RunOptions, ingest, retry_failed, verify

if TYPE_CHECKING:
    from pathlib import Path

    from face_async.session import FaceSession


@define
class Work:
    """The enrollment with one journal, and its result; the journal of one person's pictures is not kept."""

    wanted: EnrollRequest
    journal: Path
    at_once: int
    options: RunOptions
    result: EnrollResult = field(factory=EnrollResult, init=False)

    async def run(self, session: FaceSession) -> None:
        """Enroll all pictures, or as many as is possible before a second Ctrl-C."""
        wanted, result = self.wanted, self.result
        if wanted.person is not None:
            await self._introduce(session, wanted.person)
        if wanted.repair and self.journal.exists():
            result.repaired, _ = await self._compare(session, repair=True)
        with ProgressDisplay(wanted.progress, quiet=wanted.quiet) as progress:
            display = Display(lambda: session.stats.throttle, progress, quiet=wanted.quiet)
            async with self._begin(session, display) as run, anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, run, tasks.cancel_scope)
                try:
                    async for unit in run:
                        if wanted.json:
                            say_unit(unit)
                    result.failed = await run.failures(MOST_FAILURES)
                except FaceError as error:
                    result.error = error
                if wanted.failures is not None:
                    await run.write_failures(wanted.failures)
                tasks.cancel_scope.cancel()
            result.summary = run.summary
        if (wanted.check or wanted.repair) and not result.interrupted and result.error is None:
            result.differences, result.compared = await self._compare(session, repair=False)

    async def _introduce(self, session: FaceSession, person_id: str) -> None:
        """Say whether a person is new, and where one who exists is.

        Raises:
            ValueError: The person is new, and no group is named.
        """
        name, group_ids = printable(person_id), self.wanted.group_ids
        try:
            known = await session.get_info(person_id)
        except NotFoundError:
            if not group_ids:
                raise ValueError(f"say --group GROUP: {name} is new, and every person is in a group") from None
            said = _("{name} is new, and is put into {groups}").format(name=name, groups=", ".join(group_ids))
        else:
            groups = ", ".join(map(printable, known.group_ids)) or _("no group")
            said = _("{name} exists already, in {groups} (faces: {count:,})").format(
                name=name, groups=groups, count=len(known.face_ids)
            )
            if not set(group_ids) <= set(known.group_ids):
                said += _(", and stays in {groups}: --group is for new people").format(groups=groups)
        if not self.wanted.quiet:
            tell(said)

    async def _compare(self, session: FaceSession, *, repair: bool) -> tuple[list[Difference], tuple[int, int]]:
        async with verify(session, self.journal, repair=repair, max_at_once=self.at_once) as differences:
            found = [difference async for difference in differences]
        return found, (differences.persons, differences.faces)

    def _begin(self, session: FaceSession, display: Display) -> Ingestion:
        options: RunOptions = {**self.options, "max_at_once": self.at_once, "on_progress": display.show}
        wanted = self.wanted
        if wanted.retry:
            return retry_failed(session, journal=self.journal, **options)
        return ingest(
            session,
            wanted.source,
            journal=self.journal,
            group_ids=wanted.group_ids,
            dry_run=wanted.dry_run,
            allow_outside=wanted.allow_outside,
            **options,
        )

    async def _heed_signals(self, run: Ingestion, everything: anyio.CancelScope) -> None:
        """Stop the run at the first Ctrl-C, and everything at the second."""
        # Where event loops handle no signals, as on Windows, the first one ends everything.
        with (
            contextlib.suppress(NotImplementedError),
            anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received,
        ):
            async for _signal in received:
                if self.result.interrupted:
                    everything.cancel()
                    return
                self.result.interrupted = True
                run.stop()
                tell(_("finishing the requests under way; Ctrl-C again stops at once"))
