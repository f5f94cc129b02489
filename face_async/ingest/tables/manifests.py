"""Manifests in CSV and JSON Lines, read line by line.

A line is a row, in CSV too: a quote that is never closed spoils its own row only. CSV may be as spreadsheets write it:
with a byte order mark, separated by commas, semicolons or tabs, with ``sep=;`` as its first line, with columns such as
``Person ID`` in any case, and with empty cells and rows at its ends.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from attrs import evolve, frozen

from face_async.errors import quoted
from face_async.images import ImageUrl
from face_async.ingest.objects import is_object_url, open_object
from face_async.ingest.rows import Row
from face_async.ingest.tables.spreadsheets import (
    cell_text,
    damage,
    has_lost_digits,
    is_long_number,
    lost_digits,
    lost_zeros,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from face_async.ingest.rows import Found

GROUP_SEPARATOR = "|"
"""What stands between the groups of one CSV cell; a semicolon is the separator of cells in some countries."""

_COLUMNS = ("person_id", "path", "url", "group_ids", "person_name", "tag")
_COLUMN_OF = {name.replace("_", ""): name for name in _COLUMNS}
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t ]*', re.IGNORECASE)
_MAX_LINE_BYTES = 1_048_576
_SAVE_AS = "save the manifest as UTF-8, a spreadsheet as 'CSV UTF-8'"
_OTHER_UNICODE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\0\0\xfe\xff")
_MOST_NAMED = 5  # columns in a message


def read_manifest(path: str) -> Iterator[Found]:
    """Yield the rows of a manifest whose name ends in ``.csv``, ``.jsonl`` or ``.ndjson``.

    Raises:
        OSError: It cannot be read.
        ValueError: Its name ends in something else, or its header is wrong.
    """
    reader = _READERS.get(_suffix(path))
    if reader is None:
        if not is_object_url(path):
            Path(path).stat()  # what is not there has no wrong name
        raise ValueError(
            f"{quoted(path)} must be a folder with a sub-folder for each person, or end in .csv, .jsonl or "
            f".ndjson; a spreadsheet can be saved as 'CSV UTF-8'"
        )
    return reader(path)


def is_manifest(path: str) -> bool:
    """Return whether a path or URL is that of a manifest by its name."""
    return _suffix(path) in _READERS


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - it may be a URL


def _opened(path: str) -> BinaryIO:
    return open_object(path) if is_object_url(path) else Path(path).open("rb")


class _Lines:
    """A file's lines, of bounded length. Each is decoded by itself, so that a bad line costs that line only."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0

    def next(self) -> str | None:
        """Return the next line, None at the end.

        Raises:
            ValueError: It is too long, or not UTF-8; the line behind it can be read all the same.
        """
        raw = self._file.readline(_MAX_LINE_BYTES)
        if not raw:
            return None
        self.number += 1
        if self.number == 1:
            if raw.startswith(_OTHER_UNICODE):
                raise ValueError(f"it is UTF-16, as a spreadsheet's 'Unicode Text' is; {_SAVE_AS}")
            raw = raw.removeprefix(codecs.BOM_UTF8)  # as spreadsheets write it
        if len(raw) == _MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = self._file.readline(_MAX_LINE_BYTES)
            raise ValueError(f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
        try:
            return raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"the line is not UTF-8; {_SAVE_AS}") from None


def _rows(file: str, lines: _Lines, fields_of: Callable[[str], Mapping[str, object] | None]) -> Iterator[Found]:
    folder = os.path.dirname(file)  # noqa: PTH120 - it may be a URL
    while True:
        try:
            line = lines.next()
            if line is None:
                return
            fields = fields_of(line) if line.strip() else None
            if fields is not None:
                yield file, lines.number, row_of(fields, folder)
        except ValueError as error:
            yield file, lines.number, str(error)


def row_of(fields: Mapping[str, object], folder: str) -> Row:
    """Return the row that a manifest in a folder, or below a URL of object storage, has in its columns.

    Raises:
        ValueError: It is none.
    """
    unknown = [name for name in fields if name not in _COLUMNS]
    if unknown:
        raise ValueError(f"there is no such key as {quoted(unknown[0])}; the keys are {', '.join(_COLUMNS)}")
    groups = fields.get("group_ids")
    if groups is not None and not isinstance(groups, list):
        raise ValueError("group_ids must be a list of str")
    path, url = _text(fields, "path"), _text(fields, "url")
    if (path is None) == (url is None):
        raise ValueError("it must have either a path or a url")
    return Row(
        person_id=_text(fields, "person_id") or "",
        source=_below(folder, cast("str", path)) if url is None else url if is_object_url(url) else ImageUrl(url).url,
        group_ids=tuple(_string("group_ids", group) for group in cast("list[object]", groups or [])),
        person_name=_text(fields, "person_name"),
        tag=_text(fields, "tag"),
    )


def _below(folder: str, path: str) -> str:
    root, slashes, place = folder.partition("://") if is_object_url(folder) else ("", "", folder)
    return root + slashes + os.path.normpath(os.path.join(place, path))  # noqa: PTH118 - for each of millions


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else _string(name, value)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not {type(value).__name__}")  # noqa: TRY004 - one error for all that a row can be wrong in
    return value


# JSON Lines


def _json_rows(path: str) -> Iterator[Found]:
    with _opened(path) as file:
        yield from _rows(path, _Lines(file), _json_object)


