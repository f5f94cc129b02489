"""The identification of one part of a run: its probes are searched, and what was found becomes a Parquet file."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from face_async import ImageRefusedError, ServiceError
from face_async.bulk.api import search_groups
from face_async.bulk.outage import BulkOutages
from face_async.bulk.outcomes import MAX_AT_ONCE, Outcomes
from face_async.errors import quoted
from face_async.fleet.plan import planned, probes_of
from face_async.fleet.shard import PartResult, publish_result, read_result
from face_async.fleet.state import open_state
from face_async.ingest.objects import ObjectStorageError, is_object_url, read_picture

if TYPE_CHECKING:
    from face_async import GroupsResult
    from face_async.fleet.shard import PartTask

_Found: TypeAlias = "tuple[str, int, str | None, str | None, float | None, str | None]"


def identify_part(task: PartTask) -> PartResult:
    """Identify the probes of one part of a run, or find that it was done already.

    Raises:
        StateError: The state has no plan.
        ModuleNotFoundError: pyarrow is missing.
        FaceError: An error that all other probes would meet, too, such as ObjectStorageError.
    """
    state = open_state(task.state)
    done = read_result(state, task.rank)
    if done is not None:
        return done
    began, cpu_began = time.monotonic(), time.process_time()
    probes = probes_of(state, task.rank)
    found = anyio.run(_search, task, planned(state).group_ids, probes)
    _publish_found(task, found)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    result = PartResult(task.rank, len(probes), None, seconds, cpu_seconds, os.getpid())
    return publish_result(state, result)


async def _search(task: PartTask, group_ids: tuple[str, ...], probes: list[str]) -> list[_Found]:
    """Return a row for each candidate, the best first, or one with what went wrong."""
    found: list[_Found] = []
    async with task.connection.open(task.throttle) as session:
        outages = BulkOutages(session.probe, "wait")  # of all pictures and groups: one of them probes for all

        async def search(image: str) -> GroupsResult:
            content = await anyio.to_thread.run_sync(_content, image) if is_object_url(image) else image
            return await search_groups(
                session, content, group_ids, outages, top=5, fit=task.fit, max_at_once=MAX_AT_ONCE, errors="raise"
            )

        outcomes = Outcomes(search, probes, max_at_once=task.throttle.max_concurrency, outages=outages)
        async with outcomes:
            async for outcome in outcomes:
                error = outcome.error
                if isinstance(error, ObjectStorageError):
                    raise error
                candidates = () if error is not None else outcome.unwrap().candidates
                for rank, one in enumerate(candidates):
                    found.append((outcome.item, rank, one.person_id, one.face_id, one.confidence, None))
                if not candidates:
                    code = None if error is None else str(error.code if isinstance(error, ServiceError) else error)
                    found.append((outcome.item, 0, None, None, None, code))
    return found


def _content(url: str) -> bytes:
    try:
        return read_picture(url)
    except FileNotFoundError:
        raise ImageRefusedError(f"the image {quoted(url)} cannot be read: it is not there") from None


def _publish_found(task: PartTask, found: list[_Found]) -> None:
    pa: Any = import_module("pyarrow")  # extra "fleet"; it ships no types
    parquet: Any = import_module("pyarrow.parquet")
    schema = pa.schema(
        [
            ("source", pa.string()),
            ("rank", pa.int16()),
            ("person_id", pa.string()),
            ("face_id", pa.string()),
            ("confidence", pa.float64()),
            ("code", pa.string()),
        ]
    )
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in schema]
    table = pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema
    )
    with open_state(task.out).writing(f"part-{task.rank:05}.parquet") as path:
        parquet.write_table(table, path)
