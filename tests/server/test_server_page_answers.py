"""Answers that come late, in a real browser: what the page shows and does is about what was asked last."""

from __future__ import annotations

import pytest
from pagekit import expect, open_person, verdict_in
from PIL import Image

from face_async.portraits import draw_portrait

pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

pytestmark = pytest.mark.external("chromium")


@pytest.fixture
def first_held(tab):
    """Hold the next call of an endpoint back; what is returned lets it go on, and waits for what comes of it.

    ``answered``: the server answers at once, and the answer is late. Playwright loses pictures there.
    """

    def hold(endpoint, *, answered=False):
        held = []

        def handle(route):
            if held:
                route.continue_()
            else:
                held.append(route)
                held.append(route.fetch() if answered else None)

        def let_go():
            route, answer = held
            with tab.expect_response(lambda response: response.request == route.request):
                route.fulfill(response=answer) if answered else route.continue_()
            tab.wait_for_timeout(300)  # an answer that nobody wants changes nothing that could be waited for

        tab.route(f"**/face/{endpoint}", handle)
        return let_go

    return hold


def choose(tab, path, label="A picture"):
    with tab.expect_request("**/face/*"):
        tab.get_by_label(label, exact=True).set_input_files(path)


def paste(tab, picture):
    tab.evaluate(
        """(numbers) => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(numbers)], "a.jpg", {type: "image/jpeg"}));
            document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
        }""",
        list(picture),
    )


def test_who_is_shown_and_proposed_is_who_is_in_the_newest_picture(tab, portrait, first_held):
    """In whatever order the answers come."""
    let_go = first_held("multidentify")
    choose(tab, portrait(1, "ada.jpg"))
    choose(tab, portrait(2, "grace.jpg"))
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    let_go()
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    tab.get_by_role("button", name="Add the face to a person").click()
    expect(tab.get_by_label("Person's id")).to_have_value("grace")


def test_a_refusal_of_an_older_picture_is_not_shown(tab, portrait, tmp_path, first_held):
    """Nor does it end the newer one's looking."""
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    let_go = first_held("multidentify")
    choose(tab, tmp_path / "white.png")
    choose(tab, portrait(2))
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    let_go()
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    expect(tab.get_by_role("alert")).to_have_count(0)


def test_while_a_picture_is_looked_at_nothing_of_the_one_before_is_shown(tab, portrait, first_held):
    """Not even when the threshold is moved."""
    choose(tab, portrait(1, "ada.jpg"))
    expect(verdict_in(tab)).to_have_text("Ada (ada)")
    let_go = first_held("multidentify")
    choose(tab, portrait(2, "grace.jpg"))
    tab.get_by_label("Threshold").fill("60")
    expect(tab.locator("#faces")).to_have_text("Looking…")
    expect(tab.locator(".boxes > span")).to_have_count(0)
    let_go()
    expect(verdict_in(tab)).to_have_text("Grace (grace)")


def test_what_is_added_is_the_picture_that_was_asked_about(tab, served, portrait):
    """Even when another one has come into its place since."""
    choose(tab, portrait(5))
    tab.get_by_role("button", name="Add the face to a person").click()
    paste(tab, draw_portrait(2))
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    tab.get_by_label("Person's id").fill("edsger")
    tab.get_by_label("Group (of a new person)").fill("staff")
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(tab.get_by_role("dialog")).to_have_count(0)
    assert served.ask("verify", "edsger", draw_portrait(5)).confidence > 99
    assert served.ask("verify", "edsger", draw_portrait(2)).confidence < 99


def test_a_picture_that_takes_long_to_read_does_not_replace_a_newer_one(tab, portrait, tmp_path):
    """Such as a large one, of which a smaller copy is made first."""
    Image.new("RGB", (64, 64), "white").save(tmp_path / "slow.gif")
    tab.evaluate(
        """() => {
            const make = window.createImageBitmap;
            const waiting = new Promise((resolve) => (window.goOn = resolve));
            window.createImageBitmap = (file) => waiting.then(() => make(file));
        }"""
    )
    tab.get_by_label("A picture", exact=True).set_input_files(tmp_path / "slow.gif")
    choose(tab, portrait(2))
    expect(verdict_in(tab)).to_have_text("Grace (grace)")
    shown = tab.locator("#probe img").get_attribute("src")
    tab.evaluate("window.goOn()")
    tab.wait_for_timeout(300)
    expect(tab.locator("#probe img")).to_have_attribute("src", shown)
    expect(verdict_in(tab)).to_have_text("Grace (grace)")


