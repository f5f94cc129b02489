"""Groups, persons and faces, kept in SQLite: every effect one transaction, with the service's limits inside it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from attrs import frozen

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal
from face_async.server.storage import rows
from face_async.server.storage.database import MEMORY, Database
from face_async.server.storage.galleries import Galleries, default_memory, log_changes, log_moves
from face_async.server.storage.ranking import best_of_persons, rank
from face_async.server.storage.schema import dump, load, prepare
from face_async.server.storage.signatures import UsedSignatures

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from face_async.limits import ServiceLimits
    from face_async.server.recognition import Face, Recognizer
    from face_async.server.storage.gallery import Gallery

_RANKINGS = 3  # how often galleries are compared with while those found in them are being deleted


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

    The namespace of persons and groups is the appid; buckets divide nothing. Reads do not wait for writes. Writes that
    wait at the same time share a commit; while another process holds the file's lock, they wait for 10 s at most.

    Args:
        path: The database file, made with mode 0600 when it is new; ``":memory:"`` keeps nothing.
        gallery_memory: Bytes that the galleries kept for :meth:`identify` may take, about 600 a face; None: a quarter
            of the machine's memory, or of the container's.

    Raises:
        StoreError: The file is no store, or one of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str] = MEMORY, *, gallery_memory: int | None = None) -> None:
        self._path = os.fspath(path)
        self._gallery_memory = default_memory() if gallery_memory is None else gallery_memory
        self._database = Database(self._path, prepare)
        self._galleries = Galleries(self._database, self._gallery_memory)
        self._lock = threading.Lock()
        self._signatures: UsedSignatures | None = None  # a file that most stores do without

    def close(self) -> None:
        """Close the database, after the writes that wait; once is enough, twice does no harm."""
        with self._lock:
            if self._signatures is not None:
                self._signatures.close()
        self._database.close()

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
        with self._database.reading() as db:
            rows.require_new(db, appid, person_id)

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

        def work(db: sqlite3.Connection) -> str:
            rows.require_new(db, appid, person_id)
            rows.require_room_for_groups(db, appid, group_ids, limits.max_groups_per_appid)
            person = db.execute(
                "INSERT INTO persons (appid, person_id, name, tag) VALUES (?, ?, ?, ?)", (appid, person_id, name, tag)
            ).lastrowid
            assert person is not None  # noqa: S101 - for the type checker: an INSERT has a row id
            for group_id in group_ids:
                rows.join(db, rows.group_made(db, appid, group_id), person, limits.max_persons_per_group)
            if face is None:
                return ""
            key, face_id = rows.insert_face(db, person, face, tag, recognizer)
            log_changes(db, person, [key])
            return face_id

        return self._database.write(work)

    def delete_person(self, appid: str, person_id: str) -> None:
        """Delete a person and their faces; their groups stay, empty or not. -1303 when there is none."""

        def work(db: sqlite3.Connection) -> None:
            person = rows.person_key(db, appid, person_id)
            log_changes(db, person, rows.face_keys_of(db, person))
            db.execute("DELETE FROM persons WHERE id = ?", (person,))

        self._database.write(work)

    def set_info(self, appid: str, person_id: str, *, name: str | None, tag: str | None) -> None:
        """Change a person's name, tag or both; None leaves as is. -1303 when there is none."""

        def work(db: sqlite3.Connection) -> None:
            person = rows.person_key(db, appid, person_id)
            db.execute(
                "UPDATE persons SET name = coalesce(?, name), tag = coalesce(?, tag) WHERE id = ?", (name, tag, person)
            )

        self._database.write(work)

    def person(self, appid: str, person_id: str) -> PersonRecord:
        """Return a person. -1303 when there is none."""
        with self._database.reading() as db:
            person = rows.person_key(db, appid, person_id)
            name, tag = db.execute("SELECT name, tag FROM persons WHERE id = ?", (person,)).fetchone()
            return PersonRecord(person_id, name, tag, rows.face_ids_of(db, person), rows.group_ids_of(db, person))

    # Groups

    def group_ids(self, appid: str) -> list[str]:
        """Return all groups, oldest first."""
        with self._database.reading() as db:
            return rows.texts(db, "SELECT group_id FROM groups WHERE appid = ? ORDER BY id", appid)

    def require_group(self, appid: str, group_id: str) -> None:
        """Refuse with -1306 when there is no such group."""
        with self._database.reading() as db:
            rows.group_key(db, appid, group_id)

    def person_ids(self, appid: str, group_id: str) -> list[str]:
        """Return a group's persons in the order in which they joined. -1306 when there is no such group."""
        with self._database.reading() as db:
            group, _ = rows.group_key(db, appid, group_id)
            return rows.texts(
                db,
                "SELECT person_id FROM persons JOIN memberships ON person = persons.id WHERE grp = ? "
                "ORDER BY memberships.id",
                group,
            )

    def add_to_groups(
        self, appid: str, person_id: str, group_ids: Sequence[str], *, limits: ServiceLimits
    ) -> list[str]:
        """Put a person in groups, which are made when there are none of that name; return those that are new to them.

        Raises:
            Refusal: -1303, -1311 or -1310; then nothing is changed.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            person = rows.person_key(db, appid, person_id)
            joined = set(rows.group_ids_of(db, person))
            new = [group_id for group_id in group_ids if group_id not in joined]
            rows.require_room_for_groups(db, appid, new, limits.max_groups_per_appid)
            groups = [rows.group_made(db, appid, group_id) for group_id in new]
            for group in groups:
                rows.join(db, group, person, limits.max_persons_per_group)
            log_moves(db, groups, rows.face_keys_of(db, person))
            return new

        return self._database.write(work)

    def remove_from_groups(self, appid: str, person_id: str, group_ids: Sequence[str]) -> list[str]:
        """Take a person out of groups; return those that they were in.

        Raises:
            Refusal: -1303, or -1306 when there is no group of one of these names; then nothing is changed.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            person = rows.person_key(db, appid, person_id)
            groups = {group_id: rows.group_key(db, appid, group_id)[0] for group_id in group_ids}
            joined = set(rows.group_ids_of(db, person))
            left = [group_id for group_id in group_ids if group_id in joined]
            for group_id in left:
                db.execute("DELETE FROM memberships WHERE grp = ? AND person = ?", (groups[group_id], person))
            log_moves(db, [groups[group_id] for group_id in left], rows.face_keys_of(db, person))
            return left

        return self._database.write(work)

    # Faces

    def require_room(self, appid: str, person_id: str, max_faces: int) -> None:
        """Refuse with -1303 when there is no such person, with -1309 when they can take no more faces."""
        with self._database.reading() as db:
            rows.require_room(db, rows.person_key(db, appid, person_id), max_faces)

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

        def work(db: sqlite3.Connection) -> list[Addition]:
            person = rows.person_key(db, appid, person_id)
            room = max_faces - rows.require_room(db, person, max_faces)
            known = rows.KnownFaces(db, person, recognizer)
            added: list[int] = []
            additions: list[Addition] = []
            for face in faces:
                if isinstance(face, Refusal):
                    addition = Addition(face.code)
                elif len(added) == room:
                    addition = Addition(ReturnCode.ERROR_FACE_NUM_EXCEED)
                elif twin := known.twin(face):
                    addition = Addition(ReturnCode.ERROR_SAME_FACE_ADDED, twin)
                else:
                    key, face_id = rows.insert_face(db, person, face, tag, recognizer)
                    added.append(key)
                    known.add(face_id, face)
                    addition = Addition(ReturnCode.OK, face_id)
                additions.append(addition)
            log_changes(db, person, added)
            return additions

        return self._database.write(work)

    def delete_faces(self, appid: str, person_id: str, face_ids: Sequence[str]) -> list[str]:
        """Delete those of the faces that the person has; return their ids.

        Raises:
            Refusal: -1303, or -1305 when the person has none of them.
        """

        def work(db: sqlite3.Connection) -> list[str]:
            person = rows.person_key(db, appid, person_id)
            deleted = [
                row
                for face_id in face_ids
                for row in db.execute(
                    "DELETE FROM faces WHERE face_id = ? AND person = ? RETURNING id, face_id", (face_id, person)
                ).fetchall()
            ]
            if not deleted:
                raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
            log_changes(db, person, [key for key, _ in deleted])
            return [face_id for _, face_id in deleted]

        return self._database.write(work)

    def face_ids(self, appid: str, person_id: str) -> list[str]:
        """Return a person's faces, oldest first. -1303 when there is no such person."""
        with self._database.reading() as db:
            return rows.face_ids_of(db, rows.person_key(db, appid, person_id))

    def face_info(self, appid: str, face_id: str) -> dict[str, object]:
        """Return a face as the specification's FaceItem (Spec: 2.10). -1305 when there is none."""
        with self._database.reading() as db:
            row = db.execute(
                f"SELECT {', '.join(rows.FACE_COLUMNS)} FROM faces JOIN persons ON persons.id = person "  # noqa: S608 - constants
                "WHERE appid = ? AND face_id = ?",
                (appid, face_id),
            ).fetchone()
        if row is None:
            raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
        item = dict(zip(rows.FACE_COLUMNS, row, strict=True))
        return {"face_id": face_id, **item, "glass": bool(item["glass"])}

    def count_faces(self) -> dict[str, int]:
        """Return how many faces there are of all appids, by the recognizer that stored them."""
        with self._database.reading() as db:
            return dict(db.execute("SELECT recognizer, count(*) FROM faces GROUP BY recognizer"))

    def identity(self) -> str:
        """Return what tells this database from all others; copies of the file have the same."""
        with self._database.reading() as db:
            return str(db.execute("SELECT id FROM identity").fetchone()[0])

    def recognizers(self) -> set[str]:
        """Return who stored the oldest and the newest face; to ask all faces would take as long as reading them."""
        with self._database.reading() as db:
            ends = "SELECT min(id) FROM faces UNION SELECT max(id) FROM faces"
            return {name for (name,) in db.execute(f"SELECT recognizer FROM faces WHERE id IN ({ends})")}  # noqa: S608 - a constant

    def require_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            sqlite3.Error: Nothing can be written.
        """

        def work(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO groups (appid, group_id) VALUES ('', '')")  # no appid is empty
            db.execute("DELETE FROM groups WHERE appid = ''")

        self._database.write(work)

    # Comparisons

    def embeddings(self, appid: str, person_id: str, recognizer: Recognizer) -> NDArray[np.float32]:
        """Return one row for each of a person's faces that this recognizer stored, oldest first.

        Raises:
            Refusal: -1303 when there is no such person.
        """
        with self._database.reading() as db:
            return rows.embeddings_of(db, rows.person_key(db, appid, person_id), recognizer)[1]

    def identify(
        self, appid: str, group_ids: Sequence[str], probe: NDArray[np.float32], recognizer: Recognizer, top: int
    ) -> list[rows.Match]:
        """Return the ``top`` persons of some groups whom a picture is most like, most confident first.

        It sees everything that was written before it was called. It takes little memory beside the galleries.

        Args:
            appid: Whose groups they are.
            group_ids: The groups, taken together.
            probe: The embedding of the face in the picture.
            recognizer: What made it; only faces that it stored are compared.
            top: How many persons at most.

        Raises:
            Refusal: -1306 when there is no such group.
        """
        matches: list[rows.Match | None] = []
        for _ in range(_RANKINGS):
            galleries = (self._gallery(appid, group_id, recognizer) for group_id in group_ids)
            rankings = [rank(gallery, probe, recognizer, top) for gallery in galleries]
            best = best_of_persons((face for ranking in rankings for face in ranking), top)
            with self._database.reading() as db:
                matches = [rows.match_of(db, face) for face in best]
            if None not in matches:  # otherwise one of them was deleted a moment ago, and others move up
                break
        return [match for match in matches if match is not None]

    def group_size(self, appid: str, group_ids: Sequence[str], recognizer: Recognizer) -> int:
        """Return with how many faces of some groups :meth:`identify` compares. -1306 when there is no such group."""
        return sum(self._gallery(appid, group_id, recognizer).count for group_id in group_ids)

    def _gallery(self, appid: str, group_id: str, recognizer: Recognizer) -> Gallery:
        with self._database.reading() as db:
            group, version = rows.group_key(db, appid, group_id)
        return self._galleries.get(group, recognizer.name, version)

    # Signatures

    def used_signatures(self) -> UsedSignatures:
        """Return the memory of signatures that were used, shared by all processes on this file and those after them.

        It is in a second file beside the database, named the same with ``-signatures`` behind, made at the first call.

        Raises:
            StoreError: That file cannot be used.
        """
        with self._lock:
            if self._signatures is None:
                self._signatures = UsedSignatures(self._path)
            return self._signatures

    # The whole

    def snapshot(self) -> bytes:
        """Return the whole content, for :meth:`restore`; embeddings are biometric data, so keep it as the file."""
        with self._database.reading() as db:
            return dump(db)

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole content by that of a snapshot, when no other process uses the file.

        Raises:
            StoreError: It is no snapshot of a store; nothing is replaced.
        """
        with self._database.exclusively() as db:
            load(db, snapshot)
            # Versions have gone back, and would come again for other galleries.
            self._galleries = Galleries(self._database, self._gallery_memory)
