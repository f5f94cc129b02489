"""What a request's body may look like: the specification's own packets, every official client's, and nonsense."""

from __future__ import annotations

import base64
import itertools
import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given
from serverkit import APPID, BOUNDARY, BUCKET, ToyRecognizer, authorization, calling, multipart, part, picture
from specification import SAMPLES

from face_async.limits import ServiceLimits
from face_async.server import Store
from face_async.server.fetch import Fetcher
from face_async.server.request.forms import MAX_PARTS, Form, _Parts

pytestmark = pytest.mark.anyio

FORM = f"multipart/form-data; boundary={BOUNDARY}"
OCTETS = "Content-Type: application/octet-stream"


def fields(**more: object) -> bytes:
    return json.dumps({"appid": APPID, "bucket": BUCKET} | more).encode()


@pytest.fixture
def web(monkeypatch):
    """Every URL leads to a picture whose person its length decides."""

    async def fetch(self, url, body):
        return picture(len(url))

    monkeypatch.setattr(Fetcher, "fetch", fetch)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_the_specifications_own_packets_are_accepted(sample, store, caller, web):
    """Byte for byte, but for what its authors left wrong: signature, length, compare's path; and ids of faces."""
    persons = () if sample.endpoint == "newperson" else ("person0", "person1", "Person1")
    face_ids = [store_person(store, person) for person in persons]
    body = re.sub(rb"[0-9a-f]{19,32}", face_ids[0].encode(), sample.body) if face_ids else sample.body
    code, data = await caller.post(sample.endpoint, body, sample.headers["content-type"], Host=sample.headers["host"])
    assert code == 0
    more = {"group_size", "time_ms"} if sample.endpoint == "identify" else set()
    assert set(data) == set(json.loads(sample.answer)["data"]) | more


def store_person(store: Store, person_id: str) -> str:
    toy, limits = ToyRecognizer(), ServiceLimits()
    face = toy.find_face(picture(5))
    return store.add_person(APPID, person_id, ["tencent"], name="", tag="", face=face, recognizer=toy, limits=limits)


async def test_what_the_python_client_sends(caller):
    """A filename on every text field, no Content-Type anywhere, percent-encoded paths as picture names."""
    body = multipart(
        part("appid", APPID, filename="appid"),
        part("bucket", BUCKET, filename="bucket"),
        part("person_id", "ada", filename="person_id"),
        part("group_ids[0]", "staff", filename="group_ids[0]"),
        part("tag", "总部", filename="tag"),
        part("image", picture(1), filename="/home/ada/%E7%85%A7%E7%89%87/" + "%E7%85%A7" * 1000 + ".jpg"),
    )
    assert (await caller.post("newperson", body, f"multipart/form-data; boundary={BOUNDARY}"))[0] == 0
    info = await caller.ok("getinfo", person_id="ada")
    assert (info["tag"], len(info["face_ids"])) == ("总部", 1)


async def test_what_the_php_client_sends(caller):
    """Pictures are plain fields: no filename, no type, and bytes that are no text."""
    await caller.new_person("ada")
    data = await caller.add_faces("ada", picture(1), b"\xff\xd8\xff\xe0\x00\r\n--", picture(2))
    assert data["ret_codes"] == [0, 0, 0]


async def test_what_the_java_client_sends(caller):
    """No bucket, a Content-Length in every part, null as text, a charset, any case of the media type."""
    utf8 = "Content-Type: text/plain; charset=utf-8"
    body = multipart(
        part("appid", APPID, headers=(utf8, "Content-Length: 6")),
        part("person_id", "ada", headers=(utf8, "Content-Length: 3")),
        part("group_ids[0]", "staff", headers=(utf8, "Content-Length: 5")),
        part("person_name", "null", headers=(utf8, "Content-Length: 4")),
        part("tag", "null", headers=(utf8, "Content-Length: 4")),
        part("image", picture(1), filename="image", headers=(OCTETS, f"Content-Length: {len(picture(1))}")),
    )
    assert (await caller.post("newperson", body, FORM, Connection="close"))[0] == 0
    body = json.dumps({"appid": APPID, "person_id": "ada"}).encode()
    code, info = await caller.post("getinfo", body, "Application/JSON; charset=utf-8")
    assert (code, info["person_name"], info["tag"]) == (0, "", "")


