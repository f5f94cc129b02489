"""The work on one part of a run, wherever it is done: begun again at any time, it comes to the same end."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import attrs
from attrs import field, frozen

from face_async import FaceError
from face_async.fleet.layout import StateError, lines_of, part_name, reporting_damage
from face_async.fleet.plan import planned, rows_of
from face_async.fleet.state import open_state
from face_async.ingest import (
    BadRow,
    Difference,
    JournalError,
    JournalInUseError,
    RunOptions,
    Shard,
    Summary,
    ingest,
    read_units,
    rebuild_journal,
    retry_failed,
    verify,
)
from face_async.ingest.parts import read_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from face_async import FaceSession, Throttle
    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.layout import RunState
    from face_async.ingest import Ingestion, Row
    from face_async.ingest.queries import Failure

T = TypeVar("T")

_PROGRESS_EVERY = 2.0
_LOCK_EVERY = 0.5
_LOCK_PATIENCE = 600.0

_UNIT_FIELDS = ("person_id", "source", "state", "face_id", "code", "reason")


@frozen
class PartTask:
    """What a worker is sent: where a part is, and how it may reach the service.

    Attributes:
        state: The run's state.
        rank: The part's number.
        connection: How to reach the service; without its key.
        throttle: The share of the run's budget.
        fit: Whether pictures that are too large are made smaller.
        out: Of an identification, the folder for what is found.
    """

    state: str
    rank: int
    connection: ServiceConnection
    throttle: Throttle
    fit: bool = False
    out: str = ""


@frozen
class PartResult:
    """What became of a part.

    Attributes:
        rank: The part's number.
        rows: Pictures that were looked at; of a comparison, faces that were compared.
        summary: Of an enrollment, the part's summary.
        seconds: Seconds that it took, for whoever finished it.
        cpu_seconds: Seconds of processor time of it.
        pid: The process that finished it.
        persons: Of a comparison, persons that were compared.
        differences: Of a comparison, what differs.
    """

    rank: int
    rows: int
    summary: Summary | None
    seconds: float
    cpu_seconds: float
    pid: int
    persons: int = 0
    differences: tuple[Difference, ...] = field(default=(), converter=tuple[Difference, ...])

    @property
    def is_final(self) -> bool:
        """Whether there is nothing in the part that the next run would send or find out."""
        return self.summary is None or not (self.summary.pending or self.summary.ambiguous)


def attempt(work: Callable[[PartTask], PartResult], task: PartTask) -> PartResult | Exception:
    """Do the work on a part, and return its result or its error.

    So whatever a future raises is the engine's, and a part whose worker has died is told from one that has failed.
    """
    try:
        return work(task)
    except Exception as error:  # noqa: BLE001 - it is the result
        return error


def enroll_part(task: PartTask) -> PartResult:
    """Enroll one part of a run, or find that it was done already.

    Raises:
        StateError: The state has no plan, or another run has had the part's journal in use for ten minutes.
        JournalError, OSError: The journal or a picture cannot be read or written.
        ObjectStorageError: The object storage cannot be used that the state or a picture is in.
        FaceError: Whatever ends an enrollment.
    """
    part = _PartWork(task)
    return part.result() or part.as_soon_as_free(part.enroll)


def retry_part(task: PartTask) -> PartResult:
    """Try again exactly what has failed in a part of a run.

    Raises:
        StateError, JournalError, OSError, FaceError: As for :func:`enroll_part`.
    """
    part = _PartWork(task)
    part.withdraw()
    return part.as_soon_as_free(partial(part.enroll, retry=True))


def verify_part(task: PartTask, *, repair: bool = False) -> PartResult:
    """Compare the service with a part's journal; with ``repair``, the next enrollment of it sends what is missing.

    A part whose journal was lost is enrolled before, by which it is known what the service has of it.

    Raises:
        StateError, JournalError, OSError, FaceError: As for :func:`enroll_part`.
    """
    part = _PartWork(task)
    return part.as_soon_as_free(partial(part.compare, repair=repair), until_done=False)


def read_result(state: RunState, rank: int) -> PartResult | None:
    """Return the result of a part, None while it is not done.

    Raises:
        StateError: It is damaged, or another version's.
    """
    name = part_name("done", rank, ".json")
    content = state.read(name)
    if content is None:
        return None
    with reporting_damage(state.location, name):
        fields = json.loads(content)
        summary = fields.pop("summary")
        return PartResult(summary=None if summary is None else Summary(**summary), **fields)


def read_progress(state: RunState, rank: int) -> Summary | None:
    """Return the summary of a part that is under way, some seconds old; None if nothing is known of it."""
    content = state.read(part_name("progress", rank, ".json"))
    try:
        return None if content is None else Summary(**json.loads(content))
    except (TypeError, ValueError):  # a damaged one ends no run: the next one comes in a few seconds
        return None


def was_begun(state: RunState, rank: int) -> bool:
    """Return whether a part has a journal, unless that was lost: its progress is told before anything is sent."""
    return state.exists(part_name("progress", rank, ".json"))


class _PartWork:
    """The work on a part of an enrollment; whatever it does may be begun again."""

    def __init__(self, task: PartTask) -> None:
        self._state = open_state(task.state)
        self._task = task
        self._journal = self._state.journal(task.rank)
        self._shard = Shard(task.rank, planned(self._state).shards)
        self._groups: set[str] = set()
        self._told_at = 0.0
        self._away: str | None = None

    def result(self) -> PartResult | None:
        """Return the part's result, None while it is not done."""
        return read_result(self._state, self._task.rank)

    def withdraw(self) -> None:
        """Note that the part is not done, before its journal is changed: who begins it again goes on with that."""
        self._state.withdraw(part_name("done", self._task.rank, ".json"))

    def as_soon_as_free(self, work: Callable[[Path], PartResult], *, until_done: bool = True) -> PartResult:
        """Work with the journal as soon as nobody else does; with ``until_done`` only if they did not finish the part.

        Raises:
            StateError: Somebody else has had it for ten minutes.
        """
        began = time.monotonic()
        while True:
            try:
                with self._journal.holding() as journal:
                    return work(journal)
            except JournalInUseError as error:
                # Whoever has it may only seem to be dead: there is never more than one who sends a part's pictures.
                if time.monotonic() - began > _LOCK_PATIENCE:
                    raise StateError(f"part {self._task.rank} is still being enrolled by another worker") from error
                time.sleep(_LOCK_EVERY)
            if until_done and (done := self.result()) is not None:
                return done

    def enroll(self, journal: Path, *, retry: bool = False) -> PartResult:
        """Enroll the part; with ``retry`` only what has failed in it."""
        began, cpu_began = time.monotonic(), time.process_time()
        self._restore(journal)
        try:
            summary = anyio.run(self._ingest, journal, retry)
        except FaceError as error:
            if self._journal.is_held and not isinstance(error, JournalError):
                self._publish_units(journal)
            raise
        self._check_held()
        self._publish_units(journal)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        result = PartResult(self._task.rank, summary.total, summary, seconds, cpu_seconds, os.getpid())
        return publish_result(self._state, result) if result.is_final else result

    def compare(self, journal: Path, *, repair: bool) -> PartResult:
        """Compare the service with the journal."""
        began, cpu_began = time.monotonic(), time.process_time()
        lost, _ = self._journal.lost()
        if lost:
            self.withdraw()
            self.enroll(journal)
        done = self.result()
        if repair:
            self.withdraw()
        persons, faces, differences = anyio.run(self._verify, journal, repair)
        self._check_held()
        if repair and done is not None and not differences:
            publish_result(self._state, done)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        return PartResult(self._task.rank, faces, None, seconds, cpu_seconds, os.getpid(), persons, differences)

    def _restore(self, journal: Path) -> None:
        lost, copy = self._journal.lost()
        if lost:
            connection = self._task.connection
            rebuild_journal(
                journal,
                rows_of(self._state, self._task.rank),
                appid=connection.appid,
                bucket=connection.bucket,
                shard=self._shard,
                copy=copy,
            )

    def _check_held(self) -> None:
        if not self._journal.is_held:
            raise JournalInUseError(f"part {self._task.rank} may have been taken over by another worker")

    async def _verify(self, journal: Path, repair: bool) -> tuple[int, int, tuple[Difference, ...]]:  # noqa: FBT001 - for anyio.run
        task = self._task
        async with (
            task.connection.open(task.throttle) as session,
            verify(session, journal, repair=repair, max_at_once=task.throttle.max_concurrency) as found,
        ):
            differences = tuple([difference async for difference in found])
        return found.persons, found.faces, differences

    async def _ingest(self, journal: Path, retry: bool) -> Summary:  # noqa: FBT001 - for anyio.run
        task = self._task
        async with task.connection.open(task.throttle) as session:
            options: RunOptions = {
                "max_at_once": task.throttle.max_concurrency,
                "fit": task.fit,
                "shard": (self._shard.rank, self._shard.world),
                "on_progress": self._teller(session),
            }
            if retry:
                deque(self._rows(), maxlen=0)  # whose groups are not to be listed
                run = retry_failed(session, journal=journal, **options)
            else:
                run = ingest(session, self._rows(), journal=journal, **options)
            copied = time.monotonic()
            async with run:
                async for _ in run:
                    if not self._journal.is_held:
                        run.stop()
                    elif self._journal.copy_every is not None and time.monotonic() - copied > self._journal.copy_every:
                        await self._copy(run, journal.with_name("copied"))
                        copied = time.monotonic()
                return run.summary

    async def _copy(self, run: Ingestion, copy: Path) -> None:
        await run.copy_journal(copy)
        await anyio.to_thread.run_sync(self._journal.publish_copy, copy)

    def _rows(self) -> Generator[Row | BadRow]:
        for row in rows_of(self._state, self._task.rank):
            if not isinstance(row, BadRow):
                self._groups.update(row.group_ids)
            yield row

    def _teller(self, session: FaceSession) -> Callable[[Summary], None]:
        def tell(summary: Summary) -> None:
            if summary.phase == "sending" and self._groups:
                session.ledger.assume_room(self._groups)
                self._groups.clear()
            news = summary.phase == "ended" or summary.away != self._away
            if news or time.monotonic() - self._told_at >= _PROGRESS_EVERY:
                self._told_at, self._away = time.monotonic(), summary.away
                self._state.publish(part_name("progress", self._task.rank, ".json"), _json(summary))

        return tell

    def _publish_units(self, journal: Path) -> None:
        """Publish what became of each picture, and what failed, for whoever reads it without a journal."""
        units = ({name: getattr(unit, name) for name in _UNIT_FIELDS} for unit in read_units(journal))
        self._publish_lines("units", units)
        self._publish_lines("failures", read_failures(journal))

    def _publish_lines(self, kind: str, values: Iterable[object]) -> None:
        name = part_name(kind, self._task.rank, ".jsonl")
        with self._state.writing(name) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def failures_of_part(state: RunState, rank: int) -> Generator[Failure]:
    """Yield what had failed in a part, or was in doubt, when it was last worked on."""
    for person_id, source, code, reason in lines_of(state, part_name("failures", rank, ".jsonl"), 4):
        yield cast("str", person_id), cast("str", source), cast("str", code), cast("str", reason)


def publish_result(state: RunState, result: PartResult) -> PartResult:
    """Note that a part is done, and return the result that counts: of several workers' it is the first."""
    state.publish_once(part_name("done", result.rank, ".json"), _json(result))
    return read_result(state, result.rank) or result


def _json(value: Summary | PartResult) -> bytes:
    return json.dumps(attrs.asdict(value)).encode()
