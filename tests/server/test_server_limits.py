"""The limits of the service (Spec: 2), with small numbers: at the limit all is well, beyond it nothing is done."""

from __future__ import annotations

import anyio
import httpx
import pytest
from serverkit import APPID, CREDENTIALS, ToyRecognizer, authorization, calling, multipart, part, picture

from face_async.limits import ServiceLimits
from face_async.server import create_app
from face_async.server.storage import rows
from face_async.server.storage.sqlite.database import SqliteTransaction

pytestmark = pytest.mark.anyio


async def test_an_appid_has_so_many_groups(store):
    """-1311, and neither the person nor the group that there was room for is created."""
    async with calling(store, limits=ServiceLimits(max_groups_per_appid=3)) as caller:
        await caller.new_person("ada", "a", "b")
        assert (await caller.json("newperson", person_id="bob", group_ids=["c", "d"]))[0] == -1311
        assert (await caller.json("getinfo", person_id="bob"))[0] == -1303
        await caller.new_person("bob", "c", "a")
        await caller.new_person("eve", "a", "b", "c")
        assert (await caller.ok("getgroupids"))["group_ids"] == ["a", "b", "c"]
        caller.sign = lambda: authorization(appid="777")
        await caller.ok("newperson", appid="777", person_id="ada", group_ids=["d", "e", "f"])


async def test_a_group_has_so_many_persons(store):
    """-1310, and the other groups of the request get nobody."""
    async with calling(store, limits=ServiceLimits(max_persons_per_group=2)) as caller:
        await caller.new_person("ada", "full")
        await caller.new_person("bob", "full")
        assert (await caller.json("newperson", person_id="eve", group_ids=["new", "full"]))[0] == -1310
        assert (await caller.ok("getgroupids"))["group_ids"] == ["full"]
        await caller.ok("delperson", person_id="ada")
        await caller.new_person("eve", "new", "full")


async def test_a_person_has_so_many_faces(store):
    """-1309 for the pictures that there is no room for; for the whole request when there was none before."""
    async with calling(store, limits=ServiceLimits(max_faces_per_person=3)) as caller:
        await caller.new_person("ada", image=picture(1))
        data = await caller.add_faces("ada", picture(2), picture(3), picture(4))
        assert data["ret_codes"] == [0, 0, -1309]
        assert data["face_ids"][2] == ""
        assert (await caller.multipart("addface", part("person_id", "ada"), part("images[0]", picture(9))))[0] == -1309
        await caller.ok("delface", person_id="ada", face_ids=data["face_ids"][:1])
        assert (await caller.add_faces("ada", picture(9)))["ret_codes"] == [0]


async def test_more_pictures_than_a_person_may_have_are_not_looked_at(store):
    """They cost the server nothing, and get -1309 even when earlier ones failed."""
    async with calling(store, limits=ServiceLimits(max_faces_per_person=2)) as caller:
        await caller.new_person("ada")
        data = await caller.add_faces("ada", b"nobody", picture(1), b"crash")
        assert data["ret_codes"] == [-1101, 0, -1309]


async def test_concurrent_requests_never_pass_the_limit_together(store):
    """Forty at once for one person, and exactly twenty get in."""
    async with calling(store) as caller:
        await caller.new_person("ada")
        codes = []

        async def add(person: int) -> None:
            code, data = await caller.multipart("addface", part("person_id", "ada"), part("images[0]", picture(person)))
            codes.append(code or data["ret_codes"][0])

        async with anyio.create_task_group() as tasks:
            for person in range(40):
                tasks.start_soon(add, person)
        assert sorted(codes) == [-1309] * 20 + [0] * 20
        assert len((await caller.ok("getfaceids", person_id="ada"))["face_ids"]) == 20


async def test_one_person_is_created_once(store):
    """Of twenty requests at once, one succeeds."""
    async with calling(store) as caller:
        codes = []

        async def create() -> None:
            codes.append((await caller.json("newperson", person_id="ada", group_ids=["staff"]))[0])

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(create)
        assert sorted(codes) == [-1302] * 19 + [0]


MANY = [f"none{number}" for number in range(20_000)]


@pytest.fixture
def statements(kind, monkeypatch):
    """All statements of all transactions, once they are executed."""
    transaction = SqliteTransaction
    if kind == "postgres":
        from face_async.server.storage.postgres.transaction import PostgresTransaction  # noqa: PLC0415 - an extra

        transaction = PostgresTransaction
    made, execute = [], transaction.execute

    def executing(self, *args):
        made.append(args[0])
        return execute(self, *args)

    monkeypatch.setattr(transaction, "execute", executing)
    return made


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("newperson", {"person_id": "eve"}, -1311),
        ("addgroupids", {"person_id": "ada"}, -1311),
        ("delgroupids", {"person_id": "ada"}, -1306),
        ("identify", {"url": "http://x"}, -1306),
        ("multidentify", {"url": "http://x"}, -1306),
        ("delface", {"person_id": "ada"}, -1305),
    ],
)
async def test_more_ids_than_there_can_be_take_no_longer_than_one(caller, statements, name, fields, code):
    """However many fit into a request, the database is asked no more often than for one id that there is not."""
    await caller.new_person("ada", image=picture(1))

    async def asked(ids) -> tuple[int, int]:
        statements.clear()
        answered, _ = await caller.json(name, **fields, group_ids=ids, face_ids=ids)
        return answered, len(statements)

    answered, most = await asked(MANY)
    assert answered == code
    assert 0 < most <= (await asked(MANY[:1]))[1]


