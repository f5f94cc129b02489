"""Identifying folders of pictures: lines, JSON and CSV that come one by one, and a page to look at."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from strict_html import Parsed

from face_async import Candidate, TransportError
from face_async.cli.identify import report as report_module
from face_async.cli.identify.command import Probes
from face_async.cli.identify.identification import Identification, Tally, Verdict
from face_async.cli.identify.output import CSV_COLUMNS
from face_async.cli.identify.report import Enrolled, Report
from face_async.cli.pictures import Box, FaceBoxes, pictures_below, smaller_copy
from face_async.errors import service_error
from face_async.images.folders import PassedOver
from face_async.ingest import BadRow
from face_async.portraits import draw_portrait

ADA, NOBODY = 0, 99


@pytest.fixture
def probes(tmp_path) -> Path:
    """Two pictures of Ada, one of a stranger, one that shows nobody, and two that are none."""
    folder = tmp_path / "probes"
    for path, content in {
        "b/ada.jpg": draw_portrait(ADA, shot=7),
        "a/ada.PNG": draw_portrait(ADA, shot=8),
        "a/note.txt": b"hello",
        "a/.hidden.jpg": b"hello",
        ".cache/ada.jpg": draw_portrait(ADA, shot=7),
        "broken.jpg": b"\xff\xd8\xff",
        "empty.jpg": b"",
        "stranger.jpg": draw_portrait(NOBODY),
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    Image.new("RGB", (200, 200), "gray").save(folder / "wall.webp")
    return folder


def test_pictures_below_a_folder_come_sorted_without_what_is_hidden(probes):
    names = [str(path.relative_to(probes)) for path in pictures_below(probes)]
    assert names == ["broken.jpg", "empty.jpg", "stranger.jpg", "wall.webp", "a/ada.PNG", "b/ada.jpg"]


@pytest.mark.parametrize("allow_outside", [False, True])
def test_what_workers_are_to_send_is_what_is_sent_without_them(probes, tmp_path, allow_outside):
    """The same pictures but with absolute names, and the same complaints."""
    (tmp_path / "elsewhere.jpg").touch()
    (probes / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (probes / "b" / "inside.jpg").symlink_to(probes / "empty.jpg")
    names = ("probes", "elsewhere.jpg", "http://pictures/1.jpg", "s3://pictures/")
    wanted = Probes(names, allow_outside=allow_outside)
    counted, passed_over = PassedOver(), PassedOver()
    placed = list(wanted.placed(passed_over))
    assert (len(placed), str(passed_over)) == (wanted.count(counted), str(counted))
    remote = names[2:]
    for image, place in zip(wanted, placed, strict=True):
        name, reason = (place.file, place.reason) if isinstance(place, BadRow) else (place, None)
        assert (name, reason) == (image if image in remote else str(tmp_path / image), wanted.complaint(image))
    refused = [place.file for place in placed if isinstance(place, BadRow)]
    assert refused == ([] if allow_outside else [str(probes / "link.jpg")])


@pytest.fixture
def _without_faces(monkeypatch):
    """It takes half a second to load, and here only frames around faces are its own."""
    monkeypatch.setattr("face_async.server.recognition.networks.is_installed", lambda: False)


@pytest.mark.usefixtures("service", "_without_faces")
class TestAFolder:
    def test_is_one_line_for_each_picture_in_order_and_a_line_for_each_reason(self, say, probes):
        said = say("identify", "probes", "-g", "staff")
        assert said.code == 2
        lines = said.out.splitlines()
        assert [line.split()[0] for line in lines] == ["failed", "failed", "unknown", "failed"] + 2 * ["recognized"]
        assert [line.rsplit(maxsplit=1)[1] for line in lines] == [f"probes/{name}" for name in _names(probes)]
        passed_over, *reasons, summary = said.err.splitlines()
        assert passed_over.startswith("face-async: passed over: no JPEG, PNG, BMP or WebP: 1 (probes/a/note.txt)")
        assert len(reasons) == 3
        assert "face-async: 1 failed: the file is empty: probes/empty.jpg" in reasons
        assert re.search(r"6 pictures in .* s \(.* a second\): 2 recognized, 1 unknown, 3 failed", summary)

    def test_is_searched_for_no_faster_than_was_told(self, say, probes):
        """Four of its pictures can be sent: one, and three after it."""
        started = time.monotonic()
        assert len(say("identify", probes, "-g", "staff", "--max-rate", "1.9").out.splitlines()) == 6
        assert time.monotonic() - started >= 3 / 1.9

    @pytest.mark.parametrize("option", ["--shards", "--max-concurrency"])
    def test_is_no_run_in_parts_by_one_of_its_options(self, say, option):
        said = say("identify", "probes", "-g", "staff", option, "2")
        assert (said.code, said.out) == (2, "")
        assert "need --cluster" in said.err

    def test_and_files_beside_it_are_searched_for_together(self, say, probes, ada):
        said = say("identify", ada, "probes/b", "-g", "staff", "-g", "guests")
        assert said.code == 0
        assert [line.split()[0] for line in said.out.splitlines()] == ["recognized", "recognized"]

    def test_is_a_json_document_too(self, say, probes):
        said = say("identify", "probes", "-g", "staff", "--json")
        images = json.loads(said.out)["images"]
        assert [image["image"] for image in images] == [f"probes/{name}" for name in _names(probes)]
        assert [image["recognized"] for image in images] == 4 * [False] + 2 * [True]
        assert len(said.out.splitlines()) == len(images) + 2  # one picture a line

    def test_is_a_csv_with_a_row_for_each_picture_and_candidate(self, say, probes):
        say("identify", "probes", "-g", "staff", "-g", "guests", "--csv", "out.csv", "-q")
        with Path("out.csv").open(newline="", encoding="utf-8-sig") as file:
            head, *rows = csv.reader(file)
        assert tuple(head) == CSV_COLUMNS
        told = [tuple(row[:4]) for row in rows if row[0] != "probes/stranger.jpg"]
        assert told == [
            ("probes/broken.jpg", "failed", "", ""),
            ("probes/empty.jpg", "failed", "", ""),
            ("probes/wall.webp", "failed", "", ""),
            ("probes/a/ada.PNG", "recognized", "1", "ada"),
            ("probes/a/ada.PNG", "recognized", "2", "grace"),
            ("probes/b/ada.jpg", "recognized", "1", "ada"),
            ("probes/b/ada.jpg", "recognized", "2", "grace"),
        ]
        assert "-1101" in next(row[-1] for row in rows if row[0] == "probes/wall.webp")

    def test_is_a_page_with_every_picture(self, say, probes, ada):
        said = say("identify", "probes", "-g", "staff", "--report", "page.html")
        assert said.err.endswith("face-async: wrote page.html\n")
        parsed = Parsed(Path("page.html").read_text("utf-8"))
        assert parsed.open == []
        assert parsed.tags.count("article") == 3
        assert parsed.tags.count("details") == 3
        for words in ("2 of 6 recognized", "ada.PNG", "stranger.jpg", "No face was found", "The file is empty"):
            assert words in parsed.text

    def test_quietly_says_what_failed_and_nothing_else(self, say, probes):
        said = say("identify", "probes", "-g", "staff", "--quiet", "--report", "page.html")
        assert (said.out, len(said.err.splitlines())) == ("", 3)
        said = say("identify", "probes/b", "-g", "staff", "-q")
        assert (said.code, said.out, said.err) == (0, "", "")

    def test_may_have_pictures_that_are_made_to_fit(self, say, tmp_path):
        (tmp_path / "camera").mkdir()
        ada = Image.open(io.BytesIO(draw_portrait(ADA, shot=7)))
        ada.resize((800, 800)).save(tmp_path / "camera" / "ada.bmp")
        said = say("identify", "camera", "-g", "staff")
        assert said.code == 2
        assert "too large for a request; --fit makes it smaller" in said.err
        for groups in (("-g", "staff"), ("-g", "staff", "-g", "guests")):
            said = say("identify", "camera", *groups, "--fit")
            assert (said.code, said.out.split()[0]) == (0, "recognized")

    @pytest.mark.external("pyarrow")
    def test_is_searched_for_on_a_cluster_as_without_one(self, say, probes, tmp_path):
        """What is not sent is told, however often the run is begun; another source is another run."""
        (tmp_path / "elsewhere.jpg").write_bytes(draw_portrait(ADA))
        (probes / "b" / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
        where = ("-g", "staff", "--cluster", "processes:1", "--shards", "1", "--out")
        for _ in range(2):
            said = say("identify", "probes/b", *where, "found")
            assert (said.code, "1 of 2 pictures were looked at" in said.out) == (1, True)
            assert "1 failed: it lies outside of probes/b" in said.err
        for others in (["probes/a"], ["probes/mistyped"], ["probes/b", "probes/a"], ["probes/b", "--allow-outside"]):
            said = say("identify", *others, *where, "found")
            assert (said.code, said.out, "the state is of a run with source" in said.err) == (2, "", True)
        for nothing, reason in (("probes/mistyped", "No such file"), ("probes/nothing", "has no pictures")):
            (probes / "nothing").mkdir(exist_ok=True)
            said = say("identify", nothing, *where, "other")
            assert (said.code, nothing in said.err, reason in said.err) == (2, True, True)
        said = say("identify", "probes/b", "probes/a", "--allow-outside", *where, "other")
        assert (said.code, "3 of 3 pictures were looked at" in said.out) == (0, True)
        assert "passed over: no JPEG, PNG, BMP or WebP: 1 (probes/a/note.txt)" in said.err

    def test_without_pictures_is_wrong_input(self, say, tmp_path):
        (tmp_path / "nothing").mkdir()
        said = say("identify", "nothing", "-g", "staff", "--json")
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("face-async: nothing has no pictures (JPEG, PNG, BMP or WebP)")

    @pytest.mark.parametrize("group", ["nowhere", "staff"])
    def test_stops_at_what_would_be_the_same_for_every_picture(self, say, probes, group, monkeypatch):
        if group == "staff":
            monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "wrong")
        said = say("identify", "probes/b", "-g", group, "--json")
        assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)

    def test_stops_when_nobody_answers(self, say, tmp_path, ada):
        for number in range(15):
            os.link(ada, tmp_path / f"{number}.jpg")
        said = say("identify", ".", "-g", "staff", "--base-url", "http://127.0.0.1:1", "--at-once", "4")
        assert said.code == 3
        assert len(said.out.splitlines()) == 10
        assert said.err.count("\n") == 1

    def test_says_beforehand_when_a_file_cannot_be_written(self, say, probes):
        for option in ("--report", "--csv"):
            said = say("identify", "probes", "-g", "staff", option, "nope/file")
            assert (said.code, said.out) == (2, "")
            assert said.err == "face-async: nope/file: No such file or directory\n"


def _names(probes: Path) -> list[str]:
    return [str(path.relative_to(probes)) for path in pictures_below(probes)]


@pytest.mark.usefixtures("_without_faces")
class TestThePage:
    @pytest.fixture
    def make(self, tmp_path):
        """Make the page of some identifications."""

        def make(*pictures: Identification, complete: bool = True, enrolled: Path | None = None) -> Parsed:
            path = tmp_path / "page.html"
            report = Report(path, group_ids=["staff"], threshold=75, enrolled=enrolled)
            for identified in pictures:
                report.add(identified)
            report.close(complete=complete)
            return Parsed(path.read_text("utf-8"))

        return make

    def test_shows_enrolled_pictures_beside_the_candidates(self, make, tmp_path, ada):
        (tmp_path / "people" / "ada").mkdir(parents=True)
        (tmp_path / "people" / "ada" / "1.jpg").write_bytes(draw_portrait(ADA))
        (tmp_path / "people" / "grace.jpg").write_bytes(draw_portrait(1))
        candidates = [Candidate(person_id=whom, face_id="1", confidence=50) for whom in ("ada", "grace", "..", "joan")]
        parsed = make(Identification(str(ada), candidates), enrolled=tmp_path / "people")
        assert [value for name, value in parsed.attributes if name == "alt"][1:] == ["enrolled: ada", "enrolled: grace"]

    def test_enrolled_pictures_lie_in_the_folder_that_was_named(self, tmp_path):
        """Also where links lead out of it, unless that is allowed."""
        people = tmp_path / "people"
        (people / "ada").mkdir(parents=True)
        (tmp_path / "secret.jpg").touch()
        (people / "ada" / "1.jpg").symlink_to(tmp_path / "secret.jpg")
        (people / "ada" / "2.jpg").touch()
        (people / "bob").symlink_to(tmp_path)
        enrolled = Enrolled(people)
        assert [enrolled.picture_of(whom) for whom in ("..", ".", "../secret", "", "bob")] == [None] * 5
        assert enrolled.picture_of("ada") == people / "ada" / "2.jpg"
        assert Enrolled(people, allow_outside=True).picture_of("ada") == people / "ada" / "1.jpg"

    def test_shows_the_first_of_many_and_counts_the_rest(self, make, ada, monkeypatch):
        monkeypatch.setattr(report_module, "_MAX_CARDS", 2)
        monkeypatch.setattr(report_module, "_MAX_FAILURES", 3)
        good = Identification(str(ada), [Candidate(person_id="ada", face_id="1", confidence=99)], threshold=75)
        bad = Identification(str(ada), error=service_error(-1101, endpoint="identify"))
        parsed = make(*4 * [good], *5 * [bad])
        assert parsed.tags.count("article") == 2
        assert parsed.tags.count("img") == 5
        assert "4 of 9 recognized" in parsed.text
        assert "The first 2 are shown." in parsed.text
        assert "5, the first 3 shown" in parsed.text

    def test_says_when_it_is_not_of_all_pictures(self, make, ada):
        assert "0 of 1 recognized, then stopped" in make(Identification(str(ada)), complete=False).text

    def test_of_a_url_has_no_picture(self, make):
        assert "img" not in make(Identification("https://example.com/a.jpg")).tags

    def test_is_written_piece_by_piece(self, tmp_path, ada):
        """Nine times as many cards add less memory than a few of them have."""

        def peak_and_size(count: int) -> tuple[int, int]:
            tracemalloc.start()
            with Report(tmp_path / "page.html", group_ids=["staff"], threshold=75, enrolled=None) as report:
                for _ in range(count):
                    report.add(Identification(str(ada)))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return peak, (tmp_path / "page.html").stat().st_size

        peak_and_size(1)  # what is made once
        (peak_of_few, few), (peak_of_many, many) = peak_and_size(10), peak_and_size(90)
        assert peak_of_many - peak_of_few < (many - few) / 10

    def test_frames_the_face_where_it_is(self, make, ada, monkeypatch):
        monkeypatch.setattr(FaceBoxes, "find", lambda _self, _picture: Box(80, 32, 160, 64.0))
        parsed = make(Identification(str(ada)))
        assert ("style", "left:25.0%;top:10.0%;width:50.0%;height:20.0%") in parsed.attributes


def test_a_face_is_looked_for_by_the_real_recognizer_only(ada, monkeypatch):
    pytest.importorskip("onnxruntime")
    boxes = FaceBoxes()
    found, nobody = boxes.find(ada), boxes.find(Path("nope.jpg"))
    boxes.close()
    assert nobody is None
    assert found is not None
    assert boxes.name == "faces"
    assert 0 < found.x < found.x + found.width < 320

    monkeypatch.setattr("face_async.server.recognition.networks.is_installed", lambda: False)
    blind = FaceBoxes()
    assert (blind.find(ada), blind.name) == (None, "")


def test_a_smaller_copy_knows_the_size_of_the_upright_original(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (400, 200)).save(path, exif=exif)
    copy = smaller_copy(path, 100)
    assert copy is not None
    assert (copy.width, copy.height) == (200, 400)


class TestTheTally:
    def test_exits_with_the_gravest_code(self):
        tally = Tally()
        for error in (
            service_error(-1101, endpoint="identify"),
            TransportError("x", endpoint="identify", maybe_applied=False),
        ):
            tally.add(Identification("a.jpg", error=error))
        tally.add(Identification("b.jpg"))
        assert tally.exit == 3
        assert tally.counts == {Verdict.RECOGNIZED: 0, Verdict.UNKNOWN: 1, Verdict.FAILED: 2}

    def test_names_a_few_pictures_for_each_reason(self):
        tally = Tally()
        for number in range(5):
            tally.add(
                Identification(f"{number}.jpg", error=service_error(-1101, f"said {number}", endpoint="identify"))
            )
        (line,) = tally.failures()
        assert line.startswith("5 failed: no face was found")
        assert line.endswith("(-1101): 0.jpg, 1.jpg, 2.jpg and 2 more")

    def test_keeps_a_bounded_number_of_reasons(self):
        tally = Tally()
        for number in range(500):
            tally.add(Identification("a.jpg", error=ValueError(f"odd {number}")))
        reasons = list(tally.failures())
        assert len(reasons) == 51
        assert reasons[0].startswith("450 failed: other reasons")