async def test_what_the_node_client_sends(caller):
    """No bucket in signature or body, the vendor's Host, a raw buffer without a filename."""
    caller.sign = lambda: authorization(bucket="")
    body = multipart(
        part("appid", APPID),
        part("imageA", picture(1), headers=(OCTETS,)),
        part("imageB", picture(1), headers=(OCTETS,)),
    )
    code, data = await caller.post("compare", body, FORM, Host="service.image.myqcloud.com")
    assert (code, data["similarity"]) == (0, 100.0)


async def test_integers_may_stand_for_ids_in_json(caller, web):
    """Programs in languages without types send what they have: an appid, a time in milliseconds as an id."""
    person = {"appid": int(APPID), "person_id": 1511234567890}
    assert (await caller.ok("newperson", **person, group_ids=[2015, "staff"]))["group_ids"] == ["2015", "staff"]
    assert (await caller.ok("getinfo", person_id="1511234567890"))["group_ids"] == ["2015", "staff"]
    face_id = (await caller.ok("addface", **person, urls=["http://x"]))["face_ids"][0]
    assert (await caller.ok("identify", group_id=2015, url="http://x"))["candidates"]
    assert (await caller.ok("delface", **person, face_ids=[int(face_id)]))["deleted"] == 1


@pytest.mark.parametrize(
    "person_id",
    ["7", "1511234567890", "a3bb189e-8bf9-3886-9912-ace4e6543002", "x.1735.8a80." + "f" * 38, "漢字", "0"],
)
async def test_ids_as_programs_have_them(caller, person_id):
    """Short numbers, times, UUIDs, names with dots."""
    await caller.new_person(person_id)
    assert (await caller.ok("getinfo", person_id=person_id))["person_id"] == person_id


async def test_the_word_null_is_a_name_in_json(caller):
    """JSON has a null of its own; only multipart has not."""
    await caller.new_person("ada", person_name="null")
    assert (await caller.ok("getinfo", person_id="ada"))["person_name"] == "null"


@pytest.mark.parametrize("urls", [{"urls": ["http://x"]}, {"urls": "http://x"}])
async def test_the_word_null_is_no_tag_beside_urls(caller, web, urls):
    """Java's client writes so when it was given none."""
    await caller.new_person("ada")
    await caller.ok("addface", person_id="ada", tag="null", **urls)
    data = await caller.ok("identify", group_id="staff", url="http://x")
    assert [candidate["tag"] for candidate in data["candidates"]] == [""]


async def test_indexed_fields_keep_the_order_of_their_indices(caller):
    """Not that of the parts."""
    parts = [part("person_id", "ada"), *(part(f"group_ids[{index}]", f"g{index}") for index in (2, 10, 0, 1))]
    assert (await caller.ok("newperson", *parts))["group_ids"] == ["g0", "g1", "g2", "g10"]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["group_ids"], ["g0"]),
        (["group_ids", "group_ids"], ["g0", "g1"]),
        (["group_ids[]"], ["g0"]),
        (["group_ids[]", "group_ids[]", "group_ids[]"], ["g0", "g1", "g2"]),
        (["group_ids[0]"], ["g0"]),
    ],
    ids=repr,
)
async def test_lists_in_multipart_are_written_in_many_ways(caller, names, groups):
    """By a name that is repeated, or stands there once (httpx, requests, superagent), or in brackets (axios, PHP)."""
    parts = [part(name, f"g{place}") for place, name in enumerate(names)]
    assert (await caller.ok("newperson", part("person_id", "ada"), *parts))["group_ids"] == groups


