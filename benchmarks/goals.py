"""The goals P1 to P10, each judged by what was measured in one run, unpinned and pinned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workloads import BULK, LATENCY, SLOW, SMALL, UPLOAD

Row = Mapping[str, Any]
Rows = Mapping[tuple[str, int, str, bool], Row]
DEFAULT, ASYNCIO, SPEED = "face_async", "asyncio", "asyncio+speed"


@dataclass(frozen=True)
class Results:
    """Everything that one run measured.

    Attributes:
        rows: By workload, calls in flight, client and whether it was pinned.
        imports: The CPU seconds of each import by its name.
        overhead: What this package costs by itself.
        pinned: Which of the rows count.
    """

    rows: Rows
    imports: Mapping[str, float]
    overhead: Mapping[str, float]
    pinned: bool = False

    def value(self, measure: str, workload: str, in_flight: int, client: str) -> float | None:
        """Return one measured value, None when there is none."""
        value = self.rows.get((workload, in_flight, client, self.pinned), {}).get(measure)
        return None if value is None else float(value)

    def ratio(self, measure: str, workload: str, in_flight: int, client: str, other: str) -> float | None:
        """Return a client's value divided by another's."""
        mine = self.value(measure, workload, in_flight, client)
        theirs = self.value(measure, workload, in_flight, other)
        return mine / theirs if mine is not None and theirs else None

    def worst(self, workload: str, client: str, other: str) -> float | None:
        """Return the highest ratio of CPU time per call from 16 calls in flight on."""
        levels = {n for name, n, _, _ in self.rows if name == workload and n >= 16}  # noqa: PLR2004 - as the goal says
        ratios = [self.ratio("cpu_us", workload, n, client, other) for n in levels]
        return max((ratio for ratio in ratios if ratio is not None), default=None)


@dataclass(frozen=True)
class Goal:
    """One line of the list: a bound below or above which a measured value must be.

    Attributes:
        number: P1 to P10.
        what: What is compared.
        measured: Computes the value.
        first: The bound to reach first, None when there is none.
        moonshot: The bound to dream of, None when there is none.
        at_least: Whether the bounds are lower ones.
        unit: What stands behind the numbers.
    """

    number: str
    what: str
    measured: Callable[[Results], float | None]
    first: float | None
    moonshot: float | None
    at_least: bool = False
    unit: str = "x"

    def judge(
        self, rows: Rows, imports: Mapping[str, float], overhead: Mapping[bool, Mapping[str, float]]
    ) -> dict[str, Any]:
        """Return the goal's line as plain data: the values, unpinned and pinned, both of which must be good."""
        ways = [Results(rows, imports, overhead.get(pinned, {}), pinned) for pinned in (False, True)]
        values = [self.measured(way) for way in ways]
        return {
            "goal": self.number,
            "what": self.what,
            "measured": values,
            "unit": self.unit,
            "first": self._verdict(values, self.first),
            "moonshot": self._verdict(values, self.moonshot),
        }

    def _verdict(self, values: list[float | None], bound: float | None) -> dict[str, Any] | None:
        if bound is None:
            return None
        found = [value for value in values if value is not None]
        passed = all(value >= bound if self.at_least else value <= bound for value in found) if found else None
        return {"bound": f"{'>=' if self.at_least else '<='} {bound:g}", "passed": passed}


def _small(client: str) -> Callable[[Results], float | None]:
    return lambda results: results.worst(SMALL, client, "aiohttp")


def _flat(client: str) -> Callable[[Results], float | None]:
    def flat(results: Results) -> float | None:
        low, high = (results.value("cpu_us", SMALL, n, client) for n in (16, 4000))
        return high / low if high is not None and low else None

    return flat


def _cheaper(in_flight: int) -> Callable[[Results], float | None]:
    return lambda results: results.ratio("cpu_us", SMALL, in_flight, "plain httpx", DEFAULT)


def _upload(client: str, other: str) -> Callable[[Results], float | None]:
    return lambda results: results.worst(UPLOAD, client, other)


