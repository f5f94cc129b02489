"""The page in Chinese: for whom, and in a real browser, where no English word may be left."""

from __future__ import annotations

import html
import json
import re
import shutil

import httpx
import pytest
from pagekit import MOST_SECONDS, open_link, served_page

from face_async.errors import ReturnCode
from face_async.portraits import draw_portrait
from face_async.server.page.language import CHINESE, translations

VIEWS = ["identify", "people", "enroll", "compare", "status"]
CHINESE_LETTER = re.compile(r"[\u4e00-\u9fff]")
WORD = re.compile(r"[A-Za-z_]{2,}")

# Names, in either language.
NAMES = {
    "face_async",
    "Ada",
    "ada",
    "staff",
    "guests",
    "Python",
    "curl",
    "CSV",
    "OK",
    "fingerprint",
    "people",
    "grace",
    "id",
    "shell",
}

_ = translations(CHINESE).gettext


@pytest.fixture(scope="module")
def served():
    with served_page() as page:
        page.enroll("ada", 1, name="Ada")
        page.enroll("grace", 2)
        yield page


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("*", "en"),
        ("de", "en"),
        ("en-US,en;q=0.9", "en"),
        ("en,zh;q=0.5", "en"),
        ("zh;q=0", "en"),
        ("zh;q=x", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("zh", "zh-CN"),
        ("ZH-hans-cn", "zh-CN"),
        ("de,zh;q=0.5", "zh-CN"),
        ("en;q=0.3, zh-TW;q=0.7", "zh-CN"),
    ],
)
def test_the_page_is_in_the_language_that_the_browser_prefers(served, accepted, language):
    """English where it prefers neither; whether or not the page has been opened."""
    with httpx.Client(base_url=served.url) as browser:
        browser.headers.pop("accept-language", None)
        headers = {} if accepted is None else {"Accept-Language": accepted}
        assert f'<html lang="{language}">' in browser.get("/ui/identify", headers=headers).text
        assert f'<html lang="{language}">' in browser.get(served.links[-1], headers=headers).text
        assert f'<html lang="{language}">' in browser.get("/ui/identify", headers=headers).text


def test_refusals_are_in_the_language_of_the_browser(served):
    with httpx.Client(base_url=served.url, headers={"Accept-Language": "zh-CN"}) as browser:
        foreign = browser.get("/ui/identify", headers={"Host": "example.com"})
        closed = browser.post("/ui/face/getgroupids")
        assert [421, 403] == [foreign.status_code, closed.status_code]
        assert all(CHINESE_LETTER.search(answer.text) for answer in (foreign, closed))


def test_the_meanings_of_return_codes_are_the_specification_s(served):
    """In its words, with what to do about a code added."""
    with httpx.Client(base_url=served.url, headers={"Accept-Language": "zh-CN"}) as browser:
        browser.get(served.links[-1])
        settings = re.search(r'name="settings" content="(.*?)"', browser.get("/ui/identify").text)[1]
    codes = json.loads(html.unescape(settings))["codes"]
    assert set(codes) == {str(int(code)) for code in ReturnCode}
    assert "个体不存在" == codes["-1303"][1]
    assert codes["-1101"][1].startswith("人脸检测失败")
    assert codes["15"][1].startswith("操作太频繁，触发频控")


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    sync_api.expect.set_options(timeout=1_000 * MOST_SECONDS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, served):
    """A tab of a Chinese browser that has opened the page."""
    with chromium.new_context(base_url=served.url, locale="zh-CN") as context:
        page = context.new_page()
        page.set_default_timeout(1_000 * MOST_SECONDS)
        open_link(page, served)
        yield page


def fill(tab, view: str, tmp_path) -> None:
    """Give a view something to show."""
    picture = tmp_path / "people" / "ada" / "1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(draw_portrait(1))
    if view == "identify":
        tab.get_by_label(_("A picture"), exact=True).set_input_files(picture)
        tab.locator("article button").click()
    if view == "compare":
        for label in (_("The first picture"), _("The second picture")):
            tab.get_by_label(label, exact=True).set_input_files(picture)
        tab.locator("#result .verdict").wait_for()
    if view == "people":
        tab.get_by_role("button", name="staff").click()
        tab.get_by_role("button", name="Ada (ada)").click()
        tab.locator("#person-name").wait_for()
    if view == "enroll":
        tab.locator("#folder").set_input_files(picture.parents[1])
        tab.locator("#start").click()
        tab.get_by_text(_("Done.")).wait_for()
    if view == "status":
        tab.locator(".figures").wait_for()


SHOWN = """() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!element.closest("pre, code, script, option, table")) texts.push(walker.currentNode.textContent);
  }
  for (const cell of document.querySelectorAll("thead th")) texts.push(cell.textContent);
  for (const element of document.querySelectorAll("*")) {
    for (const name of ["aria-label", "alt", "title", "placeholder"]) texts.push(element.getAttribute(name) ?? "");
  }
  return texts;
}"""


@pytest.mark.external("chromium")
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_in_chinese_has_no_english_words_and_is_accessible(tab, view, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra browser")
    tab.goto(f"/ui/{view}")
    fill(tab, view, tmp_path)
    tab.wait_for_load_state("networkidle")
    assert "zh-CN" == tab.locator("html").get_attribute("lang")
    texts = tab.evaluate(SHOWN)
    assert any(map(CHINESE_LETTER.search, texts))
    assert [text for text in texts if set(WORD.findall(text)) - NAMES] == []
    found = axe.Axe().run(tab)
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found.response["violations"]] == []
