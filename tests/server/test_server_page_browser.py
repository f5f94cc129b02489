"""The page in a real browser: what people see and do, by mouse and by keyboard alone."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pagekit import MOST_SECONDS, ServedPage, expect, open_link, open_person, served_page, verdict_in
from PIL import Image

from face_async import NotFoundError
from face_async.endpoints import ENDPOINTS, LATER_ENDPOINTS
from face_async.portraits import draw_portrait

pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

pytestmark = pytest.mark.external("chromium", "curl", "openssl")


def test_a_picture_is_identified_with_its_box_and_bars(tab, portrait):
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
    expect(verdict_in(tab)).to_have_text("Ada (ada)")
    expect(tab.locator(".bars li")).to_have_count(3)
    expect(tab.locator(".bars li").first).to_contain_text("Ada (ada)")
    expect(tab.locator("#said")).to_contain_text("Ada (ada)")
    box, image = tab.locator(".boxes > span").bounding_box(), tab.locator(".frame img").bounding_box()
    assert 0 < box["width"] <= image["width"] + 4
    assert box["x"] >= image["x"] - 4


def test_a_picture_that_comes_before_the_groups_is_compared_with_all_of_them(tab, portrait):
    held, let_go = [], []

    def hold(route):
        route.continue_() if let_go else held.append(route)

    tab.route("**/getgroupids", hold)
    tab.goto("/ui/identify")
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
    expect(tab.locator("#faces")).to_have_text("Looking…")
    let_go.append(True)
    for route in held:
        route.continue_()
    expect(verdict_in(tab)).to_have_text("Ada (ada)")


def test_nobody_is_said_where_nobody_reaches_the_threshold(tab, portrait):
    """And the threshold is remembered."""
    tab.get_by_label("Group", exact=True).select_option("guests")
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(9))
    tab.get_by_label("Threshold").fill("99")
    expect(verdict_in(tab)).to_have_text("Nobody")
    tab.get_by_label("Threshold").fill("50")
    expect(tab.locator(".bars li")).to_have_count(1)
    tab.goto("/ui/compare")
    expect(tab.get_by_label("Threshold")).to_have_value("50")


def test_a_picture_without_a_face_is_refused_in_words(tab, tmp_path):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    tab.get_by_label("A picture", exact=True).set_input_files(tmp_path / "white.png")
    expect(tab.get_by_role("alert")).to_contain_text("code -1101")


def test_a_face_is_added_to_a_new_person_and_to_one_who_exists(tab, served, portrait):
    for number, person in ((5, "edsger"), (6, "ada")):
        tab.get_by_label("A picture", exact=True).set_input_files(portrait(number, "probe.jpg"))
        expect(verdict_in(tab)).to_have_text("Nobody")  # also of another picture in the same file
        tab.get_by_role("button", name="Add the face to a person").click()
        tab.get_by_label("Person's id").fill(person)
        tab.get_by_label("Name (of a new person)").fill("A. Name")
        tab.get_by_label("Group (of a new person)").fill("staff")
        tab.get_by_role("button", name="Add", exact=True).click()
        expect(verdict_in(tab)).to_contain_text(person)
    assert served.ask("get_info", "edsger").person_name == "A. Name"
    assert served.ask("get_info", "ada").person_name == "Ada"
    assert len(served.ask("get_face_ids", "ada")) == 2


def test_the_picture_that_is_seen_is_the_one_that_is_added(tab, served, portrait):
    """Whatever becomes of its file after it was chosen."""
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(5))
    expect(verdict_in(tab)).to_have_text("Nobody")
    portrait(6, "5.jpg")
    tab.get_by_role("button", name="Add the face to a person").click()
    tab.get_by_label("Person's id").fill("edsger")
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(verdict_in(tab)).to_contain_text("edsger")
    assert served.ask("verify", "edsger", draw_portrait(5)).is_match


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (lambda route: route.abort(), "The server does not answer: it has ended, or the network is down."),
        (
            lambda route: route.fulfill(status=502, body="<html>"),
            "The answer cannot be read. It is not the server's own: HTTP status 502.",
        ),
    ],
    ids=["nobody", "a proxy"],
)
def test_a_server_that_does_not_answer_is_told_in_words(chromium, served, portrait, respond, said):
    with chromium.new_context(base_url=served.url) as context:
        page = context.new_page()
        open_link(page, served)
        page.route("**/multidentify", respond)
        page.get_by_label("A picture", exact=True).set_input_files(portrait(1))
        expect(page.get_by_role("alert")).to_have_text(said)


def test_what_is_refused_when_adding_stays_in_the_dialog(tab, portrait):
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
    tab.get_by_role("button", name="Add the face to a person").click()
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(tab.get_by_role("alert")).to_contain_text("ERROR_SAME_FACE_ADDED")
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("dialog")).to_have_count(0)


def test_the_camera_s_picture_is_looked_at(tab):
    """The browser's own fake camera shows a pattern."""
    tab.get_by_role("button", name="use the camera").click()
    expect(tab.locator("video")).to_have_js_property("readyState", 4)
    tab.get_by_role("button", name="Take the picture").click()
    expect(tab.locator("#faces h2")).to_be_visible()


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(tab, kind):
    tab.evaluate(
        """async ([kind, numbers]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(numbers)], "a.jpg", {type: "image/jpeg"}));
            const [event, target] = kind === "paste"
                ? [new ClipboardEvent("paste", {clipboardData: data, bubbles: true}), document.body]
                : [new DragEvent("drop", {dataTransfer: data, bubbles: true}), document.querySelector(".drop")];
            target.dispatchEvent(event);
        }""",
        [kind, list(draw_portrait(2))],
    )
    expect(verdict_in(tab)).to_have_text("Grace (grace)")


