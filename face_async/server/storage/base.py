"""What a storage needs of the engine below it, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import frozen

from face_async.errors import FaceError, ReturnCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

KEPT_VERSIONS = 10_000
"""Changes of a group that the database remembers; a gallery that is further behind is loaded anew."""

T = TypeVar("T")


class StoreError(FaceError):
    """The storage cannot be opened, read or written. Requests get code -1200 then."""


@frozen
class PersonRecord:
    """What is known of a person, lists in the order of enrollment."""

    person_id: str
    name: str
    tag: str
    face_ids: list[str]
    group_ids: list[str]


@frozen
class Addition:
    """What became of one picture: code 0 and the new face's id, or why not.

    With -1312 the ``face_id`` is that of the face which is almost the same; with any other code it is empty.
    """

    code: ReturnCode
    face_id: str = ""


@frozen
class Match:
    """A person whom a picture may show, by the face of theirs that is most like it (Spec: 2.12, IdentifyItem)."""

    person_id: str
    face_id: str
    confidence: float
    tag: str


class Rows(Protocol):
    """What a statement returned."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, a tuple, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...


class Transaction(Protocol):
    """A transaction on an engine. Statements are in the SQL that all engines have; ``?`` stands for a parameter."""

    for_update: str
    """What a SELECT ends with whose rows nobody else may change until the transaction ends."""

    def execute(self, query: str, parameters: Sequence[object] = (), /) -> Rows:
        """Execute one statement."""
        ...

    def blocks(self, query: str, parameters: Sequence[object], size: int) -> Iterator[list[Any]]:
        """Return the rows of a query in lists of so many, each of them read when it is asked for."""
        ...

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert many rows."""
        ...

    def keys_were_given(self) -> None:
        """Go on after the integer keys of rows that were inserted with keys of another database."""
        ...

    def lock_groups(self, appid: str) -> None:
        """Let nobody else make a group of this appid until the transaction ends."""
        ...

    def insert_face(self, columns: Sequence[str], values: Sequence[object]) -> int:
        """Insert a face; return its integer key, which no face has had before."""
        ...

    def move(self, group: int, faces: Sequence[int], *, persons: int = 0, max_persons: int | None = None) -> None:
        """Note that faces and persons come to a group or go; nothing else is done with the group's row.

        Args:
            group: The group's integer key.
            faces: The integer keys of the faces; with any of them the group gets its next version.
            persons: How many memberships were inserted, or deleted if it is negative.
            max_persons: How many persons the group may have.

        Raises:
            Refusal: -1310 when there are more, at once or at the end of the transaction.
        """
        ...


class Engine(Protocol):
    """A database for many threads, with a consistent view for those who read."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """Lend a transaction that sees the database as it is at the first statement, whatever is written meanwhile.

        Raises:
            StoreError: It cannot be read.
        """
        ...

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` within a transaction, and return its result once that is committed.

        ``work`` may be called several times; only what it did the last time stays, and nothing if it raises.

        Raises:
            StoreError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the writes that wait, and close; twice does no harm."""
        ...
