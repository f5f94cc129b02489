"""``enroll --state``: an enrollment in parts, each with a journal of its own, on a cluster or in this process."""

from __future__ import annotations

from gettext import gettext as _
from itertools import islice
from typing import TYPE_CHECKING

from attrs import field, frozen

from face_async.cli.enroll.output import MOST_FAILURES
from face_async.cli.enroll.result import EnrollRequest, EnrollResult, conclude
from face_async.cli.fleet import FleetDisplay, FleetOptions
from face_async.cli.output import tell
from face_async.errors import FaceError
from face_async.fleet import enroll, retry_failed, verify, write_failures
from face_async.fleet.plan import read_plan
from face_async.fleet.run import run_failures
from face_async.fleet.state import open_state
from face_async.ingest.output_file import check_output

if TYPE_CHECKING:
    from face_async.fleet import Connection, EngineOptions, FleetComparison, FleetSummary


def enroll_in_parts(
    wanted: EnrollRequest, source: str, state: str | None, shard: tuple[int, int], fleet: FleetOptions
) -> None:
    """Enroll all parts of a run, or one of them, print the summary and exit.

    Args:
        wanted: What is to be done.
        source: The folder, the manifest or the files in Parquet.
        state: The run's state.
        shard: The number of the part, and of all parts; ``(0, 1)`` for all of them.
        fleet: How it is done.
    """
    if state is None:
        raise ValueError("--cluster needs --state FOLDER, the record by which the run goes on after an end of any kind")
    if fleet.cluster is not None and shard != (0, 1):
        raise ValueError("--cluster does all parts, and --shard one: say --shards N for how many there are")
    part, shards = (None, fleet.shards) if shard == (0, 1) else shard
    wanted.check_folder(source)
    is_new = read_plan(open_state(state, check=True)) is None
    if is_new and wanted.retry:
        raise ValueError(f"there is no run in {state}, so nothing has failed yet")
    if is_new and part and not wanted.quiet:
        tell(_("waiting for the plan of {state}, which --shard 0/{shards} makes").format(state=state, shards=shards))
    if wanted.failures is not None:
        check_output(wanted.failures, sources=[source, state])
    run = _PartsEnrollment(wanted, source, state, part, shards, fleet.spread, fleet.connection())
    try:
        run.do(fleet, is_new=is_new)
    except KeyboardInterrupt:
        run.result.interrupted, run.result.summary = True, None  # which says what was known some seconds ago
    run.read_failures()
    conclude(wanted, run.result, _("state {path}").format(path=state))


@frozen
class _PartsEnrollment:
    """The steps of an enrollment in parts."""

    wanted: EnrollRequest
    source: str
    state: str
    part: int | None
    shards: int | None
    spread: int
    connection: Connection
    result: EnrollResult = field(factory=EnrollResult, init=False)

    def do(self, fleet: FleetOptions, *, is_new: bool) -> None:
        """Do all that is wanted, as far as no error ends it."""
        wanted, result, display = self.wanted, self.result, FleetDisplay(fleet.progress, quiet=fleet.quiet)
        with fleet.engine(display) as options:
            if wanted.repair and not is_new:
                result.repaired = self.compare(display, options, repair=True).differences
            self.send(display, options)
            if (wanted.check or wanted.repair) and result.error is None:
                found = self.compare(display, options, repair=False)
                result.differences, result.compared = found.differences, (found.persons, found.faces)

    def send(self, display: FleetDisplay, options: EngineOptions) -> None:
        """Enroll what there is, or try again what has failed."""
        wanted = self.wanted

        def note(summary: FleetSummary) -> None:
            self.result.summary = summary
            display.show_parts(summary)

        display.begin(_("enrolling"))
        options = {**options, "on_progress": note}
        try:
            if wanted.retry:
                retry_failed(self.state, connection=self.connection, part=self.part, **options)
            else:
                enroll(
                    self.source,
                    state=self.state,
                    connection=self.connection,
                    group_ids=wanted.group_ids,
                    shards=self.shards,
                    part=self.part,
                    allow_outside=wanted.allow_outside,
                    spread=self.spread,
                    **options,
                )
        except FaceError as error:
            self.result.error = error

    def compare(self, display: FleetDisplay, options: EngineOptions, *, repair: bool) -> FleetComparison:
        """Compare the service with the journals of the parts."""
        display.begin(_("comparing"))
        return verify(self.state, connection=self.connection, repair=repair, part=self.part, **options)

    def read_failures(self) -> None:
        """Read what has failed, as far as there is a run, and write it where it is wanted."""
        if read_plan(open_state(self.state)) is None:
            return
        self.result.failed = tuple(islice(run_failures(self.state, part=self.part), MOST_FAILURES))
        if self.wanted.failures is not None:
            write_failures(self.state, self.wanted.failures, part=self.part, sources=[self.source])
