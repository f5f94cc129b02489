"""Measure the server: ``python benchmarks/capacity.py --quick``.

What a call costs, by verb and by connections, beside a server on the same stack that only says hello; identification
in large groups; a crowd of sessions; and memory, and the time of honest calls, under attacks. ``--before CHECKOUT``
measures an earlier version of this project in the same run, by the Python in its ``.venv`` if it has one;
``--postgres URL`` measures the same server over PostgreSQL, in new databases, which stay there.

The servers take turns in short slices, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import served
from attacks import ATTACKS, Attack, Target, attacked
from clients import PERSON
from crowd import measure_crowd
from fill import spare_name
from galleries import measure_gallery
from processes import Child, script
from report import MB, number, percentile, table, tenth
from served import Checkout, Filling

from face_async.portraits import draw_portrait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from served import Server

REPOSITORY = Path(__file__).resolve().parents[1]
CHEAP = "getgroupids", "getinfo", "setinfo"
LOOKING = "verify", "identify", "addface", "newperson"
FINGERPRINT, REAL = "fingerprint", "auto"
SMALL, MEDIUM, LARGE = Filling(1, 500, 20), Filling(1, 5_000, 20), Filling(1, 9_000, 20)
MILLION = Filling(10, 5_000, 20)
PEOPLE = Filling(1, 10, 10)  # a group of 100 faces, to call verbs with
PORTRAIT_SIZE, ITEMS = 240, 100
STARTED = time.monotonic()


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        verbs: Which verbs by recognizer, and with how many connections each.
        slices: How many slices each server has of each, and how many seconds of calls in each.
        galleries: What is in the databases that are identified in, by recognizer.
        calls: How often a gallery is asked in each of its ways.
        crowds: The recognizers of the servers that a crowd comes to.
        sessions: How many sessions a crowd is.
        attacks: The attacks.
        share: Which part of each attack is made.
        seconds: How long attacks without an end go on.
    """

    verbs: Mapping[str, tuple[Sequence[str], Sequence[int]]]
    slices: tuple[int, float]
    galleries: Sequence[tuple[str, Filling]]
    calls: int
    crowds: Sequence[str]
    sessions: int
    attacks: Sequence[Attack]
    share: float
    seconds: float


SIZES = {
    "full": Size(
        {FINGERPRINT: ((*CHEAP, *LOOKING), (1, 16, 64, 256)), REAL: (LOOKING, (1, 16))}, (8, 0.3),
        [(FINGERPRINT, SMALL), (FINGERPRINT, MEDIUM), (FINGERPRINT, LARGE), (FINGERPRINT, MILLION), (REAL, MEDIUM)],
        30, (FINGERPRINT, REAL), 10, ATTACKS, 1.0, 45.0,
    ),
    "quick": Size(
        {FINGERPRINT: (("getinfo", "setinfo", "identify", "newperson"), (1, 64)), REAL: (("identify",), (1,))},
        (4, 0.25), [(FINGERPRINT, SMALL), (FINGERPRINT, MEDIUM)], 10, (FINGERPRINT,), 10, ATTACKS, 0.2, 3.0,
    ),
    "smoke": Size(
        {FINGERPRINT: (("getinfo", "identify"), (2,))}, (1, 0.1), [(FINGERPRINT, PEOPLE)], 2, (FINGERPRINT,), 2,
        ATTACKS[:5:4], 0.01, 0.2,
    ),
}  # fmt: skip


def without_real(size: Size) -> Size:
    """Return the same without the real recognizer."""
    return replace(
        size,
        verbs={name: found for name, found in size.verbs.items() if name != REAL},
        galleries=[(name, filling) for name, filling in size.galleries if name != REAL],
        crowds=[name for name in size.crowds if name != REAL],
    )


