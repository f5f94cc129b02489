"""A run on an engine: parts are handed out, begun again when their worker dies, and counted together."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from face_async import Throttle
from face_async.fleet.layout import StateError
from face_async.fleet.plan import MOST_SHARDS, MOST_SPREAD, Plan, plan_enrollment, plan_identification, read_plan
from face_async.fleet.search import identify_part
from face_async.fleet.shard import PartResult, PartTask, attempt, enroll_part, read_progress, read_result
from face_async.fleet.state import open_state
from face_async.ingest.objects import is_object_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.layout import RunState
    from face_async.ingest import Source, Summary

_LOOK_EVERY = 1.0  # seconds between two looks at what is under way
_PLAN_EVERY = 1.0
_PLAN_PATIENCE = 3_600.0
_MOST_LOSSES = 20  # of one part, after which it is taken to be what kills its workers

OnProgress: TypeAlias = "Callable[[FleetSummary], object] | None"
_Work: TypeAlias = "Callable[[PartTask], PartResult]"


@frozen
class FleetSummary:
    """The state of a run on an engine.

    Attributes:
        parts: How many parts there are.
        parts_done: How many are done, in this run or before.
        parts_under_way: How many are under way.
        rows: Pictures that the source names.
        bad_rows: Rows of the source that are not a picture of a person.
        done: Pictures that were added; of an identification, those that were looked at.
        failed: Pictures that were not added.
        ambiguous: Pictures that may have been added.
        collapsed: Rows with the same picture as another row of the person.
        codes: Pictures that were not added, or may have been, by code or word.
        losses: How often a worker has died in this run, with the part that it did.
        seconds: Seconds since this run began.
        cpu_seconds: Seconds of processor time of the parts that are done, their last attempts only.
    """

    parts: int
    parts_done: int = 0
    parts_under_way: int = 0
    rows: int = 0
    bad_rows: int = 0
    done: int = 0
    failed: int = 0
    ambiguous: int = 0
    collapsed: int = 0
    codes: Mapping[str, int] = field(factory=dict[str, int])
    losses: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every row's picture was added."""
        return self.parts_done == self.parts and not (self.failed or self.ambiguous or self.bad_rows)


def enroll_source(
    source: Source,
    *,
    state: str | os.PathLike[str],
    connection: ServiceConnection,
    executor: Executor,
    group_ids: Sequence[str] = (),
    shards: int = 256,
    at_once: int = 4,
    budget: Throttle = Throttle(),
    fit: bool = False,
    allow_outside: bool = False,
    spread: int = 0,
    on_progress: OnProgress = None,
) -> FleetSummary:
    """Enroll the pictures of a source on an engine, each once, in a run that may be killed and begun again. Blocks.

    It continues what the state holds: parts that are done are not begun again, and the source is not read again.

    Args:
        source: As in :func:`face_async.ingest.ingest`; or a Parquet file, or a folder of them, with the columns of a
            manifest (extra ``fleet``). It may be in object storage, and so may the pictures that it names.
        state: The run's folder, which the workers see under the same name, made when there is none; or a URL of object
            storage, below which the state is kept (extra ``fleet``). One driver at a time may have it.
        connection: How workers reach the service.
        executor: The engine, such as :func:`open_engine` gives. It must pass on functions of installed modules.
        group_ids: The groups for rows that name none, and so for folders.
        shards: Into how many parts the source is divided, 1 to 100,000; what a dead worker did of one is kept.
        at_once: How many parts are under way at once, 1 to the budget's ``max_concurrency``.
        budget: The bounds of the whole run; each part that is under way has an equal share.
        fit: Makes pictures that are too large for a request smaller.
        allow_outside: Whether paths and links may lead out of the source's folder.
        spread: For more persons than a group may have: puts those of each group into so many numbered groups, 1 to
            5,000, which a :class:`~face_async.ShardedGroup` of the group's name opens. One for every 9,000 persons
            leaves room for chance.
        on_progress: Called about once a second with the state of the run.

    Raises:
        TypeError, ValueError: An argument is wrong.
        StateError: The state is another run's, another driver has it, or a part has killed twenty workers.
        ObjectStorageError: Object storage is out of reach, refuses access, or has no such bucket.
        OSError: The source or the state cannot be read or written.
        FaceError: Whatever ends a part; the other parts that are under way are finished before.
    """
    opened = open_state(state)
    with opened.driving() as check:
        plan = _planned_enrollment(source, opened, group_ids, shards, allow_outside=allow_outside, spread=spread)
        return _Run(opened, plan, enroll_part, on_progress, check).drive(
            executor, at_once, lambda rank, share: PartTask(opened.location, rank, connection, share, fit=fit), budget
        )


