"""From slices to what a call costs, and to tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Key = tuple[str, int, str, bool]
MB = 2**20


def percentile(values: Iterable[float], share: int) -> float:
    """Return the value that so many percent of the values do not exceed; nan where there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)] if ordered else math.nan


def tenth(values: Iterable[float]) -> float:
    """Return the 10th percentile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 10]


def summarize(samples: Mapping[Key, list[dict[str, Any]]]) -> dict[Key, dict[str, Any]]:
    """Return a row for each workload, number in flight, client and way: what its calls cost, and how much of aiohttp's.

    What a call costs in CPU is the 10th percentile of its slices, and how many there are in a second that of their
    time: a slice is dearer when somebody disturbs it, and never cheaper.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for (workload, in_flight, client, pinned), slices in samples.items():
        good = [found for found in slices if found["calls"]]
        rows[workload, in_flight, client, pinned] = {
            "workload": workload, "in_flight": in_flight, "client": client, "pinned": pinned, "slices": len(slices),
            "calls": sum(found["calls"] for found in slices),
            "cpu_us": tenth(found["cpu"] / found["calls"] * 1e6 for found in good) if good else None,
            "rate": 1 / tenth(found["seconds"] / found["calls"] for found in good) if good else None,
            "growth_mb": max(found["growth_mb"] for found in good) if good else None,
            "failures": sum(found["failures"] for found in slices),
            "failure": next((found["failure"] for found in slices if found["failure"]), ""),
        }  # fmt: skip
    for (workload, in_flight, _, pinned), row in rows.items():
        base = rows.get((workload, in_flight, "aiohttp", pinned), {})
        row["against_aiohttp"] = row["cpu_us"] / base["cpu_us"] if row["cpu_us"] and base.get("cpu_us") else None
    return rows


def tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of Markdown for each workload."""
    head = [
        "in flight", "client", "", "CPU us/call", "CPU / aiohttp", "calls/s", "growth MB", "slices", "calls", "remarks",
    ]  # fmt: skip
    groups: dict[str, list[list[str]]] = {}
    for row in sorted(rows, key=lambda row: (row["pinned"], row["in_flight"])):
        failed = f"{row['failures']} failed: " if row["failures"] else ""
        groups.setdefault(row["workload"], []).append(
            [
                str(row["in_flight"]), row["client"], "pinned" if row["pinned"] else "", number(row["cpu_us"]),
                number(row["against_aiohttp"], "x"), number(row["rate"]),
                number(row["growth_mb"]) if "slow" in row["workload"] else "", str(row["slices"]),
                number(row["calls"]), (failed + row["failure"])[:60].replace("\n", " ").replace("|", "/"),
            ]
        )  # fmt: skip
    return "\n\n".join(f"### {workload}\n\n{table(head, lines)}" for workload, lines in groups.items())


def goals_table(goals: Iterable[Mapping[str, Any]]) -> str:
    """Return the list of goals as a table of Markdown."""
    lines = [
        [
            goal["goal"], goal["what"], *[number(value, goal["unit"]) for value in goal["measured"]],
            _verdict(goal["first"]), _verdict(goal["moonshot"]),
        ]
        for goal in goals
    ]  # fmt: skip
    return table(["goal", "what", "unpinned", "pinned", "first", "moonshot"], lines)


def _verdict(bound: Mapping[str, Any] | None) -> str:
    if bound is None:
        return ""
    return f"{bound['bound']}: " + {True: "pass", False: "FAIL", None: "not measured"}[bound["passed"]]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def number(value: float | None, unit: str = "") -> str:
    """Return a value with about three digits, "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}{unit}"
