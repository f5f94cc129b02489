"""What single statements say about persons, groups and faces, within a transaction of the caller's."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from face_async.errors import ReturnCode
from face_async.server.recognition import DUPLICATE_SIMILARITY
from face_async.server.refusal import Refusal
from face_async.server.storage.gallery import EMBEDDING_DTYPE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from face_async.server.recognition import Face, Recognizer
    from face_async.server.storage.ranking import RankedFace

FACE_COLUMNS = ("x", "y", "width", "height", "gender", "age", "expression", "glass", "pitch", "yaw", "roll")

_INSERT_FACE = (
    f"INSERT INTO faces (id, face_id, person, tag, {', '.join(FACE_COLUMNS)}, recognizer, embedding) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * (len(FACE_COLUMNS) + 6))})"
)

_NEXT_FACE = "UPDATE last_face SET id = max(id, (SELECT coalesce(max(faces.id), 0) FROM faces)) + 1 RETURNING id"


@frozen
class Match:
    """A person whom a picture may show, by the face of theirs that is most like it (Spec: 2.12, IdentifyItem)."""

    person_id: str
    face_id: str
    confidence: float
    tag: str


class KnownFaces:
    """A person's faces, to tell whether another one is almost the same."""

    def __init__(self, db: sqlite3.Connection, person: int, recognizer: Recognizer) -> None:
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


def texts(db: sqlite3.Connection, query: str, *values: object) -> list[str]:
    """Return the first column of a query's rows."""
    return [value for (value,) in db.execute(query, values)]


def person_key(db: sqlite3.Connection, appid: str, person_id: str) -> int:
    """Return a person's integer key. -1303 when there is none."""
    row = db.execute("SELECT id FROM persons WHERE appid = ? AND person_id = ?", (appid, person_id)).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_PERSON_NOT_EXISTED)
    return int(row[0])


def require_new(db: sqlite3.Connection, appid: str, person_id: str) -> None:
    """Refuse with -1302 when the person exists."""
    if db.execute("SELECT 1 FROM persons WHERE appid = ? AND person_id = ?", (appid, person_id)).fetchone():
        raise Refusal(ReturnCode.ERROR_PERSON_EXISTED)


def group_key(db: sqlite3.Connection, appid: str, group_id: str) -> tuple[int, int]:
    """Return a group's integer key and its version. -1306 when there is none."""
    row = db.execute("SELECT id, version FROM groups WHERE appid = ? AND group_id = ?", (appid, group_id)).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_GROUP_NOT_EXISTED)
    return int(row[0]), int(row[1])


def group_made(db: sqlite3.Connection, appid: str, group_id: str) -> int:
    """Return a group's integer key; the group is made when there is none."""
    db.execute("INSERT OR IGNORE INTO groups (appid, group_id) VALUES (?, ?)", (appid, group_id))
    return group_key(db, appid, group_id)[0]


def require_room_for_groups(db: sqlite3.Connection, appid: str, group_ids: Sequence[str], max_groups: int) -> None:
    """Refuse with -1311 when those of the groups that are new would be too many."""
    existing = "SELECT count(*) FROM groups WHERE appid = ? AND group_id = ?"
    new = sum(db.execute(existing, (appid, group_id)).fetchone()[0] == 0 for group_id in set(group_ids))
    if new:
        (count,) = db.execute("SELECT count(*) FROM groups WHERE appid = ?", (appid,)).fetchone()
        if count + new > max_groups:
            raise Refusal(ReturnCode.ERROR_GROUP_NUM_EXCEED)


def join(db: sqlite3.Connection, group: int, person: int, max_persons: int) -> None:
    """Put a person into a group. -1310 when it is full."""
    (count,) = db.execute("SELECT count(*) FROM memberships WHERE grp = ?", (group,)).fetchone()
    if count >= max_persons:
        raise Refusal(ReturnCode.ERROR_PERSON_NUM_EXCEED)
    db.execute("INSERT INTO memberships (grp, person) VALUES (?, ?)", (group, person))


def face_ids_of(db: sqlite3.Connection, person: int) -> list[str]:
    """Return a person's faces, oldest first."""
    return texts(db, "SELECT face_id FROM faces WHERE person = ? ORDER BY id", person)


def face_keys_of(db: sqlite3.Connection, person: int) -> list[int]:
    """Return the integer keys of a person's faces."""
    return [key for (key,) in db.execute("SELECT id FROM faces WHERE person = ?", (person,))]


def group_ids_of(db: sqlite3.Connection, person: int) -> list[str]:
    """Return a person's groups, in the order in which they joined them."""
    query = "SELECT group_id FROM groups JOIN memberships ON grp = groups.id WHERE person = ? ORDER BY memberships.id"
    return texts(db, query, person)


def require_room(db: sqlite3.Connection, person: int, max_faces: int) -> int:
    """Return how many faces a person has. -1309 when they can take no more."""
    (count,) = db.execute("SELECT count(*) FROM faces WHERE person = ?", (person,)).fetchone()
    if count >= max_faces:
        raise Refusal(ReturnCode.ERROR_FACE_NUM_EXCEED)
    return int(count)


def insert_face(db: sqlite3.Connection, person: int, face: Face, tag: str, recognizer: Recognizer) -> tuple[int, str]:
    """Add a face; return its integer key and its id."""
    (key,) = db.execute(_NEXT_FACE).fetchone()
    face_id = str(10**18 + secrets.randbelow(9 * 10**18))  # 19 digits, as the service's own
    values = [getattr(face, column) for column in FACE_COLUMNS]
    embedding = np.asarray(face.embedding, dtype=EMBEDDING_DTYPE).tobytes()
    db.execute(_INSERT_FACE, (key, face_id, person, tag, *values, recognizer.name, embedding))
    return key, face_id


def embeddings_of(db: sqlite3.Connection, person: int, recognizer: Recognizer) -> tuple[list[str], NDArray[np.float32]]:
    """Return the ids and the embeddings of a person's faces that this recognizer stored, oldest first."""
    rows = db.execute(
        "SELECT face_id, embedding FROM faces WHERE person = ? AND recognizer = ? ORDER BY id",
        (person, recognizer.name),
    ).fetchall()
    joined = np.frombuffer(b"".join(embedding for _, embedding in rows), EMBEDDING_DTYPE)
    return [face_id for face_id, _ in rows], joined.reshape(len(rows), -1 if rows else 0)


def match_of(db: sqlite3.Connection, face: RankedFace) -> Match | None:
    """Return who is meant by a face of a ranking, or None when it has been deleted."""
    row = db.execute(
        "SELECT person_id, face_id, faces.tag FROM faces JOIN persons ON persons.id = faces.person WHERE faces.id = ?",
        (face.face,),
    ).fetchone()
    return None if row is None else Match(row[0], row[1], -face.unlikeness, row[2])
