"""What is written for people: whole or not at all, and over nothing that must be kept."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sqlite3

import pytest

from face_async.ingest import OutputError
from face_async.ingest.output_file import OutputFile, check_output


def write(path, text="new", **options):
    with OutputFile(path, **options) as output:
        output.file.write(text)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "report.html"


def test_a_file_is_there_once_it_is_whole(place):
    place.write_text("old")
    with OutputFile(place) as output:
        output.file.write("new")
        output.file.flush()
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


def test_a_file_that_was_not_completed_leaves_what_was_there(place):
    place.write_text("old")
    with contextlib.suppress(ZeroDivisionError), OutputFile(place) as output:
        output.file.write("half")
        raise ZeroDivisionError
    assert place.read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


def test_nobody_else_may_read_it_also_where_the_old_one_could_be_read_by_all(place):
    place.write_text("old")
    place.chmod(0o644)
    write(place)
    assert place.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_what_was_there(place):
    """RLIMIT_FSIZE says EFBIG where a disk says ENOSPC."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    place.write_text("old")
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            write(place, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert place.read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


def database(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE faces (id)")


def beside_a_database(path):
    path.with_name(path.name.removesuffix("-wal")).write_bytes(b"")


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # whose length is bounded


KEPT = {
    "faces.db": (database, "is a database or a journal"),
    "faces.db-wal": (beside_a_database, "belongs to a database or a journal"),
    "a.jpg": (lambda path: path.write_bytes(b"damaged"), "is a picture"),
    "page.html": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0"), "is a picture"),
    "program": (lambda path: path.write_bytes(b"\x7fELF..."), "is a program"),
    "script": (lambda path: path.write_bytes(b"#!/bin/sh\n"), "is a program"),
    "folder": (lambda path: path.mkdir(), "is no regular file"),
    "fifo": (os.mkfifo, "is no regular file"),
    "socket": (unix_socket, "is no regular file"),
    "link": (lambda path: path.symlink_to("/etc/hostname"), "is a link"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is a link"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_must_be_kept_is_refused_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    make, reason = KEPT[name]
    make(path)
    before = sorted(tmp_path.iterdir()), path.is_file() and path.read_bytes()
    for attempt in (check_output, write):
        with pytest.raises(OutputError, match=f"{name} {reason}: name another file to write") as refused:
            attempt(path)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert (sorted(tmp_path.iterdir()), path.is_file() and path.read_bytes()) == before


def test_a_device_is_refused():
    with pytest.raises(OutputError, match="/dev/null is no regular file"):
        check_output("/dev/null")


def test_sources_are_refused_by_whatever_name_and_before_they_are_there(tmp_path):
    manifest, other, coming = tmp_path / "people.csv", tmp_path / "other.csv", tmp_path / "faces.db"
    manifest.write_text("person_id,path\n")
    other.hardlink_to(manifest)
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (manifest, other, tmp_path / "link" / "people.csv", coming, tmp_path / "faces.db-signatures"):
        with pytest.raises(OutputError):
            check_output(path, sources=[manifest, coming])
    assert manifest.read_text() == "person_id,path\n"


def test_nothing_is_written_where_it_would_be_taken_for_a_picture(tmp_path):
    """A folder of people has pictures in its sub-folders, and may have whatever else at its top."""
    person = tmp_path / "people" / "ada"
    person.mkdir(parents=True)
    with pytest.raises(OutputError, match="would be taken for one"):
        check_output(person / "failures.csv", sources=[tmp_path / "people"])
    write(tmp_path / "people" / "failures.csv", sources=[tmp_path / "people"])


def test_what_came_there_meanwhile_is_kept(tmp_path):
    path = tmp_path / "faces.csv"
    output = OutputFile(path)
    database(path)
    with pytest.raises(OutputError, match="is a database"):
        output.close(keep=True)
    assert path.read_bytes().startswith(b"SQLite")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("attempt", [check_output, write])
def test_a_folder_that_is_missing_is_told_by_the_name_that_was_given(attempt, tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        attempt(tmp_path / "nope" / "page.html")
    assert missing.value.filename == str(tmp_path / "nope" / "page.html")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_what_may_not_be_written_is_not_replaced_either(place):
    place.write_text("old")
    place.chmod(0o400)
    with pytest.raises(PermissionError):
        check_output(place)
    place.parent.chmod(0o500)
    with pytest.raises(PermissionError):
        check_output(place.with_name("new"))
    place.parent.chmod(0o700)
