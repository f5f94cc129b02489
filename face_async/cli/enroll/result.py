"""What an enrollment is asked for, and what became of it: with one journal, or with those of all parts of a run."""

from __future__ import annotations

import stat
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from attrs import define, field, frozen

from face_async.cli.enroll.output import as_json, say_summary, tell_comparison, tell_differences, tell_failures
from face_async.cli.exits import Exit, exit_code, fail, one_line
from face_async.cli.language import translated
from face_async.cli.output import say_json_line, tell
from face_async.fleet import StateError
from face_async.fleet.columns import parquet_files
from face_async.ingest import JournalError
from face_async.ingest.objects import ObjectFolder, is_object_url
from face_async.ingest.tables.manifests import is_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.cli.progress import ProgressStyle
    from face_async.errors import FaceError
    from face_async.ingest import Difference, Row, Summary


@frozen
class EnrollRequest:
    """What the arguments of ``enroll`` ask for, wherever it is done.

    Attributes:
        failures: The file to write what was not enrolled, None for none.
        person: Whose pictures they are, if all are one person's.
        retry: Whether only what has failed is tried again.
        check: Whether the service is compared with what is noted afterwards.
        repair: Whether it is compared before, too, to send what is missing.

    Raises:
        ValueError: Something of it does not go together.
    """

    source: str | Sequence[Row]
    group_ids: Sequence[str]
    failures: Path | None
    person: str | None = field(kw_only=True)
    allow_outside: bool = field(kw_only=True)
    dry_run: bool = field(kw_only=True)
    retry: bool = field(kw_only=True)
    check: bool = field(kw_only=True)
    repair: bool = field(kw_only=True)
    progress: ProgressStyle | None = field(kw_only=True)
    quiet: bool = field(kw_only=True)
    json: bool = field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.dry_run and (self.retry or self.check or self.repair):
            raise ValueError("--dry-run goes with neither --retry-failed, --verify nor --repair")
        if self.retry and self.repair:
            raise ValueError("--retry-failed enrolls only what has failed: use --repair in a run of its own")

    def check_folder(self, source: str) -> None:
        """Refuse a folder or manifest of which nobody could be enrolled.

        Raises:
            OSError: It is not there.
            ObjectStorageError: The object storage that it is in cannot be used.
            ValueError: It does not tell the groups of its persons.
        """
        if is_object_url(source):
            ObjectFolder(source).check()
            is_folder = not is_manifest(source)
        else:
            is_folder = stat.S_ISDIR(Path(source).stat().st_mode)
        if is_folder and not (self.group_ids or self.retry or parquet_files(source)):
            raise ValueError("say --group GROUP: a folder does not tell the groups of its persons")


@define
class EnrollResult:
    """What became of an enrollment.

    Attributes:
        summary: The counts, None if it was interrupted so that there are none.
        failed: The first of what was not enrolled, as :meth:`Ingestion.failures` returns it.
        error: The error that ended it early.
        interrupted: Whether the user has pressed Ctrl-C.
        compared: Persons and faces that were compared, None when that was not done.
        differences: The differences between the service and what is noted.
        repaired: The differences that were there before.
    """

    summary: Summary | None = None
    failed: Sequence[tuple[str, str, str, str]] = ()
    error: FaceError | None = None
    interrupted: bool = False
    compared: tuple[int, int] | None = None
    differences: Sequence[Difference] = ()
    repaired: Sequence[Difference] = ()


def conclude(wanted: EnrollRequest, result: EnrollResult, record: str) -> None:
    """Print the result, and exit; ``record`` is where it is noted, "" if it is not kept."""
    summary, quiet = result.summary, wanted.quiet
    if isinstance(result.error, JournalError | StateError):  # then its counts may be another database's
        raise fail(translated(one_line(result.error)), exit_code(result.error))
    if summary is not None:
        _say(wanted, result, summary)
    if wanted.failures is not None and not quiet:
        tell(_("wrote {path}").format(path=wanted.failures))
    if result.error is not None:
        raise fail(
            _("{reason}; the same command goes on from here").format(reason=translated(one_line(result.error))),
            exit_code(result.error),
        )
    where = f" ({record})" if record else ""
    if summary is None:
        raise fail(_("stopped; the same command goes on from here{where}").format(where=where), Exit.INTERRUPTED)
    if result.interrupted:
        left = summary.pending + summary.ambiguous
        line = _("stopped with {left:,} pictures left; the same command goes on with them{where}").format(
            left=left, where=where
        )
        raise fail(line, Exit.INTERRUPTED)
    if result.compared is not None and not quiet:
        tell_comparison(result.compared, repaired=len(result.repaired), differ=len(result.differences))
    tell_differences(result.differences)
    complete = summary.complete or (wanted.dry_run and not summary.failed and not summary.bad_rows)
    raise typer.Exit(Exit.OK if complete and not result.differences else Exit.NO)


def _say(wanted: EnrollRequest, result: EnrollResult, summary: Summary) -> None:
    if wanted.json:
        say_json_line(as_json(summary, result.differences if result.compared is not None else None))
    elif not wanted.quiet:
        say_summary(summary, person=wanted.person, dry_run=wanted.dry_run)
    count = summary.failed + summary.ambiguous + summary.bad_rows
    tell_failures(result.failed, count, listed=wanted.failures is not None)
