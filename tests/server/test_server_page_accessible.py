"""The page for everybody: accessible by the rules of axe, in light and dark, on a phone and on a wide screen."""

from __future__ import annotations

import re

import pytest
from pagekit import expect, open_person, verdict_in

pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

pytestmark = pytest.mark.external("chromium")

VIEWS = ["identify", "people", "enroll", "compare", "status"]
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 800}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_accessible_and_fits_a_phone(tab, portrait, view, scheme):
    """By the rules of axe, in both colors, with content; nothing is wider than the screen."""
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size(PHONE)
    tab.goto(f"/ui/{view}")
    shown(tab, view, portrait)
    tab.wait_for_load_state("networkidle")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert violations(tab) == []


def violations(tab, context: str | None = None) -> list:
    """Return what breaks a rule of axe, in the whole page or within a selector."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra browser")
    found = axe.Axe().run(tab, context=context).response["violations"]
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["add", "person"])
def test_a_dialog_is_accessible_and_fits_a_phone(tab, served, portrait, name, scheme):
    """As it opens, and with what it asks or refuses, by the rules of axe; on a phone and on a wide screen."""
    served.ask("set_info", "ada", person_name="W" * 60)
    served.ask("add_group_ids", "ada", ["g" * 100])
    tab.emulate_media(color_scheme=scheme)
    for size in (PHONE, WIDE):
        tab.set_viewport_size(size)
        tab.goto("/ui/identify" if name == "add" else "/ui/people")
        open_dialog(tab, name, portrait)
        is_right_dialog(tab)
        refuse(tab, name)
        is_right_dialog(tab)


def is_right_dialog(tab) -> None:
    dialog = tab.get_by_role("dialog")
    box, width = dialog.bounding_box(), tab.viewport_size["width"]
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
    assert violations(tab, "dialog[open]") == []


def open_dialog(tab, name: str, portrait) -> None:
    if name == "add":
        tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
        tab.get_by_role("button", name="Add the face to a person").click()
    else:
        open_person(tab, "staff", re.compile("^W+ "))


def refuse(tab, name: str) -> None:
    """Make a dialog ask or complain of whatever it can."""
    dialog = tab.get_by_role("dialog")
    if name == "person":
        dialog.get_by_role("button", name="Delete this person").click()
        for group in dialog.locator("#person-groups input").all():
            group.uncheck()
    dialog.locator("button.first").click()
    expect(dialog.get_by_role("alert")).not_to_be_empty()
    expect(dialog.get_by_role("alert")).to_be_in_viewport()


def test_a_dialog_that_opens_again_complains_of_nothing(tab, portrait):
    """And has no name in it that was meant for another face."""
    open_dialog(tab, "add", portrait)
    tab.get_by_label("Name (of a new person)").fill("Another")
    refuse(tab, "add")
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("dialog")).to_have_count(0)
    tab.get_by_role("button", name="Add the face to a person").click()
    expect(tab.locator("#add [role=alert]")).to_be_empty()
    expect(tab.get_by_label("Name (of a new person)")).to_be_empty()


def shown(tab, view: str, portrait) -> None:
    """Give a view something to show."""
    if view == "identify":
        tab.get_by_label("A picture", exact=True).set_input_files(portrait(1))
        expect(verdict_in(tab)).to_be_visible()
    if view == "compare":
        tab.get_by_label("The first picture", exact=True).set_input_files(portrait(1))
        tab.get_by_label("The second picture", exact=True).set_input_files(portrait(2))
        expect(tab.locator("#result .verdict")).to_be_visible()
    if view == "people":
        tab.get_by_role("button", name="staff 2 people").click()
        tab.get_by_role("button", name="Ada (ada)").click()
    if view == "enroll":
        tab.get_by_label("A folder").set_input_files(portrait(9, "people/ada/a.jpg").parents[1])
        tab.get_by_role("button", name="Enroll").click()
        expect(tab.locator("#state")).to_contain_text("Done.")
