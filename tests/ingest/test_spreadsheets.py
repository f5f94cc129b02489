"""Tables that go through spreadsheets: manifests as they write them, ids that they damage, and files that we write."""

from __future__ import annotations

import csv
import io
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_async.ingest import BadRow, Row, read_source
from face_async.ingest.tables.spreadsheets import SheetWriter


def written(tmp_path, text, name="people.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(tmp_path, text):
    return list(read_source(written(tmp_path, text)))


# Headers


AS_SPREADSHEETS_WRITE = {
    "as it should be": "person_id,path,group_ids\nada,1.jpg,staff|guests\n",
    "semicolons": "person_id;path;group_ids\nada;1.jpg;staff|guests\n",
    "tabs": "person_id\tpath\tgroup_ids\nada\t1.jpg\tstaff|guests\n",
    "sep=,": "sep=,\nperson_id,path,group_ids\nada,1.jpg,staff|guests\n",
    "sep=;": "sep=;\r\nperson_id;path;group_ids\r\nada;1.jpg;staff|guests\r\n",
    "sep= in quotes": '"sep=;"\nperson_id;path;group_ids\nada;1.jpg;staff|guests\n',
    "a separator of its own": "sep=|\nperson_id|path\nada|1.jpg\n",
    "spaces behind commas": "person_id, path, group_ids\nada, 1.jpg, staff|guests\n",
    "spaces round names": " person_id , path ,group_ids\nada,1.jpg,staff|guests\n",
    "capitals": "Person_ID,PATH,Group_Ids\nada,1.jpg,staff|guests\n",
    "words": "Person ID,Path,Group IDs\nada,1.jpg,staff|guests\n",
    "camel case": "personId,path,groupIds\nada,1.jpg,staff|guests\n",
    "hyphens": "person-id,path,group-ids\nada,1.jpg,staff|guests\n",
    "quotes": '"person_id","path","group_ids"\n"ada","1.jpg","staff|guests"\n',
    "empty columns at the end": "person_id,path,group_ids,,\nada,1.jpg,staff|guests,,\n",
    "empty cells at the end": "person_id,path,group_ids\nada,1.jpg,staff|guests,,,\n",
    "empty rows": "person_id,path,group_ids\n,,\nada,1.jpg,staff|guests\n,,\n\n,,,,\n",
    "a byte order mark": b"\xef\xbb\xbfperson_id,path,group_ids\nada,1.jpg,staff|guests\n",
    "a byte order mark and sep=": b"\xef\xbb\xbfsep=;\nperson_id;path;group_ids\nada;1.jpg;staff|guests\n",
    "texts as formulas": 'person_id,path,group_ids\n"=""ada""",1.jpg,staff|guests\n',
}


@pytest.mark.parametrize("variant", AS_SPREADSHEETS_WRITE)
def test_a_table_as_spreadsheets_write_it_is_understood(tmp_path, variant):
    groups = () if variant == "a separator of its own" else ("staff", "guests")
    assert [Row("ada", str(tmp_path / "1.jpg"), groups)] == read(tmp_path, AS_SPREADSHEETS_WRITE[variant])


REFUSED = {
    "UTF-16": ("person_id,path\nada,1.jpg\n".encode("utf-16"), "UTF-16"),
    "UTF-16, big-endian": (b"\xfe\xff" + "person_id,path\n".encode("utf-16-be"), "UTF-16"),
    "UTF-16 without its mark": ("person_id,path\nada,1.jpg\n".encode("utf-16-le"), "UTF-16"),
    "GBK": ("person_id,path,姓名\n".encode("gbk"), "not UTF-8"),
    "CR alone": ("person_id,path\rada,1.jpg\r", "CR alone"),
    "misspelled": ("person_id,path,group\n", "'group' is none of them"),
    "another language": ("人员,路径\n", "'人员', '路径' is none of them"),
    "no id": ("path,group_ids\n", "does not name person_id"),
    "no picture": ("person_id,group_ids\n", "names neither path nor url"),
    "a column twice": ("person_id,path,Path\n", "names path twice"),
    "the index of pandas": (",person_id,path\n0,ada,1.jpg\n", "column 1 has no name"),
    "spaces between": ("person_id path\nada 1.jpg\n", "'person_id path' is none of them"),
    "no header": ("ada,1.jpg\n", "'ada', '1.jpg' is none of them"),
    "nothing": ("", "does not name person_id"),
}


@pytest.mark.parametrize("variant", REFUSED)
def test_a_header_that_is_not_understood_is_refused_with_its_cause(tmp_path, variant):
    """The message names the file and the cause, and is short whatever the line is."""
    text, cause = REFUSED[variant]
    with pytest.raises(ValueError, match=re.escape(cause)) as caught:
        read(tmp_path, text)
    assert "people.csv" in str(caught.value)


def test_a_message_about_a_header_is_bounded(tmp_path):
    with pytest.raises(ValueError, match="none of them") as caught:
        read(tmp_path, ",".join(["x" * 5_000] * 100) + "\n")
    assert len(str(caught.value)) < 4_000


def test_a_cell_under_no_column_is_a_bad_row(tmp_path):
    """Only empty ones are left out at a row's end."""
    good, bad = read(tmp_path, "person_id,path,,\nada,1.jpg,,\nbob,2.jpg,,staff\n")
    assert good.person_id == "ada"
    assert "4 cells, but the header has 2" in bad.reason


def test_a_spreadsheets_own_file_is_refused_with_advice(tmp_path):
    with pytest.raises(ValueError, match="saved as 'CSV UTF-8'"):
        list(read_source(written(tmp_path, "PK", "people.xlsx")))


# Ids

DAMAGED = {
    "scientific": "1.23457E+18",
    "with a comma": "1,23457E+18",
    "lower case": "4e+05",
    "a fraction": "1001.0",
    "too narrow": "########",
    "an error": "#REF!",
    "another error": "#N/A",
    "a name": "#NAME?",
}


@pytest.mark.parametrize("column", ["person_id", "group_ids"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_an_id_that_a_spreadsheet_has_damaged_is_refused(tmp_path, kind, column):
    """All persons whose ids became one number would be one person."""
    cells = {"person_id": "ada", "group_ids": "staff", column: DAMAGED[kind]}
    row = f'"{cells["person_id"]}",1.jpg,"{cells["group_ids"]}"'
    good, bad = read(tmp_path, f"person_id,path,group_ids\nbob,1.jpg,staff\n{row}\n")
    assert (good.person_id, bad.line) == ("bob", 3)
    assert "spreadsheet" in bad.reason
    assert DAMAGED[kind] in bad.reason


@pytest.mark.parametrize("person_id", ["1e5", "12e5", "E+5", "v1.0", "1.5", "007", "#7", "1001", "1234567890123450"])
def test_an_id_that_is_only_unusual_is_taken(tmp_path, person_id):
    """A long id may end in zeros where others of the file do not: a spreadsheet would have rounded them all."""
    rows = read(tmp_path, f"person_id,path\n{person_id},1.jpg\n1234567890123456789,2.jpg\n")
    assert [person_id, "1234567890123456789"] == [row.person_id for row in rows]


def test_ids_that_have_lost_digits_are_refused(tmp_path):
    """Spreadsheets keep 15 digits of a number, and put zeros in place of the others."""
    ids = ["1234567890123450000", "9876543210987650", "ada", "1001"]
    found = read(tmp_path, "person_id,path\n" + "".join(f"{one},1.jpg\n" for one in ids))
    assert ["ada", "1001"] == [row.person_id for row in found if isinstance(row, Row)]
    assert [2, 3] == [row.line for row in found if isinstance(row, BadRow)]
    assert all("lost its last digits" in row.reason for row in found if isinstance(row, BadRow))


def test_ids_that_have_lost_zeros_are_refused_where_it_can_be_known(tmp_path):
    """The folder of the picture still has them."""
    rows = ["42,people/0042/1.jpg,", "42,,https://example.com/0042/1.jpg"]
    rows += ["42,people/42/1.jpg,", "0042,people/0042/2.jpg,", "1,2024/01/1.jpg,"]
    *bad, good, other, third = read(tmp_path, "person_id,path,url\n" + "\n".join(rows))
    assert len(bad) == 2
    assert all("lost the zeros of the folder's name, '0042'" in row.reason for row in bad)
    assert ["42", "0042", "1"] == [row.person_id for row in (good, other, third)]


def test_ids_in_json_lines_are_what_they_are(tmp_path):
    """No spreadsheet writes them: the way out for ids that only look damaged."""
    path = written(tmp_path, '{"person_id": "1.5E+10", "path": "1.jpg"}\n', "people.jsonl")
    assert ["1.5E+10"] == [row.person_id for row in read_source(path)]


# What is written


def sheet(*rows):
    file = io.StringIO(newline="")
    table = SheetWriter(file, ["name", "value"])
    for row in rows:
        table.write(row)
    return file.getvalue()


def test_a_table_begins_with_a_byte_order_mark():
    assert sheet() == "\ufeffname,value\r\n"


@pytest.mark.parametrize("number", ["-1101", "+1", "-1.5", "1009550071676600319", "007", "90.25"])
def test_numbers_stay_numbers(number):
    """A return code is no formula, whatever its sign; an id is what it is."""
    assert sheet((number, 7)) == f"\ufeffname,value\r\n{number},7\r\n"


text = st.text(st.sampled_from("=+-@|! \t\r\n;,'\"ab1\uff1d\uff0b"), max_size=8)


@given(st.lists(st.tuples(text, text), max_size=4))
def test_no_cell_is_a_formula_wherever_cells_are_separated(rows):
    """In countries where it is the comma, the semicolon or the tab; and what is no formula is what it was."""
    content = sheet(*rows).removeprefix("\ufeff")
    for separator in ",;\t":
        for cell in itertools.chain.from_iterable(csv.reader(io.StringIO(content, newline=""), delimiter=separator)):
            number = re.fullmatch(r"[+-]?\d+(\.\d+)?", cell)
            assert number or not cell.strip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b"))
    back = list(csv.reader(io.StringIO(content, newline="")))[1:]
    for row, found in zip(rows, back, strict=True):
        for cell, other in zip(row, found, strict=True):
            assert cell == other or cell.replace("'", "") == other.replace("'", "")
