"""One line and an exit code for everything that can go wrong, and never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from errno import EACCES, EADDRINUSE

import pytest
from raw_server import CERTIFICATE, RawServer

from face_async.cli.exits import Exit, exit_code, one_line
from face_async.errors import CODES, FaceLimitError, FaceLimitRefusal, ResponseError, TransportError, service_error
from face_async.server import Store


def _is_one_line(text: str) -> bool:
    return text.startswith("face-async: ") and text.count("\n") == 1 and text.endswith("\n")


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("service")
class TestWithAService:
    def test_wrong_secret(self, say, monkeypatch):
        monkeypatch.setenv("FACE_ASYNC_SECRET_KEY", "wrong")
        said = say("groups")
        assert (said.code, said.out) == (Exit.NO, "")
        assert _is_one_line(said.err)
        assert "SIGNATURE_MISMATCH" in said.err

    def test_dead_port(self, say, dead_url):
        said = say("groups", "--base-url", dead_url)
        assert (said.code, said.out) == (Exit.NO_ANSWER, "")
        assert _is_one_line(said.err)

    def test_something_else_answers(self, say, service):
        said = say("groups", "--base-url", service["FACE_ASYNC_BASE_URL"] + "/elsewhere")
        assert said.code == Exit.NO_ANSWER
        assert _is_one_line(said.err)

    @pytest.mark.parametrize("command", [("identify", "--group", "staff"), ("verify", "ada"), ("compare", "ada.jpg")])
    @pytest.mark.parametrize("picture", ["gif", "large", "missing"])
    def test_pictures_that_cannot_be_sent(self, say, tmp_path, ada, command, picture):
        assert ada.name == "ada.jpg"
        path = tmp_path / "picture.jpg"
        if picture != "missing":
            path.write_bytes(b"GIF89a" + bytes(100) if picture == "gif" else b"\xff\xd8\xff" + bytes(2_000_000))
        said = say(*command, path)
        assert (said.code, said.out) == (Exit.USAGE, "")
        assert _is_one_line(said.err)

    def test_what_the_service_refuses(self, say, ada):
        for command in (("persons", "nowhere"), ("info", "nobody"), ("verify", "nobody", ada), ("delete", "no", "-y")):
            said = say(*command)
            assert (said.code, said.out) == (Exit.NO, "")
            assert _is_one_line(said.err)

    def test_an_id_that_no_service_takes(self, say):
        said = say("persons", "a b")
        assert said.code == Exit.USAGE
        assert _is_one_line(said.err)

    def test_info_of_nothing_and_of_both(self, say):
        for command in (("info",), ("info", "ada", "--face", "1")):
            said = say(*command)
            assert said.code == Exit.USAGE
            assert _is_one_line(said.err)


def test_half_a_configuration_names_what_is_missing(say, monkeypatch):
    monkeypatch.setenv("FACE_ASYNC_APPID", "123456")
    monkeypatch.setenv("FACE_ASYNC_SECRET_ID", "AKID")
    for command in ("groups", "serve"):
        said = say(command)
        assert said.code == Exit.USAGE
        assert _is_one_line(said.err)
        assert "FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_KEY" in said.err


def test_a_base_url_alone_is_half_a_configuration(say):
    said = say("groups", "--base-url", "http://127.0.0.1:1")
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err)
    assert "FACE_ASYNC_APPID" in said.err


def test_a_service_over_plain_http_elsewhere_is_refused(say, service):
    said = say("groups", "--base-url", "http://192.0.2.1")
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err)
    assert service["FACE_ASYNC_SECRET_KEY"] not in said.err


def test_with_nothing_configured_the_embedded_server_is_used_and_named(say, tmp_path):
    said = say("groups")
    assert (said.code, said.out) == (0, "")
    assert _is_one_line(said.err)
    assert said.err.startswith(
        "face-async: using the embedded local server without a database, as there is no faces.db"
    )


LOOKING = {
    "groups": (),
    "persons": ("staff",),
    "faces": ("ada",),
    "info": ("ada",),
    "delete": ("ada", "--yes"),
    "verify": ("ada", "ada.jpg"),
    "identify": ("ada.jpg", "-g", "staff"),
    "compare": ("ada.jpg", "ada.jpg"),
    "doctor": (),
}


@pytest.mark.parametrize("command", LOOKING)
def test_who_only_looks_makes_no_database(say, tmp_path, ada, command):
    """Whatever the answer: as from an empty one, whether its name is the usual one or a mistyped one."""
    names = {path.name for path in tmp_path.iterdir()}
    for where in ((), ("--db", "typing-error.db")):
        said = say(command, *LOOKING[command], *where)
        assert said.code in {Exit.OK, Exit.NO}, said.err
        assert {path.name for path in tmp_path.iterdir()} == names


def test_a_database_that_is_there_is_looked_at(say, tmp_path):
    """And keeps what is in it."""
    with Store(tmp_path / "faces.db"):
        pass
    said = say("groups")
    assert said.err.startswith("face-async: using the embedded local server with its database faces.db")


@pytest.mark.usefixtures("service")
def test_a_database_that_is_named_goes_before_a_service(say):
    said = say("groups", "--db", "mine.db")
    assert (said.code, said.out) == (0, "")
    assert "mine.db" in said.err


def test_a_file_that_is_no_database(say, tmp_path):
    (tmp_path / "faces.db").write_text("hello")
    said = say("groups")
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err.split("\n", 1)[1])


def test_serving_strangers_wants_an_account(say):
    said = say("serve", "--host", "0.0.0.0")
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err)


@pytest.mark.parametrize(
    "options",
    [
        ("--cert", "a.pem"),
        ("--key", "a.pem"),
        ("--cert", "a.pem", "--key", "a.pem"),
        ("--cert", "missing.pem", "--key", "missing.pem"),
        ("--accounts", "missing.json"),
        ("--accounts", "a.pem"),
    ],
)
def test_serve_does_not_start_with_half_a_certificate_or_files_that_are_none(say, tmp_path, options):
    (tmp_path / "a.pem").touch(0o600)
    said = say("serve", "--recognizer", "fingerprint", "--port", "0", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pem"]
    assert (said.code, said.out) == (Exit.USAGE, "")
    assert _is_one_line(said.err)


def test_a_page_that_is_no_origin(say, tmp_path):
    said = say("serve", "--allow-origin", "https://example.com/app")
    assert list(tmp_path.iterdir()) == []
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err)
    assert "https://example.com/app" in said.err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use(say, tmp_path, workers):
    """And no database and no account are made for a server that does not start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = say("serve", "--port", port, "--recognizer", "fingerprint", "--workers", workers)
    assert list(tmp_path.iterdir()) == []
    assert said.code == Exit.USAGE
    assert _is_one_line(said.err)
    assert f"in use (while attempting to bind on address ('127.0.0.1', {port})): another program listens" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize(("errno", "word"), [(EADDRINUSE, "another program"), (EACCES, "below 1024")])
