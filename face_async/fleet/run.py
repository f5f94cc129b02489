"""What is done with a run of parts: enrollment, another try of what failed, comparison, and identification."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Unpack

from attrs import evolve, frozen

from face_async.fleet.drive import PartsRun
from face_async.fleet.layout import StateError
from face_async.fleet.plan import (
    MOST_SHARDS,
    MOST_SPREAD,
    Plan,
    bad_rows_of,
    called,
    plan_enrollment,
    plan_identification,
    planned,
    read_plan,
)
from face_async.fleet.search import identify_part
from face_async.fleet.shard import (
    enroll_part,
    failures_of_part,
    read_result,
    retry_part,
    verify_part,
    was_begun,
)
from face_async.fleet.state import open_state
from face_async.ingest.objects import is_object_url
from face_async.ingest.queries import failure_of
from face_async.ingest.report import write_failure_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.drive import EngineOptions
    from face_async.fleet.layout import RunState
    from face_async.fleet.shard import PartResult
    from face_async.fleet.summary import FleetSummary
    from face_async.ingest import BadRow, Difference, Source
    from face_async.ingest.queries import Failure

_PLAN_EVERY = 1.0
_PLAN_PATIENCE = 3_600.0
_SHARDS, _PROBE_SHARDS = 256, 64


@frozen
class FleetComparison:
    """What comparing the service with a run has shown.

    Attributes:
        persons: Persons that were compared.
        faces: Faces that were compared.
        differences: The persons for whom they differ, and how.
    """

    persons: int
    faces: int
    differences: tuple[Difference, ...]


def enroll_source(
    source: Source,
    *,
    state: str | os.PathLike[str],
    connection: ServiceConnection,
    group_ids: Sequence[str] = (),
    shards: int | None = None,
    part: int | None = None,
    allow_outside: bool = False,
    spread: int = 0,
    **options: Unpack[EngineOptions],
) -> FleetSummary:
    """Enroll the pictures of a source on an engine, each once, in a run that may be killed and begun again. Blocks.

    It continues what the state holds: parts that are done are not begun again, and the source is not read again. So
    rows that a program makes are taken to be those that the run was begun with.

    Args:
        source: As in :func:`face_async.ingest.ingest`; or a Parquet file, or a folder of them, with the columns of a
            manifest (extra ``fleet``). It may be in object storage, and so may the pictures that it names.
        state: The run's folder, which the workers see under the same name, made when there is none; or a URL of object
            storage, below which the state is kept (extra ``fleet``). One driver at a time may have it.
        connection: How workers reach the service.
        group_ids: The groups for rows that name none, and so for folders.
        shards: Into how many parts the source is divided, 1 to 100,000; what a dead worker did of one is kept. None
            for as many as the state has, or 256 if it is new.
        part: Enrolls only the part with this number, from 0, for schedulers that number their jobs, such as Slurm's.
            Part 0 makes the plan, tells of rows that are no picture, and all others wait for the plan, an hour at most.
            Of a source in Parquet, each part tells of its own.
        allow_outside: Whether paths and links may lead out of the source's folder.
        spread: For more persons than a group may have: puts those of each group into so many numbered groups, 1 to
            5,000, which a :class:`~face_async.ShardedGroup` of the group's name opens. One for every 9,000 persons
            leaves room for chance.
        **options: See :class:`EngineOptions`.

    Raises:
        TypeError, ValueError: An argument is wrong.
        StateError: The state is another run's, another driver has it, or a part has killed twenty workers.
        ObjectStorageError: Object storage is out of reach, refuses access, or has no such bucket.
        OSError: The source or the state cannot be read or written.
        FaceError: Whatever ends a part; the other parts that are under way are finished before.
    """
    opened = open_state(state, check=True)
    if shards is not None:
        _ranks_of(shards, part)
    if part:
        _wait_for_plan(opened)
    if not 0 <= spread <= MOST_SPREAD:
        raise ValueError(f"spread must be 0 to {MOST_SPREAD:,}, not {spread}")
    # Whoever makes the plan is alone, too.
    with _driving(opened, None if read_plan(opened) is None else part) as check:
        plan = read_plan(opened)
        wanted = Plan(
            "enroll",
            _name_of(source),
            _shards_of(plan, shards, _SHARDS),
            tuple(group_ids),
            allow_outside=allow_outside,
            spread=spread,
        )
        ranks = _ranks_of(wanted.shards, part)
        plan = plan or plan_enrollment(opened, source, wanted)
        plan.check_same(wanted)
        done = _results(opened, ranks)
        left = [rank for rank in ranks if rank not in done]
        run = PartsRun(opened, _only(plan, part), connection, options, check)
        return run.drive(enroll_part, left, parts=len(ranks), done=list(done.values()))


def retry_run(
    state: str | os.PathLike[str],
    *,
    connection: ServiceConnection,
    part: int | None = None,
    **options: Unpack[EngineOptions],
) -> FleetSummary:
    """Try again exactly what has failed in a run, with the files as they are now. Blocks.

    Rows that are no picture are left out, as in :func:`face_async.ingest.retry_failed`, and parts that were not begun.

    Args:
        state: The run's state.
        connection: As in :func:`enroll_source`.
        part: Only the part with this number.
        **options: See :class:`EngineOptions`.

    Raises:
        StateError: There is no run, or a part has killed twenty workers.
        ValueError, OSError, FaceError: As for :func:`enroll_source`.
    """
    opened = open_state(state, check=True)
    plan = planned(opened)
    ranks = _ranks_of(plan.shards, part)
    with _driving(opened, part) as check:
        done = {rank: result for rank, result in _results(opened, ranks).items() if not _has_failed(result)}
        left = [rank for rank in ranks if rank not in done and was_begun(opened, rank)]
        run = PartsRun(opened, _only(plan, part), connection, options, check)
        return run.drive(retry_part, left, parts=len(ranks), done=list(done.values()))


def verify_run(
    state: str | os.PathLike[str],
    *,
    connection: ServiceConnection,
    repair: bool = False,
    part: int | None = None,
    **options: Unpack[EngineOptions],
) -> FleetComparison:
    """Compare the service with the journals of all parts of a run that were begun. Blocks.

    It is what :func:`face_async.ingest.verify` does with one journal. Parts whose journal was lost are enrolled before.

    Args:
        state: The run's state.
        connection: As in :func:`enroll_source`.
        repair: Whether what is missing is to be sent again by the next :func:`enroll_source`.
        part: Only the part with this number.
        **options: See :class:`EngineOptions`.

    Raises:
        StateError: There is no run, or a part has killed twenty workers.
        ValueError, OSError, FaceError: As for :func:`enroll_source`.
    """
    opened = open_state(state, check=True)
    plan = planned(opened)
    ranks = [rank for rank in _ranks_of(plan.shards, part) if was_begun(opened, rank)]
    with _driving(opened, part) as check:
        run = PartsRun(opened, _only(plan, part), connection, options, check)
        run.drive(partial(verify_part, repair=repair), ranks, parts=len(ranks), compares=True)
    results = sorted(run.results, key=lambda result: result.rank)
    return FleetComparison(
        sum(result.persons for result in results),
        sum(result.rows for result in results),
        tuple(difference for result in results for difference in result.differences),
    )


def write_run_failures(
    state: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    part: int | None = None,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> int:
    """Write everything that failed in a run, or is in doubt, into a CSV file; return how many rows it has. Blocks.

    The file is that of :func:`face_async.ingest.write_failures`. It has the parts as they were when the work on them
    ended; what a worker was killed with is told once its part was worked on again.

    Args:
        state: The run's state.
        path: The file to write, with mode 0600; one that is there is replaced once all is written.
        part: Only the part with this number; rows of the source that are no picture are with part 0, or if it is in
            Parquet with the part of their person.
        sources: Manifests and folders of pictures, in which nothing may be written.

    Raises:
        StateError: There is no run.
        OutputError: It would be written over something that must be kept.
        OSError: The state cannot be read, or the file cannot be written.
    """
    return write_failure_rows(run_failures(state, part=part), path, sources=sources)


def run_failures(state: str | os.PathLike[str], *, part: int | None = None) -> Iterator[Failure]:
    """Return what :func:`write_run_failures` writes, and raise what that raises."""
    opened = open_state(state, check=True)
    ranks = _ranks_of(planned(opened).shards, part)
    bad_rows = () if part else map(failure_of, bad_rows_of(opened))
    return chain(bad_rows, chain.from_iterable(failures_of_part(opened, rank) for rank in ranks))


def identify_probes(
    probes: Iterable[str | BadRow],
    *,
    out: str | os.PathLike[str],
    connection: ServiceConnection,
    group_ids: Sequence[str],
    shards: int | None = None,
    source: str | None = None,
    **options: Unpack[EngineOptions],
) -> FleetSummary:
    """Identify pictures on an engine, in a run that may be killed and begun again; the result is in Parquet. Blocks.

    ``out`` becomes a data set of one Parquet file a part, with the columns ``source``, ``rank`` (0 for the best
    candidate), ``person_id``, ``face_id``, ``confidence`` and ``code``: a row for each candidate, or one without a
    person for a picture that has none, with the code or the message of what went wrong, if anything did.

    Args:
        probes: The pictures' paths or URLs, as the workers see them. A URL of object storage that ends in ``/`` stands
            for all pictures below it. A ``BadRow`` stands for a file that is not to be sent, and says why; it counts as
            a bad row of the summary, as does a path that is not UTF-8, and :func:`write_run_failures` writes them all.
        out: The folder for the result, which the workers see under the same name, or a URL of object storage; the
            state of the run is in its sub-folder ``_run``.
        connection: As in :func:`enroll_source`.
        group_ids: The groups to search, 1 or more; their candidates are merged.
        shards: Into how many parts the probes are divided, 1 to 100,000. None for as many as the state has, or 64 if
            it is new.
        source: What tells the probes from those of other runs, such as the name of their folder: with it, they are not
            read again when the run goes on. None for a digest of them, in any order, for which they are read.
        **options: See :class:`EngineOptions`.

    Raises:
        TypeError, ValueError: An argument is wrong.
        StateError: ``out`` has other probes or groups, among what :func:`enroll_source` raises.
        OSError, FaceError: As for :func:`enroll_source`.
    """
    if isinstance(group_ids, str) or not group_ids:
        raise ValueError("group_ids must be a list of at least one group")
    target = open_state(out, check=True)
    opened = _state_in(target)
    with opened.driving() as check:
        plan = read_plan(opened)
        wanted = Plan("identify", source or "", _shards_of(plan, shards, _PROBE_SHARDS), tuple(group_ids))
        if plan is None:
            plan = plan_identification(opened, probes, wanted)
        else:
            plan.check_same(evolve(wanted, source=source or called(probes)))
        done = _results(opened, range(plan.shards))
        left = [rank for rank in range(plan.shards) if rank not in done]
        run = PartsRun(opened, plan, connection, options, check, out=target.location)
        return run.drive(identify_part, left, parts=plan.shards, done=list(done.values()))


def refused_probes(out: str | os.PathLike[str]) -> Iterator[BadRow]:
    """Return the probes of an identification that were not to be sent, and why."""
    return bad_rows_of(_state_in(open_state(out)))


def _state_in(target: RunState) -> RunState:
    return open_state(os.path.join(target.location, "_run"))  # noqa: PTH118 - which may be no path


def _name_of(source: Source) -> str:
    if not isinstance(source, str | os.PathLike):
        return "rows"
    name = os.fspath(source)
    return name if is_object_url(name) else os.path.abspath(name)  # noqa: PTH100 - links stay


@contextlib.contextmanager
def _driving(state: RunState, part: int | None) -> Generator[Callable[[], None]]:
    """Let nobody else drive the run, unless it is one part of it alone; yield what checks that this still is so."""
    if part is None:
        with state.driving() as check:
            yield check
    else:
        yield lambda: None


def _wait_for_plan(state: RunState) -> None:
    began = time.monotonic()
    while read_plan(state) is None:
        if time.monotonic() - began > _PLAN_PATIENCE:
            raise StateError(f"{state.location} has no plan yet; the part with rank 0 makes it: begin that one, too")
        time.sleep(_PLAN_EVERY)


def _ranks_of(shards: int, part: int | None) -> Sequence[int]:
    if part is None:
        return range(shards)
    if not 0 <= part < shards:
        raise ValueError(f"the part's number must be 0 to {shards - 1}, not {part}")
    return [part]


def _only(plan: Plan, part: int | None) -> Plan:
    """Return a plan with the counts of what one part tells of: part 0 of bad rows, and none of the rows of others."""
    return plan if part is None else evolve(plan, rows=0, bad_rows=0 if part else plan.bad_rows)


def _results(state: RunState, ranks: Iterable[int]) -> dict[int, PartResult]:
    """Return the results of the parts that are done."""
    found = ((rank, read_result(state, rank)) for rank in ranks)
    return {rank: result for rank, result in found if result is not None}


def _has_failed(result: PartResult) -> bool:
    return result.summary is not None and result.summary.failed > 0


def _shards_of(plan: Plan | None, shards: int | None, usual: int) -> int:
    """Return how many parts are wanted: unless it is said, as many as there are."""
    if shards is None:
        return usual if plan is None else plan.shards
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"shards must be 1 to {MOST_SHARDS:,}, not {shards}")
    return shards
