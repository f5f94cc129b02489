"""Runs on a cluster: what ``enroll`` and ``identify`` do with ``--cluster``, and ``enroll`` with ``--state``."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from attrs import frozen

from face_async import Throttle
from face_async.cli.exits import Exit
from face_async.cli.options import trust
from face_async.cli.output import say, say_json_line, tell
from face_async.cli.progress import ProgressDisplay, ProgressStyle
from face_async.fleet import Connection, FleetSummary, enroll, enroll_one_part, identify, open_engine
from face_async.fleet.engines import CLUSTERS
from face_async.session import CA_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from face_async.fleet import FleetEngine

ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="ENGINE", help=f"Work on many processes: {CLUSTERS}.")
]
ShardsOption = Annotated[
    int,
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
    int,
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
        help="With --cluster or --state: requests a second, in all parts together.",
    ),
]


@frozen
class FleetOptions:
    """The options of a run on a cluster."""

    cluster: str | None
    shards: int
    max_concurrency: int
    max_rate: float | None
    base_url: str | None
    fit: bool
    quiet: bool
    json: bool
    progress: ProgressStyle | None = None
    allow_outside: bool = False
    spread: int = 0

    @property
    def budget(self) -> Throttle:
        """The bounds of the whole run."""
        return Throttle(max_concurrency=self.max_concurrency, max_rate=self.max_rate)

    def connection(self) -> Connection:
        """Return how workers reach the service.

        Raises:
            ValueError: No service is configured.
        """
        trusted = trust()
        if trusted.ca_file is not None:
            os.environ[CA_FILE_VARIABLE] = str(trusted.ca_file)  # which worker processes inherit
        return Connection.from_env(base_url=self.base_url, allow_insecure=trusted.insecure or None)


def enroll_on_cluster(source: Path, state: Path, group_ids: Sequence[str], options: FleetOptions) -> None:
    """Enroll on a cluster, print the summary and exit."""
    connection = options.connection()
    with _quiet_engine(options) as engine, ProgressDisplay(options.progress, quiet=options.quiet) as display:
        display.begin("enrolling")
        summary = enroll(
            source,
            state=state,
            connection=connection,
            executor=engine.executor,
            group_ids=group_ids,
            shards=options.shards,
            at_once=min(engine.workers, options.max_concurrency),
            budget=options.budget,
            fit=options.fit,
            allow_outside=options.allow_outside,
            spread=options.spread,
            on_progress=partial(show_parts, display),
        )
    _conclude_fleet(summary, state / "units", options)


def enroll_part_alone(
    source: Path, state: Path, part: tuple[int, int], group_ids: Sequence[str], options: FleetOptions
) -> None:
    """Enroll one part in this process, print its summary and exit."""
    summary = enroll_one_part(
        source,
        part[0],
        state=state,
        connection=options.connection(),
        group_ids=group_ids,
        shards=part[1],
        budget=options.budget,
        fit=options.fit,
        allow_outside=options.allow_outside,
        spread=options.spread,
    )
    _conclude_fleet(summary, state / "units", options)


def identify_on_cluster(probes: Iterable[str], out: Path, group_ids: Sequence[str], options: FleetOptions) -> None:
    """Identify on a cluster, print the summary and exit."""
    connection = options.connection()
    with _quiet_engine(options) as engine, ProgressDisplay(options.progress, quiet=options.quiet) as display:
        display.begin("recognizing")
        summary = identify(
            probes,
            out=out,
            connection=connection,
            executor=engine.executor,
            group_ids=group_ids,
            shards=options.shards,
            at_once=min(engine.workers, options.max_concurrency),
            budget=options.budget,
            fit=options.fit,
            on_progress=partial(show_parts, display),
        )
    if not options.quiet:
        tell(f"wrote {out}")
    _conclude_fleet(summary, out, options)


@contextlib.contextmanager
def _quiet_engine(options: FleetOptions) -> Generator[FleetEngine]:
    """Open the engine; what it prints, as Ray does when a worker dies, goes to stderr, for stdout is the result's."""
    with contextlib.redirect_stdout(sys.stderr), open_engine(options.cluster or "") as engine:
        yield engine


def show_parts(display: ProgressDisplay, summary: FleetSummary) -> None:
    """Show the progress of all parts together."""
    parts = f"{summary.parts_done:,} of {summary.parts:,} parts"
    losses = f", {summary.losses:,} workers lost" if summary.losses else ""
    completed = summary.done + summary.failed + summary.collapsed
    display.show(completed, total=summary.rows, failed=summary.failed, note=parts + losses)


def _conclude_fleet(summary: FleetSummary, details: Path, options: FleetOptions) -> None:
    """Print the summary, and where to read what became of each picture, and exit."""
    if options.json:
        say_json_line(attrs.asdict(summary))
    elif not options.quiet:
        say(
            f"{summary.done:,} pictures done, {summary.failed:,} failed, {summary.ambiguous:,} in doubt, "
            f"{summary.collapsed:,} the same as another of the person, {summary.bad_rows:,} bad rows; "
            f"{summary.parts_done:,} of {summary.parts:,} parts in {summary.seconds:,.1f} s"
        )
        for code, count in sorted(summary.codes.items()):
            say(f"  {code}: {count:,}")
    if summary.failed or summary.ambiguous:
        tell(f"what failed, and why, is in the files of {details}")
    raise typer.Exit(Exit.OK if summary.complete else Exit.NO)
