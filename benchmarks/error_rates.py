"""How often a threshold errs, by the number of faces that everybody is enrolled with (terms of ISO/IEC 19795-1).

Every picture is searched among enrolled ones of everybody, in turns, so that each picture is enrolled and searched for.
Pictures without a face are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

THRESHOLDS = 60, 65, 70, 75, 80, 85, 90, 95
FACES = 1, 3, 5
RATES = {
    "FNMR": "verify says no, and it is the person",
    "FMR": "verify says yes, and it is somebody else",
    "FNIR": "identify does not name the person first, who is enrolled",
    "FPIR": "identify names somebody, and the person is not enrolled",
}


def error_rates(similarities: Any, people: Sequence[str]) -> list[dict[str, float]]:
    """Return a row for each number of faces and each threshold; none for faces that nobody has enough pictures for."""
    seen = np.flatnonzero(~np.isnan(np.diag(similarities)))
    similarities, names = similarities[np.ix_(seen, seen)], np.array(people)[seen]
    return [row for faces in FACES for row in rates_with(faces, similarities, names)]


def rates_with(faces: int, similarities: Any, names: Any) -> Iterator[dict[str, float]]:
    """Yield a row for each threshold."""
    found = [of_turn for of_turn in turns(faces, similarities, names) if of_turn[0].size]
    if not found:
        return
    own, others = (np.concatenate(each) for each in zip(*found, strict=True))
    best_other, known = others.max(axis=1), ~np.isnan(own)
    for threshold in THRESHOLDS:
        yield {
            "faces": faces,
            "threshold": threshold,
            "FNMR": float((own[known] < threshold).mean()),
            "FMR": float((others >= threshold).sum() / (others >= 0).sum()),
            "FNIR": float(((own < threshold) | (own < best_other))[known].mean()),
            "FPIR": float((best_other >= threshold).mean()),
        }


def turns(faces: int, similarities: Any, names: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the similarity of each picture to its own person and to all others (-1 to itself), in each turn.

    Enrolled are those who have more pictures than ``faces``; of all others the similarity to themselves is nan.
    """
    places = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    persons = [name for name, rows in places.items() if len(rows) > faces]
    if len(persons) < 2:  # noqa: PLR2004 - a stranger is somebody else
        return
    for turn in range(max(len(places[name]) for name in persons)):
        enrolled = np.array([np.roll(places[name], -turn)[:faces] for name in persons])
        probes = np.setdiff1d(np.arange(len(names)), enrolled)
        alike = similarities[probes][:, enrolled].max(axis=2)
        mine = names[probes][:, None] == np.array(persons)
        own = np.where(mine.any(axis=1), alike.max(axis=1, where=mine, initial=-1), np.nan)
        yield own, np.where(mine, -1, alike)


def error_table(rows: Sequence[Mapping[str, float]]) -> str:
    """Return a table of Markdown: a line for each threshold, the rates in percent by the number of faces."""
    counts = list(dict.fromkeys(row["faces"] for row in rows))
    heads = [f"{name}, {count:g} enrolled" for count in counts for name in RATES]
    cells = {(row["faces"], row["threshold"], name): f"{100 * row[name]:.3g} %" for row in rows for name in RATES}
    lines = ["".join(f"{name}: {meaning}\n" for name, meaning in RATES.items())]
    lines += [f"| threshold | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for threshold in THRESHOLDS:
        row = (cells[count, threshold, name] for count in counts for name in RATES)
        lines.append(f"| {threshold} | {' | '.join(row)} |")
    return "\n".join(lines)