class Bench:
    """One run: where its files are, and what is measured."""

    def __init__(self, size: Size, folder: Path, checkouts: Sequence[Checkout]) -> None:
        self.size = size
        self.folder = folder
        self.checkouts = checkouts
        self.picture = folder / "portrait.jpg"
        self.picture.write_bytes(draw_portrait(1, size=PORTRAIT_SIZE))
        self.item = f"{PERSON} {self.picture}"

    def filled(self, checkout: Checkout, recognizer: str, filling: Filling) -> Path | str:
        """Return a new database with these persons; files of before are removed."""
        home = self.folder / checkout.name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        return checkout.fill(home / "faces.db", recognizer, self.picture, filling)

    def served(self, checkout: Checkout, recognizer: str, filling: Filling) -> Server:
        """Return a new server over a new database."""
        return checkout.serve(self.filled(checkout, recognizer, filling), recognizer)

    def verbs(self) -> list[dict[str, Any]]:
        """Measure what calls cost."""
        rows: list[dict[str, Any]] = []
        for recognizer, (verbs, levels) in self.size.verbs.items():
            servers = {each.name: self.served(each, recognizer, PEOPLE) for each in self.checkouts}
            servers = {"hello": served.hello(), **servers}
            try:
                for number_of_verb, verb in enumerate(verbs):
                    for number_of_level, level in enumerate(levels):
                        first = (number_of_verb * len(levels) + number_of_level) * ITEMS
                        rows += self._compare(servers, recognizer, verb, level, first)
                        say(f"{recognizer}: {verb}, {level} connections")
            finally:
                for server in servers.values():
                    server.child.close()
        return rows

    def _compare(
        self, servers: Mapping[str, Server], recognizer: str, verb: str, level: int, first: int
    ) -> list[dict[str, Any]]:
        persons = [spare_name(first + index) if verb == "addface" else PERSON for index in range(ITEMS)]
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
        children: dict[str, Child] = {}
        count, seconds = self.size.slices
        try:
            for name, server in servers.items():
                job = {"client": "calls", "kind": verb, "in_flight": level, "base_url": server.base_url}
                path = self.folder / f"{name}.json"
                path.write_text(json.dumps({**job, "pictures": [f"{person} {self.picture}" for person in persons]}))
                children[name] = Child(script("measure.py", str(path)))
            for turn in range(count + 1):
                for name, child in children.items() if turn % 2 else reversed(children.items()):
                    before = servers[name].computed()
                    order = {"seconds": seconds, "least": level, "calls": 0, "core": -1}
                    sample = json.loads(child.ask(json.dumps(order)))
                    if turn:  # the first one opens connections
                        samples[name].append({**sample, "computed": servers[name].computed() - before})
        finally:
            for child in children.values():
                child.close()
        return with_ratios([summary(recognizer, verb, level, name, found) for name, found in samples.items()])

    def galleries(self) -> list[dict[str, Any]]:
        """Measure identification in large groups."""
        rows: list[dict[str, Any]] = []
        for recognizer, filling in self.size.galleries:
            for checkout in self.checkouts:
                faces = filling.groups * filling.persons * filling.faces
                database = self.filled(checkout, recognizer, filling)
                size = served.disk(database)
                server = checkout.serve(database, recognizer)
                try:
                    measuring = measure_gallery(
                        server, filling, self.item, calls=self.size.calls, seconds=self.size.slices[1] * 10
                    )
                    found = asyncio.run(measuring)
                finally:
                    server.child.close()
                rows.append(
                    {"recognizer": recognizer, "faces": faces, "groups": filling.groups, "server": checkout.name}
                    | {**found, "disk_mb": size / MB}
                )
                say(f"{recognizer}: {faces:,} faces in {filling.groups} groups, {checkout.name}")
        return rows

    def crowds(self) -> list[dict[str, Any]]:
        """Measure what becomes of a crowd."""
        rows: list[dict[str, Any]] = []
        for recognizer in self.size.crowds:
            for checkout in self.checkouts:
                server = self.served(checkout, recognizer, PEOPLE)
                try:
                    found = asyncio.run(measure_crowd(server, self.picture.read_bytes(), self.item, self.size.sessions))
                finally:
                    server.child.close()
                rows.append({"recognizer": recognizer, "server": checkout.name, **found})
                say(f"{recognizer}: a crowd, {checkout.name}")
        return rows

    def attacks(self) -> list[dict[str, Any]]:
        """Measure what attacks do."""
        rows: list[dict[str, Any]] = []
        for attack in self.size.attacks:
            for checkout in self.checkouts:
                if checkout.postgres:
                    continue  # an attack is on the server, whatever its database
                database = Path(self.filled(checkout, FINGERPRINT, PEOPLE))
                server = checkout.serve(database, FINGERPRINT)
                target = Target(server, database, self.item, self.size.share, self.size.seconds)
                try:
                    rows.append({"server": checkout.name, **asyncio.run(attacked(attack, target))})
                finally:
                    server.child.close()
                say(f"attack: {attack.__name__}, {checkout.name}")
        return rows


