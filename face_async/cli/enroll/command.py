"""``enroll`` and ``merge-journals``: enroll folders and manifests, in runs that may be killed at any time."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from face_async.cli.enroll.parts import enroll_in_parts
from face_async.cli.enroll.result import EnrollRequest, conclude
from face_async.cli.enroll.work import Work
from face_async.cli.fleet import ClusterOption, FleetOptions, MaxConcurrency, MaxRate, ShardsOption, SpreadOption
from face_async.cli.options import (
    AllowOutside,
    BaseUrl,
    Db,
    FitOption,
    ProgressOption,
    Quiet,
    RecognizerName,
    RecognizerOption,
    ServiceChoice,
    run_with,
    throttle_of,
)
from face_async.cli.output import tell
from face_async.errors import quoted
from face_async.images import is_url
from face_async.ingest import Row, RunOptions, merge_journals, read_source
from face_async.ingest.objects import is_object_url
from face_async.ingest.output_file import check_output
from face_async.session import ACCOUNT_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

# A request holds up to 20 pictures, and with real recognition they wait for each other in the server.
_TIMEOUT, _DEADLINE = 60.0, 300.0
_AT_ONCE, _AT_ONCE_EMBEDDED = 16, 4


def enroll(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A folder with a sub-folder for each person, named by the id; or a manifest: .csv, .jsonl, .ndjson; "
            "or, with --person, pictures' files or URLs. All may be in object storage: s3://, gs://, az://.",
        ),
    ],
    *,
    person: Annotated[
        str | None, typer.Option("--person", metavar="ID", help="Enroll the pictures SOURCE... for this one person.")
    ] = None,
    group_ids: Annotated[
        list[str] | None,
        typer.Option("--group", "-g", metavar="GROUP", help="The group to put new people in; may be repeated."),
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
        bool,
        typer.Option(
            "--verify", help="Compare the service with the journal afterwards; the exit code is 1 if they differ."
        ),
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
            help=f"Requests under way at once; by default {_AT_ONCE}, or {_AT_ONCE_EMBEDDED} to the embedded server.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="FOLDER",
            help="The record of a run whose parts each have a journal; a folder, or s3://, gs://, az://.",
        ),
    ] = None,
    cluster: ClusterOption = None,
    shards: ShardsOption = None,
    spread: SpreadOption = 0,
    max_concurrency: MaxConcurrency = None,
    max_rate: MaxRate = None,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    progress: ProgressOption = None,
    quiet: Quiet = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a line of JSON for each picture on stdout, and the summary as the last line."
        ),
    ] = False,
) -> None:
    """Enroll the pictures of a folder or manifest, each once, however often this is killed and started again.

    The same command continues where the last one ended. After Ctrl-C it finishes the requests under way; a second
    Ctrl-C stops it at once. With --person it enrolls pictures of one person, and keeps no journal. The exit code is 1
    unless every picture is enrolled.
    """
    parts = _shard(shard)
    if person is not None and (journal or shard != "0/1" or retry or check or repair or state or cluster or spread):
        raise ValueError(
            "--person keeps no journal: leave out --journal, --shard, --retry-failed, --verify, --repair, --state, "
            "--cluster and --spread"
        )
    source = _only(sources) if person is None else _rows(person, sources)
    wanted = EnrollRequest(
        source,
        group_ids or (),
        failures,
        person=person,
        allow_outside=allow_outside,
        dry_run=dry_run,
        retry=retry,
        check=check,
        repair=repair,
        progress=progress,
        quiet=quiet,
        json=json,
    )
    if isinstance(source, str) and (state is not None or cluster is not None):
        if journal or dry_run or no_pack or at_once or db:
            raise ValueError("--state and --cluster go with no --journal, --dry-run, --no-pack, --at-once or --db")
        fleet = FleetOptions(
            cluster=cluster,
            shards=shards,
            max_concurrency=max_concurrency,
            max_rate=max_rate,
            base_url=base_url,
            fit=fit,
            quiet=quiet,
            json=json,
            progress=progress,
            spread=spread,
        )
        enroll_in_parts(wanted, source, state, parts, fleet)
        return
    if shards or max_concurrency:
        raise ValueError("--shards and --max-concurrency need --state or --cluster; without these, say --at-once")
    if spread:
        raise ValueError("--spread needs --state: a run whose parts know their groups beforehand")
    service = ServiceChoice.of(db, base_url, recognizer)
    if isinstance(source, str):
        journal = journal or _default_journal(source, service, parts)
        _check(wanted, source, service, journal)
    elif not wanted.group_ids and service.is_new:
        raise ValueError(f"say --group GROUP: {person} is new, as there is no database {service.database}")
    concurrency = at_once or (_AT_ONCE if service.database is None else _AT_ONCE_EMBEDDED)
    options: RunOptions = {"shard": parts, "fit": fit, "pack": not no_pack}
    _enroll_with_journal(wanted, service, journal, options, concurrency=concurrency, max_rate=max_rate)


def _enroll_with_journal(
    wanted: EnrollRequest,
    service: ServiceChoice,
    journal: Path | None,
    options: RunOptions,
    *,
    concurrency: int,
    max_rate: float | None,
) -> None:
    """Enroll, print the summary and exit; without a journal, there is one meanwhile."""
    if wanted.failures is not None:
        source = wanted.source
        read = [source] if isinstance(source, str) else [row.source for row in source]
        check_output(wanted.failures, sources=[*read, *filter(None, (journal, service.database))])
    if wanted.dry_run and service.is_new:
        service = evolve(service, database=Path(":memory:"))  # nor is a database created for nothing
    elif not wanted.quiet:
        service.announce()
    with _journal(journal) as kept:
        work = Work(wanted, kept, concurrency, options)
        throttle = throttle_of(concurrency, max_rate)
        run_with(service, work.run, timeout=_TIMEOUT, deadline=_DEADLINE, throttle=throttle)
        conclude(wanted, work.result, _("journal {path}").format(path=kept) if wanted.person is None else "")


def _only(sources: Sequence[str]) -> str:
    if len(sources) > 1:
        raise ValueError(
            "enroll takes one folder or manifest at a time; to enroll several pictures of one person say --person ID"
        )
    return sources[0]


def _rows(person_id: str, pictures: Sequence[str]) -> list[Row]:
    """Return the rows of one person's pictures.

    Raises:
        ValueError: One is a folder.
        OSError: One is not there.
    """
    for name in pictures:
        if not _is_remote(name) and stat.S_ISDIR(Path(name).stat().st_mode):
            raise ValueError(f"{name} is a folder: with --person name its pictures, such as {Path(name) / '*.jpg'}")
    return [Row(person_id, name if _is_remote(name) else os.path.abspath(name)) for name in pictures]  # noqa: PTH100 - links stay


def _is_remote(name: str) -> bool:
    return is_url(name) or is_object_url(name)


@contextlib.contextmanager
def _journal(path: Path | None) -> Generator[Path]:
    """Return the journal's path; without one, that of a journal which is gone afterwards."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="face_async-") as folder:
        yield Path(folder) / "journal"


