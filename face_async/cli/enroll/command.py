"""``enroll`` and ``merge-journals``: enroll folders and manifests, in runs that may be killed at any time."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import define, evolve, field

from face_async._call.throttle import Throttle
from face_async.cli.enroll.output import Display, as_json, say_summary, tell_comparison, tell_differences
from face_async.cli.exits import Exit, exit_code, fail, one_line
from face_async.cli.fleet import (
    ClusterOption,
    FleetOptions,
    MaxConcurrency,
    MaxRate,
    ShardsOption,
    SpreadOption,
    enroll_on_cluster,
    enroll_part_alone,
)
from face_async.cli.options import (
    AllowOutside,
    AsJson,
    BaseUrl,
    Db,
    FitOption,
    Quiet,
    RecognizerName,
    RecognizerOption,
    ServiceChoice,
    run_with,
)
from face_async.cli.output import say_json, tell
from face_async.errors import FaceError, quoted
from face_async.fleet.columns import parquet_files
from face_async.ingest import (
    Difference,
    Ingestion,
    JournalError,
    RunOptions,
    Summary,
    ingest,
    merge_journals,
    retry_failed,
    verify,
)
from face_async.ingest.output_file import check_output
from face_async.session import ACCOUNT_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.session import FaceSession

# A request holds up to 20 pictures, and with real recognition they wait for each other in the server.
_TIMEOUT, _DEADLINE = 60.0, 300.0
_AT_ONCE, _AT_ONCE_EMBEDDED = 16, 4


def enroll(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with a sub-folder for each person, named by the id; or a manifest: .csv, .jsonl, .ndjson.",
        ),
    ],
    *,
    group_ids: Annotated[
        list[str] | None,
        typer.Option("--group", "-g", metavar="GROUP", help="Where to put new people; may be repeated."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="PATH", help="The record of what is enrolled; by default beside the source."),
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="RANK/WORLD", help="Enroll a part of the people only, such as 0/4 to 3/4.")
    ] = "0/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing, and say what would be sent.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry-failed", help="Enroll only pictures that have failed before.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--verify", help="Compare the service with the journal afterwards; 1 if they differ.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Compare the service with the journal, and enroll what is missing."),
    ] = False,
    failures: Annotated[
        Path | None, typer.Option("--failures", metavar="FILE.csv", help="Write what was not enrolled, and why.")
    ] = None,
    allow_outside: AllowOutside = False,
    fit: FitOption = False,
    no_pack: Annotated[bool, typer.Option("--no-pack", help="Send every picture in a request of its own.")] = False,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once",
            metavar="N",
            min=1,
            max=1_000,
            help=f"Requests under way at once: {_AT_ONCE}, or {_AT_ONCE_EMBEDDED} to the embedded server.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FOLDER", help="The record of a run with --cluster, or of many with --shard."),
    ] = None,
    cluster: ClusterOption = None,
    shards: ShardsOption = 256,
    spread: SpreadOption = 0,
    max_concurrency: MaxConcurrency = 64,
    max_rate: MaxRate = None,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Enroll the pictures of a folder or manifest, each once, however often this is killed and started again.

    The same command continues where the last one ended. After Ctrl-C it finishes the requests under way; a second one
    stops it at once. The exit code is 1 unless every picture is enrolled.
    """
    parts = _shard(shard)
    if state is not None or cluster is not None:
        if journal or dry_run or retry or check or repair or failures or no_pack or at_once or db:
            raise ValueError(
                "--state and --cluster go with --group, --shard, --shards, --spread, --max-*, --fit and --json only"
            )
        fleet = FleetOptions(
            cluster, shards, max_concurrency, max_rate, base_url, fit, quiet, json, allow_outside, spread
        )
        _enroll_in_parts(source, state, group_ids or (), parts, fleet)
        return
    if spread:
        raise ValueError("--spread needs --state: a run whose parts know their groups beforehand")
    service = ServiceChoice.of(db, base_url, recognizer)
    journal = journal or _default_journal(source, service, parts)
    if dry_run and (retry or check or repair):
        raise ValueError("--dry-run goes with neither --retry-failed, --verify nor --repair")
    if retry and repair:
        raise ValueError("--retry-failed enrolls only what has failed: use --repair in a run of its own")
    groups = group_ids or ()
    _check(source, groups, service, journal, retry=retry, repair=repair)
    if failures is not None:
        check_output(failures, sources=[source, journal, *([] if service.database is None else [service.database])])
    if dry_run and service.database is not None and not service.database.exists():
        service = evolve(service, database=Path(":memory:"))  # nor is a database created for nothing
    elif not quiet:
        service.announce()
    concurrency = at_once or (_AT_ONCE if service.database is None else _AT_ONCE_EMBEDDED)
    options: RunOptions = {"shard": parts, "fit": fit, "pack": not no_pack}
    work = Work(
        source,
        journal,
        groups,
        concurrency,
        options,
        failures,
        allow_outside=allow_outside,
        dry_run=dry_run,
        retry=retry,
        check=check,
        repair=repair,
        quiet=quiet,
    )
    throttle = Throttle(max_concurrency=max(concurrency, Throttle().max_concurrency))
    run_with(service, work.run, timeout=_TIMEOUT, deadline=_DEADLINE, throttle=throttle)
    _conclude(work, json=json)


