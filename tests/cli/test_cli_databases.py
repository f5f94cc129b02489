"""``copy-db`` and ``backup-db``, and which databases commands take."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from face_async.cli.databases import _Tables
from face_async.limits import ServiceLimits
from face_async.server import Store


@pytest.fixture
def faces_db(tmp_path, monkeypatch):
    """A database in the working folder, with two persons."""
    monkeypatch.chdir(tmp_path)
    with Store("faces.db") as store:
        for person_id in ("ada", "bob"):
            store.add_person(
                "1", person_id, ["staff"], name="", tag="", face=None, recognizer=None, limits=ServiceLimits()
            )
    return tmp_path / "faces.db"


def persons(path):
    with Store(path) as store:
        return store.person_ids("1", "staff")


@pytest.mark.parametrize("command", [("copy-db", "faces.db"), ("backup-db",)])
def test_a_database_is_copied_and_what_was_copied_is_said(say, faces_db, command):
    """As a line, or as JSON; and never onto what is there."""
    said = say(*command, "new.db")
    assert (said.code, said.out) == (0, "")
    assert "copied 2 persons with 0 faces in 1 groups" in said.err
    assert persons("new.db") == persons("faces.db") == ["ada", "bob"]
    said = say(*command, "newer.db", "--json")
    assert json.loads(said.out) == {"groups": 1, "persons": 2, "memberships": 2, "faces": 0, "thumbnails": 0}
    assert say(*command, "newest.db", "--quiet").err == ""
    said = say(*command, "new.db")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert persons("new.db") == ["ada", "bob"]


def test_a_database_that_is_not_there_is_not_made(say, tmp_path, monkeypatch):
    """Nor is its copy."""
    monkeypatch.chdir(tmp_path)
    for command in (("copy-db", "faces.db"), ("backup-db",)):
        said = say(*command, "new.db")
        assert (said.code, said.err) == (2, "face-async: faces.db is not there\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [("copy-db", "URL", "new.db"), ("copy-db", "faces.db", "URL"), ("backup-db", "b.db", "--db", "URL"),
                ("serve", "--port", "0", "--db", "URL")]
)  # fmt: skip
def test_no_password_is_taken_as_an_argument(say, faces_db, command):
    """Everybody on the machine can read it there; and it is not said again."""
    said = say(*(word.replace("URL", "postgresql://ada:secret@nowhere/faces") for word in command))
    assert said.code == 2
    assert "PGPASSWORD" in said.err
    assert "secret" not in said.err


def test_commands_with_the_embedded_server_take_files_only(say, faces_db):
    """A URL would become the name of a folder."""
    said = say("groups", "--db", "postgresql://ada@nowhere/faces")
    assert said.code == 2
    assert "start face-async serve --db" in said.err
    assert [path.name for path in faces_db.parent.iterdir()] == ["faces.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_interrupted_ends_with_130_and_leaves_no_file(say, faces_db, monkeypatch, number):
    """Nobody finds faces in half a backup, and a nightly one does not fill the disk."""
    handler = signal.getsignal(number)

    def interrupt(*_):
        os.kill(os.getpid(), number)
        time.sleep(0.2)  # so long that it is heard

    monkeypatch.setattr(_Tables, "show", interrupt)
    said = say("backup-db", "new.db")
    assert (said.code, said.err.splitlines()[-1]) == (130, "face-async: interrupted")
    assert [path.name for path in faces_db.parent.iterdir()] == ["faces.db"]
    assert signal.getsignal(number) is handler