def test_a_picture_that_is_too_large_or_of_another_format_is_made_smaller_first(tab, tmp_path, rng):
    noise = Image.frombytes("RGB", (1_500, 1_500), rng.randbytes(6_750_000))
    noise.save(tmp_path / "large.png")
    tab.get_by_label("A picture", exact=True).set_input_files(tmp_path / "large.png")
    expect(verdict_in(tab)).to_be_visible()
    Image.open(portrait_file(tmp_path, 1)).save(tmp_path / "small.gif")
    tab.get_by_label("A picture", exact=True).set_input_files(tmp_path / "small.gif")
    expect(verdict_in(tab)).to_have_text("Ada (ada)")
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    tab.get_by_label("A picture", exact=True).set_input_files(tmp_path / "no.jpg")
    expect(tab.get_by_role("alert")).to_be_visible()


def portrait_file(folder: Path, number: int) -> Path:
    (folder / "portrait.jpg").write_bytes(draw_portrait(number))
    return folder / "portrait.jpg"


def test_two_pictures_are_compared(tab, portrait):
    tab.goto("/ui/compare")
    tab.get_by_label("The first picture", exact=True).set_input_files(portrait(1, "a.jpg"))
    tab.get_by_label("The second picture", exact=True).set_input_files(portrait(1, "b.jpg"))
    expect(tab.locator("#result .verdict")).to_have_text("The same person")
    tab.get_by_label("The second picture", exact=True).set_input_files(portrait(7, "c.jpg"))
    tab.get_by_label("Threshold").fill("100")
    expect(tab.locator("#result .verdict")).to_have_text("Different people")


def test_a_comparison_says_which_picture_has_no_face(tab, portrait, tmp_path):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    tab.goto("/ui/compare")
    tab.get_by_label("The first picture", exact=True).set_input_files(portrait(1, "a.jpg"))
    tab.get_by_label("The second picture", exact=True).set_input_files(tmp_path / "white.png")
    expect(tab.get_by_role("alert")).to_contain_text("The second picture: ")


