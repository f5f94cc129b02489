"""The program as a process of its own: signals, pipes, and what serve prints."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time

import anyio
import httpx
import pytest
from raw_server import CERTIFICATE
from timing import PATIENCE

from face_async.local import local_session
from face_async.portraits import draw_portrait

PROGRAM = "from face_async.cli import main; main()"

# The program, saying when it has begun with a kind of work, each piece of which takes so long that even on a busy
# machine there is time to interrupt it. The first pieces may take no time.
WORKING = """
import itertools, pathlib, time
from {module} import {owner} as owner
work, pieces = owner.{name}, itertools.count()

def slowly(*args, **options):
    pathlib.Path("working").touch()
    time.sleep({seconds} if next(pieces) >= {quick} else 0)
    return work(*args, **options)

owner.{name} = slowly
"""


def working(module: str, owner: str, name: str, *, seconds: float = 1, quick: int = 0) -> str:
    return WORKING.format(module=module, owner=owner, name=name, seconds=seconds, quick=quick) + PROGRAM


LOOKS = "face_async.server.recognition.fingerprint", "FingerprintRecognizer", "find_face"
LOOKING = working(*LOOKS)


@pytest.fixture
def start():
    """Start the program; whatever happens, it has ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: str, program: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_serve_prints_what_to_paste_and_ends_quietly_on_ctrl_c(start):
    serving = start("serve", "--port", "0", "--recognizer", "fingerprint")
    lines = [serving.stdout.readline() for _ in range(5)]
    pasted = dict(line.removeprefix("export ").rstrip("\n").split("=", 1) for line in lines)
    assert set(pasted) == {f"FACE_ASYNC_{name}" for name in ("BASE_URL", "APPID", "BUCKET", "SECRET_ID", "SECRET_KEY")}

    asking = start("groups", "--json", **pasted)
    assert json.loads(asking.communicate(timeout=PATIENCE)[0]) == {"group_ids": []}

    serving.send_signal(signal.SIGINT)
    out, err = serving.communicate(timeout=PATIENCE)
    assert (serving.returncode, out) == (0, "")
    announced, stopped = err.splitlines()
    assert announced.startswith("face-async: serving faces.db on http://127.0.0.1:")
    assert stopped == "face-async: stopped"


def test_serve_prints_a_link_to_the_page_and_another_when_it_was_used(start):
    """The page is served under the names that are allowed; without the option there is none."""
    serving = start("serve", "--port", "0", "--recognizer", "fingerprint", "--ui", "--ui-host", "Faces.example.com")
    assert "serving faces.db" in serving.stderr.readline()
    link = serving.stderr.readline().rpartition(" ")[2].strip()
    base_url, path = link.split("/ui/")
    assert path.startswith("?token=")
    with httpx.Client() as browser:
        assert browser.get(link).status_code == 200
        assert browser.get(f"{base_url}/ui/status").status_code == 200
        assert browser.get(f"{base_url}/ui/status", headers={"Host": "faces.example.com"}).status_code == 200
        assert browser.get(f"{base_url}/ui/status", headers={"Host": "other.example.com"}).status_code == 421
    assert link not in (following := serving.stderr.readline())
    assert f"{base_url}/ui/?token=" in following

    without = start("serve", "--port", "0", "--recognizer", "fingerprint", "--db", "other.db")
    base_url = re.search(r"http://\S+:\d+", without.stderr.readline())[0]
    assert httpx.get(f"{base_url}/ui/status").status_code == 404


def test_serve_keeps_a_configured_secret_to_itself(start):
    account = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDmine", "SECRET_KEY": "mySecret"}
    serving = start(
        *("serve", "--port", "0", "--recognizer", "fingerprint"),
        **{f"FACE_ASYNC_{name}": value for name, value in account.items()},
    )
    assert serving.stdout.readline().startswith("export FACE_ASYNC_BASE_URL=http://127.0.0.1:")
    serving.send_signal(signal.SIGTERM)
    out, err = serving.communicate(timeout=PATIENCE)
    assert (serving.returncode, out) == (0, "")
    assert "mySecret" not in err


