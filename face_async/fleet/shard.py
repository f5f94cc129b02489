"""The work on one part of a run, wherever it is done: begun again at any time, it comes to the same end."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import anyio
import attrs
from attrs import frozen

from face_async.fleet.plan import planned, rows_of
from face_async.fleet.state import StateError, open_state, part_name
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

    from face_async._call.throttle import Throttle
    from face_async.fleet.connection import ServiceConnection
    from face_async.fleet.state import StateFolder
    from face_async.ingest import Row
    from face_async.session import FaceSession

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
        FaceError: Whatever ends an enrollment.
    """
    state = open_state(task.state)
    return read_result(state, task.rank) or _Enrollment(state, task).run()


def read_result(state: StateFolder, rank: int) -> PartResult | None:
    """Return the result of a part, None while it is not done."""
    content = state.read(part_name("done", rank, ".json"))
    if content is None:
        return None
    fields = json.loads(content)
    summary = fields.pop("summary")
    return PartResult(summary=None if summary is None else Summary(**summary), **fields)


def read_progress(state: StateFolder, rank: int) -> Summary | None:
    """Return the summary of a part that is under way, some seconds old; None if nothing is known of it."""
    content = state.read(part_name("progress", rank, ".json"))
    return None if content is None else Summary(**json.loads(content))


class _Enrollment:
    """The enrollment of one part."""

    def __init__(self, state: StateFolder, task: PartTask) -> None:
        self._state = state
        self._task = task
        self._journal = state.journal(task.rank)
        self._shard = Shard(task.rank, planned(state).shards)
        self._groups: set[str] = set()
        self._told_at = 0.0

    def run(self) -> PartResult:
        """Enroll it as soon as nobody else does."""
        began, cpu_began = time.monotonic(), time.process_time()
        self._begin()
        while True:
            try:
                summary = anyio.run(self._ingest)
                self._publish_units()
                break
            except JournalInUseError as error:
                # Whoever has it may only seem to be dead: there is never more than one who sends a part's pictures.
                if time.monotonic() - began > _LOCK_PATIENCE:
                    raise StateError(f"part {self._task.rank} is still being enrolled by another worker") from error
                time.sleep(_LOCK_EVERY)
            if (result := read_result(self._state, self._task.rank)) is not None:
                return result
        result = PartResult(
            self._task.rank,
            summary.total,
            summary,
            time.monotonic() - began,
            time.process_time() - cpu_began,
            os.getpid(),
        )
        publish_result(self._state, result)
        return result

    def _begin(self) -> None:
        """Note that the part was begun; if that was noted before and there is no journal, then it was lost."""
        begun = part_name("begun", self._task.rank)
        if not self._state.exists(begun):
            self._state.publish(begun, b"")
        elif not self._journal.exists():
            connection = self._task.connection
            rebuild_journal(
                self._journal,
                rows_of(self._state, self._task.rank),
                appid=connection.appid,
                bucket=connection.bucket,
                shard=self._shard,
            )

    async def _ingest(self) -> Summary:
        task = self._task
        async with task.connection.open(task.throttle) as session:
            run = ingest(
                session,
                self._rows(),
                journal=self._journal,
                max_at_once=task.throttle.max_concurrency,
                fit=task.fit,
                shard=(self._shard.rank, self._shard.world),
                on_progress=self._teller(session),
            )
            async with run:
                return await run.finish()

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

    def _publish_units(self) -> None:
        """Publish what became of each picture, for whoever reads it without a journal."""
        name = part_name("units", self._task.rank, ".jsonl")
        with self._state.writing(name) as path, path.open("w", encoding="utf-8") as file:
            for unit in read_units(self._journal):
                line = {name: getattr(unit, name) for name in _UNIT_FIELDS}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def publish_result(state: StateFolder, result: PartResult) -> None:
    """Note that a part is done."""
    state.publish(part_name("done", result.rank, ".json"), _json(result))


def _json(value: Summary | PartResult) -> bytes:
    return json.dumps(attrs.asdict(value)).encode()
