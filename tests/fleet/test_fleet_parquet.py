"""Sources in Parquet: each row is judged as one of CSV is, and an odd one stops no other."""

from __future__ import annotations

import csv
from importlib import import_module

import pytest
from ingestkit import write_people

from face_async.fleet import enroll
from face_async.fleet.plan import Plan, plan_enrollment, rows_of
from face_async.fleet.run import run_failures
from face_async.fleet.state import open_state
from face_async.ingest import BadRow, read_source
from face_async.ingest.parts import part_of

pytestmark = pytest.mark.external("pyarrow")

COLUMNS = ("person_id", "path", "url", "group_ids", "person_name", "tag")
GOOD = {"person_id": "ada", "path": "ada.jpg"}
ODD = {
    "a path that leads out": {"person_id": "ada", "path": "../../etc/passwd"},
    "an absolute path": {"person_id": "ada", "path": "/etc/passwd"},
    "a link that leads out": {"person_id": "ada", "path": "link.jpg"},
    "a URL that is none": {"person_id": "ada", "url": "nonsense"},
    "a URL of object storage elsewhere": {"person_id": "ada", "url": "s3://bucket/ada.jpg"},
    "a URL of object storage with a password": {"person_id": "ada", "url": "s3://me:secret@bucket/ada.jpg"},
    "no picture": {"person_id": "ada"},
    "two pictures": {"person_id": "ada", "path": "ada.jpg", "url": "http://pictures/1.jpg"},
    "nobody": {"path": "ada.jpg"},
    "an id with a space": {"person_id": "a da", "path": "ada.jpg"},
    "an id that is too long": {"person_id": "a" * 300, "path": "ada.jpg"},
    "a group with a slash": {"person_id": "ada", "path": "ada.jpg", "group_ids": "staff|a/b"},
    "a group without a name": {"person_id": "ada", "path": "ada.jpg", "group_ids": "staff||guests"},
    "a tag that is too long": {"person_id": "ada", "path": "ada.jpg", "tag": "t" * 5_000},
}


def write_table(path, rows, *, missing=None):
    pa = import_module("pyarrow")
    columns = {name: pa.array([row.get(name, missing) for row in rows], pa.string()) for name in COLUMNS}
    import_module("pyarrow.parquet").write_table(pa.table(columns), path)


def rows_below(state, source, shards=3, **options):
    """Return the rows of all parts of a run, in the order of the source for bad ones."""
    opened = open_state(state)
    plan = plan_enrollment(opened, source, Plan("enroll", str(source), shards, ("staff",), **options))
    found = [row for rank in range(shards) for row in rows_of(opened, rank)]
    assert (len(found), 0) == (plan.rows, plan.bad_rows)
    good = [row for row in found if not isinstance(row, BadRow)]
    return good, sorted((row for row in found if isinstance(row, BadRow)), key=lambda row: (row.file, row.line))


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "elsewhere.jpg").touch()
    (folder / "link.jpg").symlink_to("../elsewhere.jpg")
    return folder


@pytest.mark.parametrize("several", [False, True])
def test_a_source_in_parquet_is_divided_like_any_other(tmp_path, home, several):
    """Paths are relative to its folder, and all rows of a person are in the same part."""
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rows = [
        {"person_id": f"p{number // 2}", "path": f"{number}.jpg", "group_ids": ["a", "b"] if number % 3 else None}
        for number in range(1_000)
    ]
    table = pa.Table.from_pylist([{"url": None, "tag": "t", **row} for row in rows])
    for number, part in enumerate([table.slice(0, 600), table.slice(600)] if several else [table]):
        parquet.write_table(part, home / f"{number}.parquet")
    source = home if several else home / "0.parquet"
    opened = open_state(tmp_path / "run")
    plan = plan_enrollment(opened, source, Plan("enroll", str(source), 8, ("staff",)))
    assert (1_000, 0) == (plan.rows, plan.bad_rows)
    expected = [
        (part_of(row["person_id"], 8), str(home / row["path"]), tuple(row["group_ids"] or ["staff"])) for row in rows
    ]
    found = [(rank, row.source, row.group_ids) for rank in range(8) for row in rows_of(opened, rank)]
    assert sorted(expected) == sorted(found)


