"""What single statements say about persons, groups and faces, within a transaction of the caller's."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from face_async.errors import ReturnCode
from face_async.server.recognition import DUPLICATE_SIMILARITY
from face_async.server.refusal import Refusal
from face_async.server.storage.base import Match
from face_async.server.storage.gallery import EMBEDDING_DTYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from face_async.server.recognition import Face, Recognizer
    from face_async.server.storage.base import Transaction
    from face_async.server.storage.ranking import RankedFace

T = TypeVar("T")

_AT_ONCE = 500  # values in a statement: few enough for every engine, and one round trip for most requests

FACE_COLUMNS = ("x", "y", "width", "height", "gender", "age", "expression", "glass", "pitch", "yaw", "roll")


class KnownFaces:
    """A person's faces, to tell whether another one is almost the same."""

    def __init__(self, db: Transaction, person: int, recognizer: Recognizer) -> None:
        self._face_ids, embeddings = embeddings_of(db, person, recognizer)
        self._embeddings = list(embeddings)
        self._recognizer = recognizer

    def add(self, face_id: str, face: Face) -> None:
        """Take one more into account."""
        self._face_ids.append(face_id)
        self._embeddings.append(face.embedding)

    def twin(self, face: Face) -> str | None:
        """Return the face that ``face`` is almost the same as, if any."""
        if not self._face_ids:
            return None
        similarities = self._recognizer.similarities(face.embedding, np.stack(self._embeddings))
        nearest = int(np.argmax(similarities))
        return self._face_ids[nearest] if similarities[nearest] >= DUPLICATE_SIMILARITY else None


def texts(db: Transaction, query: str, *values: object) -> list[str]:
    """Return the first column of a query's rows."""
    return [value for (value,) in db.execute(query, values).fetchall()]


def person_key(db: Transaction, appid: str, person_id: str) -> int:
    """Return a person's integer key. -1303 when there is none."""
    return _person_key(db, appid, person_id, "")


def locked_person_key(db: Transaction, appid: str, person_id: str) -> int:
    """Return a person's integer key, and let nobody else change the person until the transaction ends.

    Whoever changes a person does so first of all, before rows that several persons share. -1303 when there is none.
    """
    return _person_key(db, appid, person_id, db.for_update)


def _person_key(db: Transaction, appid: str, person_id: str, lock: str) -> int:
    query = f"SELECT id FROM persons WHERE appid = ? AND person_id = ?{lock}"  # noqa: S608 - a constant
    row = db.execute(query, (appid, person_id)).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_PERSON_NOT_EXISTED)
    return int(row[0])


def insert_person(db: Transaction, appid: str, person_id: str, name: str, tag: str) -> int:
    """Create a person; return the integer key. -1302 when the person exists."""
    row = db.execute(
        "INSERT INTO persons (appid, person_id, name, tag) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
        (appid, person_id, name, tag),
    ).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_PERSON_EXISTED)
    return int(row[0])


def require_new(db: Transaction, appid: str, person_id: str) -> None:
    """Refuse with -1302 when the person exists."""
    if db.execute("SELECT 1 FROM persons WHERE appid = ? AND person_id = ?", (appid, person_id)).fetchone():
        raise Refusal(ReturnCode.ERROR_PERSON_EXISTED)


def group_keys(db: Transaction, appid: str, group_ids: Sequence[str]) -> list[tuple[int, int]]:
    """Return the integer keys of distinct groups and their versions, in order.

    It stops at the first that does not exist, so that it takes no longer than for all groups of the appid, however many
    are asked for. -1306 then.
    """
    found: dict[str, tuple[int, int]] = {}
    for some in _batches(group_ids):
        found |= _find_groups(db, appid, some)
        if not found.keys() >= set(some):
            raise Refusal(ReturnCode.ERROR_GROUP_NOT_EXISTED)
    return [found[group_id] for group_id in group_ids]


def groups_made(db: Transaction, appid: str, group_ids: Sequence[str], max_groups: int) -> list[int]:
    """Return the integer keys of distinct groups, in order, made if there are none. -1311 when that makes too many."""
    if len(group_ids) > max_groups:  # without asking for each of them
        raise Refusal(ReturnCode.ERROR_GROUP_NUM_EXCEED)
    keys = _group_keys(db, appid, group_ids)
    if len(keys) < len(group_ids):
        db.lock_groups(appid)
        keys = _group_keys(db, appid, group_ids)  # somebody may have made one a moment ago
        new = [group_id for group_id in group_ids if group_id not in keys]
        (count,) = db.execute("SELECT count(*) FROM groups WHERE appid = ?", (appid,)).fetchone()
        if new and count + len(new) > max_groups:
            raise Refusal(ReturnCode.ERROR_GROUP_NUM_EXCEED)
        _insert_pairs(db, "groups", ("appid", "group_id"), [(appid, group_id) for group_id in new])
        keys |= _group_keys(db, appid, new)
    return [keys[group_id] for group_id in group_ids]


def _group_keys(db: Transaction, appid: str, group_ids: Sequence[str]) -> dict[str, int]:
    found = (_find_groups(db, appid, some) for some in _batches(group_ids))
    return {group_id: key for some in found for group_id, (key, _) in some.items()}