@pytest.mark.parametrize("names", [["images"], ["images"] * 2, ["images[]"] * 3, ["images[1]", "images[0]"]], ids=repr)
async def test_pictures_in_multipart_are_listed_in_many_ways(caller, names):
    """As texts are; the order is that of the indices, or else of the parts."""
    await caller.new_person("ada")
    images = [part(name, picture(place), filename="x.jpg") for place, name in enumerate(names)]
    data = await caller.ok("addface", part("person_id", "ada"), *images)
    assert data["ret_codes"] == [0] * len(names)


async def test_the_file_counts_where_a_text_part_has_its_name(caller):
    """A WeChat mini-program sends the file's name as ``image`` before the file itself."""
    await caller.new_person("ada", image=picture(1))
    text, file = part("image", "identify.jpg"), part("image", picture(1), filename="tmp.jpg")
    for parts in ((text, file), (file, text)):
        data = await caller.ok("identify", part("group_id", "staff"), *parts)
        assert data["candidates"][0]["confidence"] == 100.0
    data = await caller.ok("addface", part("person_id", "ada"), part("images", "a name"), part("images", picture(2)))
    assert len(data["ret_codes"]) == 2  # no picture of a list is dropped


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "text/plain;charset=UTF-8",
        "Text/JSON",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/octet-stream",
        "",
    ],
)
async def test_json_is_read_under_the_media_types_that_libraries_choose(caller, store, media_type):
    """fetch, axios with a text, curl -d, .NET's StringContent, urllib and others; a strict server refuses them: 3."""
    assert (await caller.post("getgroupids", fields(), media_type))[0] == 0
    async with calling(store, strict=True) as strict:
        assert (await strict.post("getgroupids", fields(), media_type))[0] == 3


async def test_json_without_a_media_type_is_read(caller):
    """As some HTTP libraries send a body of bytes."""
    headers = {"Authorization": authorization()}
    answer = await caller.client.post("/face/getgroupids", content=fields(), headers=headers)
    assert (answer.request.headers.get("content-type"), answer.json()["code"]) == (None, 0)


@pytest.mark.parametrize(
    "encode",
    [
        lambda content: base64.b64encode(content).decode(),
        lambda content: [base64.b64encode(content).decode()],
        lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode(),
        lambda content: "\r\n".join(re.findall(".{1,4}", base64.b64encode(content).decode())) + "\r\n",
    ],
    ids=["plain", "in a list", "data URL", "in lines"],
)
async def test_pictures_in_json_are_base64(caller, encode):
    """The sibling API's form, alone and in lists: ``image``, ``images``, ``imageA``, ``imageB``."""
    first, second = picture(1), picture(2)
    data = await caller.ok("newperson", person_id="ada", group_ids=["staff"], image=encode(first))
    assert data["suc_face"] == 1
    assert (await caller.ok("addface", person_id="ada", images=encode(second)))["ret_codes"] == [0]
    assert (await caller.ok("compare", imageA=encode(first), imageB=encode(first)))["similarity"] == 100.0
    assert (await caller.ok("verify", person_id="ada", image=encode(second)))["confidence"] == 100.0


@pytest.mark.parametrize("image", ["no base64!", "identify.jpg", "é", 7, True, {}, [], [7], ["ab=", "ok=="]], ids=repr)
async def test_a_picture_in_json_that_is_no_base64_is_21(caller, image):
    """It is never ignored: newperson without a picture would be legal."""
    code, _ = await caller.json("newperson", person_id="ada", group_ids=["staff"], image=image)
    assert (code, (await caller.json("getinfo", person_id="ada"))[0]) == (21, -1303)


async def test_null_is_no_picture_and_an_empty_text_an_empty_one(caller):
    """As in multipart, where an empty part is an empty picture."""
    assert (await caller.ok("newperson", person_id="ada", group_ids=["staff"], image=None))["suc_face"] == 0
    assert (await caller.json("newperson", person_id="bob", group_ids=["staff"], image=""))[0] == -1300