def _json_object(line: str) -> dict[str, object]:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as above
    return cast("dict[str, object]", value)


# CSV


def _csv_rows(path: str) -> Iterator[Found]:
    with _opened(path) as file:
        lines = _Lines(file)
        try:
            table = _Table.of(lines, path)
        except ValueError as error:
            raise ValueError(f"{quoted(path)}: {error}") from None
        yield from _rows(path, lines, _Checks(table).fields)


@frozen
class _Table:
    """How a CSV file is written.

    Attributes:
        path: The file.
        separator: What stands between cells.
        spaced: Whether a space follows it.
        columns: The columns' names, without unnamed ones at the end.
    """

    path: str
    separator: str
    spaced: bool
    columns: Sequence[str]

    @classmethod
    def of(cls, lines: _Lines, path: str) -> _Table:
        """Learn it from the first lines.

        Raises:
            ValueError: They are no header.
        """
        line = lines.next() or ""
        declared = _SEPARATOR_LINE.fullmatch(line)
        if declared:
            line = lines.next() or ""
        if "\0" in line or "\r" in line:
            what = "it is UTF-16" if "\0" in line else "its lines end in CR alone, as old Mac programs write them"
            raise ValueError(f"{what}; {_SAVE_AS}")
        separators = [declared[1]] if declared else _SEPARATORS
        tables = [cls(path, separator, f"{separator} " in line, ()) for separator in separators]
        table = max(tables, key=lambda table: len({*table.header(line)} & {*_COLUMNS}))
        header = [_column(cell) for cell in table.cells(line)]
        while header and not header[-1]:
            del header[-1]
        _check_header(header)
        return evolve(table, columns=header)

    def header(self, line: str) -> list[str]:
        """Return the columns that a header names, none where other characters separate them."""
        try:
            return [_column(cell) for cell in self.cells(line)]
        except ValueError:
            return []

    def cells(self, line: str) -> list[str]:
        """Return the cells of a line.

        Raises:
            ValueError: It is no CSV.
        """
        if not line:
            return []
        try:
            reader = csv.reader([line], strict=True, delimiter=self.separator, skipinitialspace=self.spaced)
            return [cell_text(cell) if cell.startswith("=") else cell for cell in next(reader)]
        except csv.Error as error:
            raise ValueError(f"it is no CSV: {error}") from None


def _column(cell: str) -> str:
    """Return the column that a header's cell names: ``Person ID`` is person_id; what is none stays as it is."""
    return _COLUMN_OF.get(re.sub(r"[\s_-]+", "", cell).lower(), cell.strip())


def _check_header(header: Sequence[str]) -> None:
    unknown = [quoted(name) for name in header if name and name not in _COLUMNS]
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if unknown:
        # If a misspelled column were ignored, everybody would be enrolled without their groups.
        cause = f"{', '.join(unknown[:_MOST_NAMED])} is none of them"
    elif twice:
        cause = f"it names {twice[0]} twice"
    elif "" in header:
        cause = f"its column {header.index('') + 1} has no name (for pandas: index=False)"
    elif "person_id" not in header:
        cause = "it does not name person_id"
    elif not {"path", "url"} & {*header}:
        cause = "it names neither path nor url"
    else:
        return
    raise ValueError(
        "the first line must name the columns person_id and path or url, and may name "
        f"{', '.join(_COLUMNS[3:])}, with commas, semicolons or tabs between them; {cause}"
    )


class _Checks:
    """Reads the lines of a CSV file, and refuses ids that a spreadsheet has damaged."""

    def __init__(self, table: _Table) -> None:
        self._table = table
        self._rounded: bool | None = None  # whether all long ids end in zeros, once that was of interest

    def fields(self, line: str) -> dict[str, object] | None:
        """Return the cells of a line that are not empty, by column; None for a row of empty cells.

        Raises:
            ValueError: It does not fit the header, or an id of it is damaged.
        """
        columns, cells = self._table.columns, self._table.cells(line)
        if not any(cells):
            return None
        while len(cells) > len(columns) and not cells[-1]:
            del cells[-1]
        if len(cells) != len(columns):
            raise ValueError(f"it has {len(cells)} cells, but the header has {len(columns)}")
        found = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
        person_id, group_ids = found.get("person_id", ""), found.get("group_ids")
        groups = group_ids.split(GROUP_SEPARATOR) if group_ids is not None else None
        for name, value in (("person_id", person_id), *(("group_ids", group) for group in groups or ())):
            self._check_id(name, value)
        if complaint := lost_zeros(person_id, found.get("path") or found.get("url", "")):
            raise ValueError(complaint)
        return {**found, "group_ids": groups}

    def _check_id(self, name: str, value: str) -> None:
        if complaint := damage(name, value):
            raise ValueError(complaint)
        if has_lost_digits(value):
            if self._rounded is None:
                self._rounded = all(map(has_lost_digits, self._long_ids()))
            if self._rounded:
                raise ValueError(lost_digits(name, value))

    def _long_ids(self) -> Iterator[str]:
        """Yield the long person ids of the whole file. An id may end in zeros; if all do, they were rounded."""
        place = self._table.columns.index("person_id")
        with _opened(self._table.path) as file:
            lines = _Lines(file)
            while True:
                try:
                    line = lines.next()
                    if line is None:
                        return
                    cells = self._table.cells(line)
                except ValueError:
                    continue
                if len(cells) > place and is_long_number(cells[place]):
                    yield cells[place]


_READERS = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}
