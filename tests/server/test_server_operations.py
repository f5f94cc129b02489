"""What operators see and give: health, metrics, the access log, accounts in files, certificates."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest
from attrs import evolve
from raw_server import CERTIFICATE
from serverkit import APPID, BUCKET, CREDENTIALS, SlowRecognizer, ToyRecognizer, authorization, calling, part, picture
from timing import PATIENCE

from face_async import Credentials, FaceSession
from face_async.server import Account, AccountsFile, Certificate, Store, create_app, serve_in_background
from face_async.server.operations import accounts as accounts_module
from face_async.server.operations import health as health_module
from face_async.server.operations.accounts import kept_accounts
from face_async.server.operations.logs import JsonLines

SECOND_KEY = Credentials("AKIDsecond", "secondSecretKey")


ANOTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMm+Vife36zxBjFXN
9uPPR0mjMeMZej+8XHmnYEE4JyShRANCAAT6exzTCVxEDjF2v3/gcUpCY3+yF6H7
1/X1VL9BUfiU7TdW+RQHvUQpOTSZcskABMelbBDDhOzSitDFbzf7qFmA
-----END PRIVATE KEY-----
"""

ENCRYPTED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj57jAQSQaG9AICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEENr9KLo8r2Wa+rmm6eY3DkYEgZBp
479UK5xjUW5LIxIjXzGNxG9YipQfLwtG0CeLB9qQnXo6Mp6BCqU7B8KDRDrrCaCB
W5gmrAXm4pafP0qFbymp2d1wSkcHYqrRhEorr7x0JMq2fnTnWz6PW6MgflVX7Zo9
hLoF5Sv6nDV17GLLx2hiR8/fdhyFXAJLXwgutWV4fgVH59LsZxH1OiSFpyNAbGI=
-----END ENCRYPTED PRIVATE KEY-----
"""


def values(page: str, name: str) -> dict[str, float]:
    """The values of a metric by its labels, as Prometheus' text format has them."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}({{.*}})? (\S+)$", page, re.MULTILINE)}


def entry(credentials: Credentials, **fields: object) -> dict[str, object]:
    return {
        "appid": APPID, "buckets": [BUCKET],
        "secret_id": credentials.secret_id, "secret_key": credentials.secret_key,
    } | fields  # fmt: skip


@pytest.mark.anyio
class TestHealth:
    async def test_a_server_that_can_do_its_work_is_ready(self, caller):
        answer = await caller.client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "storage": "ok", "recognizer": "ok"})
        answer = await caller.client.get("/health/live")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    async def test_a_storage_that_cannot_be_written_is_not_ready_but_lives(self, tmp_path, caplog):
        """Every few seconds it is looked at again; the reason is in the log, not in the answer."""
        path = tmp_path / "faces.db"
        with Store(path) as store:
            async with calling(store) as caller:
                path.unlink()
                answers = [await caller.client.get("/health") for _ in range(3)]
                assert (await caller.client.get("/health/live")).status_code == 200
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json() == {"status": "failed", "storage": "failed", "recognizer": "ok"}
        (line,) = caplog.records
        assert "the storage failed" in line.getMessage()

    async def test_whoever_asks_often_makes_no_further_writes(self, store, monkeypatch):
        written = []
        monkeypatch.setattr(store, "require_writable", lambda: written.append(1))
        monkeypatch.setattr(health_module, "_GOOD_SECONDS", PATIENCE)
        async with calling(store) as caller, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(caller.client.get, "/health")
        assert written == [1]

    async def test_a_recognizer_that_cannot_be_loaded_is_not_ready_until_it_can(self, store):
        class Unloaded(ToyRecognizer):
            missing = True

            def find_face(self, content):
                if self.missing:
                    raise ImportError("no networks")
                return super().find_face(content)

        recognizer = Unloaded()
        async with calling(store, recognizer=recognizer) as caller:
            answer = await caller.client.get("/health")
            assert (answer.status_code, answer.json()["recognizer"]) == (503, "failed")
            recognizer.missing = False
            assert (await caller.client.get("/health")).status_code == 200


