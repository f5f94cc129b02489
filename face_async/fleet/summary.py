"""The state of a run on an engine: that of all its parts together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import frozen

from face_async.ingest import Summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.fleet.plan import Plan
    from face_async.fleet.shard import PartResult

_COUNTS = ("listed", "ambiguous", "done", "failed", "collapsed")


@frozen(kw_only=True)
class FleetSummary(Summary):
    """The state of a run on an engine: the counts of all its parts together.

    Of an identification, ``done`` are the pictures that were looked at.

    Attributes:
        parts: How many parts there are.
        parts_done: How many are done, in this run or before.
        parts_under_way: How many are under way.
        rows: Rows of the source that are a picture, as far as they were looked at.
        losses: How often a worker has died in this run, with the part that it did.
        cpu_seconds: Seconds of processor time of the parts that are done, their last attempts only.
    """

    parts: int
    parts_done: int = 0
    parts_under_way: int = 0
    rows: int = 0
    losses: int = 0
    cpu_seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every row's picture was added."""
        return self.parts_done == self.parts and self.done == self.total and not self.bad_rows


def summarize(
    plan: Plan,
    parts: int,
    *,
    before: Sequence[PartResult],
    now: Sequence[PartResult],
    under_way: Sequence[Summary | None],
    failed: Sequence[Summary | None],
    losses: int,
    seconds: float,
) -> FleetSummary:
    """Return the state of a run.

    Args:
        plan: What it is; without rows if it is of one part alone.
        parts: How many parts of it are to be done.
        before: The results of parts that were done before this run.
        now: Those of parts that were worked on in this run.
        under_way: What is known of each part that is under way.
        failed: What is known of each part that an error has ended.
        losses: How often a worker has died.
        seconds: Seconds since the run began.
    """
    results = [*before, *now]
    known = [one for one in (*under_way, *failed) if one is not None]
    fresh = [*(result.summary for result in now if result.summary is not None), *known]
    summaries = [*(result.summary for result in before if result.summary is not None), *fresh]
    codes: Counter[str] = Counter()
    for summary in summaries:
        codes.update(summary.codes)
    counts = {name: sum(getattr(summary, name) for summary in summaries) for name in _COUNTS}
    counts["done"] += sum(result.rows for result in results if result.summary is None)
    bad_rows = sum(summary.bad_rows for summary in summaries)
    # Of parts that were not begun, and of rows that the state has lost, nothing else is known.
    unaccounted = plan.rows - bad_rows - sum(counts[name] for name in _COUNTS[1:])
    pending = max(unaccounted, sum(summary.pending for summary in summaries))
    return FleetSummary(
        phase="sending" if under_way else "ended",
        pending=pending,
        bad_rows=plan.bad_rows + bad_rows,
        codes=dict(codes),
        added=sum(summary.added for summary in fresh),
        added_bytes=sum(summary.added_bytes for summary in fresh),
        seconds=seconds,
        away=next((one.away for one in known if one.away is not None), None),
        parts=parts,
        parts_done=sum(result.is_final for result in results),
        parts_under_way=len(under_way),
        rows=plan.rows - bad_rows if plan.rows else sum(result.rows for result in results),
        losses=losses,
        cpu_seconds=sum(result.cpu_seconds for result in results),
        **counts,
    )