def exported(serving: subprocess.Popen[str], count: int) -> dict[str, str]:
    """The variables that a server prints."""
    lines = [serving.stdout.readline() for _ in range(count)]
    return dict(line.removeprefix("export ").rstrip("\n").split("=", 1) for line in lines)


def stopped(serving: subprocess.Popen[str]) -> str:
    """Stop a server, and return what it wrote on standard error."""
    serving.send_signal(signal.SIGTERM)
    return serving.communicate(timeout=PATIENCE)[1]


def test_the_account_made_up_at_the_first_start_is_kept_and_shown_again(start, tmp_path):
    """Clients go on working after a restart; nobody else may read it."""
    command = ("serve", "--port", "0", "--recognizer", "fingerprint")
    shown = []
    for _ in range(2):
        serving = start(*command)
        shown.append(exported(serving, 5))
        stopped(serving)
    assert shown[0] | shown[1] == shown[0] | {"FACE_ASYNC_BASE_URL": shown[1]["FACE_ASYNC_BASE_URL"]}
    path = tmp_path / "faces.db-accounts"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [shown[0]["FACE_ASYNC_SECRET_KEY"]] == [each["secret_key"] for each in json.loads(path.read_text())]


def test_a_database_in_memory_keeps_no_account(start, tmp_path):
    serving = start("serve", "--db", ":memory:", "--port", "0", "--recognizer", "fingerprint")
    assert exported(serving, 5)["FACE_ASYNC_SECRET_KEY"]
    stopped(serving)
    assert list(tmp_path.iterdir()) == []


def test_serve_on_all_addresses_over_https_with_accounts_of_a_file(start, tmp_path):
    """What it prints is what a client on this machine takes; it says nothing of the accounts."""
    pem = tmp_path / "certificate.pem"
    pem.write_text(CERTIFICATE)
    accounts = tmp_path / "accounts.json"
    accounts.touch(0o600)
    account = {"appid": "1", "buckets": ["b"], "secret_id": "AKIDmine", "secret_key": "mySecret"}
    accounts.write_text(json.dumps([account]))
    options = ("--host", "0.0.0.0", "--port", "0", "--cert", pem, "--key", pem, "--accounts", accounts)
    serving = start("serve", "--recognizer", "fingerprint", *map(str, options))
    (base_url,) = exported(serving, 1).values()
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", base_url)
    answer = httpx.get(f"{base_url}/health", verify=ssl.create_default_context(cafile=pem))
    assert answer.json()["status"] == "ok"
    said = stopped(serving)
    assert f"serving faces.db on 0.0.0.0, on this machine {base_url}; Ctrl-C stops it" in said
    assert "mySecret" not in said
    assert not (tmp_path / "faces.db-accounts").exists()