def enroll_one_part(
    source: Source,
    rank: int,
    *,
    state: str | os.PathLike[str],
    connection: ServiceConnection,
    group_ids: Sequence[str] = (),
    shards: int = 256,
    budget: Throttle = Throttle(),
    fit: bool = False,
    allow_outside: bool = False,
    spread: int = 0,
) -> FleetSummary:
    """Enroll one part of a run in this process, for schedulers that number their jobs, such as Slurm's. Blocks.

    The part with rank 0 makes the plan, and all others wait for it, an hour at most.

    Args:
        source: As in :func:`enroll_source`.
        rank: The part's number, from 0.
        state: As in :func:`enroll_source`.
        connection: As in :func:`enroll_source`.
        group_ids: As in :func:`enroll_source`.
        shards: As in :func:`enroll_source`.
        fit: As in :func:`enroll_source`.
        allow_outside: As in :func:`enroll_source`.
        spread: As in :func:`enroll_source`.
        budget: The bounds of this part alone: nobody divides it.

    Raises:
        TypeError, ValueError, StateError, OSError, FaceError: As for :func:`enroll_source`.
    """
    if not 0 <= rank < shards:
        raise ValueError(f"the part's number must be 0 to {shards - 1}, not {rank}")
    began = time.monotonic()
    opened = open_state(state)
    while rank and read_plan(opened) is None:
        if time.monotonic() - began > _PLAN_PATIENCE:
            raise StateError(f"{os.fspath(state)} has no plan yet; the part with rank 0 makes it: begin that one, too")
        time.sleep(_PLAN_EVERY)
    _planned_enrollment(source, opened, group_ids, shards, allow_outside=allow_outside, spread=spread)
    result = enroll_part(PartTask(opened.location, rank, connection, budget, fit=fit))
    return _sum(1, [result], {}, rows=result.rows)


def identify_probes(
    probes: Iterable[str],
    *,
    out: str | os.PathLike[str],
    connection: ServiceConnection,
    executor: Executor,
    group_ids: Sequence[str],
    shards: int = 64,
    at_once: int = 4,
    budget: Throttle = Throttle(),
    fit: bool = False,
    on_progress: OnProgress = None,
) -> FleetSummary:
    """Identify pictures on an engine, in a run that may be killed and begun again; the result is in Parquet. Blocks.

    ``out`` becomes a data set of one Parquet file a part, with the columns ``source``, ``rank`` (0 for the best
    candidate), ``person_id``, ``face_id``, ``confidence`` and ``code``: a row for each candidate, or one without a
    person for a picture that has none, with the code or the message of what went wrong, if anything did.

    Args:
        probes: The pictures' paths or URLs, as the workers see them; read once, and not again when the run goes on. A
            URL of object storage that ends in ``/`` stands for all pictures below it.
        out: The folder for the result, which the workers see under the same name, or a URL of object storage; the
            state of the run is in its sub-folder ``_run``.
        group_ids: The groups to search, 1 or more; their candidates are merged.
        connection: As in :func:`enroll_source`.
        executor: As in :func:`enroll_source`.
        shards: As in :func:`enroll_source`.
        at_once: As in :func:`enroll_source`.
        budget: As in :func:`enroll_source`.
        fit: As in :func:`enroll_source`.
        on_progress: As in :func:`enroll_source`.

    Raises:
        TypeError, ValueError: An argument is wrong.
        StateError, OSError, FaceError: As for :func:`enroll_source`.
    """
    if isinstance(group_ids, str) or not group_ids:
        raise ValueError("group_ids must be a list of at least one group")
    target = open_state(out)
    opened = open_state(os.path.join(target.location, "_run"))  # noqa: PTH118 - which may be no path
    wanted = Plan("identify", "probes", _checked(shards), tuple(group_ids))
    with opened.driving() as check:
        plan = read_plan(opened) or plan_identification(opened, probes, wanted)
        plan.check_same(wanted)
        return _Run(opened, plan, identify_part, on_progress, check).drive(
            executor,
            at_once,
            lambda rank, share: PartTask(opened.location, rank, connection, share, fit=fit, out=target.location),
            budget,
        )


def _planned_enrollment(
    source: Source,
    state: RunState,
    group_ids: Sequence[str],
    shards: int,
    *,
    allow_outside: bool,
    spread: int,
) -> Plan:
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "rows"
    if name != "rows" and not is_object_url(name):
        name = os.path.abspath(name)  # noqa: PTH100 - links stay
    if not 0 <= spread <= MOST_SPREAD:
        raise ValueError(f"spread must be 0 to {MOST_SPREAD:,}, not {spread}")
    wanted = Plan("enroll", name, _checked(shards), tuple(group_ids), allow_outside=allow_outside, spread=spread)
    plan = read_plan(state) or plan_enrollment(state, source, wanted)
    plan.check_same(wanted)
    return plan


