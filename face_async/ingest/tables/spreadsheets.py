"""Tables that go through spreadsheets: what they make of ids, and how a table is written that they leave alone."""

from __future__ import annotations

import csv
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, TextIO

from face_async.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

_AS_TEXT = re.compile(r'="(.*)"')  # a formula that keeps a text as it is
_TURNED_INTO_NUMBER = re.compile(r"\d(?:[.,]\d+)?E[+-]\d+|\d+\.0", re.IGNORECASE)
_ERROR_VALUE = re.compile(r"#N/A|#NV|#[A-Z/0-9]+[!?]|#{3,}")
_KEPT_DIGITS = 15  # of a number; spreadsheets put zeros in place of all others
_SHORTEST_WITH_ZEROS = 3  # digits of a folder's name; two are as often a month
_MEND = "; format the column as text, fill it in and export it again, or write the manifest as JSON Lines"

# A cell's beginning, also in countries where semicolons separate cells, before what may begin a formula.
_FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_BYTE_ORDER_MARK = "\ufeff"


def cell_text(cell: str) -> str:
    """Return what a cell says: ``="007"`` is the text ``007``."""
    match = _AS_TEXT.fullmatch(cell)
    return cell if match is None else match[1].replace('""', '"')


def damage(name: str, value: str) -> str | None:
    """Return what a spreadsheet has done to an id, None if nothing can be seen of it; ``name`` is the column's."""
    if _TURNED_INTO_NUMBER.fullmatch(value):
        return f"a spreadsheet has turned {name} into the number {quoted(value)}{_MEND}"
    if _ERROR_VALUE.fullmatch(value):
        return f"{name} {quoted(value)} is what a spreadsheet shows in place of a value; mend its formula or its column"
    return None


def has_lost_digits(value: str) -> bool:
    """Return whether an id may be a rounded number: it has more than 15 digits, and zeros behind the 15th."""
    return is_long_number(value) and not value[_KEPT_DIGITS:].strip("0")


def is_long_number(value: str) -> bool:
    """Return whether an id has so many digits that a spreadsheet, taking it for a number, does not keep all."""
    return len(value) > _KEPT_DIGITS and value.isascii() and value.isdecimal()


def lost_digits(name: str, value: str) -> str:
    """Return what is wrong with an id that has lost digits."""
    return (
        f"{name} {quoted(value)} has probably lost its last digits: spreadsheets keep {_KEPT_DIGITS} digits of a "
        f"number, and all long ones of this file end in zeros{_MEND}"
    )


def lost_zeros(person_id: str, source: str) -> str | None:
    """Return what is wrong with an id without the zeros that its picture's folder begins with; None if nothing is."""
    if not (person_id.isascii() and person_id.isdecimal()):
        return None
    for folder in PurePath(source).parts[:-1]:
        if len(folder) >= _SHORTEST_WITH_ZEROS and folder != person_id and folder.lstrip("0") == person_id:
            return f"person_id {quoted(person_id)} has lost the zeros of the folder's name, {quoted(folder)}{_MEND}"
    return None


class SheetWriter:
    """Writes a table as CSV that spreadsheets show as it is meant.

    It begins with a byte order mark, or they would take UTF-8 for something else, and a cell that would be a formula
    gets an apostrophe before it. This holds wherever commas, semicolons or tabs separate cells.

    Args:
        file: The file, open for UTF-8 text with ``newline=""``.
        columns: The names in the first row.
    """

    def __init__(self, file: TextIO, columns: Iterable[str]) -> None:
        file.write(_BYTE_ORDER_MARK)
        self._writer = csv.writer(file)
        self.write(columns)

    def write(self, row: Iterable[object]) -> None:
        """Write a row."""
        self._writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in row])


def _harmless(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)