@pytest.mark.parametrize(
    "other", [{"images": ["YQ=="]}, {"imageA": "YQ=="}, {"urls": ["http://x"]}, {"urlB": "http://x"}], ids=repr
)
async def test_a_picture_under_the_name_of_another_endpoint_is_21(caller, web, other):
    """newperson would ignore it, and create a person without a face."""
    assert (await caller.json("newperson", person_id="ada", group_ids=["staff"], **other))[0] == 21
    assert (await caller.json("newperson", person_id="ada", group_ids=["staff"], url="http://x", **other))[0] == 0


async def test_a_strict_server_takes_ids_as_texts_and_no_pictures_in_json(store):
    """21. The appid may be a number all the same: official clients write it so."""
    async with calling(store, strict=True) as caller:
        await caller.new_person("7", image=picture(1))
        assert (await caller.json("getgroupids", appid=int(APPID)))[0] == 0
        assert (await caller.json("getinfo", person_id=7))[0] == 21
        assert (await caller.json("verify", person_id="7", image=base64.b64encode(picture(1)).decode()))[0] == 21


async def test_a_url_alone_may_come_in_multipart(caller, web):
    """PHP's client compares two URLs so; other programs verify and compare a URL with a picture."""
    await caller.new_person("ada", image=picture(8))
    assert (await caller.ok("compare", part("urlA", "http://x"), part("urlB", "http://y")))["similarity"] == 100.0
    assert (await caller.ok("compare", part("urlA", "http://x"), part("imageB", picture(8))))["similarity"] == 100.0
    assert (await caller.ok("compare", part("imageA", picture(8)), part("urlB", "http://y")))["similarity"] == 100.0
    assert (await caller.ok("verify", part("person_id", "ada"), part("url", "http://x")))["ismatch"]


async def test_the_last_line_end_may_be_missing(caller):
    """A PHP program was seen to end its body with the closing boundary."""
    body = multipart(part("appid", APPID), part("bucket", BUCKET), end=b"--")
    assert (await caller.post("getgroupids", body, FORM))[0] == 0


async def test_urls_are_a_list_or_a_single_string(caller, web):
    """The specification types them String and shows a list."""
    await caller.new_person("ada")
    urls = ["http://a.example/1", "http://a.example/100"]
    assert (await caller.ok("addface", person_id="ada", urls=urls))["ret_codes"] == [0, 0]
    assert (await caller.ok("addface", person_id="ada", urls="http://a.example/10000"))["ret_codes"] == [0]
    parts = [part(f"urls[{index}]", "http://a.example/" + "x" * (9 + 4 * index)) for index in range(2)]
    assert (await caller.ok("addface", part("person_id", "ada"), *parts))["ret_codes"] == [0, 0]


async def test_the_url_is_used_when_there_is_a_picture_too(caller, web):
    """Spec: 2.1, of url and image."""
    url = part("urlA", "http://x")
    data = await caller.ok("compare", url, part("imageA", picture(99)), part("imageB", picture(len("http://x"))))
    assert data["similarity"] == 100.0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b'"text"', "application/json"),
        (b'{"appid": "\xff"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"appid": ' + b"9" * 5_000 + b"}", "application/json"),
        (fields(), "image/jpeg"),
        (fields(), "text/html"),
        (b"appid=123456&bucket=test", "application/x-www-form-urlencoded"),
        (b"appid=123456", "text/plain"),
        (b"", ""),
        (picture(1), "application/octet-stream"),
        (multipart(part("appid", APPID)), ""),
        (multipart(part("appid", APPID)), "multipart/form-data"),
        (multipart(part("appid", APPID)), "multipart/form-data; boundary=" + "x" * 1_000),
        (multipart(part("appid", APPID)), "multipart/form-data; boundary=other"),
        (multipart(part("appid", APPID), end=b""), FORM),
        (multipart(part("appid", APPID))[:-30], FORM),
        (b"", FORM),
        (multipart(b"\r\nno name"), FORM),
        (multipart(part("", "no name")), FORM),
        (multipart(part("appid", APPID, headers=("X: y",) * 20)), FORM),
        (multipart(part("appid", APPID, filename="x" * 20_000)), FORM),
        (multipart(part("appid", APPID, headers=("B\x00d: y",))), FORM),
        (multipart(*[part("x", "")] * (MAX_PARTS + 1)), FORM),
    ],
    ids=lambda value: repr(value[:24]) + str(len(value)),
)
async def test_a_body_that_cannot_be_read_is_3(caller, body, content_type):
    """Whatever is wrong with it."""
    assert (await caller.post("getgroupids", body, content_type))[0] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"person_id": 7.0},
        {"person_id": True},
        {"person_id": ["ada"]},
        {"person_id": "\ud800"},
        {"group_ids": "staff"},
        {"group_ids": {"0": "staff"}},
        {"group_ids": [1.0]},
        {"group_ids": [False]},
        {"tag": 1.5},
        {"person_name": {}},
        {"url": True},
        {"appid": True},
        {"bucket": 1},
    ],
    ids=repr,
)
async def test_a_parameter_of_the_wrong_type_is_21(caller, wrong):
    """Also half a surrogate pair, which is no text."""
    sent = {"person_id": "ada", "group_ids": ["staff"]} | wrong
    assert (await caller.json("newperson", **sent))[0] == 21


