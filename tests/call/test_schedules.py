"""Random schedules of faults over all effects: nothing is lost, doubled or given to the wrong picture (goal G1).

Each schedule is a short life of a few persons: random effects, before each of them up to three random faults. A model
knows what must be stored. After each effect the store is held against it: a result must be true to the store, an error
without ``maybe_applied`` must have changed nothing, and one with it all, or a part, or nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import httpx
import numpy as np
import pytest
from serverkit import CREDENTIALS, ToyRecognizer, picture

from face_async import CallError, FaceLimitError, FaceSession, RetryPolicy, ServiceLimits
from face_async.server import Faults, Store, create_app
from face_async.server.faults import AnswerLostError
from face_async.server.refusal import Refusal
from face_async.server.storage import rows
from face_async.server.storage.base import Addition

MAX_FACES = 3
PERSONS = ["ada", "bob"]
GROUPS = ["staff", "guests"]
LIMITS = ServiceLimits(max_faces_per_person=MAX_FACES)

Shot = tuple[int, int]


class DuplicatesFirst(Store):
    """A store that looks for duplicates before it counts: another order that a service may have."""

    def require_room(self, appid, person_id, max_faces):
        """Refuse nobody for being full, as long as it is not known what there is to be added."""

    def add_faces(self, appid, person_id, faces, *, tag, recognizer, max_faces):
        """As the other one, but full is only who gets something new."""

        def work(db):
            person = rows.person_key(db, appid, person_id)
            known, count = rows.KnownFaces(db, person, recognizer), len(rows.face_ids_of(db, person))
            additions, added = [], []
            for face in faces:
                if isinstance(face, Refusal):
                    additions.append(Addition(face.code))
                elif twin := known.twin(face):
                    additions.append(Addition(-1312, twin))
                elif count >= max_faces:
                    additions.append(Addition(-1309))
                else:
                    key, face_id = rows.insert_face(db, person, face, tag, recognizer)
                    known.add(face_id, face)
                    additions.append(Addition(0, face_id))
                    added.append(key)
                    count += 1
            rows.move_all(db, rows.group_keys_of(db, person), added)
            return additions

        return self._database.write(work)


class Wire(httpx.AsyncBaseTransport):
    """Calls the application, and writes ``face_ids`` in the shape of the schedule.

    Args:
        app: The application.
        only_added: Whether the server lists added faces alone, and not an entry for every picture.
        meanwhile: What somebody else does before a request is sent again.
    """

    def __init__(self, app, *, only_added: bool, meanwhile) -> None:
        self._inner = httpx.ASGITransport(app)
        self._only_added = only_added
        self._meanwhile = meanwhile
        self._lost = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._lost:
            self._meanwhile()
        self._lost = True
        try:
            response = await self._inner.handle_async_request(request)
        except AnswerLostError as error:
            raise httpx.RemoteProtocolError(str(error)) from None
        content = await response.aread()
        self._lost = response.status_code != 200 or json.loads(content)["code"] in {213, -1200, 13}
        if self._only_added and request.url.path == "/face/addface" and response.status_code == 200:
            answer = json.loads(content)
            data = answer["data"]
            if "ret_codes" in data:
                data["face_ids"] = [
                    one for one, code in zip(data["face_ids"], data["ret_codes"], strict=True) if not code
                ]
            content = json.dumps(answer).encode()
        return httpx.Response(response.status_code, content=content)


@dataclass
class Person:
    """What is stored of a person: faces by their ids, each as person and shot of its picture."""

    groups: frozenset[str]
    name: str = ""
    tag: str = ""
    faces: dict[str, Shot] = field(default_factory=dict)


World = dict[str, Person]


def stored(store: Store) -> World:
    """Read the whole store."""
    world: World = {}
    with store._database.reading() as db:
        for key, person_id, name, tag in db.execute("SELECT id, person_id, name, tag FROM persons").fetchall():
            groups = db.execute(
                "SELECT group_id FROM groups JOIN memberships ON grp = groups.id WHERE person = ?", (key,)
            ).fetchall()
            faces = db.execute("SELECT face_id, embedding FROM faces WHERE person = ?", (key,)).fetchall()
            world[person_id] = Person(
                frozenset(group for (group,) in groups),
                name,
                tag,
                {face_id: tuple(map(int, np.frombuffer(raw, dtype="<f4"))) for face_id, raw in faces},
            )
    return world


FAULTS: list[Mapping[str, object]] = [
    {"code": 15},
    {"code": 107},
    {"code": 213},
    {"code": -1200},
    {"code": 13},
    {"status": 503},
    {"status": 429},
    {"drop_request": True},
    {"drop_response": True},
    {"code": 213, "after": True},
    {"code": 13, "after": True},
    {"status": 502, "after": True},
    {"drop_response": True, "late": 1},
    {"drop_response": True, "late": 2},
    {"code": 213, "late": 1},
]
PARTIAL: list[Mapping[str, object]] = [{"code": 213, "partial": 1}, {"drop_response": True, "partial": 2}]


class Schedule:
    """One life, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.others: list[str] = []  # faces that somebody else has added
        self.done: list[str] = []

    async def run(self) -> None:
        """Live it."""
        rng = self.rng
        with (DuplicatesFirst if rng.random() < 0.5 else Store)() as store:
            self.store, self.faults = store, Faults()
            app = create_app(
                store, credentials=CREDENTIALS, limits=LIMITS, recognizer=ToyRecognizer(), faults=self.faults
            )
            wire = Wire(app, only_added=rng.random() < 0.5, meanwhile=self._meanwhile)
            async with FaceSession(
                "123456",
                "test",
                CREDENTIALS,
                base_url="http://localhost",
                transport=wire,
                limits=LIMITS,
                retry=RetryPolicy(max_attempts=rng.choice([2, 3, 4]), base_delay=0),
            ) as self.session:
                for _ in range(rng.randint(4, 9)):
                    await self._step()

    def _meanwhile(self) -> None:
        """Let somebody else add a face to a person, now and then."""
        if self.rng.random() < 0.1:
            person_id = self.rng.choice(PERSONS)
            shot = (PERSONS.index(person_id), self.rng.randint(100, 999))
            face = ToyRecognizer().find_face(picture(*shot))
            try:
                (added,) = self.store.add_faces(
                    "123456", person_id, [face], tag="", recognizer=ToyRecognizer(), max_faces=MAX_FACES
                )
            except Refusal:
                return
            if added.face_id and added.code == 0:
                self.others.append(added.face_id)

    async def _step(self) -> None:
        effect = self.rng.choice(
            [self._new, self._new, self._add, self._add, self._add, self._del, self._cut, self._set]
        )
        before = stored(self.store)
        endpoint, call, check = effect(self.rng.choice(PERSONS), before)
        script = self._script(endpoint)
        self.done.append(f"{endpoint} {script}")
        for fault in script:
            self.faults.add(endpoint, **fault)
        result = error = None
        try:
            result = await call()
        except CallError as caught:
            error = caught
        except FaceLimitError as caught:
            raise AssertionError("all limits here are the server's") from caught
        if error is None or error.maybe_applied is False:
            self._verify(before, result, error, check)
        await self.faults.apply_late()
        self.faults.clear()
        if error is None:
            self._verify(before, result, error, check)
        else:
            self._nothing_doubled(stored(self.store))

    def _script(self, endpoint: str) -> list[Mapping[str, object]]:
        kinds = FAULTS + PARTIAL * 4 if endpoint == "addface" else FAULTS
        return [self.rng.choice(kinds) for _ in range(self.rng.choice([0, 1, 1, 1, 2, 3]))]

    def _verify(self, before: World, result, error, check) -> None:
        after = stored(self.store)
        self._nothing_doubled(after)
        if error is None:
            check(after, result)
        else:
            assert self._without_others(after) == self._without_others(before), f"changed in spite of {error!r}"

    def _without_others(self, world: World) -> World:
        return {
            person_id: Person(
                person.groups,
                person.name,
                person.tag,
                {face_id: shot for face_id, shot in person.faces.items() if face_id not in self.others},
            )
            for person_id, person in world.items()
        }

    def _nothing_doubled(self, world: World) -> None:
        for person in world.values():
            assert len(set(person.faces.values())) == len(person.faces) <= MAX_FACES

    # Effects: the endpoint, the call, and what must be so when it has a result.

    def _new(self, person_id: str, before: World):
        groups = self.rng.sample(GROUPS, self.rng.randint(1, 2))
        shot = (PERSONS.index(person_id), self.rng.randint(1, 5)) if self.rng.random() < 0.7 else None
        name = f"name {self.rng.randint(0, 10**6)}"  # so that what others made is never taken for ours

        async def call():
            return await self.session.new_person(person_id, groups, picture(*shot) if shot else None, person_name=name)

        def check(after: World, result) -> None:
            assert person_id not in before
            person = after[person_id]
            assert (person.groups, person.name) == (frozenset(groups), name)
            assert (result.suc_group, result.suc_face) == (len(groups), 1 if shot else 0)
            ours = {face_id: one for face_id, one in person.faces.items() if face_id not in self.others}
            assert list(ours.values()) == ([shot] if shot else [])
            assert result.face_id in {*ours, ""}
            assert result.face_id or not shot or len(person.faces) > 1

        return "newperson", call, check

    def _add(self, person_id: str, before: World):
        shots = [(PERSONS.index(person_id), self.rng.randint(1, 5)) for _ in range(self.rng.randint(1, MAX_FACES))]
        there = before[person_id].faces if person_id in before else {}
        known = list(there) if self.rng.random() < 0.5 else None

        async def call():
            return await self.session._add_face(person_id, [picture(*shot) for shot in shots], before=known)

        def check(after: World, result) -> None:
            faces = after[person_id].faces
            claimed = [outcome.face_id for outcome in result.faces if outcome.face_id]
            assert len(set(claimed)) == len(claimed), "one face for two pictures"
            for shot, outcome in zip(shots, result.faces, strict=True):
                if outcome.added:
                    assert shot in faces.values(), "lost"
                    assert outcome.face_id is None or faces[outcome.face_id] == shot, "the wrong picture's"
                    if known is not None:
                        assert shot not in there.values(), "an older face is no new one"
                elif outcome.code == -1312:
                    assert shot in faces.values()
                else:
                    assert outcome.code == -1309
                    duplicate = shot in there.values() or shots.count(shot) > 1
                    assert duplicate or shot not in faces.values(), "unreported"
            new = {shot for face_id, shot in faces.items() if face_id not in there and face_id not in self.others}
            assert new <= {shot for shot, outcome in zip(shots, result.faces, strict=True) if outcome.added}, (
                "unreported"
            )
            assert set(there.values()) <= set(faces.values())

        return "addface", call, check

    def _del(self, person_id: str, before: World):
        def check(after: World, result) -> None:
            # Who was never there is gone, too, when the first answer is lost: nobody can tell.
            assert person_id in before or result.meta.settled
            assert person_id not in after

        return "delperson", lambda: self.session.del_person(person_id), check

    def _cut(self, person_id: str, before: World):
        there = list(before[person_id].faces) if person_id in before else []
        wanted = self.rng.sample(there, self.rng.randint(1, len(there))) if there else ["1"]

        def check(after: World, result) -> None:
            assert set(result.face_ids) == set(wanted)
            assert result.deleted == len(wanted)
            assert there or result.meta.settled
            assert set(after[person_id].faces) - set(self.others) == set(there) - set(wanted) - set(self.others)

        return "delface", lambda: self.session.del_face(person_id, wanted), check

    def _set(self, person_id: str, before: World):
        tag = f"tag {self.rng.randint(0, 10**6)}"

        def check(after: World, result) -> None:
            assert after[person_id].tag == tag
            assert after[person_id].name == before[person_id].name

        return "setinfo", lambda: self.session.set_info(person_id, tag=tag), check


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_whatever_fails_nothing_is_lost_doubled_or_misattributed(loop, seed, full):
    """Ten thousand schedules at full count."""

    async def run_all():
        for number in range(5_000 if full else 60):
            schedule = Schedule(seed + 10**6 * (loop == "trio") + number)
            try:
                await schedule.run()
            except AssertionError as error:
                error.add_note(f"schedule {number} from seed {seed}: " + "; ".join(schedule.done))
                raise

    anyio.run(run_all, backend=loop)
