"""Groups, persons and faces, kept in SQLite: every effect one transaction, with the service's limits inside it."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from typing import TYPE_CHECKING, Self

import numpy as np
from attrs import frozen

from face_async.errors import ReturnCode
from face_async.server.recognition import DUPLICATE_SIMILARITY
from face_async.server.refusal import Refusal
from face_async.server.storage.gallery import EMBEDDING_DTYPE, Gallery, GalleryCache
from face_async.server.storage.schema import StoreError, dump, load, prepare

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType

    from face_async.limits import ServiceLimits
    from face_async.server.recognition import Face, Recognizer

_BUSY_SECONDS = 10.0  # how long another process may hold the file's lock

_FACE_COLUMNS = ("x", "y", "width", "height", "gender", "age", "expression", "glass", "pitch", "yaw", "roll")

_INSERT_FACE = (
    f"INSERT INTO faces (face_id, person, tag, {', '.join(_FACE_COLUMNS)}, recognizer, embedding) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * (len(_FACE_COLUMNS) + 5))})"
)

_GALLERY = (
    "SELECT persons.person_id, faces.face_id, faces.tag, faces.embedding "
    "FROM faces JOIN persons ON persons.id = faces.person"
)


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


class Store:
    """The server's memory; safe to use from several threads, and from several processes on one file.

    The namespace of persons and groups is the appid; buckets divide nothing.

    Args:
        path: The database file, made with mode 0600 when it is new; ``":memory:"`` keeps nothing.

    Raises:
        StoreError: The file is no store, or one of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str] = ":memory:") -> None:
        self._path = os.fspath(path)
        if self._path != ":memory:":
            self._claim_file()
        self._lock = threading.Lock()
        self._cache = GalleryCache()
        self._db = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            prepare(self._db, self._path)
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(f"{self._path} cannot be opened as a database: {error}") from None
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; once is enough, twice does no harm."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self._path!r})"

    # Persons

    def require_new(self, appid: str, person_id: str) -> None:
        """Refuse with -1302 when the person exists."""
        with self._transaction() as db:
            _require_new(db, appid, person_id)

    def add_person(
        self,
        appid: str,
        person_id: str,
        group_ids: Sequence[str],
        *,
        name: str,
        tag: str,
        face: Face | None,
        recognizer: Recognizer,
        limits: ServiceLimits,
    ) -> str:
        """Create a person in groups, which are made when there are none of that name; return the face's id or "".

        Raises:
            Refusal: -1302, -1311 or -1310; then nothing is created.
        """
        with self._transaction("IMMEDIATE") as db:
            _require_new(db, appid, person_id)
            _require_room_for_groups(db, appid, group_ids, limits.max_groups_per_appid)
            person = db.execute(
                "INSERT INTO persons (appid, person_id, name, tag) VALUES (?, ?, ?, ?)", (appid, person_id, name, tag)
            ).lastrowid
            assert person is not None  # noqa: S101 - for the type checker: an INSERT has a row id
            for group_id in group_ids:
                _join(db, _group_made(db, appid, group_id), person, limits.max_persons_per_group)
            return "" if face is None else _insert_face(db, person, face, tag, recognizer)

    def delete_person(self, appid: str, person_id: str) -> None:
        """Delete a person and their faces; their groups stay, empty or not. -1303 when there is none."""
        with self._transaction("IMMEDIATE") as db:
            person = _person(db, appid, person_id)
            _touch_groups(db, person)
            db.execute("DELETE FROM persons WHERE id = ?", (person,))

    def set_info(self, appid: str, person_id: str, *, name: str | None, tag: str | None) -> None:
        """Change a person's name, tag or both; None leaves as is. -1303 when there is none."""
        with self._transaction("IMMEDIATE") as db:
            person = _person(db, appid, person_id)
            db.execute(
                "UPDATE persons SET name = coalesce(?, name), tag = coalesce(?, tag) WHERE id = ?", (name, tag, person)
            )

    def person(self, appid: str, person_id: str) -> PersonRecord:
        """Return a person. -1303 when there is none."""
        with self._transaction() as db:
            person = _person(db, appid, person_id)
            name, tag = db.execute("SELECT name, tag FROM persons WHERE id = ?", (person,)).fetchone()
            group_ids = _column(
                db,
                "SELECT group_id FROM groups JOIN memberships ON grp = groups.id WHERE person = ? "
                "ORDER BY memberships.id",
                person,
            )
            return PersonRecord(person_id, name, tag, _face_ids(db, person), group_ids)

    # Groups

    def group_ids(self, appid: str) -> list[str]:
        """Return all groups, oldest first."""
        with self._transaction() as db:
            return _column(db, "SELECT group_id FROM groups WHERE appid = ? ORDER BY id", appid)

    def require_group(self, appid: str, group_id: str) -> None:
        """Refuse with -1306 when there is no such group."""
        with self._transaction() as db:
            _group(db, appid, group_id)

    def person_ids(self, appid: str, group_id: str) -> list[str]:
        """Return a group's persons in the order in which they joined. -1306 when there is no such group."""
        with self._transaction() as db:
            group, _ = _group(db, appid, group_id)
            return _column(
                db,
                "SELECT person_id FROM persons JOIN memberships ON person = persons.id WHERE grp = ? "
                "ORDER BY memberships.id",
                group,
            )

    # Faces

    def require_room(self, appid: str, person_id: str, max_faces: int) -> None:
        """Refuse with -1303 when there is no such person, with -1309 when they can take no more faces."""
        with self._transaction() as db:
            _require_room(db, _person(db, appid, person_id), max_faces)

    def add_faces(
        self,
        appid: str,
        person_id: str,
        faces: Sequence[Face | Refusal],
        *,
        tag: str,
        recognizer: Recognizer,
        max_faces: int,
    ) -> list[Addition]:
        """Add what was found in each picture of a request, or pass on what it was refused with; in order.

        Raises:
            Refusal: -1303 or -1309, when the person is gone or was full before the first picture.
        """
        with self._transaction("IMMEDIATE") as db:
            person = _person(db, appid, person_id)
            count = _require_room(db, person, max_faces)
            known = _Known(_person_gallery(db, person, recognizer), recognizer)
            additions: list[Addition] = []
            for face in faces:
                if isinstance(face, Refusal):
                    addition = Addition(face.code)
                elif count >= max_faces:
                    addition = Addition(ReturnCode.ERROR_FACE_NUM_EXCEED)
                elif twin := known.twin(face):
                    addition = Addition(ReturnCode.ERROR_SAME_FACE_ADDED, twin)
                else:
                    addition = Addition(ReturnCode.OK, _insert_face(db, person, face, tag, recognizer))
                    known.add(addition.face_id, face)
                    count += 1
                additions.append(addition)
            _touch_groups(db, person)
            return additions

    def delete_faces(self, appid: str, person_id: str, face_ids: Sequence[str]) -> list[str]:
        """Delete those of the faces that the person has; return their ids.

        Raises:
            Refusal: -1303, or -1305 when the person has none of them.
        """
        with self._transaction("IMMEDIATE") as db:
            person = _person(db, appid, person_id)
            deleted = [
                face_id
                for face_id in face_ids
                if db.execute("DELETE FROM faces WHERE face_id = ? AND person = ?", (face_id, person)).rowcount
            ]
            if not deleted:
                raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
            _touch_groups(db, person)
            return deleted

    def face_ids(self, appid: str, person_id: str) -> list[str]:
        """Return a person's faces, oldest first. -1303 when there is no such person."""
        with self._transaction() as db:
            return _face_ids(db, _person(db, appid, person_id))

    def face_info(self, appid: str, face_id: str) -> dict[str, object]:
        """Return a face as the specification's FaceItem (Spec: 2.10). -1305 when there is none."""
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {', '.join(_FACE_COLUMNS)} FROM faces JOIN persons ON persons.id = person "  # noqa: S608 - constants
                "WHERE appid = ? AND face_id = ?",
                (appid, face_id),
            ).fetchone()
        if row is None:
            raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
        item = dict(zip(_FACE_COLUMNS, row, strict=True))
        return {"face_id": face_id, **item, "glass": bool(item["glass"])}

    def count_faces(self) -> dict[str, int]:
        """Return how many faces there are of all appids, by the recognizer that stored them."""
        with self._transaction() as db:
            return dict(db.execute("SELECT recognizer, count(*) FROM faces GROUP BY recognizer"))

    # Galleries

    def person_gallery(self, appid: str, person_id: str, recognizer: Recognizer) -> Gallery:
        """Return a person's faces that this recognizer stored. -1303 when there is no such person."""
        with self._transaction() as db:
            return _person_gallery(db, _person(db, appid, person_id), recognizer)

    def group_gallery(self, appid: str, group_id: str, recognizer: Recognizer) -> Gallery:
        """Return a group's faces that this recognizer stored. -1306 when there is no such group."""
        with self._transaction() as db:
            group, version = _group(db, appid, group_id)
            return self._cache.get(
                (group, recognizer.name), version, lambda: _group_gallery(db, group, recognizer.name)
            )

    # The whole

    def snapshot(self) -> bytes:
        """Return the whole content, for :meth:`restore`; embeddings are biometric data, so keep it as the file."""
        with self._lock:
            return dump(self._db)

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole content by that of a snapshot, when no other process uses the file.

        Raises:
            StoreError: It is no snapshot of a store; nothing is replaced.
        """
        with self._lock:
            load(self._db, snapshot)
            self._cache = GalleryCache()  # versions have gone back, and would come again for other galleries

    # The file

    @contextlib.contextmanager
    def _transaction(self, kind: str = "DEFERRED") -> Generator[sqlite3.Connection]:
        with self._lock, self._db:  # the connection commits on the way out, or rolls back
            self._db.execute(f"BEGIN {kind}")
            yield self._db

    def _claim_file(self) -> None:
        # SQLite gives its journal the mode of the database.
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"{self._path} cannot be opened: {error.strerror}") from None


class _Known:
    """A person's faces, to tell whether another one is almost the same."""

    def __init__(self, gallery: Gallery, recognizer: Recognizer) -> None:
        self._face_ids = list(gallery.face_ids)
        self._embeddings = list(gallery.embeddings)
        self._recognizer = recognizer

    def add(self, face_id: str, face: Face) -> None:
        self._face_ids.append(face_id)
        self._embeddings.append(face.embedding)

    def twin(self, face: Face) -> str | None:
        """Return the face that ``face`` is almost the same as, if any."""
        if not self._face_ids:
            return None
        similarities = self._recognizer.similarities(face.embedding, np.stack(self._embeddings))
        nearest = int(np.argmax(similarities))
        return self._face_ids[nearest] if similarities[nearest] >= DUPLICATE_SIMILARITY else None


