"""Two languages: the catalog is complete, and the README is one document in both."""

from __future__ import annotations

import ast
import gettext
import html.parser
import io
import re
from pathlib import Path

import pytest
from catalogkit import (
    LIBRARY,
    MO,
    PACKAGE,
    catalog,
    compiled,
    fields_of,
    in_library,
    messages,
    not_marked,
)
from jinja2 import Environment

from face_async.cli.language import CATALOGS, DOMAIN, choose_language, translated
from face_async.errors import CODES, service_error
from face_async.server.page.routes import VIEWS

CHINESE_LETTER = re.compile(r"[\u4e00-\u9fff\uff08]")
ASSETS, TEMPLATES = PACKAGE / "server" / "page" / "assets", PACKAGE / "server" / "page" / "templates"

PROGRAMS = ASSETS / "programs.js"  # whose texts are programs

README = Path(__file__).parents[1] / "README.md"
README_IN_CHINESE = PACKAGE / "docs" / "README.zh-CN.md"
needs_docs = pytest.mark.skipif(not README_IN_CHINESE.exists(), reason="the wheel leaves the documentation out")


@pytest.fixture(scope="module")
def library_messages():
    """Return what the library says; made before any test's language, for help texts must be English."""
    return in_library()


@pytest.fixture
def chinese(monkeypatch):
    """The command's language is Chinese."""
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    choose_language()
    yield
    gettext.textdomain("messages")


class TestCatalog:
    """``python tests/stand_ins/catalogkit.py`` brings the catalog up to date; translations go into the .po file."""

    def test_it_has_all_messages_and_no_others(self):
        listed = {(message.context, message.id) for message in catalog() if message.id}
        assert set() == messages() - listed
        assert set() == listed - messages()

    def test_every_message_is_translated(self):
        assert [] == [message.id for message in catalog() if message.id and (not message.string or message.fuzzy)]

    def test_values_are_the_same_in_both_languages(self):
        different = [
            message.id for message in catalog() if message.id and fields_of(message.id) != fields_of(message.string)
        ]
        assert [] == different

    def test_the_compiled_catalog_is_that_of_the_sources(self):
        """But for its header, which names the compiler's version."""
        assert _entries(compiled(catalog())) == _entries(MO.read_bytes())

    def test_a_translation_is_chinese_where_the_message_has_words(self):
        names = re.compile(r"\{.*?\}|face-async|face_async|export|Python|appid|bucket|tls|Errno")
        english = [message.id for message in catalog() if message.id and not CHINESE_LETTER.search(message.string)]
        assert [] == [text for text in english if re.search(r"[a-z]{3,}", names.sub("", text))]


