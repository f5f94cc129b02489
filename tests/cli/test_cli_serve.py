"""What ``serve`` prints, keeps and logs, and what it serves as it is told; it runs in this process, on a socket."""

from __future__ import annotations

import base64
import hmac
import json
import re
import signal
import ssl
import threading
import time
from queue import SimpleQueue

import httpx
import pytest
from raw_server import CERTIFICATE
from timing import PATIENCE

from face_async.cli import serve as serve_module
from face_async.limits import ServiceLimits
from face_async.portraits import draw_portrait
from face_async.server import Store
from face_async.server.recognition.fingerprint import FingerprintRecognizer

ACCOUNT = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDmine", "SECRET_KEY": "mySecret"}


@pytest.fixture
def serving(say, monkeypatch):
    """Serve, call ``act`` with the variables that are printed, and stop; return what was said.

    ``tells`` are the lines on standard error, as they come.
    """
    exported: dict[str, str] = {}
    tells: SimpleQueue[str] = SimpleQueue()

    def shown(line: str) -> None:
        name, _, value = line.removeprefix("export ").partition("=")
        exported[name] = value

    monkeypatch.setattr(serve_module, "say", shown)
    monkeypatch.setattr(serve_module, "tell", tells.put)

    def run(*options, act=lambda _: None, database="faces.db"):
        exported.clear()
        failed: list[BaseException] = []

        def client() -> None:
            try:
                announced = tells.get(timeout=PATIENCE)
                assert announced.startswith(f"serving {database} on ")
                exported["announced"] = announced
                act(exported)
            except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
                failed.append(error)
            finally:
                signal.raise_signal(signal.SIGTERM)

        thread = threading.Thread(target=client)
        thread.start()
        options = ("--port", "0", "--recognizer", "fingerprint", *options)
        said = say("serve", "--db", database, *options)
        thread.join(PATIENCE)
        if failed:
            raise failed[0]
        assert (said.code, said.out) == (0, "")
        assert tells.get(timeout=PATIENCE) == "stopped"
        return said, dict(exported)

    run.tells = tells
    return run


@pytest.fixture
def account(monkeypatch):
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(f"FACE_ASYNC_{name}", value)


def test_a_link_to_the_page_is_printed_and_another_when_it_was_used(serving):
    """The page is served under the names that are allowed."""

    def browse(_):
        link = serving.tells.get(timeout=PATIENCE).rpartition(" ")[2]
        base_url, path = link.split("/ui/")
        assert path.startswith("?token=")
        with httpx.Client() as browser:
            assert browser.get(link).status_code == 200
            assert browser.get(f"{base_url}/ui/status").status_code == 200
            assert browser.get(f"{base_url}/ui/status", headers={"Host": "faces.example.com"}).status_code == 200
            assert browser.get(f"{base_url}/ui/status", headers={"Host": "other.example.com"}).status_code == 421
        assert link not in (following := serving.tells.get(timeout=PATIENCE))
        assert f"{base_url}/ui/?token=" in following

    serving("--ui", "--ui-host", "Faces.example.com", act=browse)


def test_without_the_option_there_is_no_page(serving):
    serving(act=lambda shown: _is_missing(f"{shown['FACE_ASYNC_BASE_URL']}/ui/status"))


def _is_missing(url):
    assert httpx.get(url).status_code == 404


@pytest.mark.usefixtures("account")
def test_a_configured_secret_is_not_told(serving):
    said, shown = serving()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", shown.pop("FACE_ASYNC_BASE_URL"))
    assert list(shown) == ["announced"]
    assert "mySecret" not in said.err + shown["announced"]


def test_the_account_made_up_at_the_first_start_is_kept_and_shown_again(serving, tmp_path):
    """Clients go on working after a restart; nobody else may read it."""
    shown = [serving()[1] for _ in range(2)]
    names = [f"FACE_ASYNC_{name}" for name in ACCOUNT]
    assert [shown[0][name] for name in names] == [shown[1][name] for name in names]
    path = tmp_path / "faces.db-accounts"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [shown[0]["FACE_ASYNC_SECRET_KEY"]] == [each["secret_key"] for each in json.loads(path.read_text())]


def test_a_database_in_memory_keeps_no_account(serving, tmp_path):
    assert serving(database=":memory:")[1]["FACE_ASYNC_SECRET_KEY"]
    assert list(tmp_path.iterdir()) == []


