"""A storage as a whole: copied into another one of any kind, and backed up."""

from __future__ import annotations

import contextlib
import resource
import signal

import pytest
from serverkit import APPID, ToyRecognizer, picture

from face_async.limits import ServiceLimits
from face_async.server import Store, StoreError, back_up_storage, copy_storage, open_storage
from face_async.server.refusal import Refusal

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.external("postgres"))]
TOY = ToyRecognizer()
LIMITS = ServiceLimits(max_persons_per_group=3)


def enroll(store, person_id, *groups, face=None):
    found = None if face is None else TOY.find_face(picture(face))
    return store.add_person(
        APPID, person_id, groups, name=f"{person_id}\x00", tag="\x1a", face=found, recognizer=TOY, limits=LIMITS
    )


def content(store):
    """Return all that can be asked of a storage."""
    groups = {group_id: store.person_ids(APPID, group_id) for group_id in store.group_ids(APPID)}
    persons = {person_id: store.person(APPID, person_id) for members in groups.values() for person_id in members}
    faces = {face_id: store.face_info(APPID, face_id) for one in persons.values() for face_id in one.face_ids}
    embeddings = {person_id: store.embeddings(APPID, person_id, TOY).tolist() for person_id in persons}
    probe = TOY.find_face(picture(1)).embedding
    return store.identity(), groups, persons, faces, embeddings, store.identify(APPID, list(groups), probe, TOY, 5)


@pytest.fixture
def filled(open_one):
    """A storage with persons, faces and groups, some of which have gone."""
    with open_one() as store:
        enroll(store, "gone", "first", face=9)
        enroll(store, "ada", "staff", "guests", face=1)
        enroll(store, "bob", "guests", "staff", face=2)
        enroll(store, "eve", "guests")
        store.add_faces(APPID, "ada", [TOY.find_face(picture(5))], tag="second", recognizer=TOY, max_faces=20)
        store.delete_person(APPID, "gone")
        yield store


@pytest.fixture(params=KINDS)
def target(request, tmp_path):
    """The name of a new database of each kind."""
    return str(tmp_path / "copy.db") if request.param == "sqlite" else request.getfixturevalue("postgres").url()


def test_a_copy_says_the_same_and_goes_on_alike(filled, target):
    """From any kind into any kind: ids, order, floats to the last bit; and limits, galleries and keys after that."""
    before = content(filled)
    progress = []
    with open_storage(target) as copy:
        counts = copy_storage(filled, copy, progress=lambda *step: progress.append(step))
        assert counts == {"groups": 3, "persons": 3, "memberships": 5, "faces": 3, "thumbnails": 0}
        assert progress == [(table, count) for table, count in counts.items() if count]
        assert content(copy) == before == content(filled)
        with pytest.raises(Refusal, match="-1310"):
            enroll(copy, "dan", "guests")
        enroll(copy, "dan", "staff", "new", face=1)
        assert copy.group_ids(APPID) == ["first", "staff", "guests", "new"]
        assert copy.person_ids(APPID, "staff") == ["ada", "bob", "dan"]
        found = copy.identify(APPID, ["staff"], TOY.find_face(picture(1)).embedding, TOY, 5)
        assert [match.person_id for match in found] == ["ada", "dan", "bob"]


def test_nothing_is_copied_into_a_database_that_is_not_empty(filled, target):
    """What is in it stays as it is."""
    with open_storage(target) as copy:
        enroll(copy, "mine", "mine")
        with pytest.raises(StoreError, match="is not empty"):
            copy_storage(filled, copy)
        assert copy.group_ids(APPID) == ["mine"]


def test_a_copy_that_fails_leaves_nothing(filled, target):
    """Whoever tries again begins with an empty database."""

    def fails(table, count):
        if table == "faces":
            raise RuntimeError("interrupted")

    with open_storage(target) as copy:
        with pytest.raises(RuntimeError, match="interrupted"):
            copy_storage(filled, copy, progress=fails)
        assert copy.group_ids(APPID) == []
        copy_storage(filled, copy)
        assert content(copy) == content(filled)


def test_a_backup_is_a_private_file_that_can_be_served(filled, tmp_path):
    """Of a storage of any kind, as it is at one moment; nothing that is there is overwritten."""
    path = tmp_path / "backup.db"

    def writes(table, count):
        if table == "groups":  # the first of them, so that the copy has begun
            enroll(filled, "later", "first", face=8)

    before = content(filled)
    back_up_storage(filled, path, progress=writes)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("backup")] == ["backup.db"]
    with Store(path) as backup:
        assert content(backup) == before != content(filled)
    with pytest.raises(StoreError, match="is there already"):
        back_up_storage(filled, path)


def test_of_two_backups_into_one_file_the_first_one_that_is_whole_is_kept(filled, tmp_path):
    """Neither takes the other's part, which is not whole yet, for its own."""
    path, others = tmp_path / "backup.db", []

    def another(*_):
        if not others:
            others.append(back_up_storage(filled, path))

    with pytest.raises(StoreError, match="there already"):
        back_up_storage(filled, path, progress=another)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("backup")] == ["backup.db"]
    with Store(path) as backup:
        assert content(backup) == content(filled)


def test_a_backup_that_fails_leaves_no_file(filled, tmp_path):
    """One that is cut short is not taken for a whole one."""

    def fails(table, count):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        back_up_storage(filled, tmp_path / "backup.db", progress=fails)
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith("backup")]


@contextlib.contextmanager
def a_full_disk(largest_file):
    """No file grows beyond so many bytes; RLIMIT_FSIZE says EFBIG where a disk says ENOSPC."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_backup_on_a_full_disk_leaves_nothing_and_names_its_file(filled, tmp_path):
    """Wherever it becomes full: in the tables, or in their content."""
    folder = tmp_path / "backups"
    folder.mkdir()
    said = []
    for size in range(0, 400_000, 16_384):
        try:
            with a_full_disk(size):
                back_up_storage(filled, folder / "backup.db")
        except StoreError as error:
            said.append(str(error))
            assert list(folder.iterdir()) == []
        else:
            break
    assert len(said) > 3
    assert all(str(folder / "backup.db") in line for line in said)
    assert list(folder.iterdir()) == [folder / "backup.db"]
    with Store(folder / "backup.db") as backup:
        assert content(backup) == content(filled)


def test_a_copy_that_cannot_be_made_names_both_databases(filled, target):
    """What a database says may name neither."""
    with open_storage(target) as copy:
        enroll(copy, "mine", "mine")
        with pytest.raises(StoreError) as caught:
            copy_storage(filled, copy)
        assert repr(filled) in str(caught.value)
        assert repr(copy) in str(caught.value)
