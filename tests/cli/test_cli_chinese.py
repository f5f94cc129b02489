"""Commands in Chinese: no English sentence is left, and what programs read stays as it is."""

from __future__ import annotations

import csv
import gettext
import json
import os
import re
import socket
import subprocess
import sys

import pytest
from timing import PATIENCE

from face_async.cli._app import app
from face_async.cli.exits import Exit
from face_async.cli.language import choose_language
from face_async.endpoints import ENDPOINTS

ENDPOINT_NAMES = {endpoint.name for endpoint in ENDPOINTS}
CHINESE_LETTER = re.compile(r"[\u4e00-\u9fff]")
# What is the same in both languages: names, paths, commands, variables, codes, formats and units.
NAMES = re.compile(
    r"""'[^']*' | [\w./-]*[./_-][\w./-]* | https?://\S+ | \b[A-Z][A-Z_\d]+\b
    | \b(appid|bucket|secretid|url|SecretKey|face|async|id|kB|MB|Ctrl|Python|WebP|http|tls)\b
    | \b(ada|grace|Ada|Grace|staff|people|probes|engineering|science|faces|fingerprint|refused|row)\b""",
    re.VERBOSE,
)


def english_in(text: str) -> list[str]:
    """Return the words of a text that are no names."""
    return [word for word in re.findall(r"[A-Za-z]{2,}", NAMES.sub("", text)) if word not in ENDPOINT_NAMES]


@pytest.fixture(autouse=True)
def chinese(monkeypatch):
    """Commands speak Chinese; what a developer's machine speaks comes back at the end."""
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("FACE_ASYNC_LANG", "zh")
    choose_language()
    yield
    gettext.textdomain("messages")


def in_chinese(said) -> str:
    """Return what a command said, which is Chinese."""
    text = said.out + said.err
    assert CHINESE_LETTER.search(text)
    assert [] == english_in(text)
    return text


@pytest.fixture
def album(say, tmp_path):
    """Drawn people in folders, and in them a GIF, a file that is no picture, and one in nobody's folder."""
    assert Exit.OK == say("draw", ".", "--people", "2").code
    (tmp_path / "people" / "ada" / "9.gif").write_bytes(b"GIF89a")
    (tmp_path / "people" / "grace" / "notes.jpg").write_bytes(b"no picture")
    (tmp_path / "people" / "list.txt").write_text("a list")
    return tmp_path / "people"


def test_the_demo(say):
    said = say("demo", "--people", "2", "--faces", "1", "--recognizer", "fingerprint", "--report", "a.html")
    assert "2 个陌生人中 2 个无匹配" in in_chinese(said)


def test_drawing(say):
    assert "已绘制" in in_chinese(say("draw", ".", "--people", "1"))


def test_an_enrollment_with_failures(say, album):
    """Each with its reason; the second run goes on, and compares."""
    for options in ((), ("--verify",)):
        said = say("enroll", album, "--group", "staff", "--recognizer", "fingerprint", *options)
        assert Exit.NO == said.code
        text = in_chinese(said)
        assert "是 GIF，服务不支持" in text
        assert "6 张图片中已入库 4 张" in text


def test_one_person_s_pictures(say, album):
    """Who is new, and what the service refuses."""
    command = ("enroll", album / "ada" / "1.jpg", "--person", "ada", "--group", "staff", "--recognizer", "fingerprint")
    assert "是新个体" in in_chinese(say(*command))
    again = in_chinese(say(*command))
    assert "对个体添加了几乎相同的人脸 (-1312)" in again


def test_a_port_in_use(say):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        said = say("serve", "--port", listener.getsockname()[1], "--db", ":memory:")
    assert Exit.USAGE == said.code
    assert "已有其他程序在监听" in in_chinese(said)


def test_people_are_identified(say, album):
    say("enroll", album, "--group", "staff", "--recognizer", "fingerprint")
    for images in (["probes"], ["probes/ada.jpg", "probes/none.jpg"]):
        in_chinese(say("identify", *images, "--group", "staff", "--recognizer", "fingerprint"))
    assert "是：" in in_chinese(say("verify", "ada", "probes/ada.jpg", "--recognizer", "fingerprint"))
    assert "相似度" in in_chinese(say("compare", "probes/ada.jpg", "probes/grace.jpg", "--recognizer", "fingerprint"))


