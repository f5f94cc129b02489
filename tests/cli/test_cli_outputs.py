"""No command writes over what it reads, or over anything else that must be kept; and all refuse before their work."""

from __future__ import annotations

import pytest

from face_async.ingest import merge_journals
from face_async.portraits import draw_portrait

FINGERPRINT = ("--recognizer", "fingerprint")


@pytest.fixture
def people(tmp_path):
    """Two people with a picture each, enrolled into faces.db with people.journal."""
    for number, name in enumerate(("ada", "grace")):
        folder = tmp_path / "people" / name
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(draw_portrait(number))
    return tmp_path / "people"


@pytest.fixture
def enrolled(say, people, tmp_path):
    assert say("enroll", "people", "-g", "staff", "--db", "faces.db", "--journal", "j", *FINGERPRINT).code == 0
    (tmp_path / "people.csv").write_text("person_id,path\nada,people/ada/a.jpg\n")
    return people


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and "-" not in path.name}


COMMANDS = {
    "enroll --failures": (
        ("enroll", "people.csv", "-g", "staff", "--db", "faces.db", "--journal", "j", "--failures"),
        ("people.csv", "faces.db", "j", "people/ada/a.jpg", "people/ada", "/dev/null"),
    ),
    "enroll a folder --failures": (
        ("enroll", "people", "-g", "staff", "--db", "faces.db", "--journal", "j", "--failures"),
        ("people/ada/failures.csv", "people/ada/a.jpg", "j"),
    ),
    "identify --csv": (
        ("identify", "people", "-g", "staff", "--db", "faces.db", "--csv"),
        ("faces.db", "j", "people/ada/a.jpg", "people"),
    ),
    "identify --report": (
        ("identify", "people/ada/a.jpg", "-g", "staff", "--db", "faces.db", "--report"),
        ("faces.db", "j", "people/ada/a.jpg", "people"),
    ),
    "demo --report": (("demo", "--people", "1", "--report"), ("faces.db", "j", "people/ada/a.jpg", "/dev/null")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_must_be_kept_is_refused_in_one_line(command, say, enrolled, tmp_path):
    arguments, places = COMMANDS[command]
    before = content(tmp_path)
    for place in places:
        said = say(*arguments, place, *FINGERPRINT)
        assert said.code == 2, place
        assert said.err.splitlines()[-1].endswith(": name another file to write"), said.err
        assert "enrolled" not in said.out
    assert content(tmp_path) == before


def test_two_outputs_are_two_files(say, enrolled, tmp_path):
    said = say("identify", "people", "-g", "staff", "--csv", "out", "--report", "out", *FINGERPRINT)
    assert (said.code, "out is out, which is used itself" in said.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_run_of_which_nothing_came_leaves_the_old_files(say, enrolled, tmp_path):
    for name in ("out.csv", "out.html"):
        (tmp_path / name).write_text("old")
    said = say("identify", "people", "-g", "nobody", "--csv", "out.csv", "--report", "out.html", *FINGERPRINT)
    assert said.code == 1
    assert [(tmp_path / name).read_text() for name in ("out.csv", "out.html")] == ["old", "old"]


def test_all_that_is_written_is_for_its_owner_alone_and_leaves_nothing_beside_it(say, enrolled, tmp_path):
    say("identify", "people", "-g", "staff", "--csv", "out.csv", "--report", "out.html", *FINGERPRINT)
    say("demo", "--people", "1", "--report", "demo.html", *FINGERPRINT)
    say("enroll", "people", "-g", "staff", "--journal", "j", "--failures", "failures.csv", *FINGERPRINT)
    merge_journals(["j"], "merged")
    for name in ("out.csv", "out.html", "demo.html", "failures.csv", "merged", "j", "faces.db"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, name
    assert list(tmp_path.glob(".*")) == []


@pytest.fixture
def leaking(people, tmp_path):
    """Ada's folder has a link to a picture elsewhere."""
    (tmp_path / "elsewhere.jpg").write_bytes(draw_portrait(7))
    (people / "ada" / "leak.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    return people


def test_enroll_passes_over_what_lies_outside_of_the_folder_unless_that_is_allowed(say, leaking, tmp_path):
    enroll = ("enroll", "people", "-g", "staff", "--journal", "j", "--failures", "failures.csv", *FINGERPRINT)
    said = say(*enroll)
    assert said.code == 1
    assert "2 of 2 pictures are enrolled" in said.out
    assert "lies outside of the folder" in said.out
    assert 'leak.jpg,row,"it lies outside of people,' in (tmp_path / "failures.csv").read_text()
    allowed = say(*enroll, "--allow-outside")
    assert (allowed.code, "3 of 3 pictures are enrolled" in allowed.out) == (0, True)


def test_identify_sends_nothing_from_outside_of_the_folder_unless_that_is_allowed(say, leaking):
    say("enroll", "people", "-g", "staff", "--allow-outside", *FINGERPRINT)
    search = ("identify", "people", "-g", "staff", *FINGERPRINT)
    said = say(*search)
    assert (said.code, "1 failed: the file is not sent: it lies outside of people" in said.err) == (2, True)
    assert say(*search, "--allow-outside").code == 0
    assert say("identify", "people/ada/leak.jpg", "-g", "staff", *FINGERPRINT).code == 0  # named itself
