"""The demo: people drawn or photographed, enrolled and recognized on a server over http."""

from __future__ import annotations

import json
import os
import re
import shutil
from errno import ENOSPC
from pathlib import Path

import pytest
from PIL import Image

from face_async import cli
from face_async.cli.demo import people as people_module
from face_async.cli.demo.people import drawn_people, photographed_people
from face_async.limits import is_legal_id
from face_async.portraits import draw_portrait

PHOTOS = Path(os.environ.get("FACE_ASYNC_TEST_PHOTOS", "nowhere"))


def _write(folder: Path, *portraits: tuple[str, int, int]) -> None:
    folder.mkdir()
    for name, person, shot in portraits:
        (folder / name).write_bytes(draw_portrait(person, shot=shot))


def test_everybody_drawn_is_recognized(say):
    said = say("demo", "--people", "4", "--recognizer", "fingerprint")
    assert said.code == 0
    assert said.out.count("right") == 7
    assert "5 of 5 recognized, 2 of 2 strangers are nobody: 4 people, 8 faces" in said.out
    assert said.out.rstrip().endswith("recognizer fingerprint")
    assert said.err == ""


def test_json_holds_what_the_table_says(say):
    told = json.loads(say("demo", "--people", "3", "--faces", "1", "--recognizer", "fingerprint", "--json").out)
    assert (told["recognized"], told["people"], told["faces"], told["recognizer"]) == (4, 3, 3, "fingerprint")
    known, strangers = told["probes"][:4], told["probes"][4:]
    assert [probe["searched_in"] for probe in known] == ["engineering", "engineering", "science", "all groups"]
    assert all(probe["right"] and probe["found"] == probe["person_id"] for probe in known)
    assert [probe["found"] for probe in strangers] == [None, None]
    assert all(probe["right"] and probe["confidence"] < told["threshold"] == 75 for probe in strangers)


def test_one_person_is_a_demo_too(say):
    assert say("demo", "--people", "1", "--recognizer", "fingerprint").code == 0


def test_the_demo_says_no_when_somebody_is_not_recognized(say, tmp_path):
    _write(tmp_path / "ada", ("1.jpg", 0, 0), ("probe.jpg", 1, 0))
    _write(tmp_path / "grace", ("1.jpg", 1, 0), ("probe.jpg", 0, 0))
    said = say("demo", "--photos", tmp_path, "--recognizer", "fingerprint")
    assert said.code == 1
    assert "wrong" in said.out


def test_photographs_in_folders_named_after_people(say, tmp_path):
    _write(tmp_path / "Ada Lovelace", ("1.jpg", 0, 0), ("2.jpg", 0, 1), ("3.jpg", 0, 2))
    _write(tmp_path / "Zoë [red]", ("1.jpg", 1, 0), ("probe-a.jpg", 1, 1), ("probe-b.jpg", 1, 2))
    _write(tmp_path / "王芳", ("1.jpg", 2, 0))
    _write(tmp_path / "nobody")
    said = say("demo", "--photos", tmp_path, "--recognizer", "fingerprint")
    assert said.code == 0
    assert "4 of 4 recognized: 3 people, 4 faces" in said.out
    assert "Zoë [red]" in said.out
    assert said.err.splitlines() == [
        "face-async: nobody has no picture to enroll, and takes no part",
        "face-async: 王芳 has a single picture: enrolled, but there is none to recognize",
    ]


def test_pictures_that_are_none_are_told_of(say, tmp_path):
    _write(tmp_path / "ada", ("1.jpg", 0, 0), ("2.jpg", 0, 1))
    _write(tmp_path / "grace", ("2.jpg", 1, 0))
    (tmp_path / "grace" / "1.jpg").write_text("hello")
    said = say("demo", "--photos", tmp_path, "--recognizer", "fingerprint")
    assert said.code == 0
    first, second = said.err.splitlines()
    assert first == f"face-async: passed over: no JPEG, PNG, BMP or WebP: 1 ({tmp_path}/grace/1.jpg)"
    assert second == "face-async: grace has a single picture: enrolled, but there is none to recognize"


def test_ids_of_photographed_people_suit_every_service(tmp_path):
    for name in ("Ada Lovelace", "ada-lovelace", "Zoë", "王芳", "-", "x" * 200):
        _write(tmp_path / name, ("1.jpg", 0, 0))
    found = {person.name: person.person_id for person in photographed_people(tmp_path)}
    assert found["Ada Lovelace"] == "ada-lovelace"
    assert found["Zoë"] == "zoe"
    assert len(set(found.values())) == len(found)
    assert all(is_legal_id(person_id) and person_id.isascii() and len(person_id) < 100 for person_id in found.values())