def _find_groups(db: Transaction, appid: str, group_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    query = f"SELECT group_id, id, version FROM groups WHERE appid = ? AND group_id IN ({_places(group_ids)})"  # noqa: S608 - question marks
    return {
        group_id: (int(key), int(version))
        for group_id, key, version in db.execute(query, (appid, *group_ids)).fetchall()
    }


def join(db: Transaction, groups: Sequence[int], person: int, faces: Sequence[int], max_persons: int) -> None:
    """Put a person who has these faces into groups. -1310 when one of them is full."""
    _insert_pairs(db, "memberships", ("grp", "person"), [(group, person) for group in groups])
    move_all(db, groups, faces, persons=1, max_persons=max_persons)


def leave(db: Transaction, groups: Sequence[int], person: int, faces: Sequence[int]) -> None:
    """Take a person who has these faces out of groups that they are in."""
    for some in _batches(groups):
        delete = f"DELETE FROM memberships WHERE person = ? AND grp IN ({_places(some)})"  # noqa: S608 - question marks
        db.execute(delete, (person, *some))
    move_all(db, groups, faces, persons=-1)


def move_all(
    db: Transaction, groups: Iterable[int], faces: Sequence[int], *, persons: int = 0, max_persons: int | None = None
) -> None:
    """Note that a person's faces, and the person, come to groups or go. -1310 when one is full."""
    for group in groups if faces or persons else ():
        db.move(group, faces, persons=persons, max_persons=max_persons)


def face_ids_of(db: Transaction, person: int) -> list[str]:
    """Return a person's faces, oldest first."""
    return texts(db, "SELECT face_id FROM faces WHERE person = ? ORDER BY id", person)


def face_keys_of(db: Transaction, person: int) -> list[int]:
    """Return the integer keys of a person's faces."""
    return [key for (key,) in db.execute("SELECT id FROM faces WHERE person = ?", (person,)).fetchall()]


def delete_faces(db: Transaction, faces: Sequence[int]) -> None:
    """Delete faces, which their groups are not told."""
    for some in _batches(faces):
        db.execute(f"DELETE FROM faces WHERE id IN ({_places(some)})", some)  # noqa: S608 - question marks


def group_keys_of(db: Transaction, person: int) -> list[int]:
    """Return the integer keys of a person's groups."""
    return [key for (key,) in db.execute("SELECT grp FROM memberships WHERE person = ?", (person,)).fetchall()]


def group_ids_of(db: Transaction, person: int) -> list[str]:
    """Return a person's groups, in the order in which they joined them."""
    query = "SELECT group_id FROM groups JOIN memberships ON grp = groups.id WHERE person = ? ORDER BY memberships.id"
    return texts(db, query, person)


def require_room(db: Transaction, person: int, max_faces: int) -> int:
    """Return how many faces a person has. -1309 when they can take no more."""
    (count,) = db.execute("SELECT count(*) FROM faces WHERE person = ?", (person,)).fetchone()
    if count >= max_faces:
        raise Refusal(ReturnCode.ERROR_FACE_NUM_EXCEED)
    return int(count)


def insert_face(db: Transaction, person: int, face: Face, tag: str, recognizer: Recognizer) -> tuple[int, str]:
    """Add a face; return its integer key and its id."""
    face_id = str(10**18 + secrets.randbelow(9 * 10**18))  # 19 digits, as the service's own
    # Engines with types of columns take no truth value for the integer of "glass".
    values = [+getattr(face, column) for column in FACE_COLUMNS]
    embedding = np.asarray(face.embedding, dtype=EMBEDDING_DTYPE).tobytes()
    columns = ("face_id", "person", "tag", *FACE_COLUMNS, "recognizer", "embedding")
    key = db.insert_face(columns, (face_id, person, tag, *values, recognizer.name, embedding))
    if face.thumbnail:
        db.execute("INSERT INTO thumbnails (id, jpeg) VALUES (?, ?)", (key, face.thumbnail))
    return key, face_id


def embeddings_of(db: Transaction, person: int, recognizer: Recognizer) -> tuple[list[str], NDArray[np.float32]]:
    """Return the ids and the embeddings of a person's faces that this recognizer stored, oldest first."""
    rows = db.execute(
        "SELECT face_id, embedding FROM faces WHERE person = ? AND recognizer = ? ORDER BY id",
        (person, recognizer.name),
    ).fetchall()
    joined = np.frombuffer(b"".join(embedding for _, embedding in rows), EMBEDDING_DTYPE)
    return [face_id for face_id, _ in rows], joined.reshape(len(rows), -1 if rows else 0)


def matches_of(db: Transaction, ranked: Sequence[Sequence[RankedFace]]) -> list[list[Match | None]]:
    """Return who is meant by the faces of each ranking, None by one that has been deleted."""
    meant: dict[int, tuple[str, str, str]] = {}
    for some in _batches(list({face.face for ranking in ranked for face in ranking})):
        query = (
            "SELECT faces.id, person_id, face_id, faces.tag FROM faces JOIN persons ON persons.id = faces.person "  # noqa: S608 - question marks
            f"WHERE faces.id IN ({_places(some)})"
        )
        meant |= {key: (person_id, face_id, tag) for key, person_id, face_id, tag in db.execute(query, some).fetchall()}
    return [[_match(face, meant.get(face.face)) for face in ranking] for ranking in ranked]


def _match(face: RankedFace, meant: tuple[str, str, str] | None) -> Match | None:
    return None if meant is None else Match(meant[0], meant[1], -face.unlikeness, meant[2])


def _insert_pairs(
    db: Transaction, table: str, columns: tuple[str, str], pairs: Sequence[tuple[object, object]]
) -> None:
    for some in _batches(pairs):
        places = ", ".join(["(?, ?)"] * len(some))
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {places}"  # noqa: S608 - constants
        db.execute(insert, [value for pair in some for value in pair])


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield parts that a statement may have as parameters."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