class TestMarks:
    def test_the_command_line_says_nothing_that_is_not_marked(self):
        assert [] == not_marked()

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("def run():\n    say('wrote a file')", ["wrote a file"]),
            ("def run():\n    say(f'wrote {path}')", ["wrote {0}"]),
            ("def run():\n    tell('stopped')", ["stopped"]),
            ("def run():\n    tell(_('stopped'))", []),
            ("def run():\n    'What it does.'", []),
            ("def run():\n    raise ValueError('wrong at once')", []),
            ("def run():\n    raise fail('wrong at once')", ["wrong at once"]),
            ("def run(a: Annotated[int, typer.Option(help='How many there are.')]):\n    pass", []),
        ],
    )
    def test_what_is_not_marked_is_found(self, source, found):
        """Guard of the guard: see above."""
        assert found == not_marked(ast.parse(source))

    @pytest.mark.parametrize("view", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
    def test_every_visible_text_of_the_page_s_templates_is_marked(self, view):
        """All texts are seen in the page once every marked one is put into brackets."""
        environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
        environment.install_gettext_callables("⟦{}⟧".format, lambda one, _, __: f"⟦{one}⟧", newstyle=False)
        source = re.sub(r"\{%-? *(extends|from|import).*?%\}", "", view.read_text("utf-8"))
        source = re.sub(r"\{\{ (picture|threshold)\(.*?\) \}\}", "", source)
        reader = _Texts()
        reader.feed(environment.from_string(source).render(views=VIEWS, view="people", label="⟦⟧"))
        unmarked = [re.sub(r"⟦.*?⟧", "", text, flags=re.DOTALL) for text in ("".join(reader.texts), *reader.labels)]
        names = {"face_async", "Python", "curl"}
        assert [] == [text for text in unmarked if set(re.findall(r"[A-Za-z_]{2,}", text)) - names]

    @pytest.mark.parametrize("script", sorted({*ASSETS.glob("*.js")} - {PROGRAMS}), ids=lambda path: path.name)
    def test_every_visible_text_of_the_page_s_scripts_is_marked(self, script):
        assert [] == _unmarked_in_script(script.read_text("utf-8"))

    def test_an_unmarked_text_in_a_script_is_found(self):
        """Guard of the guard."""
        assert ["Nobody"] == _unmarked_in_script('h("p", { class: "soft" }, "Nobody"); // as "Nobody"')
        assert ["in {}"] == _unmarked_in_script("say(`in ${group}`)")
        assert [] == _unmarked_in_script('h("p", {}, t("Nobody is there."))')


class TestTranslated:
    """Messages of the library, in which messages may stand in turn."""

    def test_without_a_catalog_they_stay_english(self):
        assert "the image 'a.jpg' is empty" == translated("the image 'a.jpg' is empty")

    @pytest.mark.usefixtures("chinese")
    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            ("the image 'a.jpg' is empty", "图片 'a.jpg' 为空"),
            ("a.jpg: No such file or directory", "a.jpg: 没有那个文件或文件夹"),
            ("the image 'a b.jpg' cannot be read: Permission denied", "图片 'a b.jpg' 无法读取：权限不足"),
            (
                (
                    "identify: https://a: cannot connect: the server does not speak TLS there: base_url may have to "
                    "begin with http://, or to name another port"
                ),
                "identify: https://a: 无法连接：服务在该处不使用 TLS：base_url 可能应以 http:// 开头，或应使用其他端口",
            ),
            ("no such words in the catalog", "no such words in the catalog"),
            ("{0} {braces}", "{0} {braces}"),
        ],
    )
    def test_values_keep_their_places(self, message, expected):
        assert expected == translated(message)

    @pytest.mark.usefixtures("chinese")
    @pytest.mark.parametrize("code", CODES)
    def test_every_return_code_is_translated(self, code):
        """Its meaning, the call and the server's own words."""
        error = service_error(code, "Straße", endpoint="identify", subject="group 'staff'", data={"fail_flag": 1})
        shown = translated(str(error))
        assert shown.startswith("identify（组 'staff'）: ")
        assert f"{code} {error.name}" in shown
        assert "（服务消息：Straße）" in shown
        assert set(re.findall(r"[A-Za-z]{3,}", shown.replace(error.name, ""))) <= {
            *("identify", "staff", "Stra", "SecretKey", "appid", "bucket", "Bucket", "secretid", "url", "100", "224")
        }

    @pytest.mark.usefixtures("chinese")
    def test_every_message_comes_out_by_its_own_template(self, library_messages):
        """No other template of the catalog takes a message away from the one that it was made by."""
        known = {message.id: message.string for message in catalog() if message.context == LIBRARY}
        for template in sorted(library_messages):
            follow = set(
                re.findall(r"\}\{(\d+)\}", template)
            )  # a value that follows another one goes on with a sentence
            count = len(fields_of(template))
            values = [f"; 'value{number}'" if str(number) in follow else f"'value{number}'" for number in range(count)]
            assert known[template].format(*values) == translated(template.format(*values))


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GB18030"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "C", "FACE_ASYNC_LANG": "zh"}, "zh"),
        ({"LANG": "C", "FACE_ASYNC_LANG": "zh_CN"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "FACE_ASYNC_LANG": "en"}, "en"),
        ({"LANGUAGE": "zh_CN", "FACE_ASYNC_LANG": "en"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "FACE_ASYNC_LANG": ""}, "zh"),
    ],
)
def test_the_command_speaks_the_language_of_the_environment(monkeypatch, environment, language):
    """gettext's own order of variables, and before them the project's own."""
    monkeypatch.setenv("LANGUAGE", "")  # which is restored at the end, whatever is set meanwhile
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "FACE_ASYNC_LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        choose_language()
        assert ("已中断" if language == "zh" else "interrupted") == gettext.gettext("interrupted")
        assert (language == "zh") == (gettext.find(DOMAIN, CATALOGS) is not None)
    finally:
        gettext.textdomain("messages")