@pytest.mark.anyio
class TestMetrics:
    async def test_calls_are_counted_by_endpoint_and_code(self, store):
        async with calling(store, metrics=True) as caller:
            await caller.new_person("ada", image=picture(1))
            for _ in range(3):
                await caller.ok("getinfo", person_id="ada")
            await caller.json("getinfo", person_id="bob")
            answer = await caller.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert values(answer.text, "face_async_calls_total") == {
            '{code="0",endpoint="newperson"}': 1,
            '{code="0",endpoint="getinfo"}': 3,
            '{code="-1303",endpoint="getinfo"}': 1,
        }
        assert values(answer.text, "face_async_call_seconds_count")['{endpoint="getinfo"}'] == 4
        assert values(answer.text, "face_async_faces") == {'{recognizer="toy"}': 1}

    async def test_pictures_that_wait_are_counted_while_they_wait(self, store, monkeypatch):
        monkeypatch.setattr("face_async.server.bounds.admission.processors", lambda: 1)
        recognizer = SlowRecognizer()
        async with calling(store, recognizer=recognizer, metrics=True) as caller:

            async def waiting() -> float:
                return values((await caller.client.get("/metrics")).text, "face_async_pictures_waiting")[""]

            await caller.new_person("ada")
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    probe = part("image", picture(number))
                    tasks.start_soon(caller.multipart, "identify", part("group_id", "staff"), probe)
                with anyio.fail_after(PATIENCE):
                    while await waiting() != 2:  # noqa: ASYNC110 - nothing else tells when
                        await anyio.sleep(0.01)
                recognizer.go.set()
            assert await waiting() == 0

    async def test_faces_that_cannot_be_counted_take_no_other_metric_with_them(self, store, monkeypatch, caplog):
        def fail():
            raise OSError("no database")

        monkeypatch.setattr(store, "count_faces", fail)
        async with calling(store, metrics=True) as caller:
            await caller.new_person("ada")
            page = (await caller.client.get("/metrics")).text
        assert values(page, "face_async_calls_total") == {'{code="0",endpoint="newperson"}': 1}
        assert "no database" in caplog.text

    async def test_they_are_there_only_where_they_are_wanted(self, caller):
        assert (await caller.client.get("/metrics")).status_code == 404


@pytest.fixture(params=["serve", "uvicorn"])
def workers(request, tmp_path):
    """Four processes on one port, or two of uvicorn's; yields the address and the folder of their metrics."""
    metrics = tmp_path / "metrics"
    account = {
        "APPID": APPID,
        "BUCKET": BUCKET,
        "SECRET_ID": CREDENTIALS.secret_id,
        "SECRET_KEY": CREDENTIALS.secret_key,
    }
    environment = {f"FACE_ASYNC_{name}": value for name, value in account.items()}
    environment |= {"FACE_ASYNC_RECOGNIZER": "fingerprint", "TMPDIR": str(tmp_path)}
    ours = [sys.executable, "-c", "from face_async.cli import main; main()", "serve", "--recognizer", "fingerprint"]
    theirs = [sys.executable, "-m", "uvicorn", "face_async.server:create_app_from_env", "--factory"]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        if request.param == "uvicorn":
            metrics.mkdir()
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
            command = [*theirs, "--fd", str(listener.fileno()), "--log-level", "warning", "--workers", "2"]
        else:
            command = [*ours, "--port", "0", "--workers", "4"]
        supervisor = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **environment},
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        if request.param == "uvicorn":
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", metrics
        else:
            base_url = supervisor.stdout.readline().rstrip("\n").rpartition("=")[2]
            yield base_url, next(tmp_path.glob("face_async_metrics_*"))
        supervisor.send_signal(signal.SIGTERM)
        supervisor.communicate(timeout=PATIENCE)
    assert request.param == "uvicorn" or not list(tmp_path.glob("face_async_metrics_*"))


