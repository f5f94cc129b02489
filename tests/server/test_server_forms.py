"""What a request's body may look like: the specification's own packets, every official client's, and nonsense."""

from __future__ import annotations

import itertools
import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given
from serverkit import APPID, BOUNDARY, BUCKET, ToyRecognizer, authorization, multipart, part, picture
from specification import SAMPLES

from face_async.limits import ServiceLimits
from face_async.server import Store
from face_async.server.fetch import Fetcher
from face_async.server.forms import MAX_PARTS, Form, _Parts

pytestmark = pytest.mark.anyio

FORM = f"multipart/form-data; boundary={BOUNDARY}"
OCTETS = "Content-Type: application/octet-stream"


def fields(**more: object) -> bytes:
    return json.dumps({"appid": APPID, "bucket": BUCKET} | more).encode()


@pytest.fixture
def web(monkeypatch):
    """Every URL leads to a picture whose person its length decides."""

    async def fetch(self, url):
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
    assert set(data) == set(json.loads(sample.answer)["data"])


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


async def test_a_number_may_stand_for_the_appid(caller):
    """PHP and Node write it as their caller configured it."""
    assert (await caller.json("getgroupids", appid=int(APPID)))[0] == 0


async def test_the_word_null_is_a_name_in_json(caller):
    """JSON has a null of its own; only multipart has not."""
    await caller.new_person("ada", person_name="null")
    assert (await caller.ok("getinfo", person_id="ada"))["person_name"] == "null"


async def test_indexed_fields_keep_the_order_of_their_indices(caller):
    """Not that of the parts."""
    parts = [part("person_id", "ada"), *(part(f"group_ids[{index}]", f"g{index}") for index in (2, 10, 0, 1))]
    assert (await caller.ok("newperson", *parts))["group_ids"] == ["g0", "g1", "g2", "g10"]


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
        (fields(), "text/plain"),
        (fields(), "application/x-www-form-urlencoded"),
        (fields(), ""),
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
        {"person_id": 7},
        {"person_id": ["ada"]},
        {"person_id": "\ud800"},
        {"group_ids": "staff"},
        {"group_ids": {"0": "staff"}},
        {"group_ids": [1]},
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