def _checked(shards: int) -> int:
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"shards must be 1 to {MOST_SHARDS:,}, not {shards}")
    return shards


class _Run:
    """A run of parts."""

    def __init__(
        self, state: RunState, plan: Plan, work: _Work, on_progress: OnProgress, check: Callable[[], None]
    ) -> None:
        self._check = check
        self._state = state
        self._plan = plan
        self._work = work
        self._on_progress = on_progress
        self._results: list[PartResult] = []
        self._losses: Counter[int] = Counter()
        self._under_way: dict[Future[PartResult | Exception], int] = {}
        self._began = time.monotonic()

    def drive(
        self, executor: Executor, at_once: int, task: Callable[[int, Throttle], PartTask], budget: Throttle
    ) -> FleetSummary:
        """Do all parts that are not done, ``at_once`` of them at a time, and return the summary."""
        share = budget.divided(min(at_once, self._plan.shards))
        left = iter([rank for rank in range(self._plan.shards) if not self._is_done(rank)])
        failure: Exception | None = None
        try:
            while True:
                while failure is None and len(self._under_way) < at_once and (rank := next(left, None)) is not None:
                    self._submit(executor, task(rank, share))
                self._check()
                summary = self._tell()
                if not self._under_way:
                    break
                ended, _ = wait(self._under_way, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
                for future in ended:
                    rank = self._under_way.pop(future)
                    result = self._result_of(future, rank)
                    if isinstance(result, PartResult):
                        self._results.append(result)
                    elif result is None:
                        self._submit(executor, task(rank, share))
                    else:
                        result.add_note(f"in part {rank} of {self._plan.shards}; the same call goes on from here")
                        failure = failure or result
        finally:
            for future in self._under_way:
                future.cancel()
        if failure is not None:
            raise failure
        return summary

    def _summary(self) -> FleetSummary:
        progress = {rank: read_progress(self._state, rank) for rank in self._under_way.values()}
        return _sum(
            self._plan.shards,
            self._results,
            progress,
            rows=self._plan.rows,
            bad_rows=self._plan.bad_rows,
            losses=self._losses.total(),
            seconds=time.monotonic() - self._began,
        )

    def _is_done(self, rank: int) -> bool:
        result = read_result(self._state, rank)
        if result is not None:
            self._results.append(result)
        return result is not None

    def _submit(self, executor: Executor, task: PartTask) -> None:
        self._under_way[executor.submit(attempt, self._work, task)] = task.rank

    def _result_of(self, future: Future[PartResult | Exception], rank: int) -> PartResult | Exception | None:
        """Return what a part has come to, None if its worker has died and it is to be begun again."""
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 - each engine has errors of its own for a worker that has died
            self._losses[rank] += 1
            if self._losses[rank] >= _MOST_LOSSES:
                lost = StateError(f"{_MOST_LOSSES} workers have died with part {rank}: {error}")
                lost.__cause__ = error
                return lost
            return None

    def _tell(self) -> FleetSummary:
        summary = self._summary()
        if self._on_progress is not None:
            self._on_progress(summary)
        return summary


def _sum(
    parts: int,
    results: Sequence[PartResult],
    progress: Mapping[int, Summary | None],
    *,
    rows: int,
    bad_rows: int = 0,
    losses: int = 0,
    seconds: float = 0.0,
) -> FleetSummary:
    """Return the state of a run, from the results of its parts and the summaries of those under way."""
    summaries = [summary for summary in (*(one.summary for one in results), *progress.values()) if summary is not None]
    codes: Counter[str] = Counter()
    for summary in summaries:
        codes.update(summary.codes)
    searched = sum(result.rows for result in results if result.summary is None)
    return FleetSummary(
        parts=parts,
        parts_done=len(results),
        parts_under_way=len(progress),
        rows=rows,
        bad_rows=bad_rows + sum(summary.bad_rows for summary in summaries),
        done=searched + sum(summary.done for summary in summaries),
        failed=sum(summary.failed for summary in summaries),
        ambiguous=sum(summary.ambiguous for summary in summaries),
        collapsed=sum(summary.collapsed for summary in summaries),
        codes=dict(codes),
        losses=losses,
        seconds=seconds or sum(result.seconds for result in results),
        cpu_seconds=sum(result.cpu_seconds for result in results),
    )
