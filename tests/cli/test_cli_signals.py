"""Ctrl-C: what is under way is finished or not, what was done is kept. The signals are real ones, to this process."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

import pytest
from timing import PATIENCE

from face_async.cli import progress
from face_async.ingest import Ingestion
from face_async.portraits import draw_portrait
from face_async.server.recognition.fingerprint import FingerprintRecognizer

FAST = ("--recognizer", "fingerprint")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def during_looks(monkeypatch):
    """Do something while a picture is looked at, which is the ``number``-th; return how many were begun."""
    find, begun = FingerprintRecognizer.find_face, []

    def set_up(act, number=1):
        def find_face(self, image):
            begun.append(image)
            if len(begun) >= number:
                act(first=len(begun) == number)
            return find(self, image)

        monkeypatch.setattr(FingerprintRecognizer, "find_face", find_face)
        return begun

    return set_up


def interrupt_once(*, first: bool) -> None:
    """Press Ctrl-C, and take so long that it is heard; so do all that come after it."""
    if first:
        press_ctrl_c()
    time.sleep(0.5)


def test_it_ends_a_demo_that_looks_at_pictures_with_130_and_one_line(say, during_looks):
    during_looks(interrupt_once)
    said = say("demo", "--people", "4", *FAST)
    assert (said.code, said.out, said.err) == (130, "", "face-async: interrupted\n")


def test_it_ends_a_demo_that_draws_with_130_and_one_line(say, monkeypatch):
    monkeypatch.setattr("face_async.portraits.draw_portrait", lambda *_, **__: press_ctrl_c())
    said = say("demo", *FAST)
    assert (said.code, said.out, said.err) == (130, "", "face-async: interrupted\n")


def test_it_leaves_what_was_found_until_then(say, tmp_path, probes, during_looks):
    during_looks(interrupt_once, number=3)
    said = say(*probes, "--json", "--report", "page.html", "--at-once", "1")
    assert (said.code, said.err.splitlines()[-1]) == (130, "face-async: interrupted")
    images = json.loads(said.out)["images"]
    assert 1 <= len(images) < 8
    assert f"{len(images)} of {len(images)} recognized, then stopped" in (tmp_path / "page.html").read_text("utf-8")


@pytest.fixture
def enroll(say, tmp_path):
    """Enroll twelve people with a picture each, two at once."""
    for number in range(12):
        (tmp_path / "people" / f"p{number:02}").mkdir(parents=True)
        (tmp_path / "people" / f"p{number:02}" / "1.jpg").write_bytes(draw_portrait(number, size=120))
    return lambda *options: say("enroll", "people", "-g", "staff", "--at-once", "2", *FAST, *options)


@pytest.fixture
def heard(monkeypatch):
    """Is set once a run of enrollment has heard the first Ctrl-C."""
    event, stop = threading.Event(), Ingestion.stop
    monkeypatch.setattr(Ingestion, "stop", lambda self: (stop(self), event.set()))
    return event


def test_it_finishes_what_is_under_way_and_keeps_the_rest_for_the_next_run(enroll, during_looks, heard):
    def interrupt(*, first):
        if first:
            press_ctrl_c()
        assert heard.wait(PATIENCE)

    during_looks(interrupt, number=3)
    said = enroll("--json")
    *pictures, told = said.lines
    _, finishing, left = said.err.splitlines()
    assert said.code == 130
    assert finishing == "face-async: finishing the requests under way; Ctrl-C again stops at once"
    assert left.startswith(f"face-async: stopped with {told['pending']} pictures left; the same command goes on")
    assert (told["ambiguous"], told["done"] + told["pending"]) == (0, 12)
    assert 0 < told["done"] == len(pictures) < 12
    assert enroll("--json").lines[-1]["added"] == told["pending"]


def test_twice_it_waits_for_nothing(enroll, during_looks, heard):
    def interrupt_twice(*, first):
        if first:
            press_ctrl_c()
        assert heard.wait(PATIENCE)
        if first:
            press_ctrl_c()
        time.sleep(1)

    during_looks(interrupt_twice)
    said = enroll("--quiet")
    finishing, stopped = said.err.splitlines()
    assert finishing.startswith("face-async: finishing")
    assert stopped.startswith("face-async: stopped with 12 pictures left")
    assert said.code == 130


def test_it_ends_the_waiting_for_a_service_that_is_away(enroll, monkeypatch):
    account = {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDmine", "SECRET_KEY": "mySecret"}
    told, tell = [], progress.tell
    monkeypatch.setattr(progress, "tell", lambda line: (told.append(line), tell(line), press_ctrl_c()))
    with socket.socket() as silent:  # it has a port, and does not listen
        silent.bind(("127.0.0.1", 0))
        for name, value in {**account, "BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}.items():
            monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
        said = enroll()
    assert said.code == 130
    assert told[0].startswith("waiting for the service: ")
    assert "stopped with 12 pictures left" in said.err