def _entries(content: bytes) -> dict[object, str]:
    known = gettext.GNUTranslations(io.BytesIO(content))._catalog
    return {message: translation for message, translation in known.items() if message}


@needs_docs
class TestReadme:
    """The README in Chinese says what the README says."""

    def test_the_headings_are_of_the_same_levels(self):
        levels = [re.findall(r"^(#+) ", _without_code(text), re.MULTILINE) for text in _readmes()]
        assert levels[0] == levels[1]

    def test_the_code_is_the_same(self):
        blocks = [re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL) for text in _readmes()]
        assert blocks[0] == blocks[1]
        assert 5 <= len(blocks[0])

    def test_names_in_the_text_are_the_same(self):
        texts = [re.sub(r"\s+", " ", _without_code(text)) for text in _readmes()]
        names = [set(re.findall(r"`([^`]+)`", text)) for text in texts]
        assert names[0] == names[1]

    def test_the_links_lead_to_the_same_places_in_the_same_order(self):
        english, chinese = (_links(path) for path in (README, README_IN_CHINESE))
        assert english[0] == str(README_IN_CHINESE)
        assert chinese[0] == str(README.resolve())
        assert english[1:] == chinese[1:]

    def test_each_has_the_other_in_its_first_lines(self):
        assert all(re.search(r"\]\([^)]*README", "".join(text.splitlines()[:6])) for text in _readmes())

    def test_it_is_chinese(self):
        """Every paragraph, item and heading but the first one."""
        parts = re.split(r"\n\n|\n(?=- )", _without_code(_readmes()[1]))[1:]
        assert [] == [part for part in parts if part.strip() and not CHINESE_LETTER.search(part)]


def _readmes() -> list[str]:
    return [path.read_text("utf-8") for path in (README, README_IN_CHINESE)]


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _links(path: Path) -> list[str]:
    """Return where the links of a file lead: to files, or to headings by their number."""
    text = _without_code(path.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = [re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles]
    return [
        f"heading {headings.index(link[1:])}" if link.startswith("#") else str((path.parent / link).resolve())
        for link in re.findall(r"\]\(([^)]+)\)", text)
    ]


class _Texts(html.parser.HTMLParser):
    """Collects what is seen and heard of a page, without names in code."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.labels: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "input", "br", "img"}:
            self._open.append(tag)
        self.labels += [value or "" for name, value in attrs if name in {"aria-label", "alt", "title", "placeholder"}]

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        if not {"code", "pre", "script", "style"} & {*self._open}:
            self.texts.append(data)


# What in scripts is a text for people: words with a blank between them, or one that begins with a capital.
_LITERAL = re.compile(r'(\bt\(\s*|\bclass: )?(?:"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`|\'(?:[^\'\\\n]|\\.)*\')')
_REGEX = re.compile(r"(?<=[(=n])( ?)/(?![/*])(?:\\.|\[(?:[^\]\\]|\\.)*\]|[^/\n\\])+/")
_FOR_PEOPLE = re.compile(r"[A-Za-z]{2,} [A-Za-z{]|^[A-Z][a-z]+\b|\} [a-z]{2,}")
_IN_SCRIPTS = {"Content-Type", "Infinity", "Inf", "POST", "Thumbs.db", "Ada"}


def _unmarked_in_script(source: str) -> list[str]:
    code = re.sub(r"(?<![:\"])//.*$", "", source, flags=re.MULTILINE)
    code = _REGEX.sub("", code)
    found = []
    for marked, quoted, template in _LITERAL.findall(code):
        text = quoted or re.sub(r"\$\{.*?\}", "{}", template)
        if not marked and _FOR_PEOPLE.search(text) and text not in _IN_SCRIPTS:
            found.append(text)
    return found
