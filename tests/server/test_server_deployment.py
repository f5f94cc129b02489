"""The deployment files: complete, judged by the tools that there are, and made of commands that the program takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from raw_server import RawServer, answer
from serverkit import APPID, BUCKET, CREDENTIALS, authorization
from timing import PATIENCE

from face_async import server
from face_async.cli._app import app
from face_async.server import Store, back_up_storage
from face_async.server.deploy import DEPLOYMENT_FILES, WHEELS, write_deployment_files

BIN = Path(sys.executable).parent
DEPLOYMENT = Path(server.__file__).parents[1] / "docs" / "deployment.md"
SERVE = typer.main.get_command(app).commands["serve"]


@pytest.fixture
def folder(tmp_path):
    write_deployment_files(tmp_path / "deploy")
    return tmp_path / "deploy"


def dockerfile(folder: Path, instruction: str) -> list[str]:
    """The arguments of the last such instruction; the files have one each."""
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, re.MULTILINE)


def parsed(*arguments: str) -> dict[str, object]:
    """What ``serve`` takes its arguments for; it raises what it does not take."""
    return SERVE.make_context("serve", list(arguments)).params


def test_the_files_are_written_as_they_are_in_the_package_and_nothing_is_replaced(folder):
    package = Path(server.__file__).parent / "deploy"
    assert {path.name for path in package.iterdir() if not path.name.startswith("__")} == set(DEPLOYMENT_FILES)
    for name in DEPLOYMENT_FILES:
        assert (folder / name).read_bytes() == (package / name).read_bytes()
    assert (folder / WHEELS).is_dir()
    (folder / "Dockerfile").unlink()
    (folder / "compose.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match=r"compose\.yaml exists already"):
        write_deployment_files(folder)
    assert not (folder / "Dockerfile").exists()
    assert (folder / "compose.yaml").read_text() == "mine"


def test_the_dockerfile_passes_the_linter(folder):
    ran = subprocess.run([BIN / "hadolint", folder / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_container_is_not_root(folder):
    (user,) = dockerfile(folder, "USER")
    assert int(user) > 0


@pytest.mark.parametrize("status", [200, 503, None])
def test_the_container_is_healthy_if_the_server_says_so(folder, status):
    """Not if nobody serves; and a proxy that the environment names is not asked."""
    (check,) = dockerfile(folder, "HEALTHCHECK")
    program = json.loads(check.partition("CMD ")[2])[2]
    with RawServer([] if status is None else [answer(b"{}", status)]) as serving:
        url = "http://127.0.0.1:1" if status is None else serving.url
        assert "http://127.0.0.1:8600/health" in program
        command = [sys.executable, "-c", program.replace("http://127.0.0.1:8600", url)]
        environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    assert (ran.returncode == 0) is (status == 200)


def test_what_the_container_installs_has_the_extras_that_it_names(folder):
    (package,) = re.findall(r'^ARG PACKAGE="face_async\[(.*)\]"', (folder / "Dockerfile").read_text(), re.MULTILINE)
    assert set(package.split(",")) <= set(metadata("face_async").get_all("Provides-Extra"))


def test_the_container_serves_as_the_program_does(folder):
    (entry,), (rest,) = dockerfile(folder, "ENTRYPOINT"), dockerfile(folder, "CMD")
    program, command, *arguments = json.loads(entry) + json.loads(rest)
    assert (program, command) == ("face-async", "serve")
    assert {"host": "0.0.0.0", "port": 8600}.items() <= parsed(*arguments).items()


def test_the_compose_file_starts_the_server_once_the_database_is_there(folder):
    (entry,) = dockerfile(folder, "ENTRYPOINT")
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    serving, database = services["server"], services["database"]
    taken = parsed(*json.loads(entry)[2:], *serving["command"])
    assert str(taken["db"]) == "postgresql://face@database/face"
    assert taken["log_json"] is True
    assert serving["build"] == "."
    assert serving["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "pg_isready" in database["healthcheck"]["test"]
    assert database["environment"]["POSTGRES_USER"] == database["environment"]["POSTGRES_DB"] == "face"
    assert serving["environment"]["PGPASSWORD"] == database["environment"]["POSTGRES_PASSWORD"]
    asked = re.findall(r"\$\{(\w+):\?", (folder / "compose.yaml").read_text())
    told = re.findall(r"^#   (\w+)=", (folder / "compose.yaml").read_text(), re.MULTILINE)
    assert set(asked) == set(told)


def test_the_unit_serves_as_the_program_does(folder):
    (command,) = re.findall(r"^ExecStart=(.*)$", (folder / "face-async.service").read_text(), re.MULTILINE)
    _, name, *arguments = shlex.split(command)
    assert name == "serve"
    assert str(parsed(*arguments)["db"]) == "/var/lib/face-async/faces.db"


@pytest.mark.external("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit_and_little_exposed(folder):
    """Exposure goes from 0 to 100 there; below 20 is what it calls OK."""
    unit = folder / "face-async.service"
    unit.write_text(unit.read_text().replace("/opt/face-async/bin/face-async", sys.executable))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    judge = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
    assert subprocess.run(judge, capture_output=True, check=False).returncode == 0


def test_a_command_that_the_program_does_not_take_is_noticed():
    """Guard of the guard."""
    with pytest.raises(Exception, match="No such option"):  # typer's, of versions that have their own click or not
        parsed("--no-such-option")


@pytest.mark.parametrize(
    "command",
    [
        ["uvicorn", "--factory", "face_async.server:create_app_from_env", "--workers", "2", "--fd", "{fd}"],
        ["gunicorn", "face_async.server:create_app_from_env()", "-k", "uvicorn_worker.UvicornWorker", "-w", "2",
         "--bind", "fd://{fd}"],
    ],
    ids=["uvicorn", "gunicorn"],
)  # fmt: skip
def test_other_servers_serve_the_factory(tmp_path, command):
    """With two workers, each of which tells the metrics of both."""
    account = {
        "APPID": APPID,
        "BUCKET": BUCKET,
        "SECRET_ID": CREDENTIALS.secret_id,
        "SECRET_KEY": CREDENTIALS.secret_key,
    }
    environment = {f"FACE_ASYNC_{name}": value for name, value in account.items()}
    (tmp_path / "metrics").mkdir()
    environment |= {"FACE_ASYNC_RECOGNIZER": "fingerprint", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        filled = [part.format(fd=listener.fileno()) for part in command[1:]]
        process = subprocess.Popen(
            [sys.executable, "-m", command[0], *filled],
            cwd=tmp_path,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            for _ in range(10):
                answer = httpx.post(
                    f"{base_url}/face/getgroupids",
                    json={"appid": APPID},
                    headers={"Authorization": authorization()},
                    timeout=PATIENCE,
                )
                assert answer.json()["code"] == 0
            assert httpx.get(f"{base_url}/health", timeout=PATIENCE).status_code == 200
            page = httpx.get(f"{base_url}/metrics", timeout=PATIENCE).text
            assert 'face_async_calls_total{code="0",endpoint="getgroupids"} 10.0' in page
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.skipif(not DEPLOYMENT.exists(), reason="the wheel leaves the documentation out")
def test_a_backup_is_restored_by_the_commands_of_the_documentation(tmp_path):
    """Also over the file of a server that was killed, whose log SQLite would take for the backup's."""
    text = DEPLOYMENT.read_text("utf-8")
    (commands,) = re.findall(r"```sh\nsystemctl stop face-async\n(.*?)systemctl start face-async\n```", text, re.DOTALL)
    (database,) = set(re.findall(r"\S+/faces\.db\b", commands))
    (backup,) = re.findall(r"cp (\S+) ", commands)
    path = tmp_path / "faces.db"

    def add_persons(*numbers):
        return lambda db: db.insert(
            "persons", ("id", "appid", "person_id", "name", "tag"), [(i, "1", i, "", "") for i in numbers]
        )

    with Store(tmp_path / "running.db") as store:
        store.write(add_persons(*range(50)))
        back_up_storage(store, tmp_path / "backup.db")
        store.write(add_persons(*range(50, 500)))
        for end in ("", "-wal", "-shm"):  # as they are when a server is killed
            shutil.copy(f"{tmp_path}/running.db{end}", f"{path}{end}")
    commands = commands.replace(database, str(path)).replace(backup, str(tmp_path / "backup.db"))
    subprocess.run(["sh", "-e", "-c", commands], check=True, timeout=PATIENCE)
    with Store(path) as store, store.reading() as db:
        assert db.execute("SELECT count(*) FROM persons").fetchone() == (50,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