def _bulk(client: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio("rate", BULK, 64, client, "qcloud_image")


def _growth(client: str) -> Callable[[Results], float | None]:
    return lambda results: results.value("growth_mb", SLOW, 256, client)


def _import_ratio(results: Results) -> float | None:
    ours, theirs = results.imports.get("face_async"), results.imports.get("httpx, attrs, cattrs")
    return ours / theirs if ours and theirs else None


def _share_of_possible(results: Results) -> float | None:
    rate = results.value("rate", LATENCY, 256, SPEED)
    return None if rate is None else rate / (256 / 0.05)


def _overhead(name: str) -> Callable[[Results], float | None]:
    return lambda results: results.overhead.get(name)


GOALS = [
    Goal("P1", "default: CPU of a small call / aiohttp, worst of 16 to 1000 in flight", _small(DEFAULT), 2.4, 2.0),
    Goal("P1", "asyncio: the same", _small(ASYNCIO), 1.4, 1.0),
    Goal("P1", "asyncio with speed: the same", _small(SPEED), 0.8, 0.5),
    Goal("P2", "default: CPU of a small call at 4000 in flight / at 16", _flat(DEFAULT), 1.4, 1.2),
    Goal("P2", "asyncio: the same", _flat(ASYNCIO), 1.4, 1.2),
    Goal("P2", "asyncio with speed: the same", _flat(SPEED), 1.4, 1.2),
    Goal("P2", "httpcore alone, the floor of the default: the same", _flat("httpcore alone"), None, None),
    # As many connections kept as calls in flight, which httpx's default does not: it gives up those unused for 5 s.
    Goal("P3", "plain httpx, connections kept / default, 16 in flight", _cheaper(16), 5, None, at_least=True),
    Goal("P3", "64 in flight: the same", _cheaper(64), 30, None, at_least=True),
    Goal("P3", "256 in flight: the same", _cheaper(256), 300, None, at_least=True),
    Goal("P4", "default: CPU of a 100 KB upload / aiohttp's FormData, worst from 16 in flight on",
         _upload(DEFAULT, "aiohttp"), 0.8, 0.65),
    Goal("P4", "asyncio: the same", _upload(ASYNCIO, "aiohttp"), 0.5, 0.35),
    Goal("P4", "asyncio with speed: the same / the raw floor", _upload(SPEED, "raw asyncio"), 3.3, 2),
    Goal("P5", "default: pictures a second in bulk, one a request / qcloud_image", _bulk(DEFAULT), 2, 3, at_least=True),
    Goal("P5", "asyncio: the same", _bulk(ASYNCIO), 3, 5, at_least=True),
    Goal("P5", "asyncio with speed: the same", _bulk(SPEED), 4, 6, at_least=True),
    Goal("P6", "default: memory for 256 uploads of 1.4 MB to a slow server", _growth(DEFAULT), 50, 24, unit=" MB"),
    Goal("P6", "asyncio: the same", _growth(ASYNCIO), 50, 24, unit=" MB"),
    Goal("P6", "asyncio with speed: the same", _growth(SPEED), 50, 24, unit=" MB"),
    Goal("P7", "import face_async / import httpx, attrs, cattrs", _import_ratio, 0.8, 0.5),
    Goal("P8", "default: calls a second at 256 in flight and 50 ms / aiohttp",
         lambda results: results.ratio("rate", LATENCY, 256, DEFAULT, "aiohttp"), 0.6, 0.9, at_least=True),
    Goal("P8", "asyncio with speed: the same / what the latency allows", _share_of_possible, 0.85, 0.92, at_least=True),
    Goal("P9", "CPU of an item in bulk, above a plain call", _overhead("bulk_item_us"), 30, None, unit=" us"),
    Goal("P9", "CPU of a group that is asked for a picture", _overhead("group_us"), 90, None, unit=" us"),
    Goal("P9", "CPU of opening and closing a session with TLS", _overhead("session_ms"), 2, None, unit=" ms"),
    Goal("P10", "persons enrolled a second with a picture each, over a server that costs nothing",
         _overhead("enrolled_a_second"), 1500, 3000, at_least=True, unit=""),
    Goal("P10", "what the disk allows if all else costs nothing: fdatasyncs a second / 4 a commit x persons a commit",
         _overhead("disk_allows"), None, None, unit=""),
    Goal("P10", "the same, the journal in memory", _overhead("enrolled_in_memory"), None, None, unit=""),
]  # fmt: skip


def judge_all(
    rows: Rows, imports: Mapping[str, float], overhead: Mapping[bool, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Return every goal's line."""
    return [goal.judge(rows, imports, overhead) for goal in GOALS]
