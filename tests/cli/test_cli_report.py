"""The demo's page: whole in itself, and harmless whatever names it shows."""

from __future__ import annotations

import re

import pytest
from strict_html import Parsed

from face_async.cli.demo.people import Participant
from face_async.cli.demo.report import write_report
from face_async.cli.demo.result import DemoResult, Trial
from face_async.errors import service_error
from face_async.models import Candidate
from face_async.portraits import draw_portrait
from face_async.session import Stats

HOSTILE = "</h2><script>alert(1)</script>\"'&\x1b"


def _result(name: str) -> DemoResult:
    ada = Participant("ada", name, "staff", (draw_portrait(0),), (draw_portrait(0, shot=1),))
    grace = Participant("grace", "Grace", "staff", (draw_portrait(1),), (b"no picture",))
    candidates = (
        Candidate(person_id="ada", face_id="1", confidence=97.25),
        Candidate(person_id=HOSTILE, face_id="unknown", confidence=120.0),
    )
    return DemoResult(
        people=(ada, grace),
        faces={"1": ada.enrolled[0]},
        trials=(
            Trial(ada, ada.probes[0], "staff", candidates),
            Trial(grace, grace.probes[0], "staff", candidates),
            Trial(grace, grace.probes[0], "all groups", error=service_error(-1102, HOSTILE, endpoint="identify")),
            Trial(grace, grace.probes[0], "all groups"),
        ),
        recognizer="fingerprint",
        seconds=0.5,
        stats=Stats(requests=10),
    )


@pytest.fixture
def page(tmp_path):
    """Write the page of a result; return its text."""

    def write(result: DemoResult) -> str:
        write_report(tmp_path / "page.html", result)
        return (tmp_path / "page.html").read_text("utf-8")

    return write


def test_the_page_is_whole_and_shows_every_probe(page):
    parsed = Parsed(page(_result("Ada")))
    assert parsed.open == []
    assert parsed.tags.count("article") == 4
    assert parsed.tags.count("img") == 3  # Ada's probe, and her face wherever she is a candidate
    assert "1 of 4 recognized" in parsed.text
    assert "97.2" in parsed.text
    assert "nobody was found" in parsed.text
    assert "-1102" in parsed.text


def test_the_page_needs_nothing_from_anywhere(page):
    text = page(_result("Ada"))
    parsed = Parsed(text)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(parsed.tags)
    references = [value for name, value in parsed.attributes if name in {"src", "href", "srcset", "action", "data"}]
    assert references
    assert all(value.startswith("data:image/jpeg;base64,") for value in references)
    assert not re.search(r"url\(|@import|https?:|//", text.replace("base64,", "").split("<main>")[0])
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in parsed.attributes


def test_hostile_names_are_text(page):
    text = page(_result(HOSTILE))
    parsed = Parsed(text)
    assert "script" not in parsed.tags
    assert "\x1b" not in text
    assert "</h2><script>alert(1)</script>\"'&\\x1b" in parsed.text


def test_the_demo_writes_the_page(say, tmp_path):
    said = say("demo", "--people", "2", "--recognizer", "fingerprint", "--report", "page.html")
    assert said.code == 0
    assert said.err == "face-async: wrote page.html\n"
    assert Parsed((tmp_path / "page.html").read_text(encoding="utf-8")).tags.count("article") == 5


def test_a_page_that_cannot_be_written_is_one_line(say):
    said = say("demo", "--people", "1", "--recognizer", "fingerprint", "--report", "nope/page.html")
    assert said.code == 2
    assert said.err == "face-async: nope/page.html: No such file or directory\n"
