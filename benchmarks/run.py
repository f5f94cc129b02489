"""Benchmark face_async against its peers: ``python benchmarks/run.py --quick``.

Every measurement is a process of its own, pinned to one core, against a server of the same run on another. The rounds
interleave the clients, so that whatever else the machine does falls on all of them. Read the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
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
from statistics import median
from typing import Any

from goals import Results, judge_all
from peers import all_clients
from report import ceiling, chart, goals_table, summarize, tables
from workloads import IMPORTS, ROUNDS, SETS, Workload, write_pictures

HERE = Path(__file__).resolve().parent
PACKAGES = "face_async", "httpx", "httpx2", "aiohttp", "pyreqwest", "qcloud_image", "requests", "uvloop"
IMPORTED = "face_async", "httpx, attrs, cattrs"
PATIENCE = 45  # seconds beyond its own limit that a measurement may take before it is ended


class Bench:
    """One run: its options, its servers, its samples."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.server_core, self.client_core = (cores[0], cores[-1]) if len(cores) > 1 else (-1, -1)
        self.samples: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
        self.imports: dict[str, list[float]] = {name: [] for name in IMPORTED}
        self._servers: dict[tuple[float, bool], tuple[subprocess.Popen[str], str]] = {}
        self._children: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of our own programs."""
        command = [sys.executable, str(HERE / script), *arguments]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)  # noqa: S603 - our own
        self._children.append(child)
        return child

    def server(self, workload: Workload) -> str:
        """Return the base URL of a server that behaves as the workload wants it."""
        kind = workload.latency, workload.slow
        if kind not in self._servers:
            slow = ["--slow"] if workload.slow else []
            child = self.start("server.py", f"--latency={workload.latency}", f"--core={self.server_core}", *slow)
            port = child.stdout.readline().strip() if child.stdout else ""
            if not port:
                raise SystemExit(f"the server did not start: {child.stderr.read() if child.stderr else ''}")
            self._servers[kind] = child, f"http://127.0.0.1:{port}"
        return self._servers[kind][1]

    def measure(self, workload: Workload, in_flight: int, client: str) -> dict[str, Any]:
        """Measure one client once."""
        bulk = workload.total > 0
        job = {
            "client": client, "kind": workload.kind, "in_flight": in_flight, "base_url": self.server(workload),
            "pictures": write_pictures(self.folder, workload), "total": workload.total,
            "warm": 0 if bulk else in_flight * 5 // 4, "warm_seconds": workload.warm_limit,
            "min_calls": workload.total or max(20, in_flight),
            "seconds": workload.seconds, "limit": workload.limit,
            "core": self.client_core, "uvloop": self.options.uvloop,
        }  # fmt: skip
        jobfile = self.folder / "job.json"
        jobfile.write_text(json.dumps(job))
        child = self.start("measure.py", str(jobfile))
        try:
            out, err = child.communicate(timeout=workload.limit + PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return {"failure": "it took too long and was ended"}
        self._children.remove(child)
        try:
            result: dict[str, Any] = json.loads(out)
        except ValueError:
            return {"failure": err.strip().splitlines()[-1] if err.strip() else f"exit code {child.returncode}"}
        return result

    def time_imports(self) -> None:
        """Time each import in a fresh process, with bytecode for all, whatever this environment says of it."""
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        for names in IMPORTED:
            code = f"import time; t = time.perf_counter(); import {names}; print(time.perf_counter() - t)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(  # noqa: S603 - our own
                command, capture_output=True, text=True, check=True, cwd=self.folder, env={**os.environ, **bytecode}
            )
            self.imports[names].append(float(done.stdout))

    def close(self) -> None:
        """End all children."""
        for child in self._children:
            child.kill()
        for child in self._children:
            with contextlib.suppress(ValueError):
                child.communicate()


def main() -> int:
    """Run the benchmarks as the options say."""
    options = _options()
    size = "smoke" if options.smoke else "quick" if options.quick else "full"
    kinds = all_clients()
    missing = {name: reason for name, kind in kinds.items() if (reason := kind.missing())}
    wanted = [name for name in options.clients or kinds if name not in missing]
    workloads = [load for load in SETS[size] if not options.only or options.only.lower() in load.name.lower()]
    out = Path(options.out or tempfile.mkdtemp(prefix="face_async_benchmarks_"))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        try:
            _measure_all(bench, workloads, wanted, size)
        except KeyboardInterrupt:
            code = 130
            print("\ninterrupted; what was measured so far:", file=sys.stderr)
        finally:
            bench.close()
    _report(bench, missing, size, out)
    return code


def _measure_all(bench: Bench, workloads: list[Workload], wanted: list[str], size: str) -> None:
    rounds = bench.options.rounds or ROUNDS[size]
    started = time.monotonic()
    for turn in range(rounds):
        for workload in workloads:
            if workload.once and turn:
                continue
            levels = bench.options.concurrency
            pairs = [(n, name) for n, name in workload.pairs() if name in wanted and (not levels or n in levels)]
            for in_flight, client in pairs if turn % 2 == 0 else reversed(pairs):
                sample = bench.measure(workload, in_flight, client)
                bench.samples.setdefault((workload.name, in_flight, client), []).append(sample)
                at = f"{time.monotonic() - started:5.0f} s  round {turn + 1}"
                print(at, _told(workload, in_flight, client, sample), file=sys.stderr)
    if not bench.options.only or "import" in bench.options.only:
        for _ in range(1 + IMPORTS[size]):
            bench.time_imports()
        for times in bench.imports.values():
            times.pop(0)  # the first may have compiled


def _told(workload: Workload, in_flight: int, client: str, sample: dict[str, Any]) -> str:
    cpu = sample.get("cpu_ms")
    found = f"{cpu:9.3f} ms CPU a call, {sample['rate']:8,.0f} calls/s" if cpu else sample.get("failure", "")
    return f"{workload.name:25} {in_flight:4}  {client:18} {found}"


def _report(bench: Bench, missing: dict[str, str], size: str, out: Path) -> None:
    rows = summarize(bench.samples)
    imports = {name: median(times) for name, times in bench.imports.items() if times}
    goals = judge_all(Results(rows, imports))
    packages = {name: found for name in PACKAGES if (found := _version(name))}
    results = {
        "size": size,
        "machine": {
            "python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(),
            "client_core": bench.client_core, "server_core": bench.server_core,
            "client_loop": "uvloop" if bench.options.uvloop else "asyncio", "packages": packages,
        },
        "not_available": missing,
        "rows": list(rows.values()),
        "imports": imports,
        "goals": goals,
        "samples": [
            {"workload": workload, "in_flight": in_flight, "client": client, "rounds": rounds}
            for (workload, in_flight, client), rounds in bench.samples.items()
        ],
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(results, indent=1))
    versions = ", ".join(f"{name} {number}" for name, number in packages.items())
    page = [f"## Benchmarks ({size}), Python {platform.python_version()}, {versions}", tables(rows.values())]
    page += [f"Not available: {name} ({reason})." for name, reason in missing.items()]
    page += [ceiling(rows)]
    if imports:
        times = ", ".join(f"`import {name}` {seconds * 1000:.0f} ms" for name, seconds in imports.items())
        page += [f"Import: {times}."]
    page += ["### Goals", goals_table(goals)]
    text = "\n\n".join(part for part in page if part)
    (out / "results.md").write_text(text + "\n")
    print(text)
    drawn = chart(rows, out / "results.png")
    print(f"\nSaved: {out}/results.json, results.md{', results.png' if drawn else ''}")


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
    parser.add_argument("--quick", action="store_true", help="about 90 seconds instead of 15 minutes")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", metavar="WORKLOAD", help="workloads whose name contains this; 'import' for that alone"
    )
    parser.add_argument("--clients", type=listed, metavar="A,B", help="clients by name: " + ", ".join(all_clients()))
    parser.add_argument("--concurrency", type=numbers, metavar="1,16", help="calls in flight")
    parser.add_argument("--rounds", type=int, help="how often each measurement is made")
    parser.add_argument("--out", metavar="DIR", help="where to save the results (default: a new temporary folder)")
    parser.add_argument("--uvloop", action="store_true", help="run the clients on uvloop")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
