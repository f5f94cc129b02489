"""``identify``: recognize the persons in one picture, in some, or in whole folders."""

from __future__ import annotations

import os
from functools import partial
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import typer
from attrs import Factory, field, frozen

from face_async import SURELY_THE_SAME, GroupsResult, IdentifyResult
from face_async._call.judgement import judge_error
from face_async.bulk.api import search_groups
from face_async.bulk.outage import BulkOutages, OnOutage
from face_async.bulk.outcomes import MAX_AT_ONCE, Outcomes
from face_async.cli.fleet import (
    ClusterOption,
    FleetOptions,
    MaxConcurrency,
    MaxRate,
    ShardsOption,
    identify_on_cluster,
)
from face_async.cli.identify.identification import Identification, Tally
from face_async.cli.identify.output import Csv, Failures, Json, Lines, Output, Outputs, Table
from face_async.cli.identify.report import Report
from face_async.cli.language import translated
from face_async.cli.options import (
    AllowOutside,
    AsJson,
    AtOnce,
    BaseUrl,
    Db,
    FitOption,
    ProgressOption,
    Quiet,
    RecognizerName,
    RecognizerOption,
    ServiceChoice,
    Threshold,
    ask,
    throttle_of,
)
from face_async.cli.output import tell
from face_async.cli.pictures import pictures_below
from face_async.cli.progress import ProgressDisplay
from face_async.errors import ImageRefusedError, NotFoundError, ReturnCode, TransportError, quoted
from face_async.fleet.plan import Probe, called
from face_async.images import KINDS, is_url
from face_async.images.folders import PassedOver
from face_async.ingest import BadRow
from face_async.ingest.enclosure import Enclosure
from face_async.ingest.objects import is_object_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from face_async.bulk.outcomes import Outcome
    from face_async.errors import FaceError
    from face_async.session import FaceSession

_MAX_UNANSWERED = 10  # pictures in a row without an answer, after which the others would have none either


