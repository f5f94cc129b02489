"""Folders as they are on network storage, Macs and Windows: every command sees the same pictures in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from face_async.cli.demo.people import photographed_people
from face_async.images.folders import is_litter, is_picture
from face_async.portraits import draw_portrait

LITTER = (
    "#recycle/1.jpg",
    "#snapshot/ada/1.jpg",
    "$RECYCLE.BIN/S-1-5-18/$R1.jpg",
    "@Recently-Snapshot/ada/1.jpg",
    "@Recycle/1.jpg",
    "@eaDir/ada@SynoEAStream",
    "System Volume Information/1.jpg",
    "__MACOSX/ada/._1.jpg",
    "lost+found/1.jpg",
    ".Trashes/1.jpg",
    "Network Trash Folder/1.jpg",
    "Thumbs.db",
    "desktop.ini",
    "ada/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "ada/.@__thumb/s1001.jpg",
    "ada/.AppleDouble/1.jpg",
    "ada/.DS_Store",
    "ada/._1.jpg",
    "ada/.hidden.jpg",
    "ada/1.jpg:Zone.Identifier",
    "ada/Thumbnails/1.jpg",
    "ada/Thumbs.db",
    "ada/ehthumbs.db",
    "ada/Icon\r",
    "ada/~$1.jpg",
    "ada/2.jpg.part",
    "ada/3.jpg.crdownload",
)
"""What is never a picture of anybody, whatever is in it."""

PICTURES = ("1.jpg", "2.jfif", "3.heic", "4", "deep/5.JPG")
OTHERS = ("notes.txt", "photo.heic", "movie.jpg", "animated.gif")


@pytest.fixture
def people(tmp_path):
    """Ada's pictures among all that may lie beside them."""
    root = tmp_path / "people"
    for number, name in enumerate(PICTURES):
        _write(root / "ada" / name, draw_portrait(0, shot=number))
    for number, name in enumerate(LITTER):
        _write(root / name, draw_portrait(1 + number, size=120))
    _write(root / "ada" / "notes.txt", b"taken in May")
    _write(root / "ada" / "photo.heic", b"\0\0\0\x18ftypheic")
    _write(root / "ada" / "movie.jpg", b"\0\0\0\x18ftypmp42")
    _write(root / "ada" / "animated.gif", b"GIF89a")
    return root


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def counted(folder):
    """Return how many entries are passed over: of litter in litter, the outermost counts."""
    outermost = {
        next(parent for parent in [*reversed(path.parents), path] if is_litter(parent.name))
        for path in (Path(name) for name in LITTER)
    }
    assert all((folder / path).exists() for path in outermost)
    return len(outermost)


def names(paths, folder):
    return sorted(str(Path(path).relative_to(folder / "ada")) for path in paths)


def test_enroll_takes_the_pictures_and_counts_the_rest(say, people):
    """Nobody is enrolled with a thumbnail or a deleted file, and nobody is called #recycle."""
    said = say("enroll", "people", "-g", "staff", "--failures", "failures.csv", "--json", "--recognizer", "fingerprint")
    told = said.lines[-1]
    assert (told["done"], told["failed"], told["bad_rows"]) == (len(PICTURES), len(OTHERS), 0)
    assert told["passed_over"] == counted(people)
    assert say("persons", "staff").out.split() == ["ada"]
    with Path("failures.csv").open(newline="", encoding="utf-8-sig") as file:
        failed = {Path(row["source"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(failed) == set(OTHERS)
    assert "is no JPEG, PNG, BMP or WebP picture" in failed["photo.heic"]
    said = say("enroll", "people", "-g", "staff", "--recognizer", "fingerprint")
    assert f"{counted(people)}  passed      files and folders that systems and programs leave behind" in said.out


def test_identify_takes_the_same_pictures_and_counts_the_rest(say, people):
    say("enroll", "people", "-g", "staff", "-q", "--recognizer", "fingerprint")
    said = say("identify", "people", "-g", "staff", "--json", "--recognizer", "fingerprint")
    images = json.loads(said.out)["images"]
    assert names([image["image"] for image in images], Path("people")) == sorted(PICTURES)
    assert all(image["recognized"] for image in images)
    assert f"no JPEG, PNG, BMP or WebP: {len(OTHERS)} (" in said.err
    assert f"left behind by systems and programs: {counted(people)}\n" in said.err


def test_demo_takes_the_same_pictures(people):
    """But those in deeper folders."""
    [ada] = photographed_people(people)
    assert names([*ada.enrolled, *ada.probes], people) == sorted(PICTURES)[:-1]


@pytest.mark.parametrize("name", ["Thumbs.db", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "Desktop.ini"])
def test_litter_is_litter_whatever_the_case_of_its_name(name):
    assert all(map(is_litter, [name, name.lower(), name.upper()]))


@pytest.mark.parametrize("name", ["ada", "1.jpg", "IMG~1.JPG", "thumbs-up.jpg", "a.b", "#1", "@ada", "$1.jpg", "王芳"])
def test_what_only_looks_odd_is_no_litter(name):
    assert not is_litter(name)


def test_a_picture_is_one_by_its_content(people):
    """And what cannot be read may be one: whoever reads it says why it cannot."""
    assert all(is_picture(people / "ada" / name) for name in PICTURES)
    assert not any(is_picture(people / "ada" / name) for name in OTHERS)
    assert is_picture(people / "ada" / "missing.jpg")
    (people / "short").write_bytes(b"\xff\xd8")
    assert not is_picture(people / "short")


def test_a_flat_folder_is_refused_with_advice(say, tmp_path):
    """Rather than as thousands of files that are in no person's folder."""
    for number in range(3):
        _write(tmp_path / "flat" / f"{number}.jpg", draw_portrait(number, size=120))
    said = say("enroll", "flat", "-g", "staff", "-q", "--recognizer", "fingerprint")
    assert (said.code, said.out) == (2, "")
    assert "has 3 files, but no sub-folders: put each person's pictures into a sub-folder" in said.err
    assert "--person ID" in said.err
    assert said.err.count("\n") == 1