def test_groups_are_counted_and_people_are_searched(tab, served):
    """By name and by id, beyond those that are shown at first."""
    for number in range(60):
        served.ask("new_person", f"p{number:02d}", ["crowd"], person_name="Zoe" if number == 59 else "")
    tab.goto("/ui/people")
    expect(tab.get_by_role("button", name="staff 2 people")).to_be_visible()
    expect(tab.get_by_role("button", name="guests 1 person")).to_be_visible()
    tab.get_by_role("button", name="crowd 60 people").click()
    expect(tab.locator("#people li")).to_have_count(50)
    tab.get_by_role("button", name="Show more").click()
    expect(tab.locator("#people li")).to_have_count(60)
    tab.get_by_label("Search by id or name").fill("zoe")
    expect(tab.locator("#people li")).to_have_text(["Zoe (p59)"])
    tab.get_by_label("Search by id or name").fill("p1")
    expect(tab.locator("#people li")).to_have_count(10)


def test_a_person_is_edited_and_moved_to_another_group(tab, served):
    dialog = open_person(tab, "staff", "Ada (ada)")
    dialog.get_by_label("Name").fill("Ada Lovelace")
    dialog.get_by_label("Tag").fill("<b>countess</b>")
    dialog.get_by_label("staff").uncheck()
    dialog.get_by_label("A further group").fill("guests")
    dialog.get_by_role("button", name="Save").click()
    expect(tab.get_by_role("button", name="guests 2 people")).to_be_visible()
    person = served.ask("get_info", "ada")
    assert (person.person_name, person.tag, list(person.group_ids)) == ("Ada Lovelace", "<b>countess</b>", ["guests"])
    tab.get_by_role("button", name="guests 2 people").click()
    tab.get_by_role("button", name="Ada Lovelace (ada)").click()
    expect(dialog.get_by_label("Tag")).to_have_value("<b>countess</b>")


def test_nobody_is_taken_out_of_the_last_group(tab, served):
    dialog = open_person(tab, "staff", "Ada (ada)")
    dialog.get_by_label("staff").uncheck()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("leave one")
    assert list(served.ask("get_info", "ada").group_ids) == ["staff"]


def test_faces_are_added_and_deleted(tab, served, portrait):
    (first,) = served.ask("get_face_ids", "ada")
    dialog = open_person(tab, "staff", "Ada (ada)")
    dialog.get_by_label(first).uncheck()
    dialog.get_by_label("Add faces from pictures").set_input_files([portrait(4, "a.jpg"), portrait(5, "b.jpg")])
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    faces = served.ask("get_face_ids", "ada")
    assert len(faces) == 2
    assert first not in faces


def test_faces_are_seen_where_thumbnails_are_kept(chromium):
    with served_page(keep_thumbnails=True) as served, chromium.new_context(base_url=served.url) as context:
        served.enroll("ada", 1)
        tab = context.new_page()
        open_link(tab, served)
        tab.goto("/ui/people")
        tab.get_by_role("button", name="staff 1 person").click()
        expect(tab.locator("#people img")).to_be_visible()
        dialog = open_person(tab, "staff", "ada")
        expect(dialog.locator("img")).to_have_js_property("complete", True)
        assert 0 < dialog.locator("img").evaluate("image => image.naturalWidth") <= 160


def test_a_person_is_deleted_at_the_second_word(tab, served):
    dialog = open_person(tab, "staff", "Ada (ada)")
    expect(dialog.get_by_role("button", name="Yes, delete for good")).to_be_hidden()
    dialog.get_by_role("button", name="Delete this person").click()
    dialog.get_by_role("button", name="Yes, delete for good").click()
    expect(tab.get_by_role("button", name="staff 1 person")).to_be_visible()
    assert list(served.ask("get_person_ids", "staff")) == ["grace"]