def _column(db: sqlite3.Connection, query: str, *values: object) -> list[str]:
    return [value for (value,) in db.execute(query, values)]


def _person(db: sqlite3.Connection, appid: str, person_id: str) -> int:
    row = db.execute("SELECT id FROM persons WHERE appid = ? AND person_id = ?", (appid, person_id)).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_PERSON_NOT_EXISTED)
    return int(row[0])


def _require_new(db: sqlite3.Connection, appid: str, person_id: str) -> None:
    if db.execute("SELECT 1 FROM persons WHERE appid = ? AND person_id = ?", (appid, person_id)).fetchone():
        raise Refusal(ReturnCode.ERROR_PERSON_EXISTED)


def _group(db: sqlite3.Connection, appid: str, group_id: str) -> tuple[int, int]:
    row = db.execute("SELECT id, version FROM groups WHERE appid = ? AND group_id = ?", (appid, group_id)).fetchone()
    if row is None:
        raise Refusal(ReturnCode.ERROR_GROUP_NOT_EXISTED)
    return int(row[0]), int(row[1])


def _group_made(db: sqlite3.Connection, appid: str, group_id: str) -> int:
    db.execute("INSERT OR IGNORE INTO groups (appid, group_id) VALUES (?, ?)", (appid, group_id))
    return _group(db, appid, group_id)[0]


