"""Requests as HTTP libraries write them: curl, httpx, requests and aiohttp, with nothing but a signature."""

from __future__ import annotations

import json
import subprocess

import aiohttp
import anyio
import httpx
import pytest
import requests
from serverkit import APPID, BUCKET, authorization, on_a_socket

from face_async.portraits import draw_portrait

ACCOUNT = {"appid": APPID, "bucket": BUCKET}
VENDOR = "http://service.image.myqcloud.com/face/"


@pytest.fixture(scope="module")
def address():
    with on_a_socket() as served:
        yield served


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("照片") / '脸 1".jpg'
    path.write_bytes(draw_portrait(1))
    return path


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def signed() -> dict[str, str]:
    return {"Authorization": authorization()}


def created(answer: dict, *groups: str) -> None:
    assert (answer["code"], answer["data"]["suc_face"], answer["data"]["group_ids"]) == (0, 1, list(groups))


def curl(address: str, endpoint: str, *arguments: str) -> dict:
    command = ["curl", "--silent", "--show-error", "-H", f"Authorization: {authorization()}", *arguments]
    target = [] if "--proxy" in arguments else [f"http://{address}/face/{endpoint}"]
    return json.loads(subprocess.run([*command, *target], check=True, capture_output=True, timeout=60).stdout)


def fields(**texts: str) -> list[str]:
    return [argument for name, text in (ACCOUNT | texts).items() for argument in ("-F", f"{name}={text}")]


@pytest.mark.external("curl")
def test_forms_of_curl(address, photograph):
    """-F for pictures; one group by its name, several by brackets."""
    image = ["-F", f"image=<{photograph.parent}/picture"]
    (photograph.parent / "picture").write_bytes(photograph.read_bytes())
    created(curl(address, "newperson", *fields(person_id="curl-1", group_ids="g"), *image), "g")
    file = ["-F", f"image=@{photograph.parent}/picture"]
    several = ["-F", "group_ids[]=g", "-F", "group_ids[]=h"]
    created(curl(address, "newperson", *fields(person_id="curl-2"), *several, *file), "g", "h")


@pytest.mark.external("curl")
@pytest.mark.parametrize("option", ["-d", "--data-binary", "--json"])
def test_json_of_curl(address, option):
    """-d labels it as a form of a web page."""
    assert curl(address, "getgroupids", option, json.dumps(ACCOUNT))["code"] == 0


@pytest.mark.external("curl")
@pytest.mark.parametrize("option", ["--http2", "--http1.0", "--http1.1"])
def test_versions_that_curl_offers(address, option):
    """--http2 offers h2c with its request."""
    assert curl(address, "getgroupids", option, "-d", json.dumps(ACCOUNT))["code"] == 0


@pytest.mark.external("curl")
def test_curl_with_the_server_as_its_proxy(address):
    """Nothing but --proxy is changed; the vendor's address stays."""
    answer = curl(address, "", "--proxy", f"http://{address}", "-d", json.dumps(ACCOUNT), f"{VENDOR}getgroupids")
    assert answer["code"] == 0


@pytest.mark.external("curl")
def test_curl_waits_for_the_servers_word_before_a_large_body(address, tmp_path):
    """Expect: 100-continue, by itself from 1 MB on; a body that is too large gets code 23 all the same."""
    large = tmp_path / "large"
    large.write_bytes(bytes(1_200_000))
    file = ["-F", f"image=@{large}"]
    assert curl(address, "newperson", *fields(person_id="curl-3", group_ids="g"), *file)["code"] == -1400
    large.write_bytes(bytes(2_000_000))
    assert curl(address, "newperson", *fields(person_id="curl-3", group_ids="g"), *file)["code"] == 23