def test_each_of_several_processes_tells_the_sums_over_all(workers):
    """Also when one of them has been killed, and another one has taken its place."""
    base_url, folder = workers

    def calls(count: int) -> int:
        """Make so many calls, several at once and each on a connection of its own; return the count."""

        def call(_) -> int:
            headers = {"Authorization": authorization()}
            answer = httpx.post(
                f"{base_url}/face/getgroupids", json={"appid": APPID}, headers=headers, timeout=PATIENCE
            )
            return answer.json()["code"]

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(call, range(count))) == {0}
        return count

    def pids() -> set[int]:
        return {int(path.stem.rpartition("_")[2]) for path in folder.glob("counter_*.db")}

    def counted() -> Counter[float]:
        pages = [httpx.get(f"{base_url}/metrics", timeout=PATIENCE).text for _ in range(20)]
        return Counter(sum(values(page, "face_async_calls_total").values()) for page in pages)

    made = calls(40)
    end = time.monotonic() + PATIENCE
    while len(pids()) == 1:  # which process takes a connection is luck
        assert time.monotonic() < end
        made += calls(10)
    assert counted() == {made: 20}
    os.kill(min(pids()), signal.SIGKILL)
    made += calls(10)
    assert counted() == {made: 20}


@pytest.mark.anyio
class TestAccessLog:
    async def test_each_call_is_a_line_with_its_code_and_time(self, caller, caplog):
        caplog.set_level(logging.INFO, "face_async.access")
        await caller.new_person("ada")
        await caller.json("getinfo", person_id="bob")
        made, refused = [record for record in caplog.records if record.name == "face_async.access"]
        assert re.fullmatch(
            rf"127\.0\.0\.1 newperson: code 0 OK \(appid {APPID}, \d+\.\d ms, session [0-9a-f]{{32}}\)",
            made.getMessage(),
        )
        assert "getinfo: code -1303 ERROR_PERSON_NOT_EXISTED" in refused.getMessage()
        assert (made.levelno, refused.levelno) == (logging.INFO, logging.INFO)

    @pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
    async def test_why_a_picture_was_not_fetched_is_in_it(self, caller, caplog, level):
        """For a whole request that is refused, and for one picture of several."""
        caplog.set_level(level, "face_async.access")
        await caller.new_person("ada")
        assert (await caller.json("identify", group_id="staff", url="http://a.example/b.jpg"))[0] == -1308
        added = await caller.ok("addface", person_id="ada", urls=["http://a.example/b.jpg", "http://a.example/c.jpg"])
        assert added["ret_codes"] == [-1308, -1308]
        warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert ["identify", "addface"] == [line.split(":")[0].split()[1] for line in warned]
        assert all(
            line.endswith(": a picture was not fetched: its host is not allowed by url_allow_list (--allow-url)")
            for line in warned
        )

    @pytest.mark.parametrize(
        ("signature", "reason"),
        [
            (lambda: authorization(now=time.time() - 600), r"it expired 30\d s ago"),
            (
                lambda: authorization(lifetime=91 * 86_400),
                "its life of 7,862,400 s is not above 0, and at most 7,776,000",
            ),
            (lambda: authorization(now=time.time() + 2_000), "in the future"),
            (lambda: authorization(credentials=evolve(CREDENTIALS, secret_key="another")), "the signature is wrong"),
            (lambda: "rubbish", "the signature cannot be read"),
        ],
    )
    async def test_why_a_signature_was_refused_is_in_it_but_not_the_signature(self, caller, caplog, signature, reason):
        sent = signature()
        caller.sign = lambda: sent
        assert (await caller.json("getgroupids"))[0] in {5, 9, 14}
        (line,) = caplog.records
        assert line.levelno == logging.WARNING
        assert re.search(rf"getgroupids: code \d+ SIGNATURE_\w+ \(.*\): .*{reason}", line.getMessage())
        assert sent not in JsonLines().format(line)
        assert CREDENTIALS.secret_key not in JsonLines().format(line)

    async def test_a_flood_of_refused_signatures_fills_no_disk(self, caller, caplog):
        """Of each code there is one line a minute, unless all calls are logged."""
        for sign in (lambda: "rubbish", lambda: ""):
            caller.sign = sign
            for _ in range(20):
                await caller.json("getgroupids")
        assert len(caplog.records) == 2

    async def test_each_entry_can_be_a_line_of_json(self, caller, caplog):
        caplog.set_level(logging.INFO, "face_async.access")
        await caller.json("identify", group_id="staff", url="http://a.example/\u202e\n.jpg")
        (line,) = [JsonLines().format(record) for record in caplog.records if record.name == "face_async.access"]
        told = json.loads(line)
        assert "\n" not in line
        assert line.isascii()
        assert {"identify", -1306, "ERROR_GROUP_NOT_EXISTED", APPID} <= {
            str(value) if isinstance(value, str) else value for value in told.values() if not isinstance(value, list)
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told["time"])
        logged = logging.LogRecord(
            "face_async.server", logging.ERROR, "", 0, "%s failed", ("it",), (OSError, OSError(), None)
        )
        told = json.loads(JsonLines().format(logged))
        assert (told["message"], told["level"], told["exception"]) == ("it failed", "error", "OSError")


