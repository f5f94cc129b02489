"""Benchmark face_async against its peers: ``python benchmarks/run.py --quick``.

Every client is a process of its own, against a server of the same run that has a core to itself. The clients of a
workload take turns in short slices, unpinned, as programs run, and pinned to one core. What a call costs is the lowest
tenth of its slices: so other work on the machine, which makes some slices dearer, is in none of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from goals import judge_all
from peers import all_clients
from processes import Child, script
from report import goals_table, summarize, tables, tenth
from workloads import IMPORTS, OVERHEAD, SETS, Workload, write_pictures

PACKAGES = "face_async", "httpx", "httptools", "uvloop", "aiohttp", "httpx2", "ry", "wreq", "qcloud_image", "requests"
IMPORTED = "face_async", "httpx, attrs, cattrs"
WARM_SLICES, WARM_SECONDS = 2, 0.15


class Bench:
    """One run: its servers and its samples.

    Attributes:
        samples: Every slice, by workload, calls in flight, client and whether it was pinned.
        imports: The CPU seconds of imports.
        overhead: What this package costs by itself, by whether it was pinned.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.server_core, self.client_core = (cores[0], cores[-1]) if len(cores) > 1 else (-1, -1)
        self.samples: dict[tuple[str, int, str, bool], list[dict[str, Any]]] = {}
        self.imports: dict[str, list[float]] = {name: [] for name in IMPORTED}
        self.overhead: dict[bool, dict[str, float]] = {}
        self._servers: dict[tuple[float, bool], tuple[Child, str]] = {}

    def server(self, workload: Workload) -> str:
        """Return the base URL of a server that behaves as the workload wants it."""
        kind = workload.latency, workload.slow
        if kind not in self._servers:
            slow = ["--slow"] if workload.slow else []
            child = Child(script("server.py", f"--latency={workload.latency}", f"--core={self.server_core}", *slow))
            self._servers[kind] = child, f"http://127.0.0.1:{child.ask().strip()}"
        return self._servers[kind][1]

    def compare(self, workload: Workload, in_flight: int, names: list[str]) -> None:
        """Let clients take turns at one workload."""
        children: dict[str, Child] = {}
        least = in_flight * 3 // 2  # a slice of fewer would not have so many in flight
        job = {
            "kind": workload.kind,
            "in_flight": in_flight,
            "base_url": self.server(workload),
            "pictures": write_pictures(self.folder, workload),
        }
        try:
            for name in names:
                path = self.folder / f"{name}.json"
                path.write_text(json.dumps({**job, "client": name}))
                children[name] = Child(script("measure.py", str(path)))
            if workload.slices > 1:
                warm = {"seconds": WARM_SECONDS, "least": least, "calls": 0, "core": -1}
                for _ in range(WARM_SLICES):
                    self._round(workload, in_flight, children, warm)
            for turn in range(workload.slices):
                for core in [-1] if workload.slow else {-1, self.client_core}:
                    order = {"seconds": workload.seconds, "least": least, "calls": workload.calls, "core": core}
                    ordered = children if turn % 2 == 0 else dict(reversed(children.items()))
                    self._round(workload, in_flight, ordered, order, counts=True)
        finally:
            for child in children.values():
                child.close()

    def _round(
        self,
        workload: Workload,
        in_flight: int,
        children: dict[str, Child],
        order: dict[str, Any],
        *,
        counts: bool = False,
    ) -> None:
        for name, child in list(children.items()):
            try:
                sample = json.loads(child.ask(json.dumps(order)))
            except RuntimeError as error:
                sample = {"calls": 0, "failures": 1, "failure": str(error)}
                del children[name]
                child.close()
            if counts or sample["failures"]:
                key = workload.name, in_flight, name, order["core"] >= 0
                self.samples.setdefault(key, []).append(sample)

    def time_imports(self) -> None:
        """Time each import in a fresh process, with bytecode for all, whatever this environment says of it."""
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        for names in IMPORTED:
            code = f"import time; t = time.process_time(); import {names}; print(time.process_time() - t)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(  # noqa: S603 - our own
                command, capture_output=True, text=True, check=True, cwd=self.folder, env={**os.environ, **bytecode}
            )
            self.imports[names].append(float(done.stdout))

    def measure_overhead(self, slices: int) -> None:
        """Measure what this package costs by itself."""
        child = Child(script("overhead.py"))
        try:
            for core in (-1, self.client_core):
                self.overhead[core >= 0] = json.loads(child.ask(json.dumps({"core": core, "slices": slices})))
        finally:
            child.close()

    def close(self) -> None:
        """End all servers."""
        for child, _ in self._servers.values():
            child.close()


