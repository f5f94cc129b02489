"""Where the pictures to enroll come from: folders, and manifests in CSV and JSON Lines, read row by row.

A folder has one sub-folder for each person, named by the person's id; every file below it, at any depth, is a picture
of that person. Files and folders whose names begin with a dot are skipped.

A manifest has one picture a line. Its columns or keys are ``person_id``, one of ``path`` (relative to the manifest's
own folder) and ``url``, and optionally ``group_ids``, ``person_name`` and ``tag``. CSV has a header line with these
names, and separates the groups of a cell by ``|``; JSON Lines has a list of str. Both are UTF-8.

A row stands on one line, in CSV too: a quote that is never closed spoils its own row only.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from attrs import evolve, field, frozen

from face_async.errors import LimitError, quoted
from face_async.images import ImageUrl, is_url
from face_async.limits import ServiceLimits, check_group_ids, check_id, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

GROUP_SEPARATOR = "|"
"""What stands between the groups of one CSV cell; a semicolon is the separator of cells in some countries."""

_COLUMNS = ("person_id", "path", "url", "group_ids", "person_name", "tag")
_MAX_LINE_BYTES = 1_048_576
_LITTER = frozenset({"thumbs.db", "desktop.ini"})  # what Windows leaves in folders of pictures


@frozen
class Row:
    """One picture of one person.

    Attributes:
        person_id: The person's id.
        source: The picture's path, or the URL from which the server fetches it.
        group_ids: Groups to put the person in when they are created; those of all rows of a person count.
        person_name: The person's name; the first that a row of the person gives counts.
        tag: A remark for the face; the first that a row of the person gives is the person's, too.
    """

    person_id: str
    source: str
    group_ids: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    person_name: str | None = None
    tag: str | None = None


@frozen
class BadRow:
    """A line of a manifest, or an entry of a folder, that is not a picture of a person.

    Attributes:
        file: The manifest, or the entry itself.
        line: The line of the manifest, from 1; 0 for an entry of a folder.
        reason: What is wrong with it.
    """

    file: str
    line: int
    reason: str


Source: TypeAlias = "str | os.PathLike[str] | Iterable[Row]"
"""A folder, a manifest, or rows that a program makes itself."""

# Where a row was found, and the row or what is wrong with it.
_Found: TypeAlias = tuple[str, int, Row | str]


def read_source(
    source: Source, *, group_ids: Sequence[str] = (), limits: ServiceLimits = ServiceLimits()
) -> Generator[Row | BadRow]:
    """Yield the rows of a source one by one, whatever their number; folders are walked in the order of names.

    Reading blocks: do it in a worker thread.

    Args:
        source: A folder, a manifest whose name ends in ``.csv``, ``.jsonl`` or ``.ndjson``, or any iterable of rows.
        group_ids: The groups for rows that name none.
        limits: The limits of ids and texts; a row that breaks them is a bad one.

    Raises:
        OSError: The folder or the manifest cannot be read.
        TypeError: An iterable holds something else than rows.
        ValueError: The path is neither a folder nor such a manifest, the manifest's header is wrong, or ``group_ids``
            has an id that no group can have.
    """
    if group_ids:
        check_group_ids(group_ids, limits)
    for file, line, row in _open(source):
        if isinstance(row, str):
            yield BadRow(file, line, row)
            continue
        wanted = row if row.group_ids or not group_ids else evolve(row, group_ids=group_ids)
        reason = _complaint(wanted, limits)
        yield wanted if reason is None else BadRow(file, line, reason)


def _open(source: Source) -> Iterator[_Found]:
    if not isinstance(source, str | os.PathLike):
        return (("row", number, _checked(row)) for number, row in enumerate(source, 1))
    path = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would follow links, which are the user's own names
    if path.is_dir():
        return _walk(path)
    reader = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} must be a folder with a sub-folder for each person, or end in .csv, .jsonl or .ndjson"
        )
    return reader(path)


def _checked(row: object) -> Row:
    if not isinstance(row, Row):
        raise TypeError(f"every row must be a Row, not {type(row).__name__}")
    # The journal knows a picture by its path, which must not depend on where a run is begun.
    return row if is_url(row.source) else evolve(row, source=os.path.abspath(row.source))  # noqa: PTH100 - as below


def _complaint(row: Row, limits: ServiceLimits) -> str | None:
    """Return why a row cannot be enrolled, None if it can, as far as can be told without its picture."""
    try:
        check_id("person_id", row.person_id, limits)
        if row.group_ids:
            check_group_ids(row.group_ids, limits)
        for name, text in (("person_name", row.person_name), ("tag", row.tag)):
            if text is not None:
                check_text(name, text, limits)
        row.source.encode()
    except UnicodeEncodeError:
        return "the picture's name is not UTF-8; rename the file"
    except (ValueError, LimitError) as error:
        return str(error)
    return "the picture's name has a NUL in it" if "\0" in row.source else None


# Folders


def _walk(folder: Path) -> Iterator[_Found]:
    for name in _names(folder):
        person = folder / name
        if person.is_dir():
            yield from _pictures(name, person)
        else:
            yield str(person), 0, "it is in no person's folder"


def _pictures(person_id: str, folder: Path) -> Iterator[_Found]:
    try:
        names = _names(folder)
    except OSError as error:
        yield str(folder), 0, f"the folder cannot be read: {error.strerror}"
        return
    for name in names:
        path = folder / name
        if not path.is_dir():
            yield str(path), 0, Row(person_id, str(path))
        elif path.is_symlink():
            yield str(path), 0, "it is a link to a folder, which may lead in a circle; enroll that folder itself"
        else:
            yield from _pictures(person_id, path)


def _names(folder: Path) -> list[str]:
    # One folder's names are all that is ever held; a million of them are some 70 MB.
    names = [name for name in os.listdir(folder) if name[0] != "." and name.lower() not in _LITTER]  # noqa: PTH208 - names alone
    names.sort()
    return names


# Manifests


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
            raw = raw.removeprefix(codecs.BOM_UTF8)  # as spreadsheets write it
        if len(raw) == _MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = self._file.readline(_MAX_LINE_BYTES)
            raise ValueError(f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
        try:
            return raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError("the line is not UTF-8; save the manifest as UTF-8") from None


def _csv_rows(path: Path) -> Iterator[_Found]:
    with path.open("rb") as file:
        lines = _Lines(file)
        try:
            header = _header(lines.next() or "")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

        def fields_of(line: str) -> dict[str, object]:
            cells = _cells(line)
            if len(cells) != len(header):
                raise ValueError(f"it has {len(cells)} cells, but the header has {len(header)}")
            fields: dict[str, object] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            if "group_ids" in fields:
                fields["group_ids"] = cells[header.index("group_ids")].split(GROUP_SEPARATOR)
            return fields

        yield from _rows(path, lines, fields_of)


def _header(line: str) -> list[str]:
    header = _cells(line) if line else []
    unknown = [name for name in header if name not in _COLUMNS]
    if unknown or "person_id" not in header or not {"path", "url"} & set(header) or len(set(header)) != len(header):
        # If a misspelled column were ignored, everybody would be enrolled without their groups.
        raise ValueError(
            "the first line must name the columns person_id and path or url, and may name "
            f"{', '.join(_COLUMNS[3:])}; it has {', '.join(map(repr, header)) or 'none'}"
        )
    return header


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"it is no CSV: {error}") from None


def _json_rows(path: Path) -> Iterator[_Found]:
    with path.open("rb") as file:
        yield from _rows(path, _Lines(file), _json_object)


def _json_object(line: str) -> dict[str, object]:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - one error for all that a row can be wrong in
    return cast("dict[str, object]", value)


def _rows(path: Path, lines: _Lines, fields_of: Callable[[str], Mapping[str, object]]) -> Iterator[_Found]:
    file, folder = str(path), str(path.parent)
    while True:
        try:
            line = lines.next()
            if line is None:
                return
            if line.strip():
                yield file, lines.number, _row(fields_of(line), folder)
        except ValueError as error:
            yield file, lines.number, str(error)


def _row(fields: Mapping[str, object], folder: str) -> Row:
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
        source=ImageUrl(url).url if url is not None else os.path.normpath(os.path.join(folder, cast("str", path))),  # noqa: PTH118 - for each of millions
        group_ids=tuple(_string("group_ids", group) for group in cast("list[object]", groups or [])),
        person_name=_text(fields, "person_name"),
        tag=_text(fields, "tag"),
    )


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else _string(name, value)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not {type(value).__name__}")  # noqa: TRY004 - as above
    return value