def _enroll_in_parts(
    source: Path, state: Path | None, groups: Sequence[str], part: tuple[int, int], fleet: FleetOptions
) -> None:
    if state is None:
        raise ValueError("--cluster needs --state FOLDER, the record by which the run goes on after an end of any kind")
    source.stat()  # raises an error if it is not there
    if source.is_dir() and not groups and not parquet_files(source):
        raise ValueError("say --group GROUP: a folder does not tell the groups of its persons")
    if fleet.cluster is None:
        enroll_part_alone(source, state, part, groups, fleet)
    elif part != (0, 1):
        raise ValueError("--cluster does all parts, and --shard one: say --shards N for how many there are")
    else:
        enroll_on_cluster(source, state, groups, fleet)


def merge_journals_command(
    journals: Annotated[list[Path], typer.Argument(metavar="JOURNAL...", help="The journals of all parts.")],
    *,
    into: Annotated[Path, typer.Option("--into", metavar="PATH", help="The journal to make.")],
) -> None:
    """Make one journal of the journals of several parts, to continue without --shard."""
    merge_journals(journals, into)
    tell(f"wrote {into}")


@define
class Work:
    """What the arguments of ``enroll`` ask for, and its result.

    Attributes:
        summary: The counts of the run.
        error: The error that ended it early.
        signals: How often the user has pressed Ctrl-C.
        compared: Persons and faces that were compared, None when that was not done.
        differences: The differences between the service and the journal.
        repaired: The differences that were there before.
    """

    source: Path
    journal: Path
    group_ids: Sequence[str]
    at_once: int
    options: RunOptions
    failures: Path | None
    allow_outside: bool = field(kw_only=True)
    dry_run: bool = field(kw_only=True)
    retry: bool = field(kw_only=True)
    check: bool = field(kw_only=True)
    repair: bool = field(kw_only=True)
    quiet: bool = field(kw_only=True)
    summary: Summary = field(init=False)
    error: FaceError | None = field(default=None, init=False)
    signals: int = field(default=0, init=False)
    compared: tuple[int, int] | None = field(default=None, init=False)
    differences: list[Difference] = field(factory=list[Difference], init=False)
    repaired: list[Difference] = field(factory=list[Difference], init=False)

    async def run(self, session: FaceSession) -> None:
        """Enroll all pictures, or as many as is possible before a second Ctrl-C."""
        if self.repair and self.journal.exists():
            self.repaired = await self._compare(session, repair=True)
        with Display(lambda: session.stats.throttle, quiet=self.quiet) as display:
            async with self._begin(session, display) as run, anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, run, tasks.cancel_scope)
                try:
                    await run.finish()
                except FaceError as error:
                    self.error = error
                if self.failures is not None:
                    await run.write_failures(self.failures)
                tasks.cancel_scope.cancel()
            self.summary = run.summary
        if (self.check or self.repair) and not self.signals and self.error is None:
            self.differences = await self._compare(session, repair=False)

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


def _conclude(work: Work, *, json: bool) -> None:
    """Print the result, and exit."""
    summary, quiet = work.summary, work.quiet
    if isinstance(work.error, JournalError):  # then its counts may be another database's
        raise fail(one_line(work.error), exit_code(work.error))
    if json:
        say_json(as_json(summary, work.differences if work.compared is not None else None))
    elif not quiet:
        say_summary(summary, dry_run=work.dry_run)
    if work.failures is not None and not quiet:
        tell(f"wrote {work.failures}")
    if work.error is not None:
        raise fail(f"{one_line(work.error)}; the same command goes on from here", exit_code(work.error))
    if work.signals:
        left = summary.pending + summary.ambiguous
        line = f"stopped with {left:,} pictures left; the same command goes on with them (journal {work.journal})"
        raise fail(line, Exit.INTERRUPTED)
    if work.compared is not None and not quiet:
        tell_comparison(work.compared, repaired=len(work.repaired), differ=len(work.differences))
    tell_differences(work.differences)
    complete = summary.complete or (work.dry_run and not summary.failed and not summary.bad_rows)
    raise typer.Exit(Exit.OK if complete and not work.differences else Exit.NO)


def _shard(text: str) -> tuple[int, int]:
    rank, slash, world = text.partition("/")
    if not slash or not rank.isdecimal() or not world.isdecimal():
        raise ValueError(f"--shard needs RANK/WORLD, such as 0/4, not {quoted(text)}")
    return int(rank), int(world)


def _default_journal(source: Path, service: ServiceChoice, shard: tuple[int, int]) -> Path:
    """Return where the journal is: beside the source, or in the working folder if nothing can be written there.

    Its name has the appid or the database in it: each service needs a journal of its own.
    """
    where = os.environ[ACCOUNT_VARIABLES[0]] if service.database is None else service.database.stem
    part = f".{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
    place = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would follow links to another folder
    home = place.parent if os.access(place.parent, os.W_OK) else Path.cwd()
    return Path(os.path.relpath(home / f"{place.name}.{where}{part}.journal"))


def _check(
    source: Path, group_ids: Sequence[str], service: ServiceChoice, journal: Path, *, retry: bool, repair: bool
) -> None:
    """Refuse arguments that would enroll nobody."""
    source.stat()  # raises an error if it is not there
    if source.is_dir() and not group_ids and not retry:
        raise ValueError("say --group GROUP: a folder does not tell the groups of its persons")
    if retry and not journal.exists():
        raise ValueError(f"there is no journal {journal}, so nothing has failed yet")
    if service.database is not None and journal.exists() and not service.database.exists() and not repair:
        raise ValueError(
            f"{journal} tells of faces in a database {service.database} that is not there: name the right database, "
            "or enroll into a new one with --repair; or delete the journal to start from the beginning"
        )