@pytest.mark.parametrize("allow_outside", [False, True])
def test_every_row_is_judged_as_one_of_csv(tmp_path, home, allow_outside):
    """What is good, what is bad, and why; whatever stands for a missing value."""
    rows = [GOOD, *ODD.values(), GOOD]
    with (home / "people.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    of_csv = list(read_source(home / "people.csv", group_ids=["staff"], allow_outside=allow_outside))
    bad = [row for row in of_csv if isinstance(row, BadRow)]
    for number, missing in enumerate((None, "")):
        source = home / f"{number}.parquet"
        write_table(source, rows, missing=missing)
        good, odd = rows_below(tmp_path / f"run{number}", source, allow_outside=allow_outside)
        assert sorted((row for row in of_csv if not isinstance(row, BadRow)), key=repr) == sorted(good, key=repr)
        expected = [(str(source), row.line - 1, row.reason) for row in bad]  # a header is a line
        assert expected == [(row.file, row.line, row.reason) for row in odd]
        assert len(odd) == len(ODD) - (4 if allow_outside else 0)


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_a_text_that_is_not_utf_8_is_wrong_with_its_own_row(tmp_path, home, kind):
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    text = pa.array([b"ada", b"a\xff", b"bob"], pa.binary())
    ids = {
        "string": lambda: pa.Array.from_buffers(pa.string(), 3, text.buffers()),
        "large_string": lambda: text.cast(pa.large_binary()).view(pa.large_string()),
        "binary": lambda: text,
        "dictionary": text.dictionary_encode,
    }[kind]()
    for name, columns in {
        "id": {"person_id": ids, "path": ["1.jpg", "2.jpg", "3.jpg"]},
        "path": {"person_id": ["ada", "eve", "bob"], "path": ids},
    }.items():
        parquet.write_table(pa.table(columns), home / f"{name}.parquet")
        good, bad = rows_below(tmp_path / name, home / f"{name}.parquet")
        assert {"ada", "bob"} == {row.person_id for row in good}
        assert [2] == [row.line for row in bad]
        assert "UTF-8" in bad[0].reason


def test_groups_may_be_a_list_and_ids_may_be_numbers(tmp_path, home):
    """An element of a list that is no group is wrong with its row; an empty list is none."""
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    groups = [["a", "b"], [], None, [None], [""], ["a b"]]
    for number, kind in enumerate((pa.list_(pa.string()), pa.large_list(pa.large_string()))):
        table = pa.table({"person_id": range(1, 7), "path": ["p.jpg"] * 6, "group_ids": pa.array(groups, kind)})
        parquet.write_table(table, home / f"{number}.parquet")
        good, bad = rows_below(tmp_path / f"run{number}", home / f"{number}.parquet")
        told = {row.person_id: row.group_ids for row in good}
        assert {"1": ("a", "b"), "2": ("staff",), "3": ("staff",)} == told
        assert [4, 5, 6] == [row.line for row in bad]


def test_odd_rows_keep_nobody_else_from_being_enrolled(tmp_path, connection, meter):
    """They are counted and named by their place in the source, however often the run is begun."""
    people = write_people(tmp_path / "people", 10, 2)
    rows = [
        {"person_id": path.parent.name, "path": str(path.relative_to(people))} for path in sorted(people.rglob("*.jpg"))
    ]
    odd = [*ODD.values()]
    (tmp_path / "elsewhere.jpg").touch()
    (people / "link.jpg").symlink_to("../elsewhere.jpg")
    write_table(people / "a.parquet", [*odd, *rows[:10]])
    write_table(people / "b.parquet", [*rows[10:], *odd])
    state = tmp_path / "run"
    for _ in range(2):
        summary = enroll(people, state=state, connection=connection, group_ids=["staff"], shards=4)
        assert [2] * 10 == [len(meter.enrolled[f"person{number}"]) for number in range(10)]
        assert (20, 20, 4) == (summary.rows, summary.done, summary.parts_done)
        assert (len(odd) * 2, False) == (summary.bad_rows, summary.complete)
        expected = [
            f"{people}/{name}:{first + number}"
            for name, first in (("a.parquet", 1), ("b.parquet", 11))
            for number in range(len(odd))
        ]
        assert sorted(expected) == sorted(source for _, source, _, _ in run_failures(state))


def test_a_source_in_parquet_with_other_columns_is_refused(tmp_path):
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    parquet.write_table(pa.table({"person": ["a"], "path": ["b"]}), tmp_path / "people.parquet")
    with pytest.raises(ValueError, match=r"must have the columns person_id and path or url.*it has person, path"):
        plan_enrollment(open_state(tmp_path / "run"), tmp_path / "people.parquet", Plan("enroll", "people", 8, ()))