@pytest.fixture
def accounts(tmp_path, monkeypatch):
    """A file of one account, which is looked at before each request."""
    monkeypatch.setattr(accounts_module, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "accounts.json"
    path.touch(0o600)
    path.write_text(json.dumps([entry(CREDENTIALS)]))
    return path


class TestAccounts:
    @pytest.mark.anyio
    async def test_keys_are_rotated_while_the_server_runs(self, store, accounts):
        async def code(credentials: Credentials) -> int:
            caller.sign = lambda: authorization(credentials=credentials)
            return (await caller.json("getgroupids"))[0]

        async with calling(store, credentials=AccountsFile(accounts)) as caller:
            assert [await code(CREDENTIALS), await code(SECOND_KEY)] == [0, 11]
            accounts.write_text(json.dumps([entry(CREDENTIALS), entry(SECOND_KEY)]))
            assert [await code(CREDENTIALS), await code(SECOND_KEY)] == [0, 0]
            accounts.write_text(json.dumps([entry(SECOND_KEY)]))
            assert [await code(CREDENTIALS), await code(SECOND_KEY)] == [11, 0]

    @pytest.mark.parametrize(
        "broken",
        [
            "", "{", "[]", '[{"appid": "1"}]', pytest.param("[" * 100_000, id="deep"), None,
            json.dumps([entry(CREDENTIALS), entry(CREDENTIALS, secret_key="another")]),
            json.dumps([entry(CREDENTIALS, secret_id="with a space")]),
        ],
    )  # fmt: skip
    def test_a_file_that_cannot_be_read_changes_nothing_until_it_can(self, accounts, broken, caplog):
        file = AccountsFile(accounts)
        before = file.current()
        accounts.unlink() if broken is None else accounts.write_text(broken)
        assert file.current() is file.current() is before
        (line,) = caplog.records
        assert "the accounts stay as they were" in line.getMessage()
        assert "accounts.json" in line.getMessage()
        accounts.write_text(json.dumps([entry(SECOND_KEY)]))
        assert file.current() == (Account(APPID, (BUCKET,), SECOND_KEY),)

    @pytest.mark.parametrize(
        "content",
        [
            "", "nonsense", "{}", "[]", "[1]", json.dumps([entry(CREDENTIALS), entry(CREDENTIALS, appid=1)]),
            json.dumps([entry(CREDENTIALS, buckets=[])]), json.dumps([entry(CREDENTIALS, buckets="test")]),
            json.dumps([entry(CREDENTIALS, buckets=[1])]), json.dumps([entry(CREDENTIALS, secret_key=None)]),
            "\ud800",
        ],
    )  # fmt: skip
    def test_a_server_does_not_start_with_what_is_no_list_of_accounts(self, accounts, content):
        """The message names the file, and no secret."""
        accounts.write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match=r"accounts\.json") as caught:
            AccountsFile(accounts)
        assert CREDENTIALS.secret_key not in str(caught.value)

    def test_a_file_that_others_may_read_is_warned_of(self, accounts, caplog):
        accounts.chmod(0o640)
        AccountsFile(accounts)
        assert "chmod 600" in caplog.text

    def test_the_account_made_up_for_a_database_is_kept_beside_it(self, tmp_path, caplog):
        first, other = (Account("1", ("b",), credentials) for credentials in (CREDENTIALS, SECOND_KEY))
        path = kept_accounts(tmp_path / "faces.db", first)
        assert path == kept_accounts(tmp_path / "faces.db", other) == tmp_path / "faces.db-accounts"
        assert AccountsFile(path).current() == (first,)
        assert path.stat().st_mode & 0o777 == 0o600
        assert [path] == list(tmp_path.iterdir())
        assert not caplog.records

    def test_a_database_has_one_account_by_whatever_name_it_is_opened(self, tmp_path):
        """But one that was kept beside a symbolic link stays, with its clients."""
        account = Account("1", ("b",), CREDENTIALS)
        real, link, other = (tmp_path / f"{name}.db" for name in ("real", "link", "other"))
        link.symlink_to(real)
        other.symlink_to(real)
        (tmp_path / "other.db-accounts").touch()
        assert [kept_accounts(path, account).name for path in (link, real, other)] == [
            "real.db-accounts", "real.db-accounts", "other.db-accounts",
        ]  # fmt: skip