def identify(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Pictures' files or URLs; a folder means all pictures in it and in its sub-folders, as does "
            "s3://BUCKET/PREFIX/ with --cluster.",
        ),
    ],
    *,
    group_ids: Annotated[
        list[str], typer.Option("--group", "-g", metavar="GROUP", help="A group to search in; may be repeated.")
    ],
    threshold: Threshold = SURELY_THE_SAME,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with all pictures, too.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write a row for each picture and candidate, too.")
    ] = None,
    enrolled: Annotated[
        Path | None,
        typer.Option(
            "--enrolled",
            metavar="FOLDER",
            help="With --report: a folder with pictures of the candidates: a sub-folder or a file for each person, "
            "named by the id.",
        ),
    ] = None,
    allow_outside: AllowOutside = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="With --cluster: the folder for what is found, in Parquet files; or s3://, gs://, az://.",
        ),
    ] = None,
    cluster: ClusterOption = None,
    shards: ShardsOption = None,
    max_concurrency: MaxConcurrency = None,
    max_rate: MaxRate = None,
    fit: FitOption = False,
    at_once: AtOnce = 16,
    on_outage: Annotated[
        OnOutage,
        typer.Option(
            "--on-outage", help="What to do when the service goes away during the run: wait until it is back, or fail."
        ),
    ] = "wait",
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    progress: ProgressOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Recognize the persons of one or more groups in pictures; the exit code is 1 unless all are recognized.

    For files and URLs the answer is a table of all candidates; for folders, one line for each picture.
    """
    probes, passed_over = Probes(tuple(images), allow_outside=allow_outside), PassedOver()
    if cluster is not None or out is not None:
        if cluster is None or out is None or report or csv or enrolled or db:
            raise ValueError("--cluster and --out go together, and with neither --report, --csv, --enrolled nor --db")
        fleet = FleetOptions(
            cluster=cluster,
            shards=shards,
            max_concurrency=max_concurrency,
            max_rate=max_rate,
            base_url=base_url,
            fit=fit,
            quiet=quiet,
            json=as_json,
            progress=progress,
        )
        done = identify_on_cluster(probes.placed(passed_over), out, group_ids, fleet, source=probes.described)
        _tell_passed_over(passed_over, quiet=quiet)
        raise typer.Exit(done)
    if shards or max_concurrency:
        raise ValueError("--shards and --max-concurrency need --cluster; without it, say --at-once")
    search = Search(group_ids, threshold, at_once, fit, on_outage)
    tally = Tally()
    database = ServiceChoice.of(db, base_url, recognizer).database
    kept = [*probes.files(), *([] if database is None else [database])]
    with (
        Outputs(_on_the_terminal(probes, quiet=quiet, as_json=as_json)) as outputs,
        ProgressDisplay(progress, quiet=quiet) as display,
    ):
        if csv is not None:
            outputs.include(Csv(csv, sources=kept))
            kept.append(csv)
        if report is not None:
            page = Report(
                report,
                sources=kept,
                group_ids=group_ids,
                threshold=threshold,
                enrolled=enrolled,
                allow_outside=allow_outside,
            )
            outputs.include(page)
        display.begin(_("recognizing"), probes.count(passed_over))

        def take(identified: Identification) -> None:
            tally.add(identified)
            outputs.add(identified)
            display.advance()

        run = partial(search.run, probes=probes, take=take)
        throttle = throttle_of(at_once, max_rate)
        ask(run, db=db, base_url=base_url, recognizer=recognizer, quiet=quiet, throttle=throttle)
    _tell_passed_over(passed_over, quiet=quiet)
    _remark(tally, probes, [path for path in (csv, report) if path is not None], quiet=quiet)
    raise typer.Exit(tally.exit)


def _on_the_terminal(probes: Probes, *, quiet: bool, as_json: bool) -> list[Output]:
    """Return the outputs on the terminal. They are closed last to first: failures come below everything else."""
    outputs: list[Output] = [] if probes.folders else [Failures()]
    if as_json:
        outputs.append(Json())
    elif not quiet:
        outputs.append(Lines() if probes.folders else Table())
    return outputs


def _tell_passed_over(passed_over: PassedOver, *, quiet: bool) -> None:
    if str(passed_over) and not quiet:
        tell(_("passed over: {what}").format(what=translated(str(passed_over))))


def _remark(tally: Tally, probes: Probes, written: Sequence[Path], *, quiet: bool) -> None:
    if probes.folders:
        for line in tally.failures():
            tell(line)
        if not quiet:
            tell(tally.summary())
    for path in () if quiet else written:
        tell(_("wrote {path}").format(path=path))


@frozen
class Probes:
    """The pictures that the arguments name, and those in folders that they name.

    Attributes:
        names: The arguments.
        allow_outside: Whether links may lead out of such a folder.
    """

    names: tuple[str, ...]
    allow_outside: bool = field(kw_only=True)
    _enclosures: list[Enclosure] = field(
        init=False,
        default=Factory(
            lambda self: [Enclosure(name) for name in self.names if _is_folder(name)],
            takes_self=True,
        ),
    )

    @property
    def folders(self) -> bool:
        """Whether one of them is a folder."""
        return any(map(_is_folder, self.names))

    @property
    def described(self) -> str:
        """What tells them from other probes: what was asked for, wherever that was."""
        return called(map(_place, self.names)) + (" --allow-outside" if self.allow_outside else "")

    def __iter__(self) -> Iterator[str]:
        return self.found(PassedOver())

    def found(self, passed_over: PassedOver) -> Iterator[str]:
        """Yield the pictures, and count what else is in folders.

        Raises:
            ValueError: A folder has no pictures.
            OSError: A folder cannot be read.
        """
        for name in self.names:
            if _is_folder(name):
                yield from _found_below(name, passed_over)
            else:
                yield name

    def placed(self, passed_over: PassedOver) -> Iterator[Probe]:
        """Yield the pictures, by names that are the same wherever a worker is, and those that are not to be sent.

        Raises:
            ValueError, OSError: As from :meth:`found`; or a name is that of no file.
        """
        for name in self.names:
            if not _is_remote(name):
                os.stat(name)  # noqa: PTH116 - before any is sent
        for image in self.found(passed_over):
            place, complaint = _place(image), self.complaint(image)
            yield place if complaint is None else BadRow(place, 0, complaint)

    def complaint(self, image: str) -> str | None:
        """Return why a picture is not to be searched for, None if it is. It blocks."""
        if self.allow_outside or not self._enclosures or image in self.names:
            return None
        complaints = [enclosure.complaint(image) for enclosure in self._enclosures]
        return complaints[0] if all(complaints) else None

    def files(self) -> list[Path]:
        """Return the files that are named themselves."""
        return [Path(name) for name in self.names if not is_url(name) and not _is_folder(name)]

    def count(self, passed_over: PassedOver) -> int:
        """Return the number of pictures; as :meth:`found`."""
        return sum(1 for _ in self.found(passed_over))


@frozen
class Search:
    """How to search for the person in a picture."""

    group_ids: Sequence[str]
    threshold: float
    at_once: int
    fit: bool
    on_outage: OnOutage

    async def run(self, session: FaceSession, probes: Probes, take: Callable[[Identification], None]) -> None:
        """Search for the persons in all pictures, and hand on each identification, in the order of the pictures.

        Raises:
            FaceError: An error that all other pictures would meet, too.
        """
        waiting = BulkOutages(session.probe, self.on_outage, on_change=lambda: _tell_of(waiting))
        failing = BulkOutages(session.probe, "fail")
        was_there = False

        async def search(image: str) -> IdentifyResult | GroupsResult:
            nonlocal was_there
            if complaint := await anyio.to_thread.run_sync(probes.complaint, image):
                raise ImageRefusedError(f"the image {quoted(image)} is not sent: {complaint}")
            # A service that was not there from the beginning is no outage, but nearly always a wrong address.
            found = await self._search(session, image, waiting if was_there else failing)
            was_there = was_there or isinstance(found, IdentifyResult) or bool(found.by_group)
            return found

        unanswered = 0
        outcomes = Outcomes(search, probes, max_at_once=self.at_once, ordered=True, outages=waiting)
        async with outcomes:
            async for outcome in outcomes:
                identified = self._identified(outcome)
                error = identified.error
                unanswered = unanswered + 1 if isinstance(error, TransportError) else 0
                if error is not None and (unanswered > _MAX_UNANSWERED or self._concerns_all(error)):
                    raise error
                # For the report pictures are copied, and faces located: too slow for the event loop.
                await anyio.to_thread.run_sync(take, identified)

    async def _search(self, session: FaceSession, image: str, outages: BulkOutages) -> IdentifyResult | GroupsResult:
        if len(self.group_ids) == 1 and not self.fit:
            return await outages.call(lambda: session.identify(self.group_ids[0], image))
        return await search_groups(
            session, image, self.group_ids, outages, top=5, fit=self.fit, max_at_once=MAX_AT_ONCE, errors="collect"
        )

    def _identified(self, outcome: Outcome[str, IdentifyResult | GroupsResult]) -> Identification:
        result, error = outcome.result, outcome.error
        if isinstance(result, GroupsResult):
            # The person may be in a group that could not be searched.
            error = next(iter(result.errors.values()), None)
        candidates = () if result is None else result.candidates
        return Identification(outcome.item, candidates, error, threshold=self.threshold)

    def _concerns_all(self, error: FaceError | ValueError) -> bool:
        if isinstance(error, NotFoundError) and error.code == ReturnCode.ERROR_GROUP_NOT_EXISTED:
            return len(self.group_ids) == 1
        return judge_error(error).hopeless


def _tell_of(outages: BulkOutages) -> None:
    if outages.away is not None:
        tell(_("waiting for the service: {reason}").format(reason=translated(outages.away)))


def _place(name: str) -> str:
    """Return a name that is the same wherever a worker is."""
    return name if _is_remote(name) else os.path.abspath(name)  # noqa: PTH100 - links stay


def _is_remote(name: str) -> bool:
    return is_url(name) or is_object_url(name)


def _is_folder(name: str) -> bool:
    return not is_url(name) and os.path.isdir(name)  # noqa: PTH112 - False for what is no path at all


def _found_below(name: str, passed_over: PassedOver) -> Iterator[str]:
    others, path = PassedOver(), None
    for path in pictures_below(Path(name), others):
        yield str(path)
    if path is None:
        raise ValueError(f"{name} has no pictures ({KINDS}) in it" + (f", but {others}" if str(others) else ""))
    passed_over.include(others)
