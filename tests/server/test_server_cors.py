"""Web pages that call the server: which may, as browsers ask it, and one in a real browser."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess
from pathlib import Path

import pytest
import serverkit
from serverkit import APPID, BUCKET, ToyRecognizer, authorization, calling, on_a_socket

from face_async.portraits import draw_portrait
from face_async.server import create_app
from face_async.server.request.cors import check_origins

PAGE = Path(__file__).with_name("page_that_calls.html")
ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.anyio
@pytest.mark.parametrize("allowed", [[ORIGIN], ["http://localhost:3000", ORIGIN], ["*"]], ids=repr)
async def test_a_preflight_of_an_allowed_origin_is_answered(store, allowed):
    """For POST, with the headers that are asked for; and the answer itself may be read, with its date."""
    async with calling(store, allow_origins=allowed) as caller:
        asked = await caller.client.options("/face/identify", headers=PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] in {ORIGIN, "*"}
        assert asked.headers["access-control-allow-methods"] == "POST"
        assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
        answer = await caller.client.post("/face/identify", headers={"Origin": ORIGIN})
        assert answer.json()["code"] == 4
        assert answer.headers["access-control-allow-origin"] in {ORIGIN, "*"}
        assert answer.headers["access-control-expose-headers"] == "Date"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("allowed", "changed"),
    [
        ([], {}),
        (["https://other.example.com"], {}),
        ([ORIGIN], {"Origin": "http://app.example.com"}),
        ([ORIGIN], {"Origin": ORIGIN + ".evil.example"}),
        ([ORIGIN], {"Origin": "null"}),
        ([ORIGIN], {"Access-Control-Request-Method": "DELETE"}),
    ],
    ids=repr,
)
async def test_no_other_preflight_gets_leave(store, allowed, changed):
    """It gets an envelope, as any method but POST; browsers go by the header that it lacks."""
    async with calling(store, allow_origins=allowed) as caller:
        asked = await caller.client.options("/face/identify", headers=PREFLIGHT | changed)
        assert (asked.status_code, asked.json()["code"]) == (200, 3)
        assert "access-control-allow-methods" not in asked.headers
        assert "access-control-allow-origin" not in asked.headers


@pytest.mark.anyio
async def test_what_is_no_endpoint_is_not_for_pages_of_other_origins(store):
    """Only the API's own paths are."""
    async with calling(store, allow_origins=["*"]) as caller:
        answer = await caller.client.post("/other", headers={"Origin": ORIGIN})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://App.Example.com", ORIGIN),
        (f"{ORIGIN}:443", ORIGIN),
        ("HTTP://app.example.com:80", "http://app.example.com"),
        (f"{ORIGIN}:80", f"{ORIGIN}:80"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_allowed_as_browsers_send_it(given, sent):
    """In small letters, and without the port that the scheme implies."""
    assert check_origins([given]) == [sent]


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com/", "app.example.com", "https://a/b", "", "https://a b",
        "https://*.example.com", "https://me@a", "https://a:port", "https://ä.example",
    ],
)  # fmt: skip
def test_an_origin_is_scheme_and_host(store, origin):
    """A page's address, or one with a slash at its end, would never match."""
    with pytest.raises(ValueError, match="is no origin: write scheme and host"):
        create_app(store, credentials=serverkit.CREDENTIALS, recognizer=ToyRecognizer(), allow_origins=[origin])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Serve the page, on an origin of its own."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "page.html").write_bytes(PAGE.read_bytes())
    with serverkit.web(folder) as address:
        yield f"http://{address}"


def called_by_a_page(pages: str, address: str, profile: Path) -> dict:
    """Return what a page in a browser has read of the server's answers, or why it could not."""
    told = {
        "base": f"http://{address}/face/",
        "authorization": authorization(),
        "fields": {"appid": APPID, "bucket": BUCKET},
        "picture": base64.b64encode(draw_portrait(1)).decode(),
    }
    query = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={profile}"]
    options = [
        "--virtual-time-budget=60000",
        "--disable-features=LocalNetworkAccessChecks",
        f"{pages}/page.html#{query}",
    ]
    shown = subprocess.run([*command, *options], check=True, capture_output=True, text=True, timeout=120).stdout
    (text,) = re.findall(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    return json.loads(html.unescape(text))


@pytest.mark.external("chromium")
def test_a_page_of_an_allowed_origin_calls_the_server_with_form_data(pages, tmp_path):
    """As the vendor's own demo page did: pictures in FormData, the signature in a header."""
    with on_a_socket(allow_origins=[pages]) as address:
        read = called_by_a_page(pages, address, tmp_path)
    assert {name: answer["code"] for name, answer in read.items()} == dict.fromkeys(read, 0)
    assert list(read) == ["newperson", "identify", "compare", "detect", "getinfo"]
    assert read["identify"]["data"]["candidates"][0]["person_id"] == "ada"


@pytest.mark.external("chromium")
def test_a_page_of_another_origin_reads_nothing(pages, tmp_path):
    """The browser keeps it from calling."""
    with on_a_socket(allow_origins=["https://app.example.com"]) as address:
        read = called_by_a_page(pages, address, tmp_path)
    assert set(read.values()) == {"TypeError: Failed to fetch"}
