"""Whose faces a picture is most like: the persons of galleries, by the best face of each.

Faces rank by similarity; of equally similar ones the nearest by Euclidean distance is first where the recognizer goes
by that distance, then whoever was enrolled first.

A recognizer whose similarity falls with the distance is asked about few faces only. Squared distances of all faces come
from one product of matrix and vector in 32-bit floats, block by block; the least of them make a short list, which is
compared exactly. The list is widened until the error of 32-bit floats cannot have kept anybody out, so that the ranking
is that of the exact comparison with all faces. Other recognizers compare with all faces, block by block. Either way a
comparison takes little memory of its own, however large the gallery is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from face_async.server.storage.gallery import BLOCK_ROWS, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from face_async.server.recognition import Recognizer
    from face_async.server.storage.gallery import Block, Gallery

_SHORT_LIST = 100  # faces: the 5 best of persons with 20 faces each are among the best 81
_WIDER = 8  # times as long is the next short list

_HALF_STEP = float(np.finfo(np.float32).eps) / 2  # the relative error of one operation
_TINY = float(np.finfo(np.float32).tiny)


class RankedFace(NamedTuple):
    """A face as it compares with a picture. They sort as they rank.

    Attributes:
        unlikeness: The similarity, 0 to 100, with a minus.
        distance: The squared Euclidean distance, or 0 where the recognizer does not go by it.
        face: The face's integer key.
        person: The person's integer key.
    """

    unlikeness: float
    distance: float
    face: int
    person: int


def best_of_persons(faces: Iterable[RankedFace], top: int) -> list[RankedFace]:
    """Return the best face of each of the ``top`` best persons, best first."""
    best: dict[int, RankedFace] = {}
    for face in sorted(faces):
        best.setdefault(face.person, face)
    return list(best.values())[:top]


def rank_all(
    galleries: Iterable[Gallery], probes: Sequence[NDArray[np.float32]], recognizer: Recognizer, top: int
) -> tuple[list[list[RankedFace]], int]:
    """Return for each probe what :func:`rank` says of all galleries together, and how many faces they have.

    Each gallery is asked for once, and given up before the next one is.
    """
    best: list[list[RankedFace]] = [[] for _ in probes]
    size = 0
    for gallery in joined(galleries):
        size += gallery.count
        for place, probe in enumerate(probes):
            best[place] = best_of_persons([*best[place], *rank(gallery, probe, recognizer, top)], top)
    return best, size


def rank(gallery: Gallery, probe: NDArray[np.float32], recognizer: Recognizer, top: int) -> list[RankedFace]:
    """Return the best face of each of the ``top`` persons of a gallery that are most like ``probe``, best first."""
    # Recognizers from before there was such an attribute lack it.
    if getattr(recognizer, "is_euclidean", False):
        return _nearest(gallery, probe, recognizer, top)
    blocks = (_best_of_block(block, probe, recognizer, top) for block in gallery.blocks)
    return best_of_persons((face for faces in blocks for face in faces), top)


def _best_of_block(block: Block, probe: NDArray[np.float32], recognizer: Recognizer, top: int) -> Iterator[RankedFace]:
    similarities = recognizer.similarities(probe, block.embeddings[: block.count])
    seen: set[int] = set()
    for row in map(int, np.lexsort((block.faces[: block.count], -similarities))):
        person = int(block.persons[row])
        if person not in seen and np.isfinite(block.squares[row]):
            yield RankedFace(-float(similarities[row]), 0.0, int(block.faces[row]), person)
            seen.add(person)
            if len(seen) == top:
                return


def _nearest(gallery: Gallery, probe: NDArray[np.float32], recognizer: Recognizer, top: int) -> list[RankedFace]:
    wanted = max(_SHORT_LIST, top)
    while True:
        rows, others = _short_list(gallery, probe, wanted)
        best = _best_of_rows(gallery, rows, probe, recognizer, top) if len(rows) else []
        farthest = max((face.distance for face in best), default=0.0)
        # A recognizer may compute in 32-bit floats too, which is the second factor.
        is_certain = len(best) == top and farthest * (1 + 8 * _HALF_STEP) < others
        if is_certain or math.isinf(others):
            return best
        wanted *= _WIDER


def _best_of_rows(
    gallery: Gallery, rows: NDArray[np.intp], probe: NDArray[np.float32], recognizer: Recognizer, top: int
) -> list[RankedFace]:
    numbers, places = rows // BLOCK_ROWS, rows % BLOCK_ROWS
    parts = [(gallery.blocks[number], places[numbers == number]) for number in {int(number) for number in numbers}]
    faces = np.concatenate([block.faces[places] for block, places in parts])
    persons = np.concatenate([block.persons[places] for block, places in parts])
    embeddings = np.concatenate([block.embeddings[places] for block, places in parts])
    similarities = recognizer.similarities(probe, embeddings)
    apart = embeddings.astype(np.float64) - probe
    distances = np.einsum("ij,ij->i", apart, apart)
    best: dict[int, RankedFace] = {}
    for row in np.lexsort((faces, distances, -similarities)).tolist():
        person = int(persons[row])
        if person not in best:
            best[person] = RankedFace(-float(similarities[row]), float(distances[row]), int(faces[row]), person)
            if len(best) == top:
                break
    return list(best.values())


def _short_list(gallery: Gallery, probe: NDArray[np.float32], wanted: int) -> tuple[NDArray[np.intp], float]:
    """Return the rows of the ``wanted`` nearest faces, roughly, and what no other face's squared distance is below."""
    doubled = 2 * np.asarray(probe, np.float32)
    rows, values = np.empty(0, np.intp), np.empty(0, np.float32)
    worst = math.inf
    longest = 0.0
    for number, block in enumerate(gallery.blocks):
        # |e - p|^2 = |e|^2 - 2 e.p + |p|^2, whose last part is the same for all.
        squares = block.squares[: block.count]
        # By einsum, as fast and in this thread alone: the threads of a BLAS are shared by all callers, who then wait
        # for each other.
        found = squares - np.einsum("ij,j->i", block.embeddings[: block.count], doubled)
        close = np.flatnonzero(found < worst)  # without those that are gone
        rows = np.concatenate([rows, number * BLOCK_ROWS + close])
        values = np.concatenate([values, found[close]])
        longest = max(longest, block.longest)
        if len(rows) > wanted:
            least = np.argpartition(values, wanted - 1)[:wanted]
            rows, values = rows[least], values[least]
            worst = float(values.max())
    square = float(np.dot(probe.astype(np.float64), probe.astype(np.float64)))
    # A sum of n products is off by at most n half steps of the product of lengths (Higham, Accuracy and Stability of
    # Numerical Algorithms, 3.1), in whatever order it is summed up.
    scale = longest + 2 * math.sqrt(longest * square)
    return rows, worst + square - (len(probe) + 8) * (_HALF_STEP * scale + _TINY)