@pytest.fixture
def people(tmp_path):
    """A folder of three people, with what else is found in folders."""
    root = tmp_path / "people"
    white = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(white, "PNG")
    files = {
        "ada/a.jpg": draw_portrait(1),  # she has this face
        "ada/b.jpg": draw_portrait(11),
        "edsger/a.jpg": draw_portrait(12),
        "edsger/further/b.jpg": draw_portrait(13),
        "edsger/=cmd(),1.png": white.getvalue(),
        "edsger/notes.txt": b"no picture",
        "edsger/@eaDir/a.jpg": draw_portrait(14),
        "#recycle/a.jpg": draw_portrait(15),
        "loose.jpg": draw_portrait(16),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def enroll_folder(tab, folder: Path, group: str) -> None:
    tab.goto("/ui/enroll")
    tab.get_by_label("A folder").set_input_files(folder)
    tab.get_by_label("Group").fill(group)
    tab.get_by_role("button", name="Enroll").click()
    expect(tab.locator("#state")).to_contain_text("Done.")


def test_a_folder_of_people_is_enrolled(tab, served, people):
    """Each person's folder at any depth, without what file systems put there; people who exist get the further ones."""
    enroll_folder(tab, people, "all")
    expect(tab.locator("#state")).to_have_text("Done. 3 enrolled, 3 not, of 6 pictures.")
    assert sorted(served.ask("get_person_ids", "all")) == ["ada", "edsger"]
    assert [len(served.ask("get_face_ids", person)) for person in ("ada", "edsger")] == [2, 2]


def test_what_was_not_enrolled_is_told_by_reason_and_as_csv(tab, people):
    """The file is for spreadsheets: with a byte order mark, and with no text that they would compute."""
    enroll_folder(tab, people, "all")
    expect(tab.locator("#reasons tbody tr")).to_have_count(3)
    expect(tab.locator("#reasons")).to_contain_text("code -1101")
    expect(tab.locator("#reasons")).to_contain_text("code -1312")
    with tab.expect_download() as download:
        tab.get_by_text("Download the list").click()
    content = Path(download.value.path()).read_bytes()
    assert content.startswith(codecs.BOM_UTF8)
    rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    assert {(row["person_id"], row["source"], row["code"]) for row in rows} == {
        ("ada", "ada/a.jpg", "-1312"),
        ("edsger", "edsger/=cmd(),1.png", "-1101"),
        ("", "loose.jpg", ""),
    }


def test_a_picture_that_is_gone_when_its_turn_comes_is_told_in_words(tab, people):
    tab.goto("/ui/enroll")
    tab.get_by_label("A folder").set_input_files(people)
    (people / "ada" / "b.jpg").unlink()
    tab.get_by_label("Group").fill("all")
    tab.get_by_role("button", name="Enroll").click()
    expect(tab.locator("#state")).to_have_text("Done. 2 enrolled, 4 not, of 6 pictures.")
    expect(tab.locator("#reasons")).to_contain_text(
        "b.jpg was changed or removed after it was chosen: choose it again."
    )


def test_a_folder_that_is_chosen_again_is_read_anew(tab, people, portrait):
    tab.goto("/ui/enroll")
    for count in (6, 7):
        tab.get_by_label("A folder").set_input_files(people)
        expect(tab.locator("#chosen")).to_contain_text(f"{count} pictures of 2 people")
        portrait(20, "people/ada/c.jpg")


def test_a_text_that_spreadsheets_would_compute_is_kept_a_text(tab, tmp_path):
    folder = tmp_path / "people"
    (folder / "=1+1").mkdir(parents=True)
    Image.new("RGB", (64, 64), "white").save(folder / "=1+1" / "a.png")
    enroll_folder(tab, folder, "all")
    with tab.expect_download() as download:
        tab.get_by_text("Download the list").click()
    (row,) = csv.DictReader(Path(download.value.path()).read_text("utf-8-sig").splitlines())
    assert row["person_id"] == "'=1+1"


def test_more_pictures_than_fit_in_a_request_are_sent_in_several(tab, served, tmp_path):
    """20 faces of a person are enrolled, and the others told."""
    folder = tmp_path / "people" / "many"
    folder.mkdir(parents=True)
    for number in range(22):
        (folder / f"{number:02d}.jpg").write_bytes(draw_portrait(100 + number))
    enroll_folder(tab, folder.parent, "all")
    expect(tab.locator("#state")).to_have_text("Done. 20 enrolled, 2 not, of 22 pictures.")
    assert len(served.ask("get_face_ids", "many")) == 20
    expect(tab.locator("#reasons")).to_contain_text("code -1309")


def test_the_status_says_where_a_server_tells_no_metrics(tab):
    """As one that an application of one's own makes without them."""
    tab.route("**/metrics", lambda route: route.fulfill(status=404))
    tab.goto("/ui/status")
    expect(tab.get_by_role("alert")).to_have_text("This server tells no metrics.")


def test_the_status_tells_calls_latencies_faces_and_refusals(tab, served):
    """What was refused while people look has a time."""
    tab.goto("/ui/status")
    numbers = re.compile(r"newperson3[\d.]+[\d.]+")
    expect(tab.get_by_role("row", name=re.compile("^newperson"))).to_have_text(numbers)
    expect(tab.get_by_role("row", name=re.compile("^fingerprint"))).to_contain_text("3")
    with pytest.raises(NotFoundError):
        served.ask("get_info", "nobody")
    refused = tab.get_by_role("row", name=re.compile("^-1303"))
    expect(refused).to_contain_text("ERROR_PERSON_NOT_EXISTED")
    expect(refused).to_contain_text(re.compile(r"\d:\d\d:\d\d"))


def test_every_endpoint_is_shown_as_a_program(tab, served, tmp_path):
    """Each runs: its code is 0, or that of the example's values, and never that of a wrong request."""
    for name in ("picture.jpg", "first.jpg", "second.jpg"):
        (tmp_path / name).write_bytes(draw_portrait(8))
    served.ask("new_person", "person-1", ["group-1"], draw_portrait(7))
    tab.goto("/ui/status")
    endpoints = tab.locator("#endpoint option").all_inner_texts()
    assert sorted(endpoints) == sorted(endpoint.name for endpoint in (*ENDPOINTS, *LATER_ENDPOINTS))
    for endpoint in endpoints:
        tab.get_by_label("Endpoint", exact=True).select_option(endpoint)
        compile(tab.locator("#python").inner_text(), endpoint, "exec")
        code = json.loads(run(["sh", "-c", tab.locator("#curl").inner_text()], served, tmp_path))["code"]
        assert code in {0, -1302, -1303, -1305, -1306}, endpoint
    for endpoint, answer in (("getgroupids", "group-1"), ("compare", "CompareResult"), ("detect", "DetectResult")):
        tab.get_by_label("Endpoint", exact=True).select_option(endpoint)
        assert answer in run([sys.executable, "-c", tab.locator("#python").inner_text()], served, tmp_path)


def run(command: list[str], served: ServedPage, folder: Path) -> str:
    environment = {**os.environ, **served.environment, "NO_PROXY": "*"}
    finished = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=MOST_SECONDS, check=True
    )
    return finished.stdout


