"""The names of ingestion as a typed program uses them; only type-checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from face_async.ingest import (
    Difference,
    Row,
    State,
    Summary,
    Unit,
    ingest,
    merge_journals,
    retry_failed,
    verify,
    write_failures,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from face_async import FaceSession


def rows() -> Iterator[Row]:
    yield Row("ada", "https://example.com/ada.jpg", ["staff"], person_name="Ada", tag="hq")


async def runs(session: FaceSession) -> None:
    async with ingest(session, Path("people"), journal="enroll.journal", group_ids=["staff"], shard=(0, 4)) as run:
        async for unit in run:
            assert_type(unit, Unit)
            assert_type(unit.state, State)
        assert_type(run.summary, Summary)
        run.stop()
    async with ingest(session, rows(), journal=Path("enroll.journal"), fit=True, on_progress=print) as run:
        assert_type(await run.finish(), Summary)
        assert_type(await run.write_failures("failures.csv"), int)
    async with retry_failed(session, journal="enroll.journal") as run:
        assert_type((await run.finish()).faces_per_second, float)


async def afterwards(session: FaceSession) -> None:
    async with verify(session, "enroll.journal") as differences:
        async for difference in differences:
            assert_type(difference, Difference)
    assert_type(await write_failures("enroll.journal", "failures.csv"), int)
    merge_journals(["0.journal", Path("1.journal")], "all.journal")