def merge_journals_command(
    journals: Annotated[
        list[Path], typer.Argument(metavar="JOURNAL...", help="The journals of all parts of a run with --shard.")
    ],
    *,
    into: Annotated[Path, typer.Option("--into", metavar="PATH", help="The journal to make.")],
) -> None:
    """Make one journal of those of all parts that were enrolled with --shard, to continue without --shard."""
    merge_journals(journals, into)
    tell(_("wrote {path}").format(path=into))


def _shard(text: str) -> tuple[int, int]:
    rank, slash, world = text.partition("/")
    if not slash or not rank.isdecimal() or not world.isdecimal():
        raise ValueError(f"--shard needs RANK/WORLD, such as 0/4, not {quoted(text)}")
    return int(rank), int(world)


def _default_journal(source: str, service: ServiceChoice, shard: tuple[int, int]) -> Path:
    """Return where the journal is: beside the source, or in the working folder if nothing can be written there.

    Its name has the appid or the database in it: each service needs a journal of its own.
    """
    where = os.environ[ACCOUNT_VARIABLES[0]] if service.database is None else service.database.stem
    part = f".{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
    place = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would follow links to another folder
    home = place.parent if os.access(place.parent, os.W_OK) else Path.cwd()
    return Path(os.path.relpath(home / f"{place.name}.{where}{part}.journal"))


def _check(wanted: EnrollRequest, source: str, service: ServiceChoice, journal: Path) -> None:
    """Refuse arguments that would enroll nobody."""
    wanted.check_folder(source)
    if not wanted.retry:
        with contextlib.closing(read_source(source, group_ids=wanted.group_ids)) as rows:
            next(rows, None)  # raises an error if it cannot be a source, before a database is made for it
    if wanted.retry and not journal.exists():
        raise ValueError(f"there is no journal {journal}, so nothing has failed yet")
    if service.database is not None and journal.exists() and not service.database.exists() and not wanted.repair:
        raise ValueError(
            f"{journal} tells of faces in a database {service.database} that is not there: name the right database, "
            "or enroll into a new one with --repair; or delete the journal to start from the beginning"
        )