def test_a_comparison_is_that_of_the_pictures_that_are_seen(tab, portrait, first_held):
    """And none is shown before its answer has come."""
    tab.goto("/ui/compare")
    tab.get_by_label("The first picture", exact=True).set_input_files(portrait(1, "a.jpg"))
    let_go = first_held("compare")
    choose(tab, portrait(1, "b.jpg"), "The second picture")
    expect(tab.locator("#result")).to_have_text("Looking…")
    choose(tab, portrait(7, "c.jpg"), "The second picture")
    expect(tab.locator("#result .verdict")).to_have_text("Different people")
    let_go()
    expect(tab.locator("#result .verdict")).to_have_text("Different people")


def test_the_people_are_those_of_the_group_that_is_pressed(tab, first_held):
    """The number, the list, and the group that is named."""
    tab.goto("/ui/people")
    expect(tab.get_by_role("button", name="staff 2 people")).to_be_visible()
    expect(tab.get_by_role("button", name="guests 1 person")).to_be_visible()
    let_go = first_held("getpersonids")
    tab.get_by_role("button", name="staff 2 people").click()
    tab.get_by_role("button", name="guests 1 person").click()
    expect(tab.locator("#count")).to_have_text("1 of 1 in guests")
    let_go()
    expect(tab.locator("#count")).to_have_text("1 of 1 in guests")
    expect(tab.locator("#people li")).to_have_text(["alan"])


def test_the_dialog_is_about_the_person_who_was_pressed_last(tab, first_held):
    """What is saved or deleted in it is theirs."""
    tab.goto("/ui/people")
    tab.get_by_role("button", name="staff 2 people").click()
    expect(tab.locator("#people li")).to_have_text(["Ada (ada)", "Grace (grace)"])
    let_go = first_held("getinfo")
    tab.get_by_role("button", name="Ada (ada)").click()
    tab.get_by_role("button", name="Grace (grace)").click()
    dialog = tab.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_have_value("Grace")
    let_go()
    expect(dialog.get_by_label("Name")).to_have_value("Grace")
    expect(dialog.get_by_role("heading")).to_have_text("grace")


def test_what_was_asked_earlier_does_not_hide_what_is_known_since(tab, first_held):
    """A name that was changed stays changed."""
    let_go = first_held("getinfo", answered=True)
    dialog = open_person(tab, "staff", "ada")
    dialog.get_by_label("Name").fill("Countess")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    let_go()
    tab.get_by_label("Search by id or name").fill("ada")
    expect(tab.locator("#people li")).to_have_text(["Countess (ada)"])


def test_a_dialog_stays_until_its_work_is_done(tab, first_held):
    """Whoever opened another one meanwhile would see what is not theirs."""
    dialog = open_person(tab, "staff", "Ada (ada)")
    let_go = first_held("setinfo")
    dialog.get_by_label("Name").fill("Countess")
    dialog.get_by_role("button", name="Save").click()
    tab.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    let_go()
    expect(dialog).to_be_hidden()


def test_a_folder_is_enrolled_before_another_one(tab, served, tmp_path, first_held):
    """It may be chosen meanwhile, and the numbers stay those of the first until that is done."""
    for folder, number in (("first/edsger", 5), ("second/barbara", 6)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jpg").write_bytes(draw_portrait(number))
    tab.goto("/ui/enroll")
    let_go = first_held("addface")
    start = tab.get_by_role("button", name="Enroll")
    tab.get_by_label("A folder").set_input_files(tmp_path / "first")
    with tab.expect_request("**/face/addface"):
        start.click()
    tab.get_by_label("A folder").set_input_files(tmp_path / "second")
    expect(tab.locator("#chosen")).to_have_text("1 pictures of 1 people")
    expect(start).to_be_disabled()
    let_go()
    expect(tab.locator("#state")).to_have_text("Done. 1 enrolled, 0 not, of 1 pictures.")
    start.click()
    expect(tab.locator("#state")).to_have_text("Done. 1 enrolled, 0 not, of 1 pictures.")
    assert sorted(served.ask("get_person_ids", "people")) == ["barbara", "edsger"]