async def test_a_face_is_deleted_among_any_number_of_ids(caller):
    """Those that are no faces of the person do not count, and the answer is in the order of the request."""
    await caller.new_person("bob", image=picture(9))
    (other,) = (await caller.ok("getfaceids", person_id="bob"))["face_ids"]
    await caller.new_person("ada")
    faces = (await caller.add_faces("ada", picture(1), picture(2), picture(3)))["face_ids"]
    data = await caller.ok("delface", person_id="ada", face_ids=[faces[2], other, *MANY, faces[0]])
    assert (data["deleted"], data["face_ids"]) == (2, [faces[2], faces[0]])
    assert (await caller.ok("getfaceids", person_id="ada"))["face_ids"] == [faces[1]]
    assert (await caller.ok("getfaceids", person_id="bob"))["face_ids"] == [other]


@pytest.mark.parametrize("at_once", [1, 2, 500])
async def test_lists_are_what_they_are_however_they_are_asked_for(caller, monkeypatch, at_once):
    """Whatever number of ids a statement has: in the order of the request, and all or nothing."""
    monkeypatch.setattr(rows, "_AT_ONCE", at_once)
    groups = ["e", "a", "d", "b", "c"]
    await caller.new_person("ada", *groups, image=picture(1))
    await caller.new_person("bob", "c", "f", "a", image=picture(2))
    assert (await caller.ok("getgroupids"))["group_ids"] == [*groups, "f"]
    assert (await caller.ok("getinfo", person_id="bob"))["group_ids"] == ["c", "f", "a"]
    added = await caller.ok("addgroupids", person_id="bob", group_ids=["h", "a", "g", "d"])
    assert added["group_ids"] == ["h", "g", "d"]
    assert (await caller.json("delgroupids", person_id="ada", group_ids=[*groups, "none"]))[0] == -1306
    assert (await caller.ok("delgroupids", person_id="ada", group_ids=["f", "d", "a", "e"]))["deleted"] == 3
    assert (await caller.ok("getinfo", person_id="ada"))["group_ids"] == ["b", "c"]
    searched = [part(f"group_ids[{place}]", group) for place, group in enumerate([*groups, "f"])]
    found = await caller.ok("identify", *searched, part("image", picture(1)))
    assert [candidate["person_id"] for candidate in found["candidates"]] == ["ada", "bob"]
    assert found["group_size"] == 6


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_has_so_many_bytes(store, chunked):
    """23, whether the length is declared or only found out."""
    body = multipart(part("appid", APPID), part("imageA", picture(1)), part("imageB", picture(1)))

    async def chunks():
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    headers = {"Content-Type": "multipart/form-data; boundary=--------------acebdf13572468"}
    for limit, code in ((len(body), 0), (len(body) - 1, 23)):
        async with calling(store, limits=ServiceLimits(max_request_bytes=limit)) as caller:
            headers["Authorization"] = authorization()
            content = chunks() if chunked else body
            answer = (await caller.client.post("/face/compare", content=content, headers=headers)).json()
            assert answer["code"] == code


async def test_a_body_longer_than_it_says_is_23(store):
    """What arrives counts, not what was declared; nor is an absurd length a fault."""
    async with calling(store, limits=ServiceLimits(max_request_bytes=100)) as caller:
        for declared in ("5", "9" * 5_000, "²"):
            headers = [
                ("Content-Type", "application/json"), ("Content-Length", declared.encode("latin-1")),
                ("Authorization", authorization()),
            ]  # fmt: skip
            request = httpx.Request("POST", "http://server/face/compare", content=b"x" * 200, headers=headers)
            assert (await caller.client.send(request)).json()["code"] == 23


async def test_a_body_that_breaks_off_changes_nothing(store, caller):
    """Its sender is gone, so there is nobody to answer."""
    app = create_app(store, credentials=CREDENTIALS, recognizer=ToyRecognizer())
    messages = iter(
        [
            {"type": "http.request", "body": b'{"appid": "123456", ', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/face/delperson", "query_string": b"", "root_path": "",
        "headers": [(b"authorization", authorization().encode()), (b"content-type", b"application/json")],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