def test_the_last_call_runs_as_a_program(tab, served, portrait, tmp_path):
    """In Python and in a shell, as it is shown, whatever the file's name."""
    name = """it's "a" picture $1.jpg"""
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(1, name))
    expect(verdict_in(tab)).to_have_text("Ada (ada)")
    tab.get_by_text("The last call as a program").click()
    assert "person_id='ada'" in run([sys.executable, "-c", tab.locator("#python").inner_text()], served, tmp_path)
    assert '"code":0' in run(["sh", "-c", tab.locator("#curl").inner_text()], served, tmp_path)


def test_the_page_is_used_by_keyboard_alone(tab, portrait):
    """Tab leads to everything in the order in which it is seen, the link over the navigation first."""
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the content")).to_be_focused()
    names = []
    for _ in range(10):
        tab.keyboard.press("Tab")
        names.append(tab.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id ?? ''"))
    assert names[-4:] == ["group", "A picture", "A picture: use the camera", "threshold"]


def test_without_a_session_a_call_says_what_to_do(tab, served, portrait, chromium):
    """A server that was started again knows no session of before."""
    served.access._key = bytes(32)
    tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
    expect(tab.get_by_role("alert")).to_contain_text("Open the last link that serve has printed")
    tab.goto("/ui/people")
    expect(tab.get_by_role("heading", level=1)).to_have_text("This page opens with its link")