async def test_a_parameter_given_twice_is_21(caller):
    """Which one counts, nobody could say; so it is with pictures, and with bytes that are no UTF-8."""
    assert (await caller.multipart("getinfo", part("person_id", "a"), part("person_id", "b")))[0] == 21
    await caller.new_person("ada")
    twice = [part("image", picture(1)), part("image", picture(1))]
    assert (await caller.multipart("verify", part("person_id", "ada"), *twice))[0] == 21
    assert (await caller.multipart("getinfo", part("person_id", b"\xff")))[0] == 21


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, -1301),
        ({"person_id": ""}, -1301),
        ({"person_id": None}, -1301),
        ({"person_id": "a b"}, -1313),
        ({"person_id": "a/b"}, -1313),
        ({"person_id": "a\tb"}, -1313),
        ({"person_id": "a\n"}, -1313),
        ({"person_id": "a" * 129}, -1304),
        ({"person_id": "漢" * 43}, -1304),
        ({"person_id": "a" * 128}, -1303),
    ],
    ids=repr,
)
async def test_an_id_is_checked(caller, sent, code):
    """Missing, illegal, too long; the last one is fine and merely does not exist."""
    assert (await caller.json("getinfo", **sent))[0] == code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, -1301),
        ({"group_ids": None}, -1301),
        ({"group_ids": []}, -1307),
        ({"group_ids": [""]}, -1301),
        ({"group_ids": ["a", "b c"]}, -1313),
        ({"group_ids": ["a" * 129]}, -1304),
        ({"group_ids": ["a"], "tag": "t" * 1_025}, -1304),
        ({"group_ids": ["a"], "person_name": "名" * 342}, -1304),
        ({"group_ids": ["a"], "tag": "t" * 1_024, "person_name": "a name / with anything\n"}, 0),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_new_persons_groups_and_texts_are_checked(caller, sent, code):
    """Absent and empty lists of groups are told apart."""
    assert (await caller.json("newperson", person_id="ada", **sent))[0] == code


@given(
    content=st.binary(max_size=200) | st.text("-\r\nacebdf13572468 ", max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
@example(content=b"\r\n--" + BOUNDARY.encode()[:-1], cuts=[])
@example(content=b"\r\n\r\n--", cuts=list(range(0, 400, 7)))
def test_a_body_may_arrive_in_any_pieces(anyio_backend, content, cuts):
    """Every byte of a picture is kept, whatever it looks like and wherever the network cuts."""
    assume(b"\r\n--" + BOUNDARY.encode() not in content)
    body = multipart(part("appid", APPID), part("image", content), part("tag", "x"))
    parts = _Parts()
    parser = parts.parser(BOUNDARY.encode())
    edges = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        parser.write(body[start:end])
    assert parts.form() == Form({"appid": APPID, "tag": "x"}, {"image": [content]})


async def test_a_missing_appid_is_minus_1301(caller):
    """It is required of every call."""
    assert (await caller.post("getgroupids", b"{}", "application/json"))[0] == -1301