def test_on_all_addresses_over_https_with_accounts_of_a_file(serving, tmp_path):
    """What is printed is what a client on this machine takes; it says nothing of the accounts."""
    pem = tmp_path / "certificate.pem"
    pem.write_text(CERTIFICATE)
    accounts = tmp_path / "accounts.json"
    accounts.touch(0o600)
    accounts.write_text(
        json.dumps([{"appid": "1", "buckets": ["b"], "secret_id": "AKIDmine", "secret_key": "mySecret"}])
    )

    def ask(shown):
        url = shown["FACE_ASYNC_BASE_URL"]
        answer = httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=pem))
        assert answer.json()["status"] == "ok"

    options = ("--host", "0.0.0.0", "--cert", pem, "--key", pem, "--accounts", accounts)
    said, shown = serving(*options, act=ask)
    announced, base_url = shown.pop("announced"), shown.pop("FACE_ASYNC_BASE_URL")
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", base_url)
    assert shown == {}
    assert announced == f"serving faces.db on 0.0.0.0, on this machine {base_url}; Ctrl-C stops it"
    assert "mySecret" not in said.err
    assert not (tmp_path / "faces.db-accounts").exists()


@pytest.mark.parametrize(
    "options", [(), ("--log-json",), ("--log-level", "info"), ("--log-level", "info", "--log-json")]
)
def test_what_is_logged_is_what_was_asked_for(serving, options):
    """By default refused signatures with the reason, at level info every call; as text, or as lines of JSON."""

    def ask(shown):
        url = shown["FACE_ASYNC_BASE_URL"]
        assert httpx.post(f"{url}/face/getgroupids", headers={"Authorization": _signature(shown)}).json()["code"] == 3
        httpx.post(f"{url}/face/getinfo", headers={"Authorization": "rubbish"})
        metrics = httpx.get(f"{url}/metrics").text
        assert 'face_async_calls_total{code="5",endpoint="getinfo"} 1.0' in metrics

    said, shown = serving(*options, act=ask)
    assert shown["FACE_ASYNC_SECRET_KEY"] not in said.err
    lines = said.err.splitlines()
    assert (2 if "info" in options else 1) == len(lines)
    if "--log-json" in options:
        told = [json.loads(line) for line in lines]
        assert (told[-1]["endpoint"], told[-1]["code"]) == ("getinfo", 5)
        assert told[-1]["reasons"] == ["the signature cannot be read"]
        assert {each["level"] for each in told} == ({"info", "warning"} if "info" in options else {"warning"})
    else:
        assert "getinfo: code 5 SIGNATURE_MALFORMED" in lines[-1]
        assert lines[-1].endswith(": the signature cannot be read")


def test_faces_of_another_recognizer_are_told_of(serving):
    other = FingerprintRecognizer()
    other.name = "dlib"
    face = other.find_face(draw_portrait(0))
    with Store("faces.db") as store:
        limits = ServiceLimits()
        store.add_person("1", "ada", ["staff"], name="", tag="", face=face, recognizer=other, limits=limits)
    said, _ = serving()
    assert "fingerprint cannot compare the faces that were added by dlib: add their pictures again" in said.err


def _signature(shown, decimals=""):
    now = int(time.time())
    appid, bucket, secret_id, secret_key = (shown[f"FACE_ASYNC_{name}"] for name in ACCOUNT)
    original = f"a={appid}&b={bucket}&k={secret_id}&e={now + 60}{decimals}&t={now}&r=1&f=".encode()
    return base64.b64encode(hmac.digest(secret_key.encode(), original, "sha1") + original).decode()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("where", ["options", "environment"])
@pytest.mark.usefixtures("account")
def test_as_much_is_taken_as_was_told(serving, monkeypatch, where, strict):
    allowed = "https://a.example", "https://b.example"
    options = [word for origin in allowed for word in ("--allow-origin", origin)] + ["--replay-protection"]
    options += ["--strict"] if strict else []
    if where == "environment":
        options = []
        monkeypatch.setenv("FACE_ASYNC_ALLOW_ORIGIN", " ".join(allowed))
        monkeypatch.setenv("FACE_ASYNC_STRICT", str(int(strict)))
        monkeypatch.setenv("FACE_ASYNC_REPLAY_PROTECTION", "1")

    def ask(shown):
        url = f"{shown['FACE_ASYNC_BASE_URL']}/face/getgroupids"
        for origin in (*allowed, "https://c.example"):
            answer = httpx.post(url, headers={"Origin": origin})
            assert ("access-control-allow-origin" in answer.headers) == (origin in allowed)
        signature = _signature({f"FACE_ASYNC_{name}": value for name, value in ACCOUNT.items()}, ".5")
        for code in (5, 5) if strict else (0, 13):
            answer = httpx.post(url, headers={"Authorization": signature}, json={"appid": "1"})
            assert answer.json()["code"] == code

    serving(*options, act=ask)
