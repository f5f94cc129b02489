"""Enrolling folders and manifests: what it says, where it stops, and how it goes on."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from attrs import evolve
from PIL import Image

from face_async._call.throttle import ThrottleState
from face_async.cli.enroll import output as enroll_output
from face_async.cli.enroll.output import Display
from face_async.ingest import Summary
from face_async.ingest.report import Progress
from face_async.portraits import draw_portrait

FAST = ("--recognizer", "fingerprint")


@pytest.fixture
def people(tmp_path) -> Path:
    """Two pictures each of Ada and Grace."""
    folder = tmp_path / "people"
    for number, name in enumerate(("ada", "grace")):
        (folder / name).mkdir(parents=True)
        for shot in range(2):
            (folder / name / f"{shot}.jpg").write_bytes(draw_portrait(number, shot=shot, size=120))
    return folder


@pytest.fixture
def enroll(say):
    """Run the command with the embedded server."""

    def run(*args: str | Path, group: str = "staff"):
        return say("enroll", *args, "-g", group, *FAST)

    return run


@pytest.mark.usefixtures("people")
class TestAFolder:
    def test_is_enrolled_once_however_often_that_is_asked_for(self, say, enroll, tmp_path):
        first, second = enroll("people"), enroll("people", "--json")
        assert (first.code, second.code) == (0, 0)
        assert first.out.startswith("4 of 4 pictures are enrolled, 4 by this run in ")
        told = json.loads(second.out)
        assert (told["done"], told["added"], told["complete"]) == (4, 0, True)
        assert sorted(say("persons", "staff").out.split()) == ["ada", "grace"]
        assert len(say("faces", "ada").out.split()) == 2
        assert (tmp_path / "people.faces.journal").exists()
        assert first.err.startswith("face-async: using the embedded local server with a new database, faces.db")

    def test_wants_a_group(self, say):
        said = say("enroll", "people", *FAST)
        assert (said.code, said.out) == (2, "")
        assert "--group" in said.err

    def test_can_be_looked_at_without_sending(self, enroll, tmp_path):
        said = enroll("people", "--dry-run")
        assert (said.code, said.err) == (0, "")
        assert said.out == "4 of 4 pictures would be sent, 0 are enrolled already\n"
        assert [path.name for path in tmp_path.iterdir()] == ["people"]

    @pytest.mark.parametrize("other", ["--retry-failed", "--verify", "--repair"])
    def test_is_not_sent_by_way_of_another_option(self, enroll, other):
        said = enroll("people", "--dry-run", other)
        assert (said.code, said.out) == (2, "")

    def test_may_be_where_one_is(self, enroll, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path / "people")
        assert enroll(".", "--db", "../faces.db").code == 0
        assert enroll(".", "--db", "../faces.db").code == 0
        assert (tmp_path / "people.faces.journal").exists()

    def test_that_cannot_be_written_beside_has_its_journal_here(self, enroll, tmp_path, monkeypatch):
        monkeypatch.setattr("os.access", lambda _path, mode: mode != os.W_OK)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert enroll("../people").code == 0
        assert (tmp_path / "here" / "people.faces.journal").exists()

    def test_quietly_says_nothing(self, enroll):
        said = enroll("people", "-q")
        assert (said.code, said.out, said.err) == (0, "", "")

    def test_in_parts_whose_journals_become_one(self, say, enroll):
        parts = [json.loads(enroll("people", "--shard", f"{rank}/2", "--json").out)["added"] for rank in range(2)]
        assert sum(parts) == 4
        journals = sorted(str(path) for path in Path().glob("*.journal"))
        assert journals == ["people.faces.0of2.journal", "people.faces.1of2.journal"]
        assert say("merge-journals", *journals, "--into", "people.faces.journal").code == 0
        assert json.loads(enroll("people", "--json", "--no-pack").out)["added"] == 0

    @pytest.mark.parametrize("shard", ["2/2", "1", "x/y", "-1/2"])
    def test_in_a_part_that_there_is_not(self, enroll, shard):
        said = enroll("people", f"--shard={shard}")
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") <= 2

    def test_that_differs_from_the_service_is_told_of(self, say, enroll):
        enroll("people")
        same = enroll("people", "--verify")
        assert same.code == 0
        assert "people 2, faces 4: they are the same\n" in same.err
        say("delete", "ada", "-y")
        say("delete", "grace", "--face", say("faces", "grace").out.split()[0], "-y")
        said = enroll("people", "--verify")
        assert said.code == 1
        assert "face-async: ada: the service does not know this person" in said.err
        assert "face-async: grace: 1 faces are missing" in said.err
        assert len(json.loads(enroll("people", "--verify", "--json").out)["differences"]) == 2

    def test_that_differs_from_the_service_is_repaired(self, say, enroll):
        """Then it is the same; and what is the same stays so."""
        enroll("people")
        say("delete", "ada", "-y")
        repaired = enroll("people", "--repair")
        assert repaired.code == 0
        assert "people 2, faces 4: they are the same, before the repair they differed for 1\n" in repaired.err
        assert len(say("faces", "ada").out.split()) == 2
        again = enroll("people", "--repair", "--json")
        assert (again.code, json.loads(again.out)["added"], json.loads(again.out)["differences"]) == (0, 0, [])

    def test_of_another_database_that_is_there_is_not_taken_for_done(self, say, enroll, people):
        """Nothing is said to be enrolled, but how to enroll everybody there, too."""
        enroll("people", "--journal", "j")
        (people.parent / "others").mkdir()
        (people / "ada").rename(people.parent / "others" / "zoe")
        enroll("others", "--journal", "k", "--db", "other.db")
        (people.parent / "others" / "zoe").rename(people / "ada")
        said = enroll("people", "--journal", "j", "--db", "other.db")
        assert (said.code, said.out) == (2, "")
        assert "the server does not have them" in said.err
        assert "--repair" in said.err
        assert enroll("people", "--journal", "j", "--db", "other.db", "--repair").code == 0
        assert sorted(say("persons", "staff", "--db", "other.db").out.split()) == ["ada", "grace", "zoe"]

    def test_of_another_database_is_not_taken_for_done(self, enroll, tmp_path):
        enroll("people", "--journal", "j")
        (tmp_path / "faces.db").unlink()
        said = enroll("people", "--journal", "j")
        assert said.code == 2
        assert "delete the journal to start from the beginning" in said.err
        assert enroll("people", "--journal", "j", "--repair").code == 0


class TestWhatCannotBeEnrolled:
    @pytest.fixture(autouse=True)
    def _odd_pictures(self, people):
        (people / "ada" / "empty.jpg").touch()
        (people / "ada" / "same.jpg").write_bytes(draw_portrait(0, shot=0, size=120))
        (people / "grace" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
        (people / "stray.jpg").touch()

    def test_is_counted_by_code_and_listed_in_a_file(self, enroll):
        said = enroll("people", "--failures", "failures.csv")
        assert said.code == 1
        head, *rows = said.out.splitlines()
        assert head.startswith("4 of 6 pictures are enrolled")
        assert sorted(tuple(row.split()[:2]) for row in rows) == [
            ("1", "-1102"),
            ("1", "refused"),
            ("1", "row"),
            ("1", "same"),
        ]
        assert said.err.endswith("face-async: wrote failures.csv\n")
        with Path("failures.csv").open(newline="", encoding="utf-8-sig") as file:
            codes = [row["code"] for row in csv.DictReader(file)]
        assert sorted(codes) == ["-1102", "refused", "row"]

    def test_is_tried_again_when_it_was_mended(self, enroll, people):
        enroll("people")
        (people / "ada" / "empty.jpg").write_bytes(draw_portrait(0, shot=5, size=120))
        told = json.loads(enroll("people", "--retry-failed", "--json").out)
        assert (told["added"], told["done"], told["codes"]) == (1, 5, {"-1102": 1})

    def test_because_it_is_too_large_may_be_made_to_fit(self, enroll, people):
        ada = Image.open(io.BytesIO(draw_portrait(0, shot=6, size=120)))
        ada.resize((800, 800)).save(people / "ada" / "large.bmp")
        assert "23          the request is too large" in enroll("people").out
        assert json.loads(enroll("people", "--retry-failed", "--fit", "--json").out)["done"] == 5

    def test_cannot_be_tried_again_before_it_was_tried(self, enroll):
        said = enroll("people", "--retry-failed")
        assert said.code == 2
        assert "there is no journal" in said.err


def test_a_source_that_is_not_there_makes_no_database(enroll, tmp_path):
    said = enroll("nope")
    assert (said.code, said.err) == (2, "face-async: nope: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_tells_where_to_put_its_people(say, people, tmp_path):
    rows = ("person_id,path,group_ids", "ada,people/ada/0.jpg,staff|guests", "grace,people/grace/1.jpg,guests")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    said = say("enroll", "list.csv", *FAST)
    assert said.code == 0
    assert sorted(say("persons", "guests").out.split()) == ["ada", "grace"]  # enrolled side by side
    assert (tmp_path / "list.csv.faces.journal").exists()


@pytest.mark.usefixtures("service", "people")
class TestAService:
    def test_has_a_journal_of_its_own(self, say, tmp_path):
        said = say("enroll", "people", "-g", "enrolled", "--shard", "0/1")
        assert (said.code, said.err) == (1, "")  # one of Ada's pictures is there already
        assert "-1312" in said.out
        assert (tmp_path / "people.123456.journal").exists()

    def test_that_refuses_the_key_ends_the_run_in_one_line(self, say, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "wrong")
        said = say("enroll", "people", "-g", "enrolled", "-q")
        assert (said.code, said.out) == (1, "")
        assert said.err.count("\n") == 1
        assert "SIGNATURE_MISMATCH" in said.err
        assert "the same command goes on from here" in said.err


def summary(phase: str, **counts: object) -> Summary:
    return evolve(Progress().summary(stopping=False, away=None), phase=phase, **counts)


def test_without_a_terminal_a_line_now_and_then_says_how_it_stands(capsys, monkeypatch):
    monkeypatch.setattr(enroll_output, "_LINE_EVERY", 0)
    sending = summary("sending", pending=5, done=1, failed=1)
    with Display(ThrottleState, quiet=False) as display:
        display.show(summary("listing", listed=7))
        display.show(sending)
        display.show(evolve(sending, phase="waiting", away="no answer"))
        display.show(sending)
    said = [line.removeprefix("face-async: ") for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "listing: 7",
        "sending: 2 of 7, 1 failed",
        "waiting for the service: no answer",
        "waiting: 2 of 7, 1 failed",
        "the service is back",
        "sending: 2 of 7, 1 failed",
    ]


def test_quietly_nothing_says_how_it_stands(capsys, monkeypatch):
    monkeypatch.setattr(enroll_output, "_LINE_EVERY", 0)
    with Display(ThrottleState, quiet=True) as display:
        display.show(summary("waiting", away="no answer"))
    assert capsys.readouterr().err == ""
