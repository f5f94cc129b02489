"""URLs of object storage, and what is said when the storage cannot be used; without any storage."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ingestkit import write_people

from face_async.ingest import BadRow, Row, read_source
from face_async.ingest.enclosure import Enclosure
from face_async.ingest.objects import (
    ObjectFolder,
    ObjectStorageError,
    _store,
    is_object_url,
    read_picture,
    split_url,
)


@pytest.mark.parametrize(
    ("url", "root", "key"),
    [
        ("s3://bucket", "s3://bucket", ""),
        ("gs://my_bucket.example/a/b/", "gs://my_bucket.example", "a/b"),
        ("az://$web/ä b?c#d%20e", "az://$web", "ä b?c#d%20e"),
    ],
)
def test_what_follows_the_bucket_is_the_key_as_it_is(url, root, key):
    assert is_object_url(url)
    assert (root, key) == split_url(url)


@pytest.mark.parametrize("text", ["people", "/s3://a", "http://s3/a", "file://a", "s3:/bucket/a", ""])
def test_other_texts_are_no_urls_of_object_storage(text):
    assert not is_object_url(text)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIDcanary:canary@bucket/a",
        "s3://bucket/a?X-Amz-Signature=canary",
        "gs://bucket/a?x-goog-credential=canary",
        "az://container/a?sv=2024&sig=canary",
        "s3:///canary",
    ],
)
def test_a_url_with_a_secret_in_it_is_refused_and_not_quoted(url):
    """Where a picture is named by it, its row is a bad one."""
    with pytest.raises(ValueError, match="they come from the environment") as raised:
        split_url(url)
    [row] = read_source([Row("ada", url, ("staff",))])
    assert isinstance(row, BadRow)
    assert "canary" not in f"{raised.value}{row}"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_objects_that_a_manifest_on_a_disk_names_lie_outside_of_its_folder(tmp_path, suffix):
    """They are read with the rights of whoever enrolls, and not with the server's as what http names."""
    manifest = tmp_path / f"people{suffix}"
    lines = {
        ".csv": "person_id,url\nada,s3://bucket/1.jpg\n",
        ".jsonl": '{"person_id": "ada", "url": "s3://bucket/1.jpg"}',
    }
    manifest.write_text(lines[suffix])
    [row] = read_source(manifest, group_ids=["staff"])
    assert "lies outside" in row.reason
    [row] = read_source(manifest, group_ids=["staff"], allow_outside=True)
    assert "s3://bucket/1.jpg" == row.source


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("s3://bucket/people/1.jpg", True),
        ("s3://bucket/people/ada/1.jpg", True),
        ("s3://bucket/people2/1.jpg", False),
        ("s3://bucket/people/../1.jpg", False),
        ("gs://bucket/people/1.jpg", False),
        ("/bucket/people/1.jpg", False),
    ],
)
def test_what_lies_in_a_prefix_begins_with_it(path, inside):
    assert inside == (Enclosure("s3://bucket/people").complaint(path) is None)


def test_without_its_package_it_is_said_which_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'face_async\[fleet\]'"):
        ObjectFolder("s3://bucket")


@pytest.mark.external("obstore")
@pytest.mark.parametrize(
    ("url", "kind", "environment"),
    [
        ("s3://bucket/key", "S3Store", {}),
        ("gs://bucket/key", "GCSStore", {}),
        ("az://container/key", "AzureStore", {"AZURE_STORAGE_ACCOUNT_NAME": "account"}),
    ],
)
def test_each_scheme_has_its_store(url, kind, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    root, _ = split_url(url)
    assert kind == type(_store(root, hasty=True)).__name__


@pytest.mark.external("obstore")
def test_an_account_that_is_not_named_is_asked_for(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ObjectStorageError, match="set AZURE_STORAGE_ACCOUNT_NAME"):
        ObjectFolder("az://container")


class Storage(BaseHTTPRequestHandler):
    """Answers every request in the same way, by default as S3 answers a wrong key."""

    status = 403
    body = b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>canary</StringToSign></Error>"

    def do_GET(self):
        body = self.body
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815 - as the class has them

    def log_message(self, *_):
        pass


@pytest.fixture
def storage(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Storage) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.external("obstore")
def test_a_wrong_key_is_told_and_not_quoted(storage):
    folder = ObjectFolder("s3://bucket/people")
    for act in (
        folder.check,
        lambda: list(folder.names()),
        lambda: folder.get("a"),
        lambda: folder.put("a", b""),
        lambda: folder.create("a", b""),
        lambda: read_picture("s3://bucket/a.jpg"),
        lambda: list(read_source("s3://bucket/people", group_ids=["staff"])),
        lambda: list(read_source("s3://bucket/people.csv", group_ids=["staff"])),
    ):
        with pytest.raises(ObjectStorageError, match=r"s3://bucket refuses access: check .*AWS_ACCESS") as raised:
            act()
        assert "canary" not in str(raised.value)
        assert raised.value.__cause__ is None


@pytest.mark.external("obstore")
@pytest.mark.parametrize("name", ["a//b.jpg", "a/../b.jpg", "./b.jpg", "a/b\t.jpg"])
def test_an_object_whose_name_is_no_path_is_named(storage, monkeypatch, name):
    """S3 takes any name; the network is not what has to be looked at."""
    key, dated = f"<Key>people/{name}</Key>", "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    answer = f"<ListBucketResult><Contents>{key}{dated}<Size>1</Size></Contents></ListBucketResult>"
    monkeypatch.setattr(Storage, "status", 200)
    monkeypatch.setattr(Storage, "body", answer.encode())
    with pytest.raises(ObjectStorageError, match=r"s3://bucket has an object under a name.*: rename it") as raised:
        list(read_source("s3://bucket/people", group_ids=["staff"]))
    assert repr(f"people/{name}")[1:-1].replace("\\", "") in str(raised.value).replace("\\", "")


def test_folders_are_read_as_before(tmp_path):
    """Guard: that what has no scheme is a path, whatever it is called."""
    (tmp_path / "s3:").mkdir()
    people = write_people(tmp_path / "s3:" / "bucket", 1, 1)
    assert [str(people / "person0" / "00.jpg")] == [row.source for row in read_source(people, group_ids=["staff"])]
