"""Measure recognition on photographs of your own: ``python benchmarks/recognition.py FOLDER``.

The folder has one sub-folder a person. Every picture is compared with every other: pairs of one person should be alike,
pairs of strangers should not. Prints a table, and how often each threshold errs; ``--json`` writes all figures,
``--chart`` draws how far apart pairs are. ``--before CHECKOUT`` measures an earlier version of this project, in a
process of its own in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from error_rates import error_rates, error_table
from processes import family, resident

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
LEVELS = 75, 90, 99
FALSE_POSITIVES = 1e-3


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier version, which has dlib")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="draw how far apart pairs are")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3, metavar="N", help="how long each speed is measured")
    options = parser.parse_args()
    if options.measure:
        name, file = options.measure
        np.savez(file, **measured(name, pictures_of(options.folder), options.seconds))
        return
    people = [person for person, _ in pictures_of(options.folder)]
    engines = [("faces", Path(__file__).parents[1])] + ([("dlib", options.before)] if options.before else [])
    results = {name: in_a_process(name, checkout, options) for name, checkout in engines}
    rows = {name: figures(found, people) for name, found in results.items()}
    errors = {name: error_rates(found["similarities"], people) for name, found in results.items()}
    print(table(rows))
    for name, found in errors.items():
        print(f"\n{name}: how often a threshold errs\n{error_table(found)}")
    if options.json:
        told = {"pictures": len(people), "engines": rows, "error_rates": errors}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    if options.chart:
        chart(options.chart, {name: pairs(found["distances"], people) for name, found in results.items()})


def pictures_of(folder: Path) -> list[tuple[str, Path]]:
    """Return who is in which picture, sorted."""
    found = [(path.parent.name, path) for path in sorted(folder.glob("*/*")) if path.suffix.lower() in SUFFIXES]
    if len({person for person, _ in found}) < 2:  # noqa: PLR2004 - strangers are two
        raise SystemExit(f"{folder} has no two sub-folders, one a person, with pictures in them")
    return found


def in_a_process(name: str, checkout: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a version of the project measures, on its own."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "measured.npz")
        command = [sys.executable, __file__, str(options.folder), "--measure", name, str(file)]
        command += ["--seconds", str(options.seconds)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(checkout)})  # noqa: S603 - our own
        with np.load(file) as arrays:
            return dict(arrays)


def measured(name: str, pictures: Sequence[tuple[str, Path]], seconds: float) -> dict[str, Any]:
    """Return how far apart and how alike all pictures are (nan where no face was found), and what that took."""
    began = time.perf_counter()
    recognition = import_module("face_async.server.recognition")
    recognizer = recognition.recognizer(name)
    contents = [path.read_bytes() for _, path in pictures]
    find: Callable[[bytes], Any] = recognizer.find_face
    find(contents[0])
    first = time.perf_counter() - began
    faces = [found_or_none(find, content) for content in contents]
    length = next(len(face.embedding) for face in faces if face is not None)
    embeddings = np.stack([np.full(length, np.nan, np.float32) if face is None else face.embedding for face in faces])
    rates = {f"rate_{threads}": rate(find, contents, threads, seconds) for threads in (1, 2)}
    stall = max(stalls(find, contents))
    memory = sum(map(resident, family(os.getpid()))) / 2**20
    recognizer.close()  # which ends child processes, so that their computing is counted
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "distances": np.sqrt(((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2, dtype=np.float64)),
        "similarities": np.stack([recognizer.similarities(probe, embeddings) for probe in embeddings]),
        "first_seconds": first,
        "cpu_ms": 1e3 * used / looks[0],
        "longest_stall_ms": 1e3 * stall,
        "memory_mb": memory,
        **rates,
        **(steps(contents) if name == "faces" else {}),
    }


looks = [0]  # pictures that were looked at


def found_or_none(find: Callable[[bytes], Any], content: bytes) -> Any:
    """Return the face, None for a picture without one."""
    looks[0] += 1
    try:
        return find(content)
    except Exception as error:
        if type(error).__name__ != "Refusal":  # its place differs between versions
            raise
        return None


def rate(find: Callable[[bytes], Any], contents: Sequence[bytes], threads: int, seconds: float) -> float:
    """Return pictures a second."""
    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - began < seconds:
            done += len(list(pool.map(lambda content: found_or_none(find, content), contents)))
    return done / (time.perf_counter() - began)


def stalls(find: Callable[[bytes], Any], contents: Sequence[bytes]) -> list[float]:
    """Return how long another thread, which only wants to wake up every millisecond, slept instead, in seconds."""
    slept: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            slept.append(time.perf_counter() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda content: found_or_none(find, content), contents))
    over.set()
    watcher.join()
    return slept


def steps(contents: Sequence[bytes]) -> dict[str, float]:
    """Return the computing time of each step, in ms: the median over all pictures."""
    decode = import_module("face_async.images.decoding").decode
    package = "face_async.server.recognition"
    finder, embedding = import_module(f"{package}.search").Finder(), import_module(f"{package}.embedding")
    attributes, embedder = import_module(f"{package}.attributes"), embedding.Embedder()
    guesser = attributes.Guesser()
    spent: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        done = work()
        spent.setdefault(f"ms_{step}", []).append(1e3 * (time.process_time() - began))
        return done

    for content in contents:
        image = timed("decode", lambda: decode(content, area=1600 * 1600).image)  # noqa: B023 - it is called at once
        mesh = timed("find", lambda: finder.largest(image))  # noqa: B023
        if mesh is not None:
            timed("embed", lambda: embedder.run(embedding.aligned(image, mesh)))  # noqa: B023
            timed("describe", lambda: (guesser.age(image, mesh), guesser.gender(image, mesh)))  # noqa: B023
    return {step: statistics.median(times) for step, times in spent.items()}


def pairs(matrix: Any, people: Sequence[str]) -> tuple[Any, Any]:
    """Return the values of pairs of one person, and of strangers; pictures without a face are left out."""
    one, other = np.triu_indices(len(people), 1)
    values, names = matrix[one, other], np.array(people)
    known, same = ~np.isnan(values), names[one] == names[other]
    return values[known & same], values[known & ~same]


def figures(found: dict[str, Any], people: Sequence[str]) -> dict[str, float]:
    """Return all figures of an engine by their names."""
    names = np.array(people)
    nearest = np.where(np.isnan(found["distances"]), np.inf, found["distances"])
    np.fill_diagonal(nearest, np.inf)
    seen = ~np.isnan(np.diag(found["distances"]))
    true, strangers = pairs(found["distances"], people)
    alike, unlike = pairs(found["similarities"], people)
    row: dict[str, float] = {
        "found": float(seen.mean()),
        "rank_1": float((names[nearest.argmin(axis=1)] == names)[seen].mean()),
        "rank_1_one_enrolled": rank_1_of_one(nearest, names, seen),
        "true_pairs": len(true),
        "stranger_pairs": len(strangers),
        "closest_strangers": float(strangers.min()),
        "true_positives": float((true <= np.quantile(strangers, FALSE_POSITIVES)).mean()),
    }
    for level in LEVELS:
        row[f"true_{level}"], row[f"stranger_{level}"] = (float((some >= level).mean()) for some in (alike, unlike))
    return row | {name: float(value) for name, value in found.items() if np.ndim(value) == 0}


def rank_1_of_one(nearest: Any, names: Any, seen: Any) -> float:
    """Return how often the first candidate is right where everybody is enrolled with one picture, whichever it is."""
    right: list[float] = []
    most = max(int((names == name).sum()) for name in names)
    for place in range(most):
        enrolled = [np.flatnonzero(names == name)[place % (names == name).sum()] for name in sorted(set(names))]
        probes = np.setdiff1d(np.flatnonzero(seen), enrolled)
        first = np.array(enrolled)[nearest[np.ix_(probes, enrolled)].argmin(axis=1)]
        right += (names[first] == names[probes]).tolist()
    return statistics.fmean(right)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return a table of Markdown: a line for each figure, a column for each engine."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| | {' | '.join(rows)} |", "| --- |" + " --- |" * len(rows)]
    for name in names:
        cells = (f"{row[name]:,.5g}" if name in row else "" for row in rows.values())
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chart(file: Path, distances: dict[str, tuple[Any, Any]]) -> None:
    """Draw how many pairs lie how far apart."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plot = import_module("matplotlib.pyplot")
    figure, axes = plot.subplots(1, len(distances), figsize=(6 * len(distances), 4), squeeze=False)
    for (name, (true, strangers)), axis in zip(distances.items(), axes[0], strict=True):
        bins = np.linspace(0, float(max(true.max(), strangers.max())), 60)
        axis.hist(true, bins, density=True, alpha=0.6, label=f"one person ({len(true):,})")
        axis.hist(strangers, bins, density=True, alpha=0.6, label=f"strangers ({len(strangers):,})")
        axis.set(title=name, xlabel="distance", ylabel="pairs, each kind's share")
        axis.legend()
    figure.savefig(file, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()
