"""A group's faces in memory, to compare a picture with: blocks of a matrix that follow as faces come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    FaceRow = tuple[int, int, bytes]
    """A face's integer key, its person's, and its embedding."""

EMBEDDING_DTYPE = np.dtype("<f4")
"""How embeddings are stored and compared: 32-bit floats, little-endian on every machine."""

BLOCK_ROWS = 8_192
"""Faces in a block: what one step of a comparison takes, and so its memory."""

_FEW_ROWS = 512  # of a gallery that is compared with together with others: a comparison takes as long as to copy these
_BYTES_OF_AN_EMPTY_ONE = 1_024
_LONGEST = np.finfo(np.float32).max  # infinity stands for a face that is gone


@frozen(eq=False)
class Block:
    """Some faces of a gallery. The first ``count`` rows of each array are in use; the rest is room to grow.

    Attributes:
        count: Rows in use.
        faces: Each row's face, by its integer key.
        persons: Whose face it is.
        squares: The embedding's squared length, or infinity for a face that is gone.
        embeddings: One row for each face.
        longest: No embedding's squared length is above.
    """

    count: int
    faces: NDArray[np.int64]
    persons: NDArray[np.int64]
    squares: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    longest: float = 0.0

    @classmethod
    def empty(cls, capacity: int, width: int) -> Block:
        """Return one with room for so many rows, each of ``width`` numbers."""
        return cls(
            0,
            np.empty(capacity, np.int64),
            np.empty(capacity, np.int64),
            np.empty(capacity, np.float32),
            np.empty((capacity, width), EMBEDDING_DTYPE),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.faces.nbytes + self.persons.nbytes + self.squares.nbytes + self.embeddings.nbytes

    def extended(self, rows: Sequence[FaceRow]) -> Block:
        """Return one with these faces too, in the same memory if there is room."""
        end = self.count + len(rows)
        grown = self if end <= len(self.faces) else self._copy(max(end, min(2 * self.count, BLOCK_ROWS)))
        new = slice(self.count, end)
        grown.faces[new] = [face for face, _, _ in rows]
        grown.persons[new] = [person for _, person, _ in rows]
        joined = b"".join(embedding for _, _, embedding in rows)
        grown.embeddings[new] = added = np.frombuffer(joined, EMBEDDING_DTYPE).reshape(len(rows), -1)
        squares = np.fmin(np.einsum("ij,ij->i", added, added, dtype=np.float64), _LONGEST)
        grown.squares[new] = squares
        return evolve(grown, count=end, longest=max(self.longest, float(squares.max())))

    def without(self, faces: NDArray[np.int64]) -> tuple[Block, int]:
        """Return one without these faces, and how many of them it had."""
        mine = self.faces[: self.count]
        if not len(mine) or faces[-1] < mine.min() or faces[0] > mine.max():  # as new faces are
            return self, 0
        gone = np.flatnonzero(np.isin(mine, faces) & np.isfinite(self.squares[: self.count]))
        if not len(gone):
            return self, 0
        squares = self.squares.copy()  # somebody may be comparing with what is there now
        squares[gone] = np.inf
        return evolve(self, squares=squares), len(gone)

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Return one with the faces of all these."""
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            sum(block.count for block in blocks),
            np.concatenate([block.faces[: block.count] for block in blocks]),
            np.concatenate([block.persons[: block.count] for block in blocks]),
            np.concatenate([block.squares[: block.count] for block in blocks]),
            np.concatenate([block.embeddings[: block.count] for block in blocks]),
            max(block.longest for block in blocks),
        )

    def _copy(self, capacity: int) -> Block:
        copy = Block.empty(capacity, self.embeddings.shape[1])
        used = slice(self.count)
        copy.faces[used], copy.persons[used] = self.faces[used], self.persons[used]
        copy.squares[used], copy.embeddings[used] = self.squares[used], self.embeddings[used]
        return evolve(copy, count=self.count, longest=self.longest)


@frozen(eq=False)
class Gallery:
    """The faces of a group that one recognizer stored, as of one version of the group.

    A gallery never changes, so it may be read without a lock. Its successor shares its memory: only the newest one
    may be given a successor, and by one thread at a time.

    Attributes:
        version: The group's version.
        blocks: The faces.
        removed: How many of the blocks' rows are of faces that are gone.
    """

    version: int = 0
    blocks: tuple[Block, ...] = ()
    removed: int = 0

    @property
    def count(self) -> int:
        """How many faces there are."""
        return sum(block.count for block in self.blocks) - self.removed

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return _BYTES_OF_AN_EMPTY_ONE + sum(block.nbytes for block in self.blocks)

    @property
    def is_sparse(self) -> bool:
        """Whether more of its rows are gone than there, so that it is better loaded anew."""
        return self.removed > self.count + BLOCK_ROWS

    def extended(self, rows: Sequence[FaceRow]) -> Gallery:
        """Return one with these faces too."""
        blocks = list(self.blocks)
        while rows:
            if not blocks or blocks[-1].count == BLOCK_ROWS:
                blocks.append(Block.empty(min(len(rows), BLOCK_ROWS), len(rows[0][2]) // EMBEDDING_DTYPE.itemsize))
            room = BLOCK_ROWS - blocks[-1].count
            blocks[-1] = blocks[-1].extended(rows[:room])
            rows = rows[room:]
        return evolve(self, blocks=tuple(blocks))

    def followed(self, version: int, changed: Sequence[int], present: Sequence[FaceRow]) -> Gallery:
        """Return the gallery of a later version.

        Args:
            version: The later version.
            changed: The integer keys of the faces that came or went since.
            present: Those of them that are there now.
        """
        if not changed:
            return evolve(self, version=version)
        faces = np.sort(np.asarray(changed, np.int64))
        rest = [block.without(faces) for block in self.blocks]
        removed = self.removed + sum(count for _, count in rest)
        return Gallery(version, tuple(block for block, _ in rest), removed).extended(present)


def joined(galleries: Iterable[Gallery]) -> Iterator[Gallery]:
    """Yield galleries with the same faces: those of few faces as one, since to compare with any takes a moment."""
    few: list[Gallery] = []
    rows = 0
    for gallery in galleries:
        if len(gallery.blocks) != 1 or gallery.blocks[0].count > _FEW_ROWS:
            yield gallery
            continue
        if rows + gallery.blocks[0].count > BLOCK_ROWS:
            yield _as_one(few)
            few, rows = [], 0
        few.append(gallery)
        rows += gallery.blocks[0].count
    if few:
        yield _as_one(few)


def _as_one(galleries: Sequence[Gallery]) -> Gallery:
    removed = sum(gallery.removed for gallery in galleries)
    return Gallery(blocks=(Block.joined([gallery.blocks[0] for gallery in galleries]),), removed=removed)
