"""Every example of the README and of its page of programs, run as it stands."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import mypy.api
import pytest

import face_async
from face_async import Credentials, FaceSession
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server import Store, create_app, serve_in_background
from face_async.testing import FaceServer

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
PROGRAMS = Path(face_async.__file__).parent / "docs" / "programs.md"  # which the wheel leaves out
PAGES = [README, PROGRAMS.read_text("utf-8") if PROGRAMS.exists() else ""]
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", "".join(PAGES), re.MULTILINE | re.DOTALL)

needs_programs = pytest.mark.skipif(not PROGRAMS.exists(), reason="the wheel leaves the documentation out")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures as the examples name them, in the working folder."""
    for shot, name in enumerate(["ada-1.jpg", "ada-2.jpg", "probe.jpg"]):
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
    """All python blocks of the README and of the page of programs are run below."""
    beginnings = [
        "from face_async.local import",
        "from starlette",
        "def ingest",
        *(["def enroll", "from fastapi", "from face_async.sync", "def test_patience"] if PROGRAMS.exists() else []),
    ]
    assert EXAMPLES == [example(beginning) for beginning in beginnings]


def test_the_first_program_finds_ada(folder, capsys):
    """The program prints the best candidate, and leaves its database behind; it can be run again."""
    (folder / "program.py").write_text(example("from face_async.local import"))

    for _ in range(2):
        runpy.run_path(str(folder / "program.py"))
        assert "Candidate(person_id='ada'" in capsys.readouterr().out
    assert (folder / "faces.db").exists()


@pytest.mark.anyio
async def test_the_web_back_end_says_who_it_is(folder, monkeypatch):
    """The example's application answers over http with a session of its own, configured by the environment."""
    app = names_of(example("from starlette"))["app"]
    credentials = Credentials("AKID", "key")
    with Store() as store:
        faces = create_app(store, credentials=credentials, recognizer="fingerprint")
        async with serve_in_background(faces) as server:
            values = {
                "APPID": "1",
                "BUCKET": "b",
                "SECRET_ID": "AKID",
                "SECRET_KEY": "key",
                "BASE_URL": server.base_url,
            }
            for name, value in values.items():
                monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
            async with FaceSession.from_env() as session:
                await session.new_person("ada", ["staff"], Path("ada-1.jpg"))

            async with serve_in_background(app) as back_end, httpx.AsyncClient(base_url=back_end.base_url) as browser:
                answer = await browser.post("/who", content=draw_portrait(0, shot=2))
                refused = await browser.post("/who", content=b"GIF89a")

    assert "ada" == answer.json()["candidates"][0]["person_id"]
    assert 502 == refused.status_code
    assert "GIF" in refused.json()["error"]


@pytest.mark.anyio
async def test_the_ingestion_script_adds_what_is_good_and_names_what_is_not(folder, capsys):
    """Every picture of the folder is added to its person, and a broken one is printed with its reason."""
    pictures = folder / "people" / "ada"
    pictures.mkdir(parents=True)
    for picture in folder.glob("*.jpg"):
        shutil.copy(picture, pictures)
    (pictures / "zero.jpg").touch()

    async with local_session(recognizer="fingerprint") as session:
        await session.new_person("ada", ["staff"])
        await names_of(example("def ingest"))["ingest"](session, folder / "people")
        assert 3 == len(await session.get_face_ids("ada"))

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


@needs_programs
@pytest.mark.anyio
async def test_the_test_of_ones_own_passes():
    """The example for users' tests is a test, and passes."""
    with FaceServer() as server:
        await names_of(example("def test_patience"))["test_patience"](server, server.session())


@needs_programs
@pytest.mark.anyio
async def test_the_enrollment_enrolls_every_picture_once(folder):
    """Run twice, it does nothing more the second time."""
    pictures = folder / "people" / "ada"
    pictures.mkdir(parents=True)
    for picture in folder.glob("*.jpg"):
        shutil.copy(picture, pictures)
    enroll = names_of(example("def enroll"))["enroll"]

    async with local_session(recognizer="fingerprint") as session:
        added = []
        for _ in range(2):
            summary = await enroll(session, folder / "people")
            assert summary.complete
            added.append(summary.added)
            assert 3 == len(await session.get_face_ids("ada"))
        assert ["ada"] == await session.get_person_ids("staff")

    assert [3, 0] == added


@needs_programs
@pytest.mark.anyio
async def test_fastapi_says_who_it_is_and_how_it_says_so(folder, monkeypatch):
    """The result is the answer's body, and its class the schema of it."""
    app = names_of(example("from fastapi"))["app"]
    with FaceServer() as server:
        await server.session().new_person("ada", ["staff"], Path("ada-1.jpg"))
        async with server.serve() as base_url:
            for name, value in server.environment(base_url).items():
                monkeypatch.setenv(name, value)
            async with serve_in_background(app) as back_end, httpx.AsyncClient(base_url=back_end.base_url) as browser:
                answer = await browser.post("/who", files={"picture": draw_portrait(0, shot=2)})
    assert "ada" == answer.json()["candidates"][0]["person_id"]
    schema = app.openapi()["paths"]["/who"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/IdentifyResult"} == schema


@needs_programs
@pytest.mark.anyio
async def test_a_program_without_async_finds_everybody(folder, monkeypatch, capsys):
    with FaceServer() as server:
        await server.session().new_person("ada", ["staff"], Path("ada-1.jpg"))
        async with server.serve() as base_url:
            for name, value in server.environment(base_url).items():
                monkeypatch.setenv(name, value)
            look_at = names_of(example("from face_async.sync"))["look_at"]
            await anyio.to_thread.run_sync(look_at, folder)
    assert 3 == capsys.readouterr().out.count("Candidate(person_id='ada'")


def test_every_example_satisfies_a_strict_type_checker(tmp_path):
    """Each by itself, as it is pasted: what it returns, takes and reads from an outcome's item is known."""
    for number, text in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(text)
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    report, problems, status = mypy.api.run([*options, str(tmp_path)])
    assert (f"Success: no issues found in {len(EXAMPLES)} source files\n", "", 0) == (report, problems, status)


def test_the_readme_can_be_read_in_one_go():
    """Long tables and whole programs have pages of their own."""
    assert len(README.splitlines()) <= 150


def test_every_page_that_the_readme_names_is_there():
    missing = [
        target
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
        if not (Path(__file__).parents[1] / target).exists()
    ]
    assert missing == [] or not PROGRAMS.exists()
