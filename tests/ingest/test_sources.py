"""Folders and manifests: every picture once, in order, and a bad row costs itself alone."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_async.ingest import BadRow, Row, read_source


def rows_of(path, **options):
    return list(read_source(path, **options))


def manifest(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Folders


def test_a_folder_has_a_sub_folder_for_each_person(tmp_path):
    """Pictures lie at any depth below it, and come in the order of names."""
    names = ["bob/2.jpg", "bob/10.jpg", "ada/holiday/a.png", "ada/z.jpg", "ada/holiday/deep/b.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = ["ada/holiday/a.png", "ada/holiday/deep/b.jpg", "ada/z.jpg", "bob/10.jpg", "bob/2.jpg"]
    found = rows_of(tmp_path, group_ids=["staff"])
    assert [Row(name[:3], str(tmp_path / name), ("staff",)) for name in expected] == found


def test_hidden_files_and_litter_are_passed_over(tmp_path):
    for name in [".git/config", "ada/.DS_Store", "ada/Thumbs.db", "ada/.old/1.jpg", "ada/1.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [Row("ada", str(tmp_path / "ada/1.jpg"))] == rows_of(tmp_path)


def test_what_is_nobodys_picture_is_a_bad_row(tmp_path):
    """A file beside the persons' folders, a link that may lead in a circle, a name that no id can be."""
    (tmp_path / "stray.jpg").touch()
    (tmp_path / "ada lovelace").mkdir()
    (tmp_path / "ada lovelace" / "1.jpg").touch()
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "around").symlink_to(tmp_path)
    (tmp_path / "bob" / "1.jpg").touch()
    found = rows_of(tmp_path)
    assert [Row("bob", str(tmp_path / "bob/1.jpg"))] == [row for row in found if isinstance(row, Row)]
    bad = {Path(row.file).name: row.reason for row in found if isinstance(row, BadRow)}
    assert {"stray.jpg", "1.jpg", "around"} == set(bad)
    assert "in no person's folder" in bad["stray.jpg"]
    assert "white space" in bad["1.jpg"]
    assert "circle" in bad["around"]


def test_a_name_that_is_not_utf8_is_a_bad_row(tmp_path):
    (tmp_path / "ada").mkdir()
    name = os.fsdecode(b"\xff.jpg")
    try:
        (tmp_path / "ada" / name).touch()
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    [row] = rows_of(tmp_path)
    assert "not UTF-8" in row.reason
    assert row.file.encode().endswith(rb"\udcff.jpg")  # so that it can be noted, and listed in a file


def test_folders_are_walked_lazily(tmp_path, monkeypatch):
    """The second person's folder is not looked into before the first one's pictures are taken."""
    for name in ["ada/1.jpg", "bob/1.jpg"]:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    looked, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: looked.append(Path(path).name) or listdir(path))
    rows = read_source(tmp_path)
    next(rows)
    assert [tmp_path.name, "ada"] == looked
    rows.close()


# Manifests

CSV = "person_id,path,url,group_ids,person_name,tag\n"


def test_a_csv_has_a_header_and_a_picture_a_line(tmp_path):
    text = CSV + 'ada,pics/1.jpg,,staff|guests,"Ada, Countess",hq\n\nbob,,https://example.com/b.jpg,,,\n'
    assert [
        Row("ada", str(tmp_path / "pics/1.jpg"), ("staff", "guests"), "Ada, Countess", "hq"),
        Row("bob", "https://example.com/b.jpg"),
    ] == rows_of(manifest(tmp_path, "people.csv", text))


def test_a_csv_may_be_a_spreadsheets(tmp_path):
    """With a byte order mark, CR LF, only some columns, and in another order."""
    text = b"\xef\xbb\xbfpath,person_id\r\n1.jpg,\xe7\x8e\x8b\r\n"
    assert [Row("王", str(tmp_path / "1.jpg"))] == rows_of(manifest(tmp_path, "people.CSV", text))


