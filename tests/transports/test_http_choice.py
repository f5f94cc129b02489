"""What a session stands on: what may be chosen, by whom, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys

import httpcore2
import httpx
import httpx2
import pytest
from doubles import CREDENTIALS, envelope
from raw_server import RawServer, answer, black_hole, reset_after_request

from face_async import FaceSession, RetryPolicy, TransportError
from face_async.server import Store, create_app

INFO = envelope({"person_id": "p", "person_name": "", "face_ids": [], "group_ids": [], "tag": ""})
ONCE = RetryPolicy(max_attempts=1)


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
    """The error names the three there are."""
    with pytest.raises(ValueError, match="http must be 'httpx', 'asyncio' or 'httpx2'"):
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
    monkeypatch.setenv("FACE_ASYNC_HTTP", "httpx2")
    assert FaceSession.from_env()._runner.transport._core is httpcore2
    monkeypatch.setenv("FACE_ASYNC_HTTP", "")
    assert library(FaceSession.from_env()) == "HttpxLanes"
    monkeypatch.setenv("FACE_ASYNC_HTTP", "curl")
    with pytest.raises(ValueError, match="not 'curl'"):
        FaceSession.from_env()


@pytest.mark.parametrize(("http", "imported"), [("httpx", True), ("asyncio", False), ("httpx2", False)])
def test_httpx_is_imported_when_a_session_stands_on_it(http, imported):
    """Neither by importing the package nor by a session that does without; nor is cattrs, which answers are read by."""
    program = f"""if True:
        import sys
        from face_async import Credentials, FaceSession
        before = bool({{"httpx", "cattrs"}} & sys.modules.keys())
        FaceSession("1", "b", Credentials("i", "k"), http={http!r})
        print(before, "httpx" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert f"False {imported}\n" == ran.stdout


def test_httpx2_is_an_extra():
    """Without it the error says what to install, and sessions on httpx need it for nothing."""
    program = """if True:
        import sys
        sys.modules["httpx2"] = sys.modules["httpcore2"] = None
        import httpx
        from face_async import Credentials, FaceSession
        FaceSession("1", "b", Credentials("i", "k"), transport=httpx.AsyncHTTPTransport())
        try:
            FaceSession("1", "b", Credentials("i", "k"), http="httpx2")
        except ImportError as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "http='httpx2' needs the extra 'httpx2': pip install 'face_async[httpx2]'\n"


BOTH = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.mark.anyio
@BOTH
async def test_a_transport_may_be_of_either_library(library):
    """It sends pictures, keeps its connections, and stays open when the session is closed."""
    with RawServer([answer(INFO), answer(envelope({"candidates": []}))] * 2) as server:
        async with library.AsyncHTTPTransport() as transport:
            for _ in range(2):
                async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, transport=transport) as session:
                    assert (await session.get_info("p")).person_id == "p"
                    assert (await session.identify("g", b"\xff\xd8\xff" + bytes(300_000))).best is None
    assert [request.connection for request in server.requests] == [0] * 4
    assert [len(request.body) > 300_000 for request in server.requests] == [False, True] * 2


@pytest.mark.anyio
@BOTH
async def test_failures_of_either_librarys_transports_mean_the_same(library):
    """What they say, and whether the effect may have happened."""
    with RawServer([reset_after_request()]) as server:
        async with library.AsyncHTTPTransport() as transport:
            options = {"transport": transport, "retry": ONCE}
            async with FaceSession("1", "b", CREDENTIALS, base_url=server.url, **options) as session:
                with pytest.raises(TransportError, match=r": the connection broke.*; the effect") as caught:
                    await session.del_person("p")
                assert caught.value.maybe_applied
        url = server.url
    async with library.AsyncHTTPTransport() as transport:
        options = {"transport": transport, "retry": ONCE}
        async with FaceSession("1", "b", CREDENTIALS, base_url=url, **options) as session:
            with pytest.raises(TransportError, match="cannot connect: ") as caught:
                await session.del_person("p")
            assert not caught.value.maybe_applied
    with black_hole() as url:
        async with library.AsyncHTTPTransport() as transport:
            options = {"transport": transport, "retry": ONCE, "timeout": 0.1}
            async with FaceSession("1", "b", CREDENTIALS, base_url=url, **options) as session:
                with pytest.raises(TransportError, match="connecting took too long") as caught:
                    await session.del_person("p")
                assert not caught.value.maybe_applied


@pytest.mark.anyio
@BOTH
async def test_the_server_runs_in_process_behind_either_library(library):
    """Their transports for applications are transports like any other."""
    with Store(":memory:") as store:
        transport = library.ASGITransport(create_app(store, credentials=CREDENTIALS, recognizer="fingerprint"))
        async with FaceSession("1", "b", CREDENTIALS, base_url="http://localhost", transport=transport) as session:
            await session.new_person("p", ["g"])
            assert await session.get_person_ids("g") == ["p"]


@pytest.mark.anyio
@BOTH
async def test_what_stands_in_for_a_librarys_network_stands_in_for_a_sessions(library, monkeypatch):
    """As respx does it: whoever replaces the library's transport method is asked, and nobody connects."""

    async def answering(self, request):
        return library.Response(200, content=INFO)

    monkeypatch.setattr(library.AsyncHTTPTransport, "handle_async_request", answering)
    async with FaceSession("1", "b", CREDENTIALS, http=library.__name__, retry=ONCE) as session:
        assert (await session.get_info("p")).person_id == "p"


@BOTH
@pytest.mark.parametrize("name", ["AsyncClient", "HTTPTransport"])
def test_what_is_no_asynchronous_transport_is_refused_at_once(library, name):
    """A client or a transport without async: the error says what to give instead."""
    wrong = getattr(library, name)()
    with pytest.raises(TypeError, match=rf"such as httpx.AsyncHTTPTransport\(\), not {name}"):
        FaceSession("1", "b", CREDENTIALS, transport=wrong)