def test_forms_of_httpx(address, photograph, no_proxies):
    """A list repeats its name; a body of text has no media type."""
    with httpx.Client(base_url=f"http://{address}/face/") as client, photograph.open("rb") as file:
        for number, groups in enumerate((["g"], ["g", "h"])):
            file.seek(0)
            texts = {**ACCOUNT, "person_id": f"httpx-{number}", "group_ids": groups}
            answer = client.post("newperson", headers=signed(), data=texts, files={"image": file})
            created(answer.json(), *groups)
        pictures = [("images", draw_portrait(person)) for person in (2, 3)]
        texts = {**ACCOUNT, "person_id": "httpx-0"}
        answer = client.post("addface", headers=signed(), data=texts, files=pictures)
        assert answer.json()["data"]["ret_codes"] == [0, 0]
        assert client.post("getgroupids", headers=signed(), json=ACCOUNT).json()["code"] == 0
        assert client.post("getgroupids", headers=signed(), content=json.dumps(ACCOUNT)).json()["code"] == 0
        assert client.post("getgroupids", headers=signed(), data=ACCOUNT).json()["code"] == 3
    with httpx.Client(proxy=f"http://{address}") as client:
        assert client.post(f"{VENDOR}getgroupids", headers=signed(), json=ACCOUNT).json()["code"] == 0


def test_forms_of_requests(address, photograph, no_proxies):
    """As httpx; a generator is sent in chunks."""
    base = f"http://{address}/face/"
    for number, groups in enumerate((["g"], ["g", "h"])):
        texts = {**ACCOUNT, "person_id": f"requests-{number}", "group_ids": groups}
        with photograph.open("rb") as file:
            answer = requests.post(f"{base}newperson", headers=signed(), data=texts, files={"image": file}, timeout=60)
        created(answer.json(), *groups)
    texts = {**ACCOUNT, "person_id": "requests-0"}
    pictures = [("images[]", draw_portrait(person)) for person in (2, 3)]
    answer = requests.post(f"{base}addface", headers=signed(), data=texts, files=pictures, timeout=60)
    assert answer.json()["data"]["ret_codes"] == [0, 0]
    text = json.dumps(ACCOUNT)
    for body in (
        {"json": ACCOUNT},
        {"data": text},
        {"data": text.encode()},
        {"data": (part for part in [text.encode()])},
    ):
        assert requests.post(f"{base}getgroupids", headers=signed(), timeout=60, **body).json()["code"] == 0
    proxies = {"http": f"http://{address}"}
    answer = requests.post(f"{VENDOR}getgroupids", headers=signed(), json=ACCOUNT, proxies=proxies, timeout=60)
    assert answer.json()["code"] == 0


def test_forms_of_aiohttp(address, photograph, no_proxies):
    """Texts have media types of their own; a body of text is text/plain, one of bytes application/octet-stream."""

    async def post(session: aiohttp.ClientSession, target: str, **body: object) -> dict:
        async with session.post(target, headers=signed(), **body) as answer:
            return await answer.json()

    async def use() -> None:
        base = f"http://{address}/face/"
        async with aiohttp.ClientSession() as session:
            for number, names in enumerate((["group_ids"], ["group_ids[0]", "group_ids[1]"])):
                form = aiohttp.FormData({**ACCOUNT, "person_id": f"aiohttp-{number}"})
                for name in names:
                    form.add_field(name, f"{name[-2]}")
                with photograph.open("rb") as file:
                    form.add_field("image", file)
                    created(await post(session, f"{base}newperson", data=form), *(f"{name[-2]}" for name in names))
            form = aiohttp.FormData({**ACCOUNT, "person_id": "aiohttp-0"})
            form.add_field("images", draw_portrait(2), filename="2.jpg")
            form.add_field("images", draw_portrait(3), filename="3.jpg", content_type="image/jpeg")
            assert (await post(session, f"{base}addface", data=form))["data"]["ret_codes"] == [0, 0]
            assert (await post(session, f"{base}getgroupids", json=ACCOUNT))["code"] == 0
            for body in (json.dumps(ACCOUNT), json.dumps(ACCOUNT).encode()):
                assert (await post(session, f"{base}getgroupids", data=body))["code"] == 0
            answer = await post(session, f"{VENDOR}getgroupids", json=ACCOUNT, proxy=f"http://{address}")
            assert answer["code"] == 0

    anyio.run(use)
