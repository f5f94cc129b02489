"""What a session stands on: what may be chosen, by whom, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from doubles import CREDENTIALS
from raw_server import RawServer

from face_async import FaceSession


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_the_error_says_what_to_use():
    """A RuntimeError names http='httpx' before anything is sent."""
    with RawServer([]) as server:
        async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, http="asyncio") as session:
            with pytest.raises(RuntimeError, match=r"asyncio only.*http='httpx'"):
                await session.get_info("p")
    assert server.accepted == 0


@pytest.mark.parametrize("http", ["", "reqwest", None, "HTTPX"])
def test_an_unknown_library_is_refused(http):
    """The error names the two there are."""
    with pytest.raises(ValueError, match="http must be 'httpx' or 'asyncio'"):
        FaceSession("1", "b", CREDENTIALS, http=http)


def test_the_environment_chooses_the_library(monkeypatch):
    """FACE_ASYNC_HTTP names it for from_env, and only for that; an argument goes before it."""
    for name in ("APPID", "BUCKET", "SECRET_ID", "SECRET_KEY"):
        monkeypatch.setenv(f"FACE_ASYNC_{name}", "x")

    def library(session):
        return type(session._runner.transport).__name__

    monkeypatch.delenv("FACE_ASYNC_HTTP", raising=False)
    assert library(FaceSession.from_env()) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "asyncio")
    assert library(FaceSession.from_env()) == "AsyncioPool"
    assert library(FaceSession.from_env(http="httpx")) == "HttpxLanes"
    assert library(FaceSession("1", "b", CREDENTIALS)) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "")
    assert library(FaceSession.from_env()) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "curl")
    with pytest.raises(ValueError, match="not 'curl'"):
        FaceSession.from_env()


@pytest.mark.parametrize(("http", "imported"), [("httpx", True), ("asyncio", False)])
def test_httpx_is_imported_when_a_session_stands_on_it(http, imported):
    """Neither by importing the package nor by a session that does without."""
    program = f"""if True:
        import sys
        from face_async import Credentials, FaceSession
        before = "httpx" in sys.modules
        FaceSession("1", "b", Credentials("i", "k"), http={http!r})
        print(before, "httpx" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert f"False {imported}\n" == ran.stdout
