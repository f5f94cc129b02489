"""The program as a process of its own: what no call in this process can show, as kills, terminals and closed pipes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from timing import PATIENCE

from face_async.cli import main
from face_async.portraits import draw_portrait

PROGRAM = "from face_async.cli import main; main()"

# The program, saying when it looks at the first picture, which takes so long that there is time to kill it.
LOOKING = f"""
import pathlib, time
from face_async.server.recognition.fingerprint import FingerprintRecognizer

def find_face(self, image):
    pathlib.Path("working").touch()
    time.sleep({PATIENCE})

FingerprintRecognizer.find_face = find_face
{PROGRAM}
"""


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


def test_serve_prints_what_to_paste_and_ends_quietly_on_ctrl_c(start, say, monkeypatch):
    serving = start("serve", "--port", "0", "--recognizer", "fingerprint")
    lines = [serving.stdout.readline() for _ in range(5)]
    pasted = dict(line.removeprefix("export ").rstrip("\n").split("=", 1) for line in lines)
    assert set(pasted) == {f"FACE_ASYNC_{name}" for name in ("BASE_URL", "APPID", "BUCKET", "SECRET_ID", "SECRET_KEY")}
    for name, value in pasted.items():
        monkeypatch.setenv(name, value)
    assert json.loads(say("groups", "--json").out) == {"group_ids": []}

    serving.send_signal(signal.SIGINT)
    out, err = serving.communicate(timeout=PATIENCE)
    assert (serving.returncode, out) == (0, "")
    announced, stopped = err.splitlines()
    assert announced.startswith("face-async: serving faces.db on http://127.0.0.1:")
    assert stopped == "face-async: stopped"


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


def test_enrolling_goes_on_after_a_kill_and_doubles_nothing(start, say, tmp_path):
    command = _people(tmp_path / "people")
    killed = start(*command, program=LOOKING)
    while not (tmp_path / "working").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait(PATIENCE)
    said = say(*command, "--json", "--verify")
    told = said.lines[-1]
    assert (said.code, told["done"], told["differences"]) == (0, 12, [])


def test_output_that_nobody_reads_is_no_traceback(start, tmp_path):
    """What is enrolled until then stays so, and the next run goes on from there."""
    enroll = start(*_people(tmp_path / "people"), "--json", "--no-pack")
    enroll.stdout.close()
    assert "Traceback" not in (said := enroll.stderr.read())
    assert "Broken pipe" not in said
    assert enroll.wait(PATIENCE) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_from_the_beginning_changes_nothing(say, tmp_path, closed):
    """Neither its exit code nor what is written, as into a journal that would get the number of a closed one."""
    command = [*_people(tmp_path / "people"), "--failures", "failures.csv"]
    shell = f'exec "$0" -c "$1" "${{@:2}}" {closed}'
    shell_command = ["bash", "-c", shell, sys.executable, PROGRAM, *command]
    ended = subprocess.run(shell_command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ("12 of 12" in ended.stdout) == (closed == "2>&-")
    assert (tmp_path / "failures.csv").read_text(encoding="utf-8-sig").strip() == "person_id,source,code,reason"
    assert (0, 12) == ((said := say(*command, "--json", "--verify")).code, said.lines[-1]["done"])


def test_a_terminal_that_knows_ascii_only_gets_all_it_can_show(tmp_path, monkeypatch):
    (tmp_path / "Zoë").mkdir()
    for shot in range(2):
        (tmp_path / "Zoë" / f"{shot}.jpg").write_bytes(draw_portrait(0, shot=shot, size=120))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.argv", ["face-async", "demo", "--photos", ".", "--recognizer", "fingerprint"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    terminal.seek(0)
    assert r"Zo\xeb" in terminal.read()


def test_the_package_itself_is_the_command_line():
    """``python -m face_async`` is ``face-async``, for who has no scripts on the PATH."""
    program = [sys.executable, "-m", "face_async", "groups", "--help"]
    ran = subprocess.run(program, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert " Usage: python -m face_async groups " in ran.stdout
    assert ran.stderr == ""
