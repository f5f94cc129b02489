"""The work on one part of a run, wherever it is done: begun again at any time, it comes to the same end."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import anyio
import attrs
from attrs import frozen

from face_async.fleet.layout import StateError, part_name
from face_async.fleet.plan import planned, rows_of
from face_async.fleet.state import open_state
from face_async.ingest import (
    JournalInUseError,
    Shard,
    Summary,
    ingest,
    read_units,
    rebuild_journal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from face_async import FaceSession, Throttle
    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.layout import RunState
    from face_async.ingest import Ingestion, Row

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
        rows: Pictures that were looked at.
        summary: Of an enrollment, the part's summary.
        seconds: Seconds that it took, for whoever finished it.
        cpu_seconds: Seconds of processor time of it.
        pid: The process that finished it.
    """

    rank: int
    rows: int
    summary: Summary | None
    seconds: float
    cpu_seconds: float
    pid: int


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
    state = open_state(task.state)
    return read_result(state, task.rank) or _Enrollment(state, task).run()


def read_result(state: RunState, rank: int) -> PartResult | None:
    """Return the result of a part, None while it is not done."""
    content = state.read(part_name("done", rank, ".json"))
    if content is None:
        return None
    fields = json.loads(content)
    summary = fields.pop("summary")
    return PartResult(summary=None if summary is None else Summary(**summary), **fields)


def read_progress(state: RunState, rank: int) -> Summary | None:
    """Return the summary of a part that is under way, some seconds old; None if nothing is known of it."""
    content = state.read(part_name("progress", rank, ".json"))
    return None if content is None else Summary(**json.loads(content))


class _Enrollment:
    """The enrollment of one part."""

    def __init__(self, state: RunState, task: PartTask) -> None:
        self._state = state
        self._task = task
        self._journal = state.journal(task.rank)
        self._shard = Shard(task.rank, planned(state).shards)
        self._groups: set[str] = set()
        self._told_at = 0.0

    def run(self) -> PartResult:
        """Enroll it as soon as nobody else does."""
        began, cpu_began = time.monotonic(), time.process_time()
        while True:
            try:
                with self._journal.holding() as journal:
                    self._restore(journal)
                    summary = anyio.run(self._ingest, journal)
                    self._check_held()
                    self._publish_units(journal)
                    result = PartResult(
                        self._task.rank,
                        summary.total,
                        summary,
                        time.monotonic() - began,
                        time.process_time() - cpu_began,
                        os.getpid(),
                    )
                    return publish_result(self._state, result)
            except JournalInUseError as error:
                # Whoever has it may only seem to be dead: there is never more than one who sends a part's pictures.
                if time.monotonic() - began > _LOCK_PATIENCE:
                    raise StateError(f"part {self._task.rank} is still being enrolled by another worker") from error
                time.sleep(_LOCK_EVERY)
            if (done := read_result(self._state, self._task.rank)) is not None:
                return done

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

    async def _ingest(self, journal: Path) -> Summary:
        task = self._task
        async with task.connection.open(task.throttle) as session:
            run = ingest(
                session,
                self._rows(),
                journal=journal,
                max_at_once=task.throttle.max_concurrency,
                fit=task.fit,
                shard=(self._shard.rank, self._shard.world),
                on_progress=self._teller(session),
            )
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

    def _rows(self) -> Generator[Row]:
        for row in rows_of(self._state, self._task.rank):
            self._groups.update(row.group_ids)
            yield row

    def _teller(self, session: FaceSession) -> Callable[[Summary], None]:
        def tell(summary: Summary) -> None:
            if summary.phase == "sending" and self._groups:
                session.ledger.assume_room(self._groups)
                self._groups.clear()
            if time.monotonic() - self._told_at >= _PROGRESS_EVERY:
                self._told_at = time.monotonic()
                self._state.publish(part_name("progress", self._task.rank, ".json"), _json(summary))

        return tell

    def _publish_units(self, journal: Path) -> None:
        """Publish what became of each picture, for whoever reads it without a journal."""
        name = part_name("units", self._task.rank, ".jsonl")
        with self._state.writing(name) as path, path.open("w", encoding="utf-8") as file:
            for unit in read_units(journal):
                line = {name: getattr(unit, name) for name in _UNIT_FIELDS}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def publish_result(state: RunState, result: PartResult) -> PartResult:
    """Note that a part is done, and return the result that counts: of several workers' it is the first."""
    state.publish_once(part_name("done", result.rank, ".json"), _json(result))
    return read_result(state, result.rank) or result


def _json(value: Summary | PartResult) -> bytes:
    return json.dumps(attrs.asdict(value)).encode()
