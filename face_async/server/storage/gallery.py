"""Faces to compare a picture with: a person's or a group's, as one matrix; and the ranking of persons."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from face_async.server.recognition import Recognizer

EMBEDDING_DTYPE = np.dtype("<f4")
"""How embeddings are stored and compared: 32-bit floats, little-endian on every machine."""

_BYTES_PER_ROW = 256  # what a row's ids and tag cost beside its embedding, roughly


@frozen(eq=False)
class Gallery:
    """Faces, in the order in which they were enrolled.

    Attributes:
        person_ids: Whose face each row is.
        face_ids: Each row's face.
        tags: Each face's tag.
        embeddings: One row for each face.
    """

    person_ids: list[str]
    face_ids: list[str]
    tags: list[str]
    embeddings: NDArray[np.float32]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[str, str, str, bytes]]) -> Gallery:
        """Build one from rows of person_id, face_id, tag and embedding."""
        joined = b"".join(row[3] for row in rows)
        embeddings = np.frombuffer(joined, dtype=EMBEDDING_DTYPE).reshape(len(rows), -1) if rows else _NO_FACES
        return cls([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], embeddings)

    def __len__(self) -> int:
        return len(self.face_ids)

    @property
    def size(self) -> int:
        """Bytes of memory it takes, roughly."""
        return int(self.embeddings.nbytes) + _BYTES_PER_ROW * len(self)

    def best_persons(self, probe: NDArray[np.float32], recognizer: Recognizer, top: int) -> list[Candidate]:
        """Return the ``top`` persons most similar to ``probe``, each by their best face, most confident first."""
        if not len(self):
            return []
        similarities = recognizer.similarities(probe, self.embeddings)
        best: dict[str, Candidate] = {}
        ranking = np.argsort(-similarities, kind="stable")  # stable: of equals, who was enrolled first
        for row in map(int, ranking):
            person_id = self.person_ids[row]
            if person_id not in best:
                best[person_id] = Candidate(person_id, self.face_ids[row], float(similarities[row]), self.tags[row])
                if len(best) == top:
                    break
        return list(best.values())


_NO_FACES = np.empty((0, 0), dtype=EMBEDDING_DTYPE)


@frozen
class Candidate:
    """Who a probe may be (Spec: 2.12, IdentifyItem)."""

    person_id: str
    face_id: str
    confidence: float
    tag: str


def merge(rankings: Iterable[Sequence[Candidate]], top: int) -> list[Candidate]:
    """Return the ``top`` persons of several rankings, each by their best face, most confident first."""
    best: dict[str, Candidate] = {}
    for candidate in (candidate for ranking in rankings for candidate in ranking):
        known = best.get(candidate.person_id)
        if known is None or candidate.confidence > known.confidence:
            best[candidate.person_id] = candidate
    return sorted(best.values(), key=lambda candidate: -candidate.confidence)[:top]


class GalleryCache:
    """The galleries used last, up to a number of bytes.

    A gallery is asked for with its version, so that one which has changed, in this process or another, is never
    served; the newest one stays even when it is larger than the cache alone.
    """

    def __init__(self, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[object, tuple[int, Gallery]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, version: int, load: Callable[[], Gallery]) -> Gallery:
        """Return the gallery of this version, loading it if need be."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == version:
                self._kept.move_to_end(key)
                return kept[1]
        gallery = load()
        with self._lock:
            self._kept[key] = (version, gallery)
            self._kept.move_to_end(key)
            total = sum(kept.size for _, kept in self._kept.values())
            while total > self._max_bytes and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1][1].size
        return gallery