def test_pictures_too_large_for_a_request_are_sent_as_smaller_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(people_module, "FITTING_BYTES", 20_000)
    (tmp_path / "ada").mkdir()
    Image.effect_noise((2_000, 1_000), 50).save(tmp_path / "ada" / "1.jpg")
    (tmp_path / "ada" / "2.jpg").write_bytes(b"BM" + bytes(30_000))
    (person,) = photographed_people(tmp_path)
    assert isinstance(person.enrolled[0], bytes)
    assert person.probes == (tmp_path / "ada" / "2.jpg",)


def test_drawn_people_have_names_and_halves(monkeypatch):
    monkeypatch.setattr("face_async.portraits.draw_portrait", lambda person, shot: bytes([person, shot]))
    cast = list(drawn_people(26, faces=1))
    assert [person.person_id for person in cast[:2]] == ["ada", "grace"]
    assert (cast[24].name, cast[24].person_id) == ("Ada 2", "ada-2")
    assert [person.group_id for person in cast].count("science") == 13
    drawn = [person.enrolled[0][0] for person in cast]
    assert len({*drawn, 34, 35}) == 28  # nobody is drawn like another, nor like the strangers
    assert [number % 2 for number in drawn[:6]] == [0, 0, 1, 0, 1, 0]  # Ada, Grace, Alan, Hedy, Edsger, Katherine
    assert len({person.person_id for person in cast}) == 26


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="FACE_ASYNC_TEST_PHOTOS names no folder")
def test_real_photographs_are_recognized_by_the_real_recognizer(say, tmp_path):
    pytest.importorskip("onnxruntime")
    for name in ("biden", "obama", "rose"):
        (tmp_path / name).mkdir()
        for picture in PHOTOS.glob(f"*{name}*.jpg"):
            shutil.copy(picture, tmp_path / name)
    said = say("demo", "--photos", tmp_path, "--recognizer", "faces")
    assert said.code == 0
    assert "4 of 4 recognized" in said.out


def test_the_map_of_the_command_line_names_every_file_and_folder_that_there_is():
    home = Path(cli.__file__).parent
    files = {path.name for path in home.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in home.glob("*/__init__.py")}
    assert set(re.findall(r"^    (\S+)", cli.__doc__ or "", re.MULTILINE)) == files | folders


def test_what_was_drawn_can_be_enrolled_and_recognized_and_strangers_are_nobody(say, tmp_path, monkeypatch):
    """The commands of the README, as they stand there, after ``draw``."""
    monkeypatch.chdir(tmp_path)
    assert say("draw", ".", "--people", "3").out.splitlines() == [
        "drew 11 pictures: 3 people in people to enroll,",
        "and a new picture of each, and of two strangers, in probes to recognize",
    ]
    for command, *more in (["enroll people/"], ["identify probes/ --report who.html", "--threshold", "75"]):
        said = say(*command.split(), "--group", "staff", "--recognizer", "fingerprint", *more)
    assert "3 recognized, 2 unknown, 0 failed" in said.err
    said = say("identify", "probes/ada.jpg", "probes/stranger-1.jpg", "-g", "staff", "--recognizer", "fingerprint")
    ada, stranger, *_ = said.out.splitlines()
    assert re.fullmatch(r"probes/ada\.jpg: ada, confidence 9\d\.\d of 100", ada)
    assert re.match(r"probes/stranger-1\.jpg: nobody; the nearest is \w+, .* below the threshold of 90", stranger)


def test_drawing_again_changes_nothing_and_replaces_nobodys_file(say, tmp_path):
    say("draw", tmp_path, "--people", "1", "--faces", "1")
    assert say("draw", tmp_path, "--people", "1", "--faces", "1").out.startswith("drew 0 pictures, 4 were there")
    own = tmp_path / "people" / "ada" / "1.jpg"
    own.write_bytes(b"mine")
    said = say("draw", tmp_path, "--people", "1", "--faces", "1")
    assert (said.code, own.read_bytes()) == (2, b"mine")
    assert said.err == f"face-async: {own} exists and is another file; choose another folder\n"


def test_a_drawn_picture_is_whole_or_not_there(say, tmp_path, monkeypatch):
    """What a full disk cuts short is taken away, so that the next run draws it."""
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(ENOSPC, "No space left on device")))
    said = say("draw", tmp_path, "--people", "1", "--faces", "1")
    assert (said.code, said.err) == (2, "face-async: No space left on device\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert say("draw", tmp_path, "--people", "1", "--faces", "1").out.startswith("drew 4 pictures:")
