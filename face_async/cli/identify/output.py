"""Where identifications go, each as it comes: to a table, to lines, to JSON, to CSV. All are context managers."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack
from gettext import gettext as _
from typing import TYPE_CHECKING, Self

import attrs
from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from face_async.cli.exits import one_line
from face_async.cli.identify.identification import Verdict
from face_async.cli.language import translated
from face_async.cli.output import foreign, say, say_table, tell
from face_async.errors import printable
from face_async.ingest.output_file import OutputFile
from face_async.ingest.tables.spreadsheets import SheetWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from face_async.cli.identify.identification import Identification

_STYLES = {Verdict.RECOGNIZED: "green", Verdict.UNKNOWN: "dim", Verdict.FAILED: "red"}
_PERSON_WIDTH = 24
_LONGEST_PATH = 1_000

CSV_COLUMNS = ("picture", "verdict", "rank", "person_id", "confidence", "face_id", "tag", "error")


class Output(AbstractContextManager["Output"]):
    """Takes identifications one by one, and completes its output when its block is left, even by an error."""

    @abstractmethod
    def add(self, identified: Identification) -> None:
        """Take an identification."""

    def close(self, *, complete: bool) -> None:
        """Complete the output; ``complete`` says whether all identifications have come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(complete=kind is None)


class Outputs(Output):
    """Several outputs as one. Once closed, it takes nothing: the thread that adds may outlive an interrupt."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self._outputs = list(outputs)
        self._turn = threading.Lock()
        self._closed = False

    def include(self, output: Output) -> None:
        """Add an output."""
        self._outputs.append(output)

    def add(self, identified: Identification) -> None:
        """Hand an identification on to each output."""
        with self._turn:
            for output in () if self._closed else self._outputs:
                output.add(identified)

    def close(self, *, complete: bool) -> None:
        """Close all outputs, the last one first."""
        with self._turn, ExitStack() as stack:
            self._closed = True
            for output in self._outputs:
                stack.callback(output.close, complete=complete)


class Table(Output):
    """Who is in each picture, and a table of all candidates, at the end: for a few pictures."""

    def __init__(self) -> None:
        self._verdicts: list[str] = []
        self._rows: list[tuple[str | Text, ...]] = []

    def add(self, identified: Identification) -> None:
        """Take an identification."""
        if identified.error is None:
            self._verdicts.append(f"{printable(identified.image, _LONGEST_PATH)}: {_who(identified)}")
        for place, candidate in enumerate(identified.candidates):
            style = "dim" if candidate.confidence < identified.threshold else "bold green" if place == 0 else ""
            image = identified.image if place == 0 else ""
            person, confidence = foreign(candidate.person_id, style), Text(f"{candidate.confidence:.1f}", style)
            self._rows.append((image, person, confidence, candidate.face_id, candidate.tag))

    def close(self, *, complete: bool) -> None:
        """Print who is in each picture, and the table."""
        del complete  # the error says that the table is not complete
        for verdict in self._verdicts:
            say(verdict)
        if self._rows:
            say_table((_("picture"), _("person"), _("confidence"), _("face"), _("tag")), self._rows)


class Failures(Output):
    """A line on stderr for each failure, at the end, for a few pictures."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, identified: Identification) -> None:
        """Take an identification."""
        if identified.error is not None:
            self._lines.append(f"{printable(identified.image)}: {translated(one_line(identified.error))}")

    def close(self, *, complete: bool) -> None:
        """Print the lines."""
        del complete  # as above
        for line in self._lines:
            tell(line)


class Lines(Output):
    """One line for each picture, with the best candidate: for folders of any size."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False)

    def add(self, identified: Identification) -> None:
        """Take an identification."""
        best = identified.candidates[0] if identified.candidates else None
        confidence = "" if best is None else f"{best.confidence:.1f}"
        result = identified.reason if identified.error is not None else _("nobody") if best is None else best.person_id
        image = printable(identified.image, _LONGEST_PATH)
        line = (
            f"{set_cell_size(_(identified.verdict), 10)}  {confidence:>5}  {printable(result):{_PERSON_WIDTH}}  {image}"
        )
        # Through sys.stdout, which a live display may have replaced by its own.
        with self._console.capture() as colored:
            self._console.print(Text(line, _STYLES[identified.verdict]))
        say(colored.get(), end="")


class Json(Output):
    """One document, ``{"images": [...]}``, written as the identifications come: one picture a line."""

    def __init__(self) -> None:
        self._begun = False

    def add(self, identified: Identification) -> None:
        """Take an identification."""
        # In ASCII, which every terminal and pipe can carry.
        say(("," if self._begun else '{"images": [') + "\n" + json.dumps(_fields(identified)), end="")
        self._begun = True

    def close(self, *, complete: bool) -> None:
        """End the document, if there is one."""
        if self._begun or complete:
            say("\n]}" if self._begun else '{"images": []}')


class Csv(Output):
    """A table for spreadsheets and other programs: one row for each picture and candidate.

    Args:
        path: The file.
        sources: What it must not be written over.

    Raises:
        OutputError: It would be written over something that must be kept.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, *, sources: Iterable[Path] = ()) -> None:
        # A file's name need not be text in any encoding.
        self._output = OutputFile(path, sources=sources, newline="", errors="backslashreplace")
        self._table = SheetWriter(self._output.file, CSV_COLUMNS)
        self._begun = False

    def add(self, identified: Identification) -> None:
        """Take an identification."""
        self._begun = True
        error = "" if identified.error is None else one_line(identified.error)
        if not identified.candidates:
            self._table.write((identified.image, identified.verdict, "", "", "", "", "", error))
        for rank, candidate in enumerate(identified.candidates, 1):
            fields = (candidate.person_id, candidate.confidence, candidate.face_id, candidate.tag)
            self._table.write((identified.image, identified.verdict, rank, *fields, error))

    def close(self, *, complete: bool) -> None:
        """Put the file into its place, unless nothing came of the run."""
        self._output.close(keep=complete or self._begun)


def _who(identified: Identification) -> str:
    """Return who is in a picture that was searched for everywhere, and why."""
    if not identified.candidates:
        return _("nobody; no face in these groups is like it")
    best = identified.candidates[0]
    near = _("{person_id}, confidence {confidence:.1f} of 100").format(
        person_id=printable(best.person_id), confidence=best.confidence
    )
    if identified.verdict is Verdict.RECOGNIZED:
        return near
    return _("nobody; the nearest is {near}, below the threshold of {threshold:g}").format(
        near=near, threshold=identified.threshold
    )


def _fields(identified: Identification) -> dict[str, object]:
    return {
        "image": identified.image,
        "recognized": identified.verdict is Verdict.RECOGNIZED,
        "candidates": [attrs.asdict(candidate) for candidate in identified.candidates],
        "error": None if identified.error is None else one_line(identified.error),
    }
