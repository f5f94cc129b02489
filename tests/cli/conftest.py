from __future__ import annotations

import json
import logging
import math
import os
from functools import cache
from gettext import gettext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from attrs import frozen
from typer.main import get_command
from typer.testing import CliRunner

from face_async import Credentials, FaceSession
from face_async.cli import progress
from face_async.cli._app import app
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.server import Account, Store, create_app, serve_in_background

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA, GRACE, NOBODY = 0, 1, 99


@frozen
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON Lines; the last one of ``enroll`` is the summary."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test has a working folder of its own, and an environment without configuration."""
    for name in list(os.environ):
        if name.startswith("FACE_ASYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _without_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a command takes on a busy machine, only tests that set the time see such lines."""
    monkeypatch.setattr(progress, "_LINE_EVERY", math.inf)


@pytest.fixture(autouse=True)
def _clean_log() -> Iterator[None]:
    """What ``serve`` does to the log of its process ends with the test."""
    root, ours = logging.getLogger(), logging.getLogger("face_async")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


@cache
def _made(commands: Any, _language: str) -> Any:
    return get_command(commands)


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """In each language: typer makes them from their functions for every one that a test runs, which takes it 15 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda commands: _made(commands, gettext("Usage: ")))
        yield


@pytest.fixture
def say():
    """Run a command in this process."""

    def run(*args: str | Path, given: str | None = None) -> Said:
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=given, prog_name="face-async")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """A server with Ada in "staff" and Grace in "guests", and the environment that leads to it."""
    credentials = Credentials("AKIDexample", "exampleSecretKey")
    with Store() as store, start_blocking_portal() as portal:
        app = create_app(store, credentials=[Account("123456", ("test",), credentials)], recognizer="fingerprint")
        with portal.wrap_async_context_manager(serve_in_background(app)) as server:

            async def enroll() -> None:
                async with FaceSession("123456", "test", credentials, base_url=server.base_url) as session:
                    await session.new_person("ada", ["staff"], person_name="Ada [bold]\x1b[31m", tag="hq")
                    await session.new_person("grace", ["guests"], person_name="Grace")
                    await session.add_face("ada", [draw_portrait(ADA, shot=shot) for shot in range(2)])
                    await session.add_face("grace", [draw_portrait(GRACE)])

            anyio.run(enroll)
            yield {
                "FACE_ASYNC_APPID": "123456",
                "FACE_ASYNC_BUCKET": "test",
                "FACE_ASYNC_SECRET_ID": credentials.secret_id,
                "FACE_ASYNC_SECRET_KEY": credentials.secret_key,
                "FACE_ASYNC_BASE_URL": server.base_url,
            }


@pytest.fixture
def service(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment leads to the server."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    """Another picture of Ada."""
    return _portrait(tmp_path / "ada.jpg", ADA, shot=7)


@pytest.fixture
def probes(tmp_path: Path) -> tuple[str, ...]:
    """A folder with pictures of Ada, who is enrolled in the embedded server's database."""

    async def enroll() -> None:
        async with local_session(tmp_path / "faces.db", recognizer="fingerprint") as session:
            await session.new_person("ada", ["staff"], draw_portrait(0))

    anyio.run(enroll)
    (tmp_path / "probes").mkdir()
    for shot in range(1, 9):
        (tmp_path / "probes" / f"{shot}.jpg").write_bytes(draw_portrait(0, shot=shot, size=120))
    return ("identify", "probes", "-g", "staff", "--recognizer", "fingerprint", "--threshold", "75")


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """A picture of somebody unknown."""
    return _portrait(tmp_path / "nobody.jpg", NOBODY, shot=0)


def _portrait(path: Path, person: int, shot: int) -> Path:
    path.write_bytes(draw_portrait(person, shot=shot))
    return path