def main() -> int:
    """Run the benchmarks as the options say."""
    options = _options()
    size = "smoke" if options.smoke else "quick" if options.quick else "full"
    missing = {name: reason for name, kind in all_clients().items() if (reason := kind.missing())}
    out = Path(options.out or tempfile.mkdtemp(prefix="face_async_benchmarks_"))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            _measure_all(bench, size, options, missing)
        except KeyboardInterrupt:
            code = 130
            print("\ninterrupted; what was measured so far:", file=sys.stderr)
        finally:
            bench.close()
    _report(bench, missing, size, out)
    return code


def _measure_all(bench: Bench, size: str, options: argparse.Namespace, missing: dict[str, str]) -> None:
    started = time.monotonic()
    for workload in SETS[size]:
        if options.only and options.only.lower() not in workload.name.lower():
            continue
        names = [name for name in workload.clients if name not in missing and name in (options.clients or [name])]
        for in_flight in workload.in_flight:
            if names and in_flight in (options.in_flight or [in_flight]):
                bench.compare(workload, in_flight, names)
                print(f"{time.monotonic() - started:5.0f} s  {workload.name}, {in_flight} in flight", file=sys.stderr)
    if not options.only or "overhead" in options.only:
        bench.measure_overhead(OVERHEAD[size])
    if not options.only or "import" in options.only:
        for _ in range(1 + IMPORTS[size]):
            bench.time_imports()
        for times in bench.imports.values():
            times.pop(0)  # the first may have compiled


def _report(bench: Bench, missing: dict[str, str], size: str, out: Path) -> None:
    rows = summarize(bench.samples)
    imports = {name: tenth(times) for name, times in bench.imports.items() if times}
    goals = judge_all(rows, imports, bench.overhead)
    packages = {name: found for name in PACKAGES if (found := _version(name))}
    results = {
        "size": size,
        "machine": {
            "python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(),
            "load": os.getloadavg(), "packages": packages,
        },
        "not_available": missing,
        "rows": list(rows.values()),
        "imports": imports,
        "overhead": {"pinned" if pinned else "unpinned": found for pinned, found in bench.overhead.items()},
        "goals": goals,
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(results, indent=1))
    versions = ", ".join(f"{name} {number}" for name, number in packages.items())
    page = [f"## Benchmarks ({size}), Python {platform.python_version()}, {versions}", tables(rows.values())]
    page += [f"Not available: {name} ({reason})." for name, reason in missing.items()]
    if imports:
        times = ", ".join(f"`import {name}` {seconds * 1000:.0f} ms" for name, seconds in imports.items())
        page += [f"CPU time of imports: {times}."]
    page += ["### Goals", goals_table(goals)]
    text = "\n\n".join(part for part in page if part)
    (out / "results.md").write_text(text + "\n")
    print(text)
    print(f"\nSaved: {out}/results.json, results.md")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _options() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return [part.strip() for part in text.split(",")]

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under two minutes instead of fifteen")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", metavar="WORKLOAD", help="workloads whose name contains this; 'import' or 'overhead' for that alone"
    )
    parser.add_argument("--clients", type=listed, metavar="A,B", help="clients by name: " + ", ".join(all_clients()))
    parser.add_argument("--in-flight", type=numbers, metavar="16,64", help="calls in flight")
    parser.add_argument("--out", metavar="DIR", help="where to save the results (default: a new temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
