"""Every example of the README and of its pages, run as it stands."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import runpy
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import mypy.api
import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.http import HttpRequest

import face_async.fleet
from face_async.ingest import Row
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server import serve_in_background
from face_async.testing import FaceServer

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
DOCS = Path(face_async.__file__).parent / "docs"  # which the wheel leaves out
PAGES = [README, *(page.read_text("utf-8") for page in sorted(DOCS.glob("[!R]*.md")))]  # no README in other languages
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", "".join(PAGES), re.MULTILINE | re.DOTALL)

needs_docs = pytest.mark.skipif(not DOCS.exists(), reason="the wheel leaves the documentation out")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures as the examples name them, in the working folder."""
    for shot, name in enumerate(["people/ada/1.jpg", "people/ada/2.jpg", "probes/ada.jpg"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(draw_portrait(0, shot=shot))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(beginning: str) -> str:
    (found,) = [text for text in EXAMPLES if beginning in text]
    return found


def names_of(text: str) -> dict:
    names: dict = {}
    exec(compile(text, "README.md", "exec"), names)
    return names


def test_there_is_no_example_without_a_test():
    """All python blocks of the pages are run below."""
    beginnings = [
        "anyio.run(main)",
        "from starlette",
        "def ingest",
    ]
    if DOCS.exists():
        beginnings += ["from fastapi", "from django", "from celery", "session = await", "def test_patience"]
        beginnings += [
            "from program",
            "def enroll_all",
            "def look_after",
            "def take_over",
            "def who_by_qcloud",
            "def who_by_session",
        ]
        beginnings += ["on_attempt=count", "def enroll(", "def look_at", "def name_of"]
    assert EXAMPLES == [example(beginning) for beginning in beginnings]


def test_the_first_program_finds_ada(folder, capsys):
    """The program prints the best candidate, and leaves its database behind; it can be run again."""
    (folder / "program.py").write_text(example("anyio.run(main)"))

    for _ in range(2):
        runpy.run_path(str(folder / "program.py"))
        assert "Candidate(person_id='ada'" in capsys.readouterr().out
    assert (folder / "first.db").exists()


@pytest.fixture
async def service(folder, monkeypatch):
    """A service that the environment names, and that knows Ada in the group of the examples."""
    with FaceServer() as server:
        await server.session().new_person("ada", ["staff"], Path("people/ada/1.jpg"))
        async with server.serve() as base_url:
            for name, value in server.environment(base_url).items():
                monkeypatch.setenv(name, value)
            yield server


@asynccontextmanager
async def browsing(app):
    async with serve_in_background(app) as back_end, httpx.AsyncClient(base_url=back_end.base_url) as browser:
        yield browser


@pytest.mark.anyio
async def test_the_web_back_end_says_who_it_is_and_maps_errors(service):
    """The example's application answers over http with a session of its own, configured by the environment."""
    async with browsing(names_of(example("from starlette"))["app"]) as browser:
        answer = await browser.post("/who", content=draw_portrait(0, shot=2))
        refused = await browser.post("/who", content=b"GIF89a")
        too_large = await browser.post("/who", content=draw_portrait(0) + bytes(1_600_000))
        service.faults.add("identify", code=-1306)
        nowhere = await browser.post("/who", content=draw_portrait(0))

    assert "ada" == answer.json()["candidates"][0]["person_id"]
    assert [422, 413, 404] == [error.status_code for error in (refused, too_large, nowhere)]
    assert "GIF" in refused.json()["error"]


@pytest.mark.anyio
async def test_the_ingestion_script_adds_what_is_good_and_names_what_is_not(folder, capsys):
    """Every picture of the folder is added to its person, and a broken one is printed with its reason."""
    (folder / "people" / "ada" / "zero.jpg").touch()

    async with local_session(recognizer="fingerprint") as session:
        await session.new_person("ada", ["staff"])
        await names_of(example("def ingest"))["ingest"](session, folder / "people")
        assert 2 == len(await session.get_face_ids("ada"))

    assert capsys.readouterr().out.startswith("zero.jpg the image")


@pytest.mark.anyio
async def test_the_fan_out_finds_everybody_in_order(folder, capsys):
    """Many pictures against one group in input order, and one picture against many groups."""
    async with local_session(recognizer="fingerprint") as session:
        for person in range(2):
            await session.new_person(f"p{person}", ["staff", "guests"], draw_portrait(person))
        probes = [folder / f"{person}.jpg" for person in (1, 0)]
        for person, probe in zip((1, 0), probes, strict=True):
            probe.write_bytes(draw_portrait(person, shot=1))
        found = await names_of(example("def recognize"))["recognize"](session, probes)

    printed = re.findall(r"^(.+) Candidate\(person_id='(\w+)'", capsys.readouterr().out, re.MULTILINE)
    assert [("1.jpg", "p1"), ("0.jpg", "p0")] == printed
    assert "p1" == found.best.person_id


@needs_docs
@pytest.mark.anyio
async def test_the_test_of_ones_own_passes():
    """The example for users' tests is a test, and passes."""
    with FaceServer() as server:
        await names_of(example("def test_patience"))["test_patience"](server, server.session())


@needs_docs
@pytest.mark.anyio
async def test_the_test_of_a_program_that_reads_the_environment_passes(monkeypatch):
    """The program is the page's own, saved under the name that the test imports."""
    program = types.ModuleType("program")
    vars(program).update(names_of(example("from fastapi")))
    monkeypatch.setitem(sys.modules, "program", program)
    with FaceServer() as server:
        await names_of(example("from program"))["test_the_door_knows_ada"](server, monkeypatch)


@needs_docs
@pytest.mark.anyio
async def test_the_counter_counts_retries(monkeypatch):
    """By endpoint and error, in the session that the environment describes."""
    names = names_of(example("on_attempt=count"))
    with FaceServer() as server:
        for variable, value in server.environment("http://localhost").items():
            monkeypatch.setenv(variable, value)
        server.faults.add("getgroupids", code=15, times=2)
        async with names["session_that_counts"](transport=server.transport) as session:
            await session.get_group_ids()
    assert names["retries"] == {("getgroupids", "RateLimitedError"): 2}


@needs_docs
@pytest.mark.anyio
async def test_the_enrollment_enrolls_every_picture_once(folder):
    """Run twice, it does nothing more the second time."""
    enroll = names_of(example("def enroll("))["enroll"]

    async with local_session(recognizer="fingerprint") as session:
        added = []
        for _ in range(2):
            summary = await enroll(session, folder / "people")
            assert summary.complete
            added.append(summary.added)
            assert 2 == len(await session.get_face_ids("ada"))
        assert ["ada"] == await session.get_person_ids("staff")

    assert [2, 0] == added


@needs_docs
@pytest.mark.anyio
async def test_fastapi_says_who_it_is_and_how_it_says_so(service):
    """The result is the answer's body, and its class the schema of it; errors have statuses of their own."""
    app = names_of(example("from fastapi"))["app"]
    async with browsing(app) as browser:
        answer = await browser.post("/who", files={"picture": draw_portrait(0, shot=2)})
        refused = await browser.post("/who", files={"picture": b"GIF89a"})
        service.faults.add("identify", code=107, times=20)
        away = await browser.post("/who", files={"picture": draw_portrait(0)})
    assert "ada" == answer.json()["candidates"][0]["person_id"]
    assert [422, 503] == [refused.status_code, away.status_code]
    schema = app.openapi()["paths"]["/who"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/IdentifyResult"} == schema


@needs_docs
@pytest.mark.anyio
async def test_django_says_who_it_is(service):
    """An uploaded file is an image, in Django's memory or in a temporary file of its own."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="none")
    who = names_of(example("from django"))["who"]
    for content, status in ((draw_portrait(0, shot=2), 200), (b"GIF89a", 422)):
        in_memory = SimpleUploadedFile("picture.jpg", content)
        in_a_file = TemporaryUploadedFile("picture.jpg", "image/jpeg", len(content), None)
        in_a_file.write(content)
        in_a_file.seek(0)
        for upload in (in_memory, in_a_file):
            request = HttpRequest()
            request.FILES["picture"] = upload
            answer = await who(request)
            assert status == answer.status_code
            assert status != 200 or {"person": "ada"} == json.loads(answer.content)
            upload.close()


@needs_docs
@pytest.mark.anyio
async def test_a_task_of_celery_adds_a_face(service, folder):
    """As a worker calls it; the session lives as long as the worker process."""
    names = names_of(example("from celery"))

    def work():
        assert 1 == names["add_picture"]("ada", str(folder / "people" / "ada" / "2.jpg"))
        names["session"]().close()

    await anyio.to_thread.run_sync(work)
    assert 2 == len(await service.session().get_face_ids("ada"))


@needs_docs
def test_the_cells_of_the_notebook_run_twice(folder, capsys):
    """As a notebook runs them: in one event loop, and awaiting."""
    cells = compile(example("session = await"), "notebook", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for _ in range(2):
        asyncio.run(eval(cells, {}))
        assert "Candidate(person_id='ada'" in capsys.readouterr().out


@needs_docs
@pytest.mark.anyio
async def test_a_program_without_async_finds_everybody(service, folder, capsys):
    look_at = names_of(example("def look_at"))["look_at"]
    await anyio.to_thread.run_sync(look_at, folder / "people" / "ada")
    assert 2 == capsys.readouterr().out.count("Candidate(person_id='ada'")


@needs_docs
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_fleet_enrolls_every_picture(folder, monkeypatch):
    """With threads as its engine here, since worker processes have tests of their own."""
    monkeypatch.setattr(
        face_async.fleet, "open_engine", lambda _: face_async.fleet.FleetEngine(ThreadPoolExecutor(4), 4)
    )
    enroll_all = names_of(example("def enroll_all"))["enroll_all"]
    look_after = names_of(example("def look_after"))["look_after"]
    with FaceServer() as server:
        async with server.serve() as base_url:
            for name, value in server.environment(base_url).items():
                monkeypatch.setenv(name, value)
            summary = await anyio.to_thread.run_sync(enroll_all, str(folder / "people"), str(folder / "run"))
            compared = await anyio.to_thread.run_sync(look_after, str(folder / "run"))
        assert (2, True) == (summary.done, summary.complete)
        assert (1, 2, ()) == (compared.persons, compared.faces, compared.differences)
        assert 2 == len(await server.session().get_face_ids("ada"))


@needs_docs
@pytest.mark.anyio
async def test_data_are_taken_over_with_their_ids(folder):
    """Of persons; each picture's new face id is told."""
    take_over = names_of(example("def take_over"))["take_over"]
    pictures = [str(folder / "people" / "ada" / name) for name in ("1.jpg", "2.jpg")]
    rows = [Row("4711", picture, ["staff"], "Ada Lovelace", "badge 17") for picture in pictures]
    async with local_session(recognizer="fingerprint") as session:
        faces = await take_over(session, rows, str(folder / "taken.journal"))
        info = await session.get_info("4711")
    assert ("Ada Lovelace", "badge 17", ("staff",)) == (info.person_name, info.tag, info.group_ids)
    assert dict(zip(pictures, info.face_ids, strict=True)) == faces


@needs_docs
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("unclosed_files")
@pytest.mark.filterwarnings("ignore")  # the vendor's client opens pictures and never closes them
async def test_the_vendors_client_and_a_session_do_the_same_side_by_side(service, folder, monkeypatch):
    """The vendor's goes to the host that is gone; the environment's proxy is all that leads it here."""
    from qcloud_image import Client  # noqa: PLC0415 - what it imports warns

    for name in ("HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", os.environ["FACE_ASYNC_BASE_URL"])
    before = names_of(example("def who_by_qcloud"))["who_by_qcloud"]
    after = names_of(example("def who_by_session"))["who_by_session"]
    pictures, probes = [], []
    for person in (1, 2):
        for shot in range(3):
            (folder / f"{person}-{shot}.jpg").write_bytes(draw_portrait(person, shot=shot))
        pictures.append([str(folder / f"{person}-{shot}.jpg") for shot in range(2)])
        probes.append(str(folder / f"{person}-2.jpg"))
    client = Client(service.appid, service.credentials.secret_id, service.credentials.secret_key, service.bucket)
    assert "old" == await anyio.to_thread.run_sync(before, client, "old", pictures[0], probes[0])
    assert "new" == await after(service.session(), "new", pictures[1], probes[1])
    assert "old" == (await service.session().identify("staff", probes[0])).best.person_id
    assert [2, 2] == [len(await service.session().get_face_ids(person)) for person in ("old", "new")]


@needs_docs
@pytest.mark.anyio
async def test_a_stranger_is_nobody(folder):
    name_of = names_of(example("def name_of"))["name_of"]
    async with local_session(recognizer="fingerprint") as session:
        await session.new_person("nobody-yet", ["staff"])
        assert None is await name_of(session, draw_portrait(0))
        await session.new_person("ada", ["staff"], draw_portrait(0))
        assert "ada" == await name_of(session, draw_portrait(0, shot=1))
        assert None is await name_of(session, draw_portrait(34))


def test_every_example_satisfies_a_strict_type_checker(tmp_path):
    """Each by itself, as it is pasted: what it returns, takes and reads from an outcome's item is known."""
    programs = [text for text in EXAMPLES if "session = await" not in text]  # a notebook's cells are no module
    for number, text in enumerate(programs):
        (tmp_path / f"example_{number}.py").write_text(text)
    # Neither Django nor Celery is typed, nor the vendor's client.
    options = ["--strict", "--config-file=", "--ignore-missing-imports", "--allow-untyped-decorators"]
    report, problems, status = mypy.api.run([*options, f"--cache-dir={tmp_path / 'cache'}", str(tmp_path)])
    assert (f"Success: no issues found in {len(programs)} source files\n", "", 0) == (report, problems, status)


def test_the_readme_can_be_read_in_one_go():
    """Long tables and whole programs have pages of their own."""
    assert len(README.splitlines()) <= 150


def test_every_page_that_the_readme_names_is_there():
    missing = [
        target
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
        if not (Path(__file__).parents[1] / target).exists()
    ]
    assert missing == [] or not DOCS.exists()