def summary(recognizer: str, verb: str, level: int, name: str, slices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what calls of a verb cost: the calls a second of the best tenth of the slices, and the rest of all."""
    good = [each for each in slices if each["calls"]]
    times = [1e3 * seconds for each in good for seconds in each["times"]]
    calls = sum(each["calls"] for each in good)
    return {
        "recognizer": recognizer, "verb": verb, "connections": level, "server": name, "calls": calls,
        "per_s": 1 / tenth(each["seconds"] / each["calls"] for each in good) if good else None,
        "p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99),
        "computed_ms": 1e3 * sum(each["computed"] for each in good) / calls if calls else None,
        "failures": sum(each["failures"] for each in slices),
        "failure": next((each["failure"] for each in slices if each["failure"]), ""),
    }  # fmt: skip


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one verb with what they compute as a multiple of hello, and of the state before."""
    of = {row["server"]: row["computed_ms"] for row in rows}
    for row in rows:
        for base in ("hello", "before"):
            mine, other = row["computed_ms"], of.get(base)
            row[f"of_{base}"] = mine / other if mine and other else None
    return rows


TABLES: Mapping[str, tuple[str, Sequence[str]]] = {
    "verbs": ("What a call costs", (
        "recognizer", "verb", "connections", "server", "per_s", "p50_ms", "p99_ms", "computed_ms", "of_hello",
        "of_before", "calls", "failures", "failure",
    )),
    "galleries": ("Identification in large groups", (
        "recognizer", "faces", "groups", "server", "cold_ms", "warm_ms", "warm_p99_ms", "after_write_ms",
        "beside_writers_ms", "newpersons_per_s", "resident_mb", "at_once_p99_ms", "at_once_refused",
        "at_once_growth_mb", "disk_mb",
    )),
    "crowds": ("A crowd", ("recognizer", "server", "calls", "failed", "seconds", "next_s")),
    "attacks": ("Attacks", (
        "attack", "server", "growth_mb", "worst_ms", "calls", "failed", "stop_s", "lines", "remark",
    )),
}  # fmt: skip


def page(title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a section of the report."""
    cells = [[number(value) if isinstance(value, float) else str(value) for value in
              ("-" if row[name] is None else row[name] for name in names)] for row in rows]  # fmt: skip
    return f"### {title}\n\n{table([name.replace('_', ' ') for name in names], cells)}"


def say(what: str) -> None:
    """Tell what has been measured."""
    print(f"{time.monotonic() - STARTED:5.0f} s  {what}", file=sys.stderr)


def main() -> None:
    """Run the benchmark as the options say."""
    options = _options()
    name = "smoke" if options.smoke else "quick" if options.quick else "full"
    size = SIZES[name]
    if not find_spec("onnxruntime"):
        print("without the extra recognition the real recognizer is not measured", file=sys.stderr)
        size = without_real(size)
    out = Path(options.out or tempfile.mkdtemp(prefix="face_async_capacity_"))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    checkouts = [Checkout("now", REPOSITORY, options.serve)]
    checkouts += [Checkout("before", options.before.resolve())] if options.before else []
    checkouts += [Checkout("postgresql", REPOSITORY, options.serve, options.postgres)] if options.postgres else []
    wanted: list[str] = options.only or list(TABLES)
    results: dict[str, Any] = {
        "size": name, "python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg(),
    }  # fmt: skip
    pages = [f"## The server ({name}), Python {platform.python_version()}, {os.cpu_count()} cores"]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, Path(folder), checkouts)
        measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "verbs": bench.verbs, "galleries": bench.galleries, "crowds": bench.crowds, "attacks": bench.attacks,
        }  # fmt: skip
        for part in wanted:
            results[part] = measures[part]()
            pages.append(page(*TABLES[part], results[part]))
            (out / "results.json").write_text(json.dumps(results, indent=1))
            (out / "results.md").write_text("\n\n".join(pages) + "\n")
    print("\n\n".join(pages))
    print(f"\nSaved: {out}/results.json, results.md")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of twenty")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier version of this project")
    parser.add_argument(
        "--postgres", default="", metavar="URL", help="a PostgreSQL server, as one who may create databases"
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), help="parts of it")
    parser.add_argument("--serve", default="", metavar="OPTIONS", help="further options of face-async serve")
    parser.add_argument("--out", metavar="DIR", help="where to save the results (default: a new temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