@pytest.mark.anyio
async def test_a_server_with_a_certificate_speaks_https(store, tmp_path):
    pem = tmp_path / "certificate.pem"
    pem.write_text(CERTIFICATE)
    app = create_app(store, credentials=CREDENTIALS, recognizer="fingerprint")
    trusted = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(cafile=pem))
    async with (
        serve_in_background(app, certificate=Certificate(pem, pem)) as server,
        trusted,
        FaceSession(APPID, BUCKET, CREDENTIALS, base_url=server.base_url, transport=trusted) as session,
    ):
        assert server.base_url.startswith("https://127.0.0.1:")
        assert await session.get_group_ids() == []


@pytest.mark.anyio
async def test_a_certificate_that_cannot_be_used_is_told_at_the_start(store, tmp_path):
    """With the names of both files; nobody is asked for a passphrase."""
    (tmp_path / "empty.pem").touch()
    (tmp_path / "good.pem").write_text(CERTIFICATE)
    (tmp_path / "encrypted.pem").write_text(ENCRYPTED_KEY)
    (tmp_path / "another.pem").write_text(ANOTHER_KEY)
    reasons = {
        "empty.pem": "not what it should be", "missing.pem": "No such file", "encrypted.pem": "passphrase",
        "another.pem": "belongs to another certificate",
    }  # fmt: skip
    for name, reason in reasons.items():
        bad = Certificate(tmp_path / "good.pem", tmp_path / name)
        with pytest.raises(OSError, match=rf"good\.pem with the key .*{name} cannot be used: .*{reason}"):
            async with serve_in_background(create_app(store, credentials=CREDENTIALS), certificate=bad):
                pytest.fail("it has started")


@pytest.mark.anyio
async def test_a_server_on_all_addresses_names_one_that_a_client_accepts(store):
    app = create_app(store, credentials=CREDENTIALS, recognizer="fingerprint")
    async with (
        serve_in_background(app, host="0.0.0.0") as server,
        FaceSession(APPID, BUCKET, CREDENTIALS, base_url=server.base_url) as session,
    ):
        assert server.base_url == f"http://127.0.0.1:{server.port}"
        assert await session.get_group_ids() == []
