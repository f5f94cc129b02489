"""Enrolling folders and manifests: what it says, where it stops, and how it goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from pathlib import Path

import pytest
from attrs import evolve
from PIL import Image

from face_async._call.throttle import ThrottleState
from face_async.cli import progress as progress_module
from face_async.cli.enroll.output import UNIT_FIELDS, Display
from face_async.cli.progress import ProgressDisplay
from face_async.ingest import Summary
from face_async.ingest.report import Progress
from face_async.portraits import draw_portrait
from face_async.server.recognition.fingerprint import FingerprintRecognizer

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
        (told,) = second.lines
        assert (told["done"], told["added"], told["complete"]) == (4, 0, True)
        assert sorted(say("persons", "staff").out.split()) == ["ada", "grace"]
        assert len(say("faces", "ada").out.split()) == 2
        assert (tmp_path / "people.faces.journal").exists()
        assert first.err.startswith("face-async: using the embedded local server with a new database, faces.db")

    def test_is_sent_no_faster_than_was_told(self, enroll):
        """A request, and three or more after it."""
        started = time.monotonic()
        assert enroll("people", "--no-pack", "--max-rate", "1.9").code == 0
        assert time.monotonic() - started >= 3 / 1.9

    @pytest.mark.parametrize("option", ["--shards", "--max-concurrency"])
    def test_is_no_run_in_parts_by_one_of_its_options(self, enroll, option):
        said = enroll("people", option, "2")
        assert (said.code, said.out) == (2, "")
        assert "need --state or --cluster" in said.err

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
        parts = [enroll("people", "--shard", f"{rank}/2", "--json").lines[-1]["added"] for rank in range(2)]
        assert sum(parts) == 4
        journals = sorted(str(path) for path in Path().glob("*.journal"))
        assert journals == ["people.faces.0of2.journal", "people.faces.1of2.journal"]
        assert say("merge-journals", *journals, "--into", "people.faces.journal").code == 0
        assert enroll("people", "--json", "--no-pack").lines[-1]["added"] == 0

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
        assert len(enroll("people", "--verify", "--json").lines[-1]["differences"]) == 2

    def test_that_differs_from_the_service_is_repaired(self, say, enroll):
        """Then it is the same; and what is the same stays so."""
        enroll("people")
        say("delete", "ada", "-y")
        repaired = enroll("people", "--repair")
        assert repaired.code == 0
        assert "people 2, faces 4: they are the same, before the repair they differed for 1\n" in repaired.err
        assert len(say("faces", "ada").out.split()) == 2
        again = enroll("people", "--repair", "--json")
        assert (again.code, again.lines[-1]["added"], again.lines[-1]["differences"]) == (0, 0, [])

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
        told = enroll("people", "--retry-failed", "--json").lines[-1]
        assert (told["added"], told["done"], told["codes"]) == (1, 5, {"-1102": 1})

    def test_because_it_is_too_large_may_be_made_to_fit(self, enroll, people):
        ada = Image.open(io.BytesIO(draw_portrait(0, shot=6, size=120)))
        ada.resize((800, 800)).save(people / "ada" / "large.bmp")
        assert "23          the request is too large" in enroll("people").out
        assert enroll("people", "--retry-failed", "--fit", "--json").lines[-1]["done"] == 5

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
        assert said.code == 1  # one of Ada's pictures is there already
        told = re.fullmatch(r"(face-async: failed: people/\w+/\d.jpg: the person .* same face \(-1312\)\n)+", said.err)
        assert told is not None
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
    monkeypatch.setattr(progress_module, "_LINE_EVERY", 0)
    sending = summary("sending", pending=5, done=1, failed=1)
    with ProgressDisplay() as progress:
        display = Display(lambda: evolve(ThrottleState(), in_flight=3), progress, quiet=False)
        display.show(summary("listing", listed=7))
        display.show(sending)
        display.show(evolve(sending, phase="waiting", away="no answer"))
        display.show(sending)
    said = [line.removeprefix("face-async: ") for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "listing: 7",
        "sending: 2 of 7, 1 failed, 3 at once",
        "waiting for the service: no answer",
        "sending: 2 of 7, 1 failed, waiting",
        "the service is back",
        "sending: 2 of 7, 1 failed, 3 at once",
    ]


def test_quietly_nothing_says_how_it_stands(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "_LINE_EVERY", 0)
    with ProgressDisplay(quiet=True) as progress:
        display = Display(ThrottleState, progress, quiet=True)
        display.show(summary("waiting", away="no answer"))
        display.show(summary("sending", done=1))
    assert capsys.readouterr().err == ""


class TestJsonLines:
    def test_tell_of_each_picture_and_of_all_at_the_end(self, enroll, people):
        (people / "grace" / "empty.jpg").touch()
        *pictures, told = enroll("people", "--json").lines
        assert [picture["state"] for picture in pictures].count("done") == told["done"] == 4
        (failed,) = [picture for picture in pictures if picture["state"] == "failed"]
        assert (failed["person_id"], failed["code"], failed["face_id"]) == ("grace", "refused", None)
        assert failed["source"] == str(people / "grace" / "empty.jpg")
        assert {tuple(picture) for picture in pictures} == {UNIT_FIELDS}

    def test_come_while_the_run_goes_on(self, enroll, people, monkeypatch):
        """And not at its end: a picture is told of before the next one is enrolled."""
        order = []
        monkeypatch.setattr("face_async.cli.output.say", lambda text: order.append(json.loads(text).get("person_id")))
        find = FingerprintRecognizer.find_face
        monkeypatch.setattr(
            FingerprintRecognizer, "find_face", lambda self, image: order.append("look") or find(self, image)
        )
        enroll("people", "--json", "--no-pack", "--at-once", "1")
        assert order.index("ada") < len(order) - order[::-1].index("look") - 1
        assert order[-1] is None  # the summary


@pytest.mark.usefixtures("people")
class TestWhatFailed:
    @pytest.fixture(autouse=True)
    def _many(self, people):
        for number in range(12):
            (people / "grace" / f"empty-{number:02}.jpg").touch()
        (people / "stray.jpg").touch()

    def test_is_named_at_the_end_as_far_as_the_first(self, enroll):
        said = enroll("people")
        *named, more = said.err.splitlines()[1:]
        assert len(named) == 10
        assert named[0].startswith("face-async: failed: people/stray.jpg: it is in no person's folder")
        assert named[1] == "face-async: failed: people/grace/empty-00.jpg: the file is empty"
        assert more == "face-async: and 3 more: --failures FILE.csv lists all"

    def test_is_named_in_a_file_that_was_asked_for(self, enroll):
        said = enroll("people", "--failures", "failures.csv")
        assert "more" not in said.err
        assert said.err.splitlines()[-1] == "face-async: wrote failures.csv"
        assert len(Path("failures.csv").read_text().splitlines()) == 1 + 13

    def test_is_an_error_that_is_told_quietly_too(self, enroll):
        said = enroll("people", "--quiet")
        assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 11)


class TestAPerson:
    @pytest.fixture
    def pictures(self, people):
        return sorted((people / "ada").iterdir())

    def test_who_is_new_is_enrolled_with_pictures(self, say, enroll, pictures, tmp_path):
        said = enroll(*pictures, "--person", "ada")
        assert (said.code, said.out) == (0, "pictures enrolled for ada: 2 of 2\n")
        assert said.err.splitlines()[1:] == ["face-async: ada is new, and is put into staff"]
        assert say("persons", "staff").out == "ada\n"
        assert len(say("faces", "ada").out.split()) == 2
        assert {path.name for path in tmp_path.iterdir()} == {"people", "faces.db"}  # and no journal

    def test_who_exists_gets_more_and_stays_in_the_groups(self, say, enroll, pictures):
        enroll(pictures[0], "--person", "ada")
        said = say("enroll", pictures[1], "--person", "ada", *FAST)
        assert (said.code, said.out) == (0, "pictures enrolled for ada: 1 of 1\n")
        assert said.err.splitlines()[1:] == ["face-async: ada exists already, in staff (faces: 1)"]
        again = enroll(*pictures, "--person", "ada", group="guests")
        assert again.code == 1
        assert again.err.splitlines()[1:] == [
            "face-async: ada exists already, in staff (faces: 2), and stays in staff: --group is for new people",
            *(f"face-async: failed: {Path(*path.parts[-3:])}: the person already has almost the same face (-1312)"
              for path in pictures),
        ]  # fmt: skip
        assert say("persons", "guests").code == 1

    def test_who_is_new_needs_a_group(self, say, enroll, pictures, tmp_path):
        """Also when there is no database yet: then none is made."""
        said = say("enroll", pictures[0], "--person", "ada", *FAST)
        assert (said.code, said.out) == (2, "")
        assert said.err == "face-async: say --group GROUP: ada is new, as there is no database faces.db\n"
        assert not (tmp_path / "faces.db").exists()
        enroll(pictures[0], "--person", "grace")
        said = say("enroll", pictures[0], "--person", "ada", *FAST)
        assert (said.code, said.out) == (2, "")
        assert said.err.endswith("say --group GROUP: ada is new, and every person is in a group\n")

    def test_has_the_limits_and_reasons_of_folders(self, enroll, pictures, people):
        (people / "animated.gif").write_bytes(b"GIF89a" + bytes(100))
        ada = Image.open(io.BytesIO(draw_portrait(0, shot=6, size=120)))
        ada.resize((800, 800)).save(people / "large.bmp")
        odd = [people / "animated.gif", people / "large.bmp"]
        *_, told = enroll(*pictures, *odd, "--person", "ada", "--json").lines
        assert (told["done"], told["codes"]) == (2, {"refused": 1, "23": 1})
        assert enroll(people / "large.bmp", "--person", "ada", "--fit").code == 0
        many = [people / f"{number}.jpg" for number in range(19)]
        for number, path in enumerate(many):
            path.write_bytes(draw_portrait(10 + number, size=120))
        *_, told = enroll(*many, "--person", "ada", "--json").lines
        assert told["codes"] == {"-1309": 2}

    @pytest.mark.parametrize(
        ("words", "advice"),
        [
            (("people", "--person", "ada"), "people is a folder: with --person name its pictures"),
            (("nope.jpg", "--person", "ada"), "nope.jpg: No such file or directory"),
            (("people", "people"), "one folder or manifest at a time; to enroll several pictures of one person say"),
            (("people/ada/0.jpg", "--person", "a b"), "person_id"),
            (("people/ada/0.jpg", "--person", "ada", "--verify"), "--person keeps no journal: leave out"),
            (("people/ada/0.jpg", "--person", "ada", "--failures", "people/ada/0.jpg"), "name another file to write"),
        ],
    )
    @pytest.mark.usefixtures("people")
    def test_cannot_be_enrolled_with_anything_else(self, enroll, words, advice):
        said = enroll(*words)
        assert (said.code, said.out) == (2, "")
        assert advice in said.err

    def test_may_be_tried_without_sending(self, say, enroll, pictures, tmp_path):
        said = enroll(*pictures, "--person", "ada", "--dry-run")
        assert (said.code, said.out) == (0, "2 of 2 pictures would be sent, 0 are enrolled already\n")
        assert not (tmp_path / "faces.db").exists()


@pytest.mark.parametrize("content", [None, "name,picture\nada,1.jpg\n"])
def test_a_source_that_cannot_be_one_makes_no_database(enroll, tmp_path, content):
    """Neither a folder without sub-folders nor a manifest without its columns."""
    source = tmp_path / ("flat" if content is None else "list.csv")
    if content is None:
        source.mkdir()
        (source / "1.jpg").touch()
    else:
        source.write_text(content)
    said = enroll(source)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == [source]
