"""The doctor: one line for each thing that has to be right, an exit code, and never a secret."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from contextlib import closing
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path

import anyio
import pytest
from doubles import envelope
from raw_server import CERTIFICATE, Connection, RawServer, answer, black_hole

import face_async
from face_async import Answer, ServiceLimits
from face_async.cli._app import app
from face_async.cli.doctor import checks_service
from face_async.cli.doctor.checks import EXTRAS, check_installation
from face_async.cli.language import LANGUAGE_VARIABLE
from face_async.cli.options import SERVER_VARIABLES
from face_async.local import local_session
from face_async.portraits import draw_portrait
from face_async.session import SESSION_VARIABLES

SECRET = "exampleSecretKey"


@pytest.fixture
def examine(say):
    """Run the doctor; return its exit code, and what it says by topic, the gravest of each."""

    def run(*args: object) -> tuple[int, dict[str, tuple[str, str]]]:
        said = say("doctor", "--recognizer", "fingerprint", "--json", *args)
        told = json.loads(said.out)
        assert told["healthy"] is (said.code == 0)
        assert SECRET not in said.out + said.err
        found: dict[str, tuple[str, str]] = {}
        for check in sorted(told["checks"], key=lambda check: check["verdict"]):  # ok, warning, wrong
            found[check["topic"]] = check["verdict"], f"{check['said']}; {check['mend']}"
        return said.code, found

    return run


@pytest.fixture
def account(monkeypatch):
    """An account, and a base URL to choose."""

    def set_up(base_url: str, **other: str) -> None:
        for name, value in {"APPID": "1", "BUCKET": "b", "SECRET_ID": "AKIDx", "SECRET_KEY": SECRET, **other}.items():
            monkeypatch.setenv(f"FACE_ASYNC_{name}", value)
        monkeypatch.setenv("FACE_ASYNC_BASE_URL", base_url)

    return set_up


class TestAService:
    def test_that_is_well_is_ok_in_every_line(self, say, service):
        said = say("doctor")
        assert (said.code, said.err) == (0, "")
        lines = said.out.splitlines()
        assert all(line.startswith("ok ") for line in lines)
        topics = ("variables", "base_url", "connection", "round", "clock", "signature", "groups", "persons", "request")
        assert [line.split()[1] for line in lines[-len(topics) :]] == list(topics)
        assert "2 of 5,000 groups" in said.out
        assert "1 of 10,000 persons in staff, the largest of all groups" in said.out
        assert SECRET not in said.out

    @pytest.mark.parametrize(
        ("variable", "value", "code"),
        [("APPID", "7", 10), ("BUCKET", "other", 16), ("SECRET_ID", "AKIDother", 11), ("SECRET_KEY", SECRET[1:], 14)],
    )
    @pytest.mark.usefixtures("service")
    def test_that_refuses_the_account(self, examine, monkeypatch, variable, value, code):
        monkeypatch.setenv(f"FACE_ASYNC_{variable}", value)
        exit_code, found = examine()
        assert exit_code == 1
        verdict, said = found["signature"]
        assert verdict == "wrong"
        assert str(code) in said
        assert f"FACE_ASYNC_{variable}" in said.split("; ", 1)[1]

    @pytest.mark.parametrize("code", [3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 24])
    def test_has_a_remedy_for_every_code_that_concerns_the_account(self, code):
        assert checks_service.MENDS[code]

    def test_that_is_not_there(self, examine, account):
        account("http://127.0.0.1:1")
        code, found = examine()
        assert code == 3
        assert found["connection"][0] == "wrong"

    def test_whose_name_leads_nowhere(self, examine, account):
        account("https://nowhere.invalid")
        code, found = examine()
        assert code == 3
        assert found["dns"][0] == "wrong"
        assert "connection" not in found

    def test_has_a_name_that_leads_to_it(self, examine, service):
        _, found = examine("--base-url", service["FACE_ASYNC_BASE_URL"].replace("127.0.0.1", "localhost"))
        assert found["dns"][0] == "ok"
        assert "127.0.0.1" in found["dns"][1]

    def test_behind_a_wall(self, examine, account, monkeypatch):
        monkeypatch.setattr(checks_service, "_CONNECT_SECONDS", 0.1)
        with black_hole() as url:
            account(url)
            code, found = examine()
        assert (code, found["connection"][0]) == (3, "wrong")
        assert "firewall" in found["connection"][1]

    def test_that_is_something_else(self, examine, service):
        code, found = examine("--base-url", service["FACE_ASYNC_BASE_URL"] + "/elsewhere")
        assert code == 3
        assert found["answer"][0] == "wrong"

    @pytest.mark.parametrize(
        ("status", "mend"),
        [(503, "a proxy answers"), (407, "a proxy on the way wants a login"), (404, "something else")],
    )
    def test_behind_a_proxy_that_answers_itself(self, examine, account, status, mend):
        """It says what is wrong with what; host, port and path may be right."""
        with RawServer(repeat(answer(b"<h1>sorry</h1>", status))) as server:
            account(server.url)
            code, found = examine()
        assert (code, found["answer"][0]) == (3, "wrong")
        assert f"; {mend}" in found["answer"][1]
        assert ("check host, port and path" in found["answer"][1]) is (status == 404)

    def test_that_takes_connections_and_does_not_answer(self, examine, account, monkeypatch):
        monkeypatch.setattr(checks_service, "_DEADLINE", 0.3)
        with RawServer(repeat(Connection.hold)) as server:
            account(server.url)
            code, found = examine()
        assert (code, found["answer"][0]) == (3, "wrong")
        assert "look whether it hangs" in found["answer"][1]

    def test_whose_certificate_nobody_vouches_for(self, examine, account, tmp_path):
        (tmp_path / "certificate.pem").write_text(CERTIFICATE)
        with RawServer([], tls=tmp_path / "certificate.pem") as server:
            account(server.url)
            code, found = examine()
        assert code == 3
        assert found["tls"][0] == "wrong"
        assert "certifi" in found["tls"][1]
        assert "--ca-file" in found["tls"][1]

    def test_for_which_the_authorities_cannot_be_read(self, examine, account, tmp_path):
        (tmp_path / "empty.pem").touch()
        with RawServer([]) as server:
            account(server.url.replace("http:", "https:"))
            code, found = examine("--ca-file", tmp_path / "empty.pem")
        assert code == 2
        assert found["tls"][0] == "wrong"
        assert "empty.pem" in found["tls"][1]

    def test_on_another_machine_over_http_is_a_warning_where_that_is_allowed(self, examine, service):
        elsewhere = service["FACE_ASYNC_BASE_URL"].replace("127.0.0.1", "0.0.0.0")
        code, found = examine("--base-url", elsewhere)
        assert (code, found["base_url"][0]) == (2, "wrong")
        code, found = examine("--base-url", elsewhere, "--insecure")
        assert (code, found["base_url"][0]) == (0, "warning")
        assert "unencrypted" in found["base_url"][1]

    def test_that_speaks_no_tls(self, examine, service):
        code, found = examine("--base-url", service["FACE_ASYNC_BASE_URL"].replace("http:", "https:"))
        assert code == 3
        assert found["tls"][0] == "wrong"

    def test_over_tls_whose_clock_is_elsewhere(self, examine, account, tmp_path):
        pem = tmp_path / "certificate.pem"
        pem.write_text(CERTIFICATE)
        late = formatdate(time.time() + 7_200, usegmt=True)
        body = envelope({"group_ids": []})
        with RawServer([answer(body, 200, ("Date", late))] * 5, tls=pem) as server:
            account(server.url)
            code, found = examine("--ca-file", pem)
        assert code == 1
        assert found["tls"][0] == "ok"
        assert found["clock"][0] == "wrong"
        assert "behind" in found["clock"][1]
        assert found["signature"][0] == "ok"


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        (0, "ok", "agree"),
        (100, "warning", "100 s behind"),
        (-100, "warning", "ahead of"),
        (-4_000, "wrong", "ahead of"),
    ],
)
def test_clocks_are_compared_by_the_date_of_an_answer(ahead, verdict, words):
    now = 1_500_000_000.0
    answered = Answer(200, {"date": formatdate(now + ahead, usegmt=True)}, b"")
    check = checks_service.check_clock(checks_service.skew_of(answered, now))
    assert check.verdict == verdict
    assert words in check.said


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_a_server_without_a_clock_is_told_of(headers):
    check = checks_service.check_clock(checks_service.skew_of(Answer(200, headers, b""), 0))
    assert check.verdict == "warning"


def test_limits_that_are_near_are_warnings():
    async def look() -> list[str]:
        limits = ServiceLimits(max_groups_per_appid=2, max_persons_per_group=2)
        async with local_session(recognizer="fingerprint", limits=limits) as session:
            for number in range(2):
                await session.new_person(f"p{number}", ["staff", "guests"])
            return [f"{check.verdict} {check.said}" async for check in checks_service.check_limits(session, 1)]

    signature, groups, persons = anyio.run(look)
    assert signature.startswith("ok")
    assert groups == "warning 2 of 2 groups"
    assert persons == "warning 2 of 2 persons in staff, the largest of 1 of 2 groups (--groups)"


class TestTheEnvironment:
    def test_half_an_account(self, examine, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_APPID", "1")
        monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", SECRET)
        code, found = examine()
        assert code == 2
        assert found["variables"][0] == "wrong"
        assert "FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID" in found["variables"][1]

    def test_a_base_url_without_an_account(self, examine, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_BASE_URL", "http://127.0.0.1:1")
        code, found = examine()
        assert (code, found["variables"][0]) == (2, "wrong")

    def test_a_secret_with_a_line_break(self, examine, account):
        account("http://127.0.0.1:1", SECRET_KEY=SECRET + "\n")
        code, found = examine()
        assert (code, found["variables"][0]) == (2, "wrong")
        assert "secret_key" in found["variables"][1]

    @pytest.mark.parametrize(
        "base_url",
        ["http://192.0.2.1", "ftp://example.com", "https://me:exampleSecretKey@example.com", "https://h:99999", "nope"],
    )
    def test_an_address_that_cannot_be_used(self, examine, account, base_url):
        account(base_url)
        code, found = examine()
        assert (code, found["base_url"][0]) == (2, "wrong")
        assert "connection" not in found

    def test_a_variable_that_nobody_reads(self, examine, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_SECRETKEY", SECRET)
        code, found = examine()
        assert code == 0
        assert found["variables"][0] == "warning"
        assert "FACE_ASYNC_SECRETKEY" in found["variables"][1]

    def test_no_text_names_a_variable_that_is_not_read(self):
        texts = [path.read_text("utf-8") for path in Path(face_async.__file__).parent.rglob("*.py")]
        named = {name for text in texts for name in re.findall(r"FACE_ASYNC_[A-Z_]*[A-Z]", text)}
        assert named == {*SESSION_VARIABLES, *SERVER_VARIABLES, LANGUAGE_VARIABLE}

    def test_a_variable_of_the_server_is_no_mistake(self, examine, monkeypatch):
        for name in SERVER_VARIABLES:
            monkeypatch.setenv(name, "1")
        assert "not known" not in str(examine()[1]["variables"])

    @pytest.mark.parametrize("library", ["httpx", "httpx2", "asyncio"])
    def test_a_library_that_there_is(self, examine, monkeypatch, library):
        """It says nothing of a service: commands still use the embedded server."""
        monkeypatch.setenv("FACE_ASYNC_HTTP", library)
        code, found = examine()
        assert code == 0
        assert "base_url" not in found

    def test_a_library_that_there_is_not(self, examine, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_HTTP", "carrier pigeon")
        assert examine()[0] == 2


class TestTheEmbeddedServer:
    def test_is_not_touched_when_it_has_no_database_yet(self, examine, tmp_path):
        code, found = examine()
        assert code == 0
        assert "not there yet" in found["database"][1]
        assert list(tmp_path.iterdir()) == []

    def test_that_is_well(self, examine):
        _enroll("faces.db")
        code, found = examine("--db", "faces.db")
        assert code == 0
        assert found["database"][0] == "ok"
        assert "1 faces" in found["database"][1]
        assert found["persons"][1].startswith("1 of 10,000 persons in staff")

    def test_with_a_file_that_is_no_database(self, examine, tmp_path):
        (tmp_path / "faces.db").write_text("hello")
        code, found = examine()
        assert (code, found["database"][0]) == (2, "wrong")
        assert "signature" not in found

    def test_with_a_database_that_is_damaged(self, examine):
        """Wherever the damage is."""
        _enroll("faces.db")
        whole = Path("faces.db").read_bytes()
        pages = range(4_096, len(whole), 4_096)
        for page in pages[:: len(pages) // 5]:
            Path("faces.db").write_bytes(whole[:page] + b"damaged!" * 512 + whole[page + 4_096 :])
            code, found = examine()
            assert (code, found["database"][0]) == (2, "wrong")
            assert "faces.db is damaged: " in found["database"][1]
            assert "restore a backup" in found["database"][1]

    def test_that_cannot_count_the_persons_of_a_group(self, examine):
        """As with a database that is too large to be read as a whole; others may be counted."""
        _enroll("faces.db")
        with closing(sqlite3.connect("faces.db")) as db, db:
            db.execute("DROP TABLE memberships")
        code, found = examine()
        assert (code, found["persons"][0]) == (1, "wrong")
        assert "-1200" in found["persons"][1]

    def test_whose_database_others_may_read(self, examine, tmp_path):
        _enroll("faces.db")
        (tmp_path / "faces.db").chmod(0o644)
        assert examine()[1]["database"] == ("warning", "other users of this machine may open it; chmod 600 faces.db")

    def test_with_faces_of_another_recognizer(self, examine):
        _enroll("faces.db")
        with closing(sqlite3.connect("faces.db")) as db, db:
            db.execute("UPDATE faces SET recognizer = 'owl'")
        code, found = examine()
        assert code == 0
        assert found["database"][0] == "warning"
        assert "fingerprint cannot compare the faces that were added 1 by owl" in found["database"][1]

    def test_with_no_recognizer_for_faces(self, examine, monkeypatch):
        monkeypatch.setattr("face_async.server.recognition.networks.is_installed", lambda: False)
        assert examine("--recognizer", "auto")[1]["recognizer"][0] == "warning"
        code, found = examine("--recognizer", "faces")
        assert (code, found["recognizer"][0]) == (2, "wrong")

    def test_without_its_extra(self, examine, monkeypatch):
        monkeypatch.setitem(sys.modules, "face_async.local", None)
        code, found = examine()
        assert (code, found["server"][0]) == (2, "wrong")


USING = {
    "groups": (),
    "persons": ("staff",),
    "faces": ("ada",),
    "info": ("ada",),
    "delete": ("bob", "--yes"),
    "identify": ("ada.jpg", "-g", "staff", "--quiet"),
    "verify": ("ada", "ada.jpg"),
    "compare": ("ada.jpg", "ada.jpg"),
    "doctor": (),
    "enroll": ("people", "-g", "staff", "--dry-run"),
}


@pytest.mark.parametrize("command", [*USING, "enroll --person"])
def test_every_command_that_meets_faces_of_dlib_says_so_and_what_to_do(say, tmp_path, caplog, command):
    _enroll_as_dlib()
    (tmp_path / "people" / "bob").mkdir(parents=True)
    for path, person in (("ada.jpg", 0), ("people/bob/1.jpg", 1)):
        (tmp_path / path).write_bytes(draw_portrait(person, shot=1))
    if command == "enroll --person":
        say("enroll", "ada.jpg", "--person", "ada", "--db", "faces.db")
    else:
        say(command, *USING[command], "--db", "faces.db")
    assert _ADVICE in caplog.text


def test_every_command_that_takes_a_database_is_among_these(say):
    """But ``serve``, whose log says it, and those that copy a database as it is."""
    takes = {command.name for command in app.registered_commands if "--db" in say(command.name, "--help").out}
    assert takes - {"serve", "backup-db"} == set(USING)


_ADVICE = "cannot compare the faces that were added by dlib: add their pictures again, to a new database"


def _enroll_as_dlib() -> None:
    _enroll("faces.db")
    with closing(sqlite3.connect("faces.db")) as db, db:
        db.execute("UPDATE faces SET recognizer = 'dlib'")


def _enroll(path: str) -> None:
    async def enroll() -> None:
        async with local_session(path, recognizer="fingerprint") as session:
            await session.new_person("ada", ["staff"], draw_portrait(0))

    anyio.run(enroll)


class TestTheInstallation:
    def test_names_versions_and_extras(self):
        version, *extras = check_installation()
        assert "httpx 0.28" in version.said
        assert [check.topic for check in extras] == [f"extra {name}" for name in EXTRAS]
        assert "typer" in extras[0].said

    def test_names_what_is_missing_from_an_extra(self, monkeypatch):
        def installed(name: str) -> str:
            if name == "uvloop":
                raise PackageNotFoundError(name)
            return "9999"

        monkeypatch.setattr("face_async.cli.doctor.checks.version", installed)
        speed = list(check_installation())[-1]
        assert speed.said.startswith("not installed, wants uvloop>=")

    def test_names_what_is_too_old_for_an_extra(self, monkeypatch):
        old = {"typer": "0.1"}
        monkeypatch.setattr("face_async.cli.doctor.checks.version", lambda name: old.get(name) or version(name))
        cli = list(check_installation())[1]
        assert cli.said.startswith("not installed, wants typer>=")

    def test_wants_nothing_that_is_for_other_systems(self, monkeypatch):
        lines = ["httpx", "uvloop; extra == 'speed' and platform_system == 'Nowhere'", "typer; extra == 'cli'"]
        monkeypatch.setattr("face_async.cli.doctor.checks.requires", lambda _: lines)
        assert [check.said for check in check_installation()][-1] == ""

    def test_says_when_it_is_no_package(self, monkeypatch):
        def missing(name: str) -> list[str]:
            raise PackageNotFoundError(name)

        monkeypatch.setattr("face_async.cli.doctor.checks.requires", missing)
        assert [check.verdict for check in check_installation()] == ["ok", "warning"]