@pytest.mark.parametrize(
    "options", [(), ("--log-json",), ("--log-level", "info"), ("--log-level", "info", "--log-json")]
)
def test_serve_logs_what_it_is_told_to(start, options):
    """By default refused signatures with the reason, at level info every call; as text, or as lines of JSON."""
    serving = start("serve", "--port", "0", "--recognizer", "fingerprint", *options)
    shown = exported(serving, 5)
    asking = start("groups", **shown)
    assert asking.wait(PATIENCE) == 0
    httpx.post(f"{shown['FACE_ASYNC_BASE_URL']}/face/getinfo", headers={"Authorization": "rubbish"})
    metrics = httpx.get(f"{shown['FACE_ASYNC_BASE_URL']}/metrics").text
    assert 'face_async_calls_total{code="5",endpoint="getinfo"} 1.0' in metrics
    said = stopped(serving)
    assert shown["FACE_ASYNC_SECRET_KEY"] not in said
    lines = [line for line in said.splitlines() if not line.startswith("face-async: ")]
    assert (2 if "info" in options else 1) == len(lines)
    if "--log-json" in options:
        told = [json.loads(line) for line in lines]
        assert (told[-1]["endpoint"], told[-1]["code"]) == ("getinfo", 5)
        assert told[-1]["reasons"] == ["the signature cannot be read"]
        assert {each["level"] for each in told} == ({"info", "warning"} if "info" in options else {"warning"})
    else:
        assert "getinfo: code 5 SIGNATURE_MALFORMED" in lines[-1]
        assert lines[-1].endswith(": the signature cannot be read")


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--allow-origin", "https://a.example", "--allow-origin", "https://b.example"], {}),
        ([], {"FACE_ASYNC_ALLOW_ORIGIN": "https://a.example https://b.example"}),
    ],
    ids=["options", "environment"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_serve_takes_as_much_as_it_is_told_to(start, options, environment, strict):
    account = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDmine", "SECRET_KEY": "mySecret"}
    environment = environment | {f"FACE_ASYNC_{name}": value for name, value in account.items()}
    command = ("serve", "--port", "0", "--recognizer", "fingerprint", *(["--strict"] if strict else []), *options)
    serving = start(*command, **environment)
    base_url = serving.stdout.readline().removeprefix("export FACE_ASYNC_BASE_URL=").strip()
    for origin, allowed in (("https://a.example", True), ("https://b.example", True), ("https://c.example", False)):
        answer = httpx.post(f"{base_url}/face/getgroupids", headers={"Origin": origin})
        assert ("access-control-allow-origin" in answer.headers) == allowed
    original = f"a=1&b=b&k=AKIDmine&e={int(time.time()) + 60}.5&t={int(time.time())}".encode()
    signature = base64.b64encode(hmac.digest(b"mySecret", original, "sha1") + original).decode()
    answer = httpx.post(f"{base_url}/face/getgroupids", headers={"Authorization": signature}, json={"appid": "1"})
    assert answer.json()["code"] == (5 if strict else 0)


@pytest.mark.parametrize(
    "program",
    [working("face_async", "portraits", "draw_portrait", seconds=0.1), working(*LOOKS, seconds=0.1)],
    ids=["drawing", "looking"],
)
def test_ctrl_c_ends_a_demo_with_130_and_one_line(start, tmp_path, program):
    demo = start("demo", "--people", "8", "--recognizer", "fingerprint", program=program)
    while not (tmp_path / "working").exists():
        assert demo.poll() is None
        time.sleep(0.02)
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, out, err) == (130, "", "face-async: interrupted\n")


@pytest.fixture
def probes(tmp_path):
    """A folder with pictures of Ada, who is enrolled in the embedded server's database."""

    async def enroll() -> None:
        async with local_session(tmp_path / "faces.db", recognizer="fingerprint") as session:
            await session.new_person("ada", ["staff"], draw_portrait(0))

    anyio.run(enroll)
    (tmp_path / "probes").mkdir()
    for shot in range(1, 9):
        (tmp_path / "probes" / f"{shot}.jpg").write_bytes(draw_portrait(0, shot=shot, size=120))
    return ("identify", "probes", "-g", "staff", "--recognizer", "fingerprint", "--threshold", "75")


def test_ctrl_c_leaves_what_was_found_until_then(start, tmp_path, probes):
    identify = start(*probes, "--json", "--report", "page.html", "--at-once", "1", program=working(*LOOKS, quick=2))
    first = [identify.stdout.readline() for _ in range(3)]
    identify.send_signal(signal.SIGINT)
    out = "".join(first) + identify.stdout.read()  # communicate() knows nothing of lines that were read ahead
    _, err = identify.communicate(timeout=PATIENCE)
    assert (identify.returncode, err.splitlines()[-1]) == (130, "face-async: interrupted")
    images = json.loads(out)["images"]
    assert 2 <= len(images) < 8
    assert f"{len(images)} of {len(images)} recognized, then stopped" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_on_a_terminal_lines_stay_whole_above_the_live_display_and_may_be_without_color(probes):
    reader, terminal = os.openpty()
    identify = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *probes],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends when the last program has left it
        while piece := os.read(reader, 4_096):
            shown += piece
    os.close(reader)
    assert identify.wait(PATIENCE) == 0
    text = shown.decode()
    assert "\x1b[32m" not in text
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n")
    assert sum(re.fullmatch(r"recognized +[0-9.]+ +ada +probes/\d.jpg *", line) is not None for line in lines) == 8
    assert any("/8" in line and line.startswith("recognizing") for line in lines)


