"""Runs on a cluster: the options that ``enroll`` and ``identify`` share, and the identification."""

from __future__ import annotations

import contextlib
import os
import sys
from gettext import gettext as _
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from attrs import frozen

from face_async import Throttle
from face_async.cli.exits import Exit, fail, terminated_as_interrupted
from face_async.cli.identify.identification import Identification, Tally
from face_async.cli.options import trust
from face_async.cli.output import say, say_json_line, tell
from face_async.cli.progress import OutageNotice, ProgressDisplay, ProgressStyle
from face_async.errors import ImageRefusedError
from face_async.fleet import Connection, EngineOptions, FleetSummary, identify, open_engine
from face_async.fleet.engines.clusters import CLUSTERS
from face_async.fleet.run import refused_probes
from face_async.session import CA_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from face_async.fleet.plan import Probe

ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="ENGINE", help=f"Work on many processes: {CLUSTERS}.")
]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        min=1,
        max=100_000,
        help="With --cluster or --state: in how many parts the run is divided.",
    ),
]
SpreadOption = Annotated[
    int,
    typer.Option(
        "--spread",
        metavar="N",
        min=0,
        max=5_000,
        help="With --state: put the people of each group into N numbered groups, as a group holds 10,000 at most.",
    ),
]
MaxConcurrency = Annotated[
    int | None,
    typer.Option(
        "--max-concurrency",
        metavar="N",
        min=1,
        help="With --cluster or --state: requests under way at once, in all parts together.",
    ),
]
MaxRate = Annotated[
    float | None,
    typer.Option(
        "--max-rate",
        metavar="R",
        min=0.001,
        help="Requests a second; with --cluster or --state, in all parts together.",
    ),
]


@frozen(kw_only=True)
class FleetOptions:
    """The options of a run on a cluster; without a cluster, one process does its parts."""

    cluster: str | None
    shards: int | None
    max_concurrency: int | None
    max_rate: float | None
    base_url: str | None
    fit: bool
    quiet: bool
    json: bool
    progress: ProgressStyle | None = None
    spread: int = 0

    def connection(self) -> Connection:
        """Return how workers reach the service.

        Raises:
            ValueError: No service is configured.
        """
        trusted = trust()
        if trusted.ca_file is not None:
            os.environ[CA_FILE_VARIABLE] = str(trusted.ca_file)  # which worker processes inherit
        return Connection.from_env(base_url=self.base_url, allow_insecure=trusted.insecure or None)

    @contextlib.contextmanager
    def engine(self, display: FleetDisplay) -> Generator[EngineOptions]:
        """Open the engine, and yield the options of a run on it, whose progress is displayed.

        What the engine prints, as Ray does when a worker dies, goes to stderr, for stdout is the result's.
        """
        most = Throttle().max_concurrency if self.max_concurrency is None else self.max_concurrency
        options: EngineOptions = {
            "budget": Throttle(max_concurrency=most, max_rate=self.max_rate),
            "fit": self.fit,
            "on_progress": display.show_parts,
        }
        with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
            stack.enter_context(terminated_as_interrupted())
            # Not this process, which shows the progress and heeds signals.
            engine = stack.enter_context(open_engine(self.cluster or "processes:1"))
            options["executor"] = engine.executor
            options["at_once"] = min(engine.workers, most)
            stack.enter_context(display)
            yield options


def identify_on_cluster(
    probes: Iterable[Probe], out: str, group_ids: Sequence[str], fleet: FleetOptions, *, source: str
) -> Exit:
    """Identify on a cluster, print the summary, and return the exit code; ``source`` is what the probes are told by."""
    connection = fleet.connection()
    try:
        display = FleetDisplay(fleet.progress, quiet=fleet.quiet)
        with fleet.engine(display) as options:
            display.begin(_("recognizing"))
            summary = identify(
                probes,
                out=out,
                connection=connection,
                group_ids=group_ids,
                shards=fleet.shards,
                source=source,
                **options,
            )
    except KeyboardInterrupt:
        raise fail(_("interrupted; the same command goes on from here"), Exit.INTERRUPTED) from None
    _tell_refused(out)
    if fleet.json:
        say_json_line(attrs.asdict(summary))
    elif not fleet.quiet:
        tell(_("wrote {path}").format(path=out))
        say(
            _("{done:,} of {rows:,} pictures were looked at, in {seconds:,.1f} s").format(
                done=summary.done, rows=summary.rows + summary.bad_rows, seconds=summary.seconds
            )
        )
    return Exit.OK if summary.complete else Exit.NO


def _tell_refused(out: str) -> None:
    tally = Tally()
    for row in refused_probes(out):
        tally.add(Identification(row.file, error=ImageRefusedError(row.reason)))
    for line in tally.failures():
        tell(line)


class FleetDisplay(ProgressDisplay):
    """Shows the progress of all parts together, and what they wait for."""

    def __init__(self, style: ProgressStyle | None, *, quiet: bool) -> None:
        super().__init__(style, quiet=quiet)
        self._quiet = quiet
        self._outage = OutageNotice()

    def show_parts(self, summary: FleetSummary) -> None:
        """Show the progress of a run."""
        if not self._quiet:
            self._outage.show(summary.away)
        parts = _("{parts_done:,} of {parts:,} parts").format(parts_done=summary.parts_done, parts=summary.parts)
        losses = _(", {losses:,} workers lost").format(losses=summary.losses) if summary.losses else ""
        completed = summary.done + summary.failed + summary.collapsed
        self.show(completed, total=summary.rows, failed=summary.failed, note=parts + losses)