def test_json_lines_have_the_same_keys(tmp_path):
    lines = [
        {"person_id": "ada", "path": "../1.jpg", "group_ids": ["a|b", "c"], "person_name": "Ada", "tag": ""},
        {"person_id": "bob", "url": "http://example.com/b.jpg", "group_ids": None},
    ]
    text = "\n".join(map(json.dumps, lines))
    folder = tmp_path / "deep"
    folder.mkdir()
    assert [
        Row("ada", str(tmp_path / "1.jpg"), ("a|b", "c"), "Ada", ""),
        Row("bob", "http://example.com/b.jpg", ("all",)),
    ] == rows_of(manifest(folder, "people.jsonl", text), group_ids=["all"], allow_outside=True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ada,1.jpg", "it has 2 cells, but the header has 6"),
        ('ada,"1.jpg,,,,', "it is no CSV"),
        ("ada,,,,,", "either a path or a url"),
        ("ada,1.jpg,http://example.com/1.jpg,,,", "either a path or a url"),
        (",1.jpg,,,,", "person_id must not be empty"),
        ("a/b,1.jpg,,,,", "slashes"),
        ("ada,1.jpg,,a||b,,", "group_ids[1] must not be empty"),
        ("ada,1.jpg,,a|a,,", "must not name one twice"),
        ("ada,,ftp://example.com/1.jpg,,,", "must begin with http"),
        (f"ada,1.jpg,,,,{'x' * 1_025}", "tag has 1,025 bytes"),
        (f"ada,{'x' * 1_100_000},,,,", "longer than 1,048,576 bytes"),
        (b"ada,\xff.jpg,,,,", "not UTF-8"),
        ("ada,\0.jpg,,,,", "NUL"),
    ],
    ids=itertools.count(),
)
def test_a_bad_line_of_csv_costs_itself_alone(tmp_path, line, reason):
    """It is reported with file and line; the lines around it are read."""
    raw = line if isinstance(line, bytes) else line.encode()
    path = manifest(tmp_path, "people.csv", CSV.encode() + b"bob,1.jpg,,,,\n" + raw + b"\nbob,2.jpg,,,,\n")
    before, bad, after = rows_of(path)
    assert (str(path), 3) == (bad.file, bad.line)
    assert reason in bad.reason
    assert ["1.jpg", "2.jpg"] == [Path(row.source).name for row in (before, after)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", "no JSON object"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"person_id": 7, "path": "1.jpg"}', "person_id must be a str, not int"),
        ('{"person_id": "ada", "path": "1.jpg", "group_ids": "staff"}', "must be a list of str"),
        ('{"person_id": "ada", "path": "1.jpg", "group_ids": [1]}', "group_ids must be a str, not int"),
        ('{"person_id": "ada", "path": "1.jpg", "group": "staff"}', "no such key as 'group'"),
        ('{"person_id": "ada", "path": "\\ud800"}', "not UTF-8"),
    ],
    ids=itertools.count(),
)
def test_a_bad_line_of_json_costs_itself_alone(tmp_path, line, reason):
    good = json.dumps({"person_id": "bob", "path": "1.jpg"})
    path = manifest(tmp_path, "people.ndjson", f"{good}\n{line}\n{good}\n")
    before, bad, after = rows_of(path)
    assert before == after
    assert (str(path), 2) == (bad.file, bad.line)
    assert reason in bad.reason


@pytest.mark.parametrize("header", ["", "person_id", "person,path", "person_id,path,group_id", "person_id,path,path"])
def test_a_header_that_is_wrong_ends_the_run_before_it_begins(tmp_path, header):
    """A misspelled column that is passed over would enroll everybody without their groups."""
    with pytest.raises(ValueError, match="the first line must name the columns"):
        rows_of(manifest(tmp_path, "people.csv", header + "\nada,1.jpg,x\n"))


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a folder"):
        rows_of(manifest(tmp_path, "people.txt", ""))
    with pytest.raises(FileNotFoundError):
        rows_of(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="group_ids"):
        rows_of(tmp_path, group_ids=["a b"])
    with pytest.raises(TypeError, match="every row must be a Row"):
        rows_of(["ada"])


def test_a_program_may_make_the_rows_itself():
    """A row that cannot be is told by its number; one that the program found to be bad, as it says."""
    table = BadRow("people.db", 7, "it has no picture")
    good, bad, told = rows_of(iter([Row("ada", "/1.jpg"), Row("a b", "/2.jpg"), table]))
    assert (Row("ada", "/1.jpg"), "row", 2, table) == (good, bad.file, bad.line, told)


