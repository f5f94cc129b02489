"""A storage of each kind, a caller of the application over it on the test's own event loop, and a browser."""

from __future__ import annotations

import functools
import shutil
import sys

import pytest
from pagekit import MOST_SECONDS, open_link, served_page
from postgresql import PostgresServer
from raw_server import CERTIFICATE
from serverkit import calling

from face_async.portraits import draw_portrait
from face_async.server import Certificate, open_storage

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.external("postgres"))]


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=KINDS)
def kind(request):
    """The kind of a storage: each test that asks for a storage meets both."""
    return request.param


@pytest.fixture
def database(kind, request, tmp_path):
    """The name of a database that can be opened several times: a path, or a URL."""
    return str(tmp_path / "faces.db") if kind == "sqlite" else request.getfixturevalue("postgres").url()


@pytest.fixture
def open_one(database):
    """Open a storage on that database, which other threads and processes may open, too."""
    return functools.partial(open_storage, database)


@pytest.fixture
def store(kind, request):
    """An empty storage."""
    with open_storage(":memory:" if kind == "sqlite" else request.getfixturevalue("postgres").url()) as opened:
        yield opened


@pytest.fixture
async def caller(store, anyio_backend):
    async with calling(store) as ready:
        yield ready


@pytest.fixture(params=["uvloop", "asyncio"])
def each_loop(request, monkeypatch):
    """Have servers run on uvloop's event loop, then on asyncio's own."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1, and its key."""
    pem = tmp_path / "certificate.pem"
    pem.write_text(CERTIFICATE)
    return Certificate(pem, pem)


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    sync_api.expect.set_options(timeout=1_000 * MOST_SECONDS)
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


@pytest.fixture
def served():
    """The page, and three people."""
    with served_page() as page:
        page.enroll("ada", 1, name="Ada")
        page.enroll("grace", 2, name="Grace")
        page.enroll("alan", 3, group="guests")
        yield page


@pytest.fixture
def tab(chromium, served):
    """A tab that has opened the page; what its console complains of fails the test."""
    with chromium.new_context(base_url=served.url, accept_downloads=True) as context:
        page = context.new_page()
        page.set_default_timeout(1_000 * MOST_SECONDS)
        complaints = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        open_link(page, served)
        yield page
        assert [each for each in complaints if "status of 40" not in each] == []


@pytest.fixture
def portrait(tmp_path):
    """Write somebody's picture, and return its path: a file for each, as the browser may still read the one before."""

    def write(number, name=""):
        name = name or f"{number}.jpg"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(draw_portrait(number))
        return tmp_path / name

    return write