def test_a_port_that_cannot_be_had_comes_with_a_way_out(errno, word):
    """Taken, or not allowed; what is refused of a file is told as ever."""
    line = one_line(OSError(errno, "(while attempting to bind on address ('127.0.0.1', 80))"))
    assert word in line
    assert "take another port with --port" in line
    assert one_line(PermissionError(EACCES, "Permission denied", "faces.db")) == "faces.db: Permission denied"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("url", "meant"), [("localhost:8600", "http"), ("127.0.0.1:8600/x", "http"), ("faces.example.com", "https")]
)
def test_a_base_url_without_a_scheme_comes_with_the_right_one(say, url, meant):
    said = say("groups", "--base-url", url)
    assert said.code == Exit.USAGE
    assert said.err == f"face-async: base_url must be an http or https URL, not {url!r}; write {meant}:// before it\n"


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("http", ["asyncio", "httpx", "httpx2"])
def test_https_where_the_server_speaks_http(say, monkeypatch, http):
    """Whatever it stands on, the message names the scheme, and not what OpenSSL calls it."""

    def refuse(connection):
        connection.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        connection.close()

    monkeypatch.setenv("FACE_ASYNC_HTTP", http)
    with RawServer([refuse] * 3) as server:
        said = say("groups", "--base-url", server.url.replace("http:", "https:"))
    assert said.code == Exit.NO_ANSWER
    assert "the server does not speak TLS there: base_url may have to begin with http://" in said.err
    assert "SSL" not in said.err


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("http", ["asyncio", "httpx", "httpx2"])
def test_http_where_the_server_speaks_tls(say, monkeypatch, tmp_path, http):
    """What such a server does is to close the connection; the message names the other scheme as what may be meant."""
    (tmp_path / "certificate.pem").write_text(CERTIFICATE)
    monkeypatch.setenv("FACE_ASYNC_HTTP", http)
    with RawServer([], tls=tmp_path / "certificate.pem") as server:
        said = say("groups", "--base-url", server.url.replace("https:", "http:"))
    assert said.code == Exit.NO_ANSWER
    assert _is_one_line(said.err)
    assert "if it speaks TLS, base_url must begin with https://" in said.err


def test_photographs_that_are_not_there(say, tmp_path):
    for command in (("demo", "--photos", "nope"), ("demo", "--photos", tmp_path)):
        said = say(*command)
        assert said.code == Exit.USAGE
        assert _is_one_line(said.err)


def test_a_missing_extra_is_named(say, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in ("face_async.local", "face_async.server", "face_async.server.background"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    said = say("serve")
    assert said.code == Exit.USAGE
    assert said.err == "face-async: the module uvicorn is missing; install 'face_async[all]'\n"


@pytest.mark.parametrize("missing", ["packaging", "rich", "typer"])
def test_without_the_extra_cli_one_line_says_what_to_install(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from face_async.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stderr == f"face-async: the command line needs {missing}; install 'face_async[cli]'\n"
    assert ran.returncode == 1


def test_exit_codes_of_errors():
    for code in CODES:
        assert exit_code(service_error(code, endpoint="identify")) == Exit.NO
    assert exit_code(FaceLimitRefusal(-1309, endpoint="addface")) == Exit.NO
    assert exit_code(FaceLimitError("21 images")) == Exit.USAGE
    assert exit_code(TransportError("lost", endpoint="identify", maybe_applied=False)) == Exit.NO_ANSWER
    assert exit_code(ResponseError("odd", endpoint="identify", status=200)) == Exit.NO_ANSWER
    assert exit_code(FileNotFoundError(2, "No such file or directory", "x")) == Exit.USAGE


def test_errors_are_one_harmless_line_whatever_they_hold():
    assert one_line(ValueError("a\nb\x1b[31m")) == r"a\nb\x1b[31m"
    assert one_line(FileNotFoundError(2, "No such file", "x\n.jpg")) == r"x\n.jpg: No such file"
    assert one_line(ValueError()) == "ValueError"
