"""Groups, persons and faces over any engine: every effect one transaction, with the service's limits inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal
from face_async.server.storage import rows
from face_async.server.storage.base import Addition, Match, PersonRecord
from face_async.server.storage.galleries import Galleries, default_memory
from face_async.server.storage.ranking import rank_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from face_async.limits import ServiceLimits
    from face_async.server.recognition import Face, Recognizer
    from face_async.server.storage.base import Engine, Transaction
    from face_async.server.storage.signatures import UsedSignatures

T = TypeVar("T")

_RANKINGS = 3  # how often galleries are compared with while those found in them are being deleted


class Storage:
    """The server's memory; safe to use from several threads, and by several processes at once.

    The namespace of persons and groups is the appid; buckets divide nothing. Limits are exact, whoever else writes.
    Every read sees all that was written before it was asked, by whatever process.

    Any method may raise :class:`StoreError`: then a read has failed, and an effect may have happened or not. A
    :class:`Refusal` says that it has not.

    Args:
        engine: The database.
        gallery_memory: Bytes that the galleries kept for :meth:`search` may take, about 600 a face; None: a quarter
            of the machine's memory, or of the container's.
    """

    def __init__(self, engine: Engine, *, gallery_memory: int | None = None) -> None:
        self._database = engine
        self._gallery_memory = default_memory() if gallery_memory is None else gallery_memory
        self._galleries = Galleries(engine, self._gallery_memory)

    def close(self) -> None:
        """Close the database, after the writes that wait; once is enough, twice does no harm."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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

        def work(db: Transaction) -> str:
            person = rows.insert_person(db, appid, person_id, name, tag)
            groups = rows.groups_made(db, appid, group_ids, limits.max_groups_per_appid)
            key, face_id = (None, "") if face is None else rows.insert_face(db, person, face, tag, recognizer)
            faces = [] if key is None else [key]
            rows.join(db, groups, person, faces, limits.max_persons_per_group)
            return face_id

        return self._database.write(work)

    def delete_person(self, appid: str, person_id: str) -> None:
        """Delete a person and their faces; their groups stay, empty or not. -1303 when there is none."""

        def work(db: Transaction) -> None:
            person = rows.locked_person_key(db, appid, person_id)
            groups, faces = rows.group_keys_of(db, person), rows.face_keys_of(db, person)
            db.execute("DELETE FROM persons WHERE id = ?", (person,))
            rows.move_all(db, groups, faces, persons=-1)

        self._database.write(work)

    def set_info(self, appid: str, person_id: str, *, name: str | None, tag: str | None) -> None:
        """Change a person's name, tag or both; None leaves as is. -1303 when there is none."""

        def work(db: Transaction) -> None:
            person = rows.locked_person_key(db, appid, person_id)
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

    def require_groups(self, appid: str, group_ids: Sequence[str]) -> None:
        """Refuse with -1306 when there is no group of one of these names."""
        with self._database.reading() as db:
            rows.group_keys(db, appid, group_ids)

    def person_ids(self, appid: str, group_id: str) -> list[str]:
        """Return a group's persons in the order in which they joined. -1306 when there is no such group."""
        with self._database.reading() as db:
            [(group, _)] = rows.group_keys(db, appid, [group_id])
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

        def work(db: Transaction) -> list[str]:
            person = rows.locked_person_key(db, appid, person_id)
            joined = set(rows.group_ids_of(db, person))
            new = [group_id for group_id in group_ids if group_id not in joined]
            groups = rows.groups_made(db, appid, new, limits.max_groups_per_appid)
            rows.join(db, groups, person, rows.face_keys_of(db, person), limits.max_persons_per_group)
            return new

        return self._database.write(work)

    def remove_from_groups(self, appid: str, person_id: str, group_ids: Sequence[str]) -> list[str]:
        """Take a person out of groups; return those that they were in.

        Raises:
            Refusal: -1303, or -1306 when there is no group of one of these names; then nothing is changed.
        """

        def work(db: Transaction) -> list[str]:
            person = rows.locked_person_key(db, appid, person_id)
            keys = rows.group_keys(db, appid, group_ids)
            joined = set(rows.group_ids_of(db, person))
            left = {group_id: key for group_id, (key, _) in zip(group_ids, keys, strict=True) if group_id in joined}
            rows.leave(db, list(left.values()), person, rows.face_keys_of(db, person))
            return list(left)

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

        def work(db: Transaction) -> list[Addition]:
            person = rows.locked_person_key(db, appid, person_id)
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
            rows.move_all(db, rows.group_keys_of(db, person), added)
            return additions

        return self._database.write(work)

    def delete_faces(self, appid: str, person_id: str, face_ids: Sequence[str]) -> list[str]:
        """Delete those of the faces that the person has; return their ids.

        Raises:
            Refusal: -1303, or -1305 when the person has none of them.
        """

        def work(db: Transaction) -> list[str]:
            person = rows.locked_person_key(db, appid, person_id)
            # The person's are few, however many ids were sent.
            own = dict(db.execute("SELECT face_id, id FROM faces WHERE person = ?", (person,)).fetchall())
            deleted = [face_id for face_id in face_ids if face_id in own]
            if not deleted:
                raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
            keys = [own[face_id] for face_id in deleted]
            rows.delete_faces(db, keys)
            rows.move_all(db, rows.group_keys_of(db, person), keys)
            return deleted

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

    def thumbnail(self, appid: str, face_id: str) -> bytes:
        """Return a face's thumbnail as JPEG. -1305 when there is no such face, or it has none."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT jpeg FROM thumbnails JOIN faces ON faces.id = thumbnails.id "
                "JOIN persons ON persons.id = person WHERE appid = ? AND face_id = ?",
                (appid, face_id),
            ).fetchone()
        if row is None:
            raise Refusal(ReturnCode.ERROR_FACE_NOT_EXISTED)
        return bytes(row[0])

    def count_faces(self) -> dict[str, int]:
        """Return how many faces there are of all appids, by the recognizer that stored them."""
        with self._database.reading() as db:
            return dict(db.execute("SELECT recognizer, count(*) FROM faces GROUP BY recognizer").fetchall())

    def identity(self) -> str:
        """Return what tells this database from all others; its copies have the same."""
        with self._database.reading() as db:
            return str(db.execute("SELECT id FROM identity").fetchone()[0])

    def recognizers(self) -> set[str]:
        """Return who stored the oldest and the newest face; to ask all faces would take as long as reading them."""
        with self._database.reading() as db:
            ends = "SELECT min(id) FROM faces UNION SELECT max(id) FROM faces"
            return set(rows.texts(db, f"SELECT recognizer FROM faces WHERE id IN ({ends})"))  # noqa: S608 - a constant

    def require_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            StoreError: Nothing can be written.
        """

        def work(db: Transaction) -> None:
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
    ) -> list[Match]:
        """Return the ``top`` persons of some groups whom one face is most like, as :meth:`search` does."""
        [matches], _ = self.search(appid, group_ids, [probe], recognizer, top)
        return matches

    def search(
        self,
        appid: str,
        group_ids: Sequence[str],
        probes: Sequence[NDArray[np.float32]],
        recognizer: Recognizer,
        top: int,
    ) -> tuple[list[list[Match]], int]:
        """Return the ``top`` persons of some groups whom each of some faces is most like, most confident first.

        It sees everything that was written before it was called. It takes little memory beside the galleries.

        Args:
            appid: Whose groups they are.
            group_ids: The groups, taken together.
            probes: The embeddings of the faces.
            recognizer: What made them; only faces that it stored are compared.
            top: How many persons at most.

        Returns:
            The persons for each face, and with how many faces of the groups each was compared.

        Raises:
            Refusal: -1306 when there is no such group.
        """
        found: list[list[Match | None]] = []
        size = 0
        for _ in range(_RANKINGS):
            with self._database.reading() as db:
                groups = rows.group_keys(db, appid, group_ids)
            galleries = (self._galleries.get(group, recognizer.name, version) for group, version in groups)
            ranked, size = rank_all(galleries, probes, recognizer, top)
            with self._database.reading() as db:
                found = rows.matches_of(db, ranked)
            if not any(None in matches for matches in found):
                break  # otherwise one of them was deleted a moment ago, and others move up
        return [[match for match in matches if match is not None] for matches in found], size

    # The whole

    def reading(self) -> AbstractContextManager[Transaction]:
        """Lend a transaction that sees everything as it is at one moment."""
        return self._database.reading()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` within a transaction, and return its result once that is committed; it may be called again."""
        return self._database.write(work)

    def used_signatures(self) -> UsedSignatures:
        """Return the memory of signatures that were used, shared by all processes on this storage and those after them.

        Raises:
            StoreError: It cannot be used.
        """
        raise NotImplementedError