@given(st.lists(st.binary(max_size=20), max_size=5), st.sampled_from([".csv", ".jsonl"]))
def test_no_manifest_ends_the_run(lines, suffix):
    """Whatever the lines are, each is one row, good or bad, or blank."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [line.replace(b"\n", b"") for line in lines]
        path = Path(folder, "people" + suffix)
        path.write_bytes(b"\n".join(([CSV.strip().encode()] if suffix == ".csv" else []) + lines))
        assert len(rows_of(path)) <= len(lines)
        numbers = [row.line for row in rows_of(path) if isinstance(row, BadRow)]
        assert sorted(set(numbers)) == numbers


plain = st.text("aZ9é王", min_size=1, max_size=4)


@given(
    st.lists(
        st.tuples(plain, plain, st.lists(plain, unique=True, max_size=3), st.text(" ,;|'\"é", max_size=6)), max_size=5
    )
)
def test_what_is_written_is_read(rows):
    """CSV as the csv module writes it gives back what it was written from."""
    with tempfile.TemporaryDirectory() as folder:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["person_id", "path", "group_ids", "tag"])
        writer.writerows([person, path, "|".join(groups), tag] for person, path, groups, tag in rows)
        path = Path(folder, "people.csv")
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        expected = [Row(person, str(Path(folder, name)), groups, tag=tag or None) for person, name, groups, tag in rows]
        assert expected == rows_of(path)


# Outside


@pytest.fixture
def elsewhere(tmp_path):
    """Return a folder beside the source, with a picture in it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.jpg").touch()
    return tmp_path / "elsewhere"


def complaints(rows):
    return {Path(row.file).name: row.reason for row in rows if isinstance(row, BadRow)}


def test_a_link_out_of_the_folder_is_a_bad_row(tmp_path, elsewhere):
    """A link to a picture, and a link to a person's folder; a link within the folder is a name like any other."""
    people = tmp_path / "people"
    (people / "ada").mkdir(parents=True)
    (people / "ada" / "1.jpg").touch()
    (people / "ada" / "2.jpg").symlink_to("1.jpg")
    (people / "ada" / "leak.jpg").symlink_to(elsewhere / "secret.jpg")
    (people / "bob").symlink_to(elsewhere)
    found = rows_of(people)
    assert ["1.jpg", "2.jpg"] == [Path(row.source).name for row in found if isinstance(row, Row)]
    assert {"leak.jpg", "bob"} == set(complaints(found))
    assert all("--allow-outside" in reason and str(people) in reason for reason in complaints(found).values())
    allowed = rows_of(people, allow_outside=True)
    assert ["1.jpg", "2.jpg", "leak.jpg", "secret.jpg"] == [Path(row.source).name for row in allowed]


def test_a_folder_that_is_a_link_itself_holds_what_it_leads_to(tmp_path, elsewhere):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "1.jpg").touch()
    (tmp_path / "people").symlink_to(tmp_path)
    assert "1.jpg" in {Path(row.source).name for row in rows_of(tmp_path / "people") if isinstance(row, Row)}


def test_a_manifests_path_out_of_its_folder_is_a_bad_row(tmp_path, elsewhere):
    """Whether it is absolute, climbs, or leads through a link; a URL is nowhere."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "1.jpg").touch()
    (pictures / "way").symlink_to(elsewhere)
    outside = ["/etc/hostname", "../elsewhere/secret.jpg", "way/secret.jpg", "deep/../../elsewhere/secret.jpg"]
    inside = ["1.jpg", str(pictures / "1.jpg"), "deep/../1.jpg", "missing.jpg"]
    lines = [json.dumps({"person_id": "ada", "path": path}) for path in [*outside, *inside]]
    lines.append(json.dumps({"person_id": "ada", "url": "https://example.com/1.jpg"}))
    path = manifest(pictures, "people.jsonl", "\n".join(lines))
    found = rows_of(path)
    assert [1, 2, 3, 4] == [row.line for row in found if isinstance(row, BadRow)]
    assert "it lies outside" in found[0].reason
    assert all(isinstance(row, Row) for row in rows_of(path, allow_outside=True))


def test_rows_of_a_program_may_name_any_file(elsewhere):
    [row] = rows_of([Row("ada", str(elsewhere / "secret.jpg"))])
    assert isinstance(row, Row)
