"""Output on the terminal: tables, JSON, and lines with foreign text made harmless."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, cast

import attrs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from face_async.errors import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from face_async import Result

_LONGEST_CELL = 500
_WIDTH_OF_A_PIPE = 200  # so that a program that reads the output finds one line per row


def tell(line: str) -> None:
    """Print one line on stderr, for the person at the terminal; it is never wrapped."""
    print(f"face-async: {line}", file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal's module


class OneLineLog(logging.Handler):
    """Prints every log record as one line; the embedded server's errors would otherwise come as tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        reason = record.exc_info[1] if record.exc_info else None
        tell(printable(record.getMessage() + (f": {quoted(reason)}" if reason else ""), _LONGEST_CELL))


def say(text: str, end: str = "\n") -> None:
    """Print text as it is on stdout."""
    print(text, end=end, flush=True)  # noqa: T201


def say_json(value: object) -> None:
    """Print a value as JSON on stdout: in ASCII, which every terminal and pipe can carry."""
    say(json.dumps(value, indent=2))


def say_json_line(value: object) -> None:
    """Print a value as one line of JSON on stdout, as :func:`say_json` does."""
    say(json.dumps(value))


def say_ids(name: str, ids: Iterable[str], *, as_json: bool) -> None:
    """Print ids, one a line, or as ``{name: [ids]}``."""
    if as_json:
        say_json({name: list(ids)})
    else:
        for one in ids:
            say(printable(one, _LONGEST_CELL))


def say_result(result: Result, *, as_json: bool) -> None:
    """Print the fields of a result: names and values."""
    values = fields_of(result)
    if as_json:
        say_json(values)
        return
    say_table((), [(name, _in_a_cell(value)) for name, value in values.items()])


def fields_of(result: Result) -> dict[str, object]:
    """Return the fields of a result but those of the call: ``session_id`` and ``meta``."""
    return attrs.asdict(result, filter=lambda attribute, _: attribute.name not in {"session_id", "meta"})


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table on stdout; the cells are text, never markup."""
    table = Table(box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns), pad_edge=False)
    for column in columns or ("name", "value"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else foreign(cell) for cell in row))
    wide_console().print(table)


def wide_console() -> Console:
    """Return a console on stdout: as wide as the terminal, or wide enough where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_PIPE)


def _in_a_cell(value: object) -> str:
    return ", ".join(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else str(value)


def foreign(text: str, style: str = "") -> Text:
    """Return text from elsewhere as a cell: no markup, no control characters."""
    return Text(printable(text, _LONGEST_CELL), style=style)