def _people(folder):
    for number in range(12):
        (folder / f"p{number:02}").mkdir(parents=True)
        (folder / f"p{number:02}" / "1.jpg").write_bytes(draw_portrait(number, size=120))
    return ("enroll", str(folder), "-g", "staff", "--recognizer", "fingerprint", "--at-once", "2")


def _wait_for_work(process, tmp_path):
    while not (tmp_path / "working").exists():
        assert process.poll() is None
        time.sleep(0.02)


def test_enrolling_goes_on_after_a_kill_and_doubles_nothing(start, tmp_path):
    command = _people(tmp_path / "people")
    killed = start(*command, program=LOOKING)
    _wait_for_work(killed, tmp_path)
    killed.kill()
    killed.wait(PATIENCE)
    last = start(*command, "--json", "--verify")
    told = json.loads(last.communicate(timeout=PATIENCE)[0])
    assert (last.returncode, told["done"], told["differences"]) == (0, 12, [])


def test_ctrl_c_finishes_what_is_under_way_and_keeps_the_rest_for_the_next_run(start, tmp_path):
    command = _people(tmp_path / "people")
    stopped = start(*command, "--json", program=LOOKING)
    _wait_for_work(stopped, tmp_path)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=PATIENCE)
    told = json.loads(out)
    _, finishing, left = err.splitlines()
    assert stopped.returncode == 130
    assert finishing == "face-async: finishing the requests under way; Ctrl-C again stops at once"
    assert left.startswith(f"face-async: stopped with {told['pending']} pictures left; the same command goes on")
    assert (told["ambiguous"], told["done"] + told["pending"]) == (0, 12)
    assert 0 < told["done"] < 12
    assert json.loads(start(*command, "--json").communicate(timeout=PATIENCE)[0])["added"] == told["pending"]


def test_ctrl_c_twice_waits_for_nothing(start, tmp_path):
    stopped = start(*_people(tmp_path / "people"), "-q", program=working(*LOOKS, seconds=3))
    _wait_for_work(stopped, tmp_path)
    stopped.send_signal(signal.SIGINT)
    assert stopped.stderr.readline().startswith("face-async: finishing")
    stopped.send_signal(signal.SIGINT)
    assert stopped.stderr.read().startswith("face-async: stopped with 12 pictures left")
    assert stopped.wait(PATIENCE) == 130


def test_enrolling_waits_for_a_service_that_is_away_until_it_is_stopped(start, tmp_path):
    account = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDmine", "SECRET_KEY": "mySecret"}
    account["BASE_URL"] = "http://127.0.0.1:1"
    waiting = start(*_people(tmp_path / "people"), **{f"FACE_ASYNC_{name}": value for name, value in account.items()})
    assert waiting.stderr.readline().startswith("face-async: waiting for the service: ")
    waiting.send_signal(signal.SIGINT)
    assert "stopped with 12 pictures left" in waiting.stderr.read()
    assert waiting.wait(PATIENCE) == 130


def test_output_that_nobody_reads_is_no_traceback(start):
    demo = start("demo", "--people", "1", "--recognizer", "fingerprint")
    demo.stdout.close()
    assert "Traceback" not in demo.stderr.read()


def test_a_terminal_that_knows_ascii_only_gets_all_it_can_show(start, tmp_path):
    (tmp_path / "Zoë").mkdir()
    for shot in range(2):
        (tmp_path / "Zoë" / f"{shot}.jpg").write_bytes(draw_portrait(0, shot=shot, size=120))
    demo = start("demo", "--photos", ".", "--recognizer", "fingerprint", PYTHONIOENCODING="ascii")
    out, err = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, err) == (0, "")
    assert r"Zo\xeb" in out


def test_the_package_itself_is_the_command_line():
    """``python -m face_async`` is ``face-async``, for who has no scripts on the PATH."""
    program = [sys.executable, "-m", "face_async"]
    for arguments, said in (
        (["--version"], "face-async "),
        (["groups", "--help"], " Usage: python -m face_async groups "),
    ):
        ran = subprocess.run([*program, *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE)
        assert said in ran.stdout
        assert ran.stderr == ""
