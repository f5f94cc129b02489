"""A disk that is really full: a file system of a few megabytes, with a server in a process of its own on it."""

from __future__ import annotations

import contextlib
import signal
import subprocess

import httpx
import pytest
from serverkit import authorization, new_person, program
from timing import PATIENCE

from face_async.server import Store, StoreError, back_up_storage


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 3 MB of its own."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True, timeout=PATIENCE)


def fill(path):
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4_096)):
            pass


def test_a_full_disk_prints_one_line_and_all_goes_on_once_there_is_room(small_disk, full):
    """-1200 meanwhile, and reads are answered; 1,000 requests with --full."""
    with program(small_disk / "faces.db") as (server, base_url):
        with httpx.Client(base_url=base_url, trust_env=False, timeout=PATIENCE) as client:

            def read(endpoint, **fields):
                body = {"appid": "123456", "bucket": "test", **fields}
                answer = client.post(f"/face/{endpoint}", json=body, headers={"Authorization": authorization()})
                return answer.json()

            assert new_person(client, "ada") == 0
            fill(small_disk / "filler")
            codes = [new_person(client, f"p{number}") for number in range(1_000 if full else 100)]
            assert codes[-1] == -1200
            assert set(codes) <= {0, -1200}
            assert read("getinfo", person_id="ada")["code"] == 0
            (small_disk / "filler").unlink()
            assert new_person(client, "bob") == 0
            persons = read("getpersonids", group_id="staff")["data"]["person_ids"]
            assert len(persons) == 2 + codes.count(0)
        server.send_signal(signal.SIGTERM)
        _, printed = server.communicate(timeout=PATIENCE)
    (line,) = printed.splitlines()
    assert "newperson: the database failed: database or disk is full" in line


def test_a_backup_on_a_disk_that_becomes_full_is_whole_or_not_there(small_disk):
    """Also where its log has room, and not the database that it is written into when the file is closed."""

    def add_persons(db):
        db.insert("persons", ("id", "appid", "person_id", "name", "tag"), [(i, "1", i, "n" * 250, "") for i in persons])

    persons, backup, outcomes = range(2_000), small_disk / "backup.db", []
    with Store() as source:
        source.write(add_persons)
        for room in range(100_000, 3_000_000, 200_000):
            (small_disk / "filler").write_bytes(bytes(3 * 1024**2 - room))
            try:
                back_up_storage(source, backup)
            except StoreError as error:
                outcomes.append(str(error))
                assert [path.name for path in small_disk.iterdir()] == ["filler"]
            else:
                with Store(backup) as whole, whole.reading() as db:
                    assert db.execute("SELECT count(*) FROM persons").fetchone() == (len(persons),)
                backup.unlink()
                break
    assert f"{backup} was not made: database or disk is full" in outcomes
    assert outcomes[-1] == f"{backup} was not made: the end of it could not be written: is the disk full?"