def test_the_report_is_chinese(say, album, tmp_path):
    say("enroll", album, "--group", "staff", "--recognizer", "fingerprint")
    report = tmp_path / "who.html"
    say("identify", "probes", "--group", "staff", "--recognizer", "fingerprint", "--report", report)
    page = report.read_text("utf-8")
    assert '<html lang="zh-CN">' in page
    body = re.sub(r"<style>.*?</style>|<[^>]*>|face-async identify [\d.]+\w*", " ", page, flags=re.DOTALL)
    assert [] == english_in(body)
    labels = re.findall(r'(?:alt|aria-label)="([^"]*)"', page)
    assert labels
    assert [] == english_in(" ".join(labels))


@pytest.mark.usefixtures("service")
class TestRefusals:
    def test_wrong_credentials(self, say, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "wrong")
        assert "签名校验失败" in in_chinese(say("groups"))

    def test_a_dead_server(self, say):
        assert "无法连接" in in_chinese(say("groups", "--base-url", "http://127.0.0.1:9"))

    def test_pictures_that_cannot_be_sent(self, say, tmp_path):
        (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(100))
        (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(2_000_000))
        (tmp_path / "none.jpg").touch()
        for name, reason in {
            "a.gif": "是 GIF",
            "large.jpg": "超过允许的",
            "none.jpg": "为空",
            "missing.jpg": "没有那个文件",
        }.items():
            assert reason in in_chinese(say("verify", "ada", name))

    def test_what_the_service_does_not_have(self, say):
        assert "组不存在" in in_chinese(say("persons", "staff2"))
        assert "个体不存在" in in_chinese(say("info", "ada2"))
        assert "不能含有空白字符" in in_chinese(say("persons", "a b"))

    def test_no_such_folder(self, say):
        assert "没有那个文件或文件夹" in in_chinese(say("enroll", "ada/", "--group", "staff"))


def test_the_doctor(say):
    """Every check, of the embedded server and of a configuration that is wrong."""
    said = say("doctor", "--recognizer", "fingerprint")
    assert "正常" in said.out
    checks = re.sub(r"^.*(附加组件|版本).*$", "", said.out, flags=re.MULTILINE)
    assert [] == english_in(checks)


def test_json_is_the_same_in_both_languages(say, monkeypatch, album):
    """And the reasons in it, and the columns of CSV files."""
    say("enroll", album, "--group", "staff", "--recognizer", "fingerprint")
    recognizer = ("--recognizer", "fingerprint")
    pictures = ("probes/ada.jpg", "probes/none.jpg")
    commands = (
        ("doctor", *recognizer, "--json"),
        ("identify", *pictures, "--group", "staff", *recognizer, "--json", "--csv", "found.csv"),
        ("groups", "--json"),
    )
    outputs = []
    for language in ("zh", "en"):
        monkeypatch.setenv("FACE_ASYNC_LANG", language)
        choose_language()
        outputs.append([re.sub(r"in \d+ ms", "", say(*command).out) for command in commands])
        with (album.parent / "found.csv").open(encoding="utf-8-sig") as file:
            outputs[-1].append(list(csv.reader(file)))
    assert outputs[0] == outputs[1]
    assert [] == [
        text for text in outputs[0][:3] if CHINESE_LETTER.search(json.dumps(json.loads(text), ensure_ascii=False))
    ]


def test_help_and_typer_s_own_words(tmp_path):
    """In a process of its own: typer reads some of them when it is imported."""
    environment = {**os.environ, "LANG": "zh_CN.UTF-8", "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}
    del environment["FACE_ASYNC_LANG"], environment["LANGUAGE"]
    program = "import sys; from face_async.cli import main; sys.argv = ['face-async', *sys.argv[1:]]; main()"

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.stdout + done.stderr

    usage = re.compile(
        r"face-async|COMMAND|OPTIONS|ARGS|FOLDER|PostgreSQL|Dockerfile|compose|systemd|probes|people|shell"
    )
    helped = usage.sub("", run("--help"))
    assert all(title in helped for title in ("用法：", "选项", "退出码："))
    commands = {part for command in app.registered_commands for part in str(command.name).split("-")}
    assert {"bool", "help", "version", "show", "completion", "install"} >= {*english_in(helped)} - commands
    wrong = run("serve", "--port", "x")
    assert "错误" in wrong
    assert "'--port' 的值无效" in wrong
