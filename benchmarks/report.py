"""From samples to medians, ratios, tables and a chart."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BASES = "aiohttp", "plain httpx"
MEASURES = "rate", "cpu_ms", "p99_ms", "peak_mb", "growth_mb", "client_busy", "server_busy", "server_us", "calls"
Key = tuple[str, int, str]


def summarize(samples: Mapping[Key, list[dict[str, Any]]]) -> dict[Key, dict[str, Any]]:
    """Return one row for each workload, number in flight and client: medians over the rounds, and ratios of those."""
    rows: dict[Key, dict[str, Any]] = {}
    for (workload, in_flight, client), found in samples.items():
        row: dict[str, Any] = {"workload": workload, "in_flight": in_flight, "client": client, "rounds": len(found)}
        for measure in MEASURES:
            values = [sample[measure] for sample in found if sample.get(measure) is not None]
            row[measure] = median(values) if values else None
        row["failures"] = sum(sample.get("failures", 0) for sample in found)
        row["failure"] = next((sample["failure"] for sample in found if sample.get("failure")), "")
        rows[workload, in_flight, client] = row
    order = list(dict.fromkeys(workload for workload, _, _ in rows))
    rows = dict(sorted(rows.items(), key=lambda entry: (order.index(entry[0][0]), entry[0][1])))
    for (workload, in_flight, _), row in rows.items():
        row["against"] = {}
        for base in BASES:
            other = rows.get((workload, in_flight, base), {})
            row["against"][base] = {
                measure: row[measure] / other[measure] if row[measure] is not None and other.get(measure) else None
                for measure in ("cpu_ms", "rate")
            }
    return rows


def tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of Markdown for each workload."""
    pages: list[str] = []
    head = ["in flight", "client", "calls/s", "CPU ms/call", "p99 ms", "peak MB", "growth MB",
            "CPU / aiohttp", "CPU / httpx", "rate / aiohttp", "client busy", "server busy", "calls",
            "remarks"]  # fmt: skip
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        vs = row["against"]
        failed = f"{row['failures']} failed: " if row["failures"] else ""
        groups.setdefault(row["workload"], []).append(
            [
                str(row["in_flight"]), row["client"], _number(row["rate"]), _number(row["cpu_ms"]),
                _number(row["p99_ms"]), _number(row["peak_mb"]), _number(row["growth_mb"]),
                _number(vs["aiohttp"]["cpu_ms"], "x"), _number(vs["plain httpx"]["cpu_ms"], "x"),
                _number(vs["aiohttp"]["rate"], "x"), _percent(row["client_busy"]), _percent(row["server_busy"]),
                _number(row["calls"]),
                (failed + row["failure"])[:60].replace("\n", " ").replace("|", "/"),
            ]
        )  # fmt: skip
    for workload, lines in groups.items():
        pages.append(f"### {workload}\n\n{_table(head, lines)}")
    return "\n\n".join(pages)


def ceiling(rows: Mapping[Key, Mapping[str, Any]]) -> str:
    """Say what the server could give, by its CPU time for an answer to the floor, and when it was busiest."""
    most: dict[str, float] = {}
    for (workload, _, client), row in rows.items():
        if client == "raw asyncio" and row["server_us"] and "latency" not in workload and "slow" not in workload:
            most[workload] = max(most.get(workload, 0.0), 1e6 / row["server_us"])
    busiest = max(rows.values(), key=lambda row: row["server_busy"] or 0.0, default=None)
    if not most or busiest is None:
        return ""
    return (
        "The server's ceiling, by its own CPU time for an answer to the floor, in answers a second: "
        + ", ".join(f"{workload} {rate:,.0f}" for workload, rate in most.items())
        + f". It was busiest, {_percent(busiest['server_busy'])} of its core, with {busiest['client']} in "
        f"{busiest['workload']}, {busiest['in_flight']} in flight."
    )


def goals_table(goals: Iterable[Mapping[str, Any]]) -> str:
    """Return the list of goals as a table of Markdown."""
    lines = [
        [goal["goal"], goal["what"], _number(goal["measured"], goal["unit"]), *map(_verdict, _bounds(goal))]
        for goal in goals
    ]
    return _table(["goal", "what", "measured", "first", "moonshot"], lines)


def _bounds(goal: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    return [goal["first"], goal["moonshot"]]


def _verdict(bound: Mapping[str, Any] | None) -> str:
    if bound is None:
        return ""
    return f"{bound['bound']}: " + {True: "pass", False: "FAIL", None: "not measured"}[bound["passed"]]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3  # noqa: PLR2004
    return f"{value:,.{digits}f}{unit}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


_LOOKS = {
    "face_async": ("#0b5fff", 2.6, "o"),
    "face_async reqwest": ("#00a36c", 2.6, "o"),
    "reqwest on uvloop": ("#006b47", 2.0, "o"),
    "raw asyncio": ("#444444", 1.2, "."),
    "pyreqwest alone": ("#7fcdb0", 1.2, "."),
    "aiohttp": ("#e07b00", 1.8, "s"),
    "aiohttp on uvloop": ("#a35900", 1.4, "s"),
    "httpx2": ("#b07aff", 1.4, "^"),
    "plain httpx": ("#d62728", 1.8, "D"),
    "httpx kept": ("#f29999", 1.2, "d"),
    "qcloud_image": ("#8c564b", 1.4, "v"),
}


def chart(rows: Mapping[Key, Mapping[str, Any]], path: Path) -> bool:
    """Draw CPU time per call over calls in flight, a panel for each workload with several; False if there is none."""
    levels: dict[str, set[int]] = {}
    for (workload, in_flight, _), row in rows.items():
        if row["cpu_ms"] is not None and "latency" not in workload:
            levels.setdefault(workload, set()).add(in_flight)
    panels = [workload for workload, found in levels.items() if len(found) > 2]  # noqa: PLR2004 - else it is no line
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return False
    if not panels:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(panels), figsize=(8.5 * len(panels), 6), squeeze=False)
    for axis, workload in zip(axes[0], panels, strict=True):
        _panel(axis, workload, rows, sorted(levels[workload]))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _panel(axis: Any, workload: str, rows: Mapping[Key, Mapping[str, Any]], levels: Sequence[int]) -> None:
    ends: list[tuple[float, float, str]] = []
    for client, (color, width, marker) in _LOOKS.items():
        points = [(n, rows[workload, n, client]["cpu_ms"]) for n in levels if (workload, n, client) in rows]
        points = [(n, cpu) for n, cpu in points if cpu]
        if points:
            axis.plot(*zip(*points, strict=True), color=color, linewidth=width, marker=marker, markersize=6)
            ends.append((points[-1][1], points[-1][0], client))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(levels, [str(n) for n in levels])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlim(levels[0] * 0.85, levels[-1] * (levels[-1] / levels[0]) ** 0.45)
    axis.set_title(f"{workload}: client CPU per call", loc="left", fontweight="bold")
    axis.set_xlabel("calls in flight")
    axis.set_ylabel("milliseconds, user + system")
    axis.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    heights: dict[float, float] = {}
    for cpu, in_flight, client in sorted(ends):  # labels beside the lines' ends, pushed apart
        height = max(cpu, heights.get(in_flight, 0.0) * 1.28)
        heights[in_flight] = height
        axis.annotate(
            f"{client}  {_number(cpu)}", (in_flight, cpu), (in_flight * 1.12, height), va="center",
            color=_LOOKS[client][0], fontsize=9, fontweight="bold" if client.startswith("face_async") else "normal",
        )  # fmt: skip