def _require_room_for_groups(db: sqlite3.Connection, appid: str, group_ids: Sequence[str], max_groups: int) -> None:
    existing = set(_column(db, "SELECT group_id FROM groups WHERE appid = ?", appid))
    new = len(set(group_ids) - existing)
    if new and len(existing) + new > max_groups:
        raise Refusal(ReturnCode.ERROR_GROUP_NUM_EXCEED)


def _join(db: sqlite3.Connection, group: int, person: int, max_persons: int) -> None:
    (count,) = db.execute("SELECT count(*) FROM memberships WHERE grp = ?", (group,)).fetchone()
    if count >= max_persons:
        raise Refusal(ReturnCode.ERROR_PERSON_NUM_EXCEED)
    db.execute("INSERT INTO memberships (grp, person) VALUES (?, ?)", (group, person))
    db.execute("UPDATE groups SET version = version + 1 WHERE id = ?", (group,))


def _touch_groups(db: sqlite3.Connection, person: int) -> None:
    db.execute(
        "UPDATE groups SET version = version + 1 WHERE id IN (SELECT grp FROM memberships WHERE person = ?)", (person,)
    )


def _face_ids(db: sqlite3.Connection, person: int) -> list[str]:
    return _column(db, "SELECT face_id FROM faces WHERE person = ? ORDER BY id", person)


def _require_room(db: sqlite3.Connection, person: int, max_faces: int) -> int:
    (count,) = db.execute("SELECT count(*) FROM faces WHERE person = ?", (person,)).fetchone()
    if count >= max_faces:
        raise Refusal(ReturnCode.ERROR_FACE_NUM_EXCEED)
    return int(count)


def _insert_face(db: sqlite3.Connection, person: int, face: Face, tag: str, recognizer: Recognizer) -> str:
    face_id = str(10**18 + secrets.randbelow(9 * 10**18))  # 19 digits, as the service's own
    values = [getattr(face, column) for column in _FACE_COLUMNS]
    embedding = np.asarray(face.embedding, dtype=EMBEDDING_DTYPE).tobytes()
    db.execute(_INSERT_FACE, (face_id, person, tag, *values, recognizer.name, embedding))
    return face_id


def _person_gallery(db: sqlite3.Connection, person: int, recognizer: Recognizer) -> Gallery:
    query = f"{_GALLERY} WHERE person = ? AND recognizer = ? ORDER BY faces.id"
    return Gallery.from_rows(db.execute(query, (person, recognizer.name)).fetchall())


def _group_gallery(db: sqlite3.Connection, group: int, recognizer: str) -> Gallery:
    query = (
        f"{_GALLERY} JOIN memberships ON memberships.person = faces.person "
        "WHERE grp = ? AND recognizer = ? ORDER BY faces.id"
    )
    return Gallery.from_rows(db.execute(query, (group, recognizer)).fetchall())
