"""What the commands say when all goes well, to people and to programs."""

from __future__ import annotations

import json
import re

import anyio
import pytest

from face_async.cli._app import app
from face_async.local import local_session
from face_async.portraits import draw_portrait

pytestmark = pytest.mark.usefixtures("service")


def test_ids_come_one_a_line(say):
    assert say("groups").out.splitlines() == ["staff", "guests"]
    assert say("persons", "staff").out == "ada\n"
    assert len(say("faces", "ada").out.split()) == 2


def test_json_is_all_that_stands_on_stdout(say, ada):
    assert json.loads(say("groups", "--json").out) == {"group_ids": ["staff", "guests"]}
    assert json.loads(say("persons", "staff", "--json").out) == {"person_ids": ["ada"]}
    assert len(json.loads(say("faces", "ada", "--json").out)["face_ids"]) == 2
    assert json.loads(say("info", "ada", "--json").out)["person_name"] == "Ada [bold]\x1b[31m"
    assert json.loads(say("verify", "ada", ada, "--json").out)["is_match"] is True
    assert json.loads(say("compare", ada, ada, "--json").out)["similarity"] == 100


def test_info_tells_of_a_person_with_foreign_text_made_harmless(say):
    said = say("info", "ada")
    assert said.code == 0
    assert r"Ada [bold]\x1b[31m" in said.out
    assert "\x1b" not in said.out


def test_info_tells_of_a_face(say):
    face_id = say("faces", "ada").out.split()[0]
    told = json.loads(say("info", "--face", face_id, "--json").out)
    assert told["face_id"] == face_id
    assert set(told) >= {"x", "y", "width", "height", "age", "glass", "roll"}


def test_identify_finds_the_person_and_ends_with_0(say, ada):
    said = say("identify", ada, "--group", "staff")
    assert (said.code, said.err) == (0, "")
    assert "ada" in said.out


def test_identify_ends_with_1_when_the_first_candidate_does_not_convince(say, ada, nobody):
    said = say("identify", ada, nobody, "--group", "staff", "--json")
    assert said.code == 1
    assert [found["recognized"] for found in json.loads(said.out)["images"]] == [True, False]


def test_identify_merges_several_groups(say, ada):
    said = say("identify", ada, "-g", "guests", "-g", "staff", "--json")
    assert said.code == 0
    (found,) = json.loads(said.out)["images"]
    assert [candidate["person_id"] for candidate in found["candidates"]] == ["ada", "grace"]


def test_identify_goes_on_past_a_picture_that_fails(say, ada):
    for groups in (("-g", "staff"), ("-g", "staff", "-g", "guests")):
        said = say("identify", "nope.jpg", ada, *groups, "--json")
        assert said.code == 2
        assert [found["recognized"] for found in json.loads(said.out)["images"]] == [False, True]
        assert said.err.count("\n") == 1


def test_a_group_that_cannot_be_searched_is_told_of_beside_the_others_candidates(say, ada):
    said = say("identify", ada, "-g", "nowhere", "-g", "staff")
    assert said.code == 1
    assert "ada" in said.out
    assert "-1306" in said.err


def test_verify_says_yes_and_no(say, ada, nobody):
    yes, no = say("verify", "ada", ada), say("verify", "ada", nobody)
    assert (yes.code, yes.out[:4]) == (0, "yes:")
    assert (no.code, no.out[:3]) == (1, "no:")


def test_verify_decides_by_a_threshold_of_ones_own(say, nobody):
    """The service's own verdict stays in the JSON; words and exit code follow the threshold."""
    said = say("verify", "ada", nobody, "--threshold", "0", "--json")
    told = json.loads(said.out)
    assert (said.code, told["is_match"], told["same_person"]) == (0, False, True)
    assert say("verify", "ada", nobody, "--threshold", "0").out.startswith("yes: ")
    assert say("verify", "ada", nobody, "--threshold", "99").out.endswith("(from 99 on it is)\n")


def test_compare_tells_the_same_person_from_two(say, ada, nobody):
    same, two = say("compare", ada, ada), say("compare", ada, nobody, "--threshold", "90")
    assert (same.code, same.out) == (0, "the same person: similarity 100.0 of 100\n")
    assert two.code == 1
    assert two.out.startswith("two persons:")


def test_delete_wants_yes_where_nobody_can_be_asked(say):
    said = say("delete", "ada")
    assert said.code == 2
    assert said.err == "face-async: nothing deleted: say --yes, as there is no terminal to ask on\n"
    assert say("persons", "staff").out == "ada\n"


def test_delete_asks_on_a_terminal_and_says_before_what_it_deletes_from(say, monkeypatch):
    monkeypatch.setattr("face_async.cli.records._is_terminal", lambda: True)
    said = say("delete", "ada", given="n\n")
    assert said.code == 1
    service = "http://127.0.0.1:"
    assert re.match(rf"face-async: using the service {service}\d+ with appid 123456\nDelete ada with all fac", said.err)
    assert said.err.endswith("nothing deleted\n")
    assert say("persons", "staff").out == "ada\n"
    said = say("delete", "ada", "--db", "mine.db", given="n\n")
    assert re.match(r"face-async: using the embedded local server .*mine\.db .*\nDelete ada with all faces\?", said.err)


def test_delete_erases_a_face_and_then_the_person(say, tmp_path, monkeypatch):
    monkeypatch.setenv("FACE_ASYNC_APPID", "")
    for name in ("BUCKET", "SECRET_ID", "SECRET_KEY", "BASE_URL"):
        monkeypatch.delenv(f"FACE_ASYNC_{name}")
    face_id = _enroll_locally(tmp_path)
    assert json.loads(say("delete", "joan", "--face", face_id, "--yes", "--json").out)["deleted"] == 1
    assert say("faces", "joan").out == ""
    assert json.loads(say("delete", "joan", "--yes", "--json").out) == {"person_id": "joan", "deleted": 1}
    assert say("faces", "joan").code == 1


def _enroll_locally(tmp_path) -> str:
    async def enroll() -> str:
        async with local_session(tmp_path / "faces.db", recognizer="fingerprint") as session:
            return (await session.new_person("joan", ["staff"], draw_portrait(5))).face_id

    return anyio.run(enroll)


def test_version_and_help(say):
    assert say("--version").out.startswith("face-async ")
    told = say("--help").out
    assert "Exit codes" in told
    assert "130" in told


def test_every_help_text_can_be_read_alone(say):
    """None refers to a text that stands elsewhere, or leaves to the reader what a sentence is about."""
    for name in ("", *(command.name for command in app.registered_commands)):
        told = " ".join(say(*filter(None, [name]), "--help").out.replace("│", " ").split())
        assert not re.search(
            r"\babove\b|\bas there\b|\bditto\b|\bThe same (?!command)|\bAnother one\b|; else\b", told
        ), name
