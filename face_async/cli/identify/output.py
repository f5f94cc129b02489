"""Where findings go, each as it comes: to a table, to lines, to JSON, to CSV. All are context managers."""

from __future__ import annotations

import csv
import json
import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from face_async.cli.exits import one_line
from face_async.cli.identify.found import Verdict
from face_async.cli.output import foreign, say, say_table, tell
from face_async.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from face_async.cli.identify.found import Found

_STYLES = {Verdict.RECOGNIZED: "green", Verdict.UNKNOWN: "dim", Verdict.FAILED: "red"}
_PERSON_WIDTH = 24

CSV_COLUMNS = ("picture", "verdict", "rank", "person_id", "confidence", "face_id", "tag", "error")


class Output(AbstractContextManager["Output"]):
    """Takes findings one by one, and completes what it makes of them when its block is left, even by an error."""

    @abstractmethod
    def add(self, found: Found) -> None:
        """Take one."""

    def close(self, *, complete: bool) -> None:
        """Complete what was made; ``complete`` says whether all findings have come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)


class All(Output):
    """Several outputs as one; once it is closed, nothing is taken: the thread that adds may outlive an interrupt."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self._outputs = list(outputs)
        self._turn = threading.Lock()
        self._closed = False

    def include(self, output: Output) -> None:
        """Have one more."""
        self._outputs.append(output)

    def add(self, found: Found) -> None:
        """Hand one on to each."""
        with self._turn:
            for output in () if self._closed else self._outputs:
                output.add(found)

    def close(self, *, complete: bool) -> None:
        """Close them all, the last one first."""
        with self._turn, ExitStack() as stack:
            self._closed = True
            for output in self._outputs:
                stack.callback(output.close, complete=complete)


class Table(Output):
    """A table of all candidates at the end, for a handful of pictures."""

    def __init__(self) -> None:
        self._rows: list[tuple[str | Text, ...]] = []

    def add(self, found: Found) -> None:
        """Take one."""
        if not found.candidates and found.error is None:
            self._rows.append((found.image, Text("nobody", "dim"), "", "", ""))
        for place, candidate in enumerate(found.candidates):
            style = "dim" if candidate.confidence < found.threshold else "bold green" if place == 0 else ""
            self._rows.append(
                (
                    found.image if place == 0 else "",
                    foreign(candidate.person_id, style),
                    Text(f"{candidate.confidence:.1f}", style),
                    candidate.face_id,
                    candidate.tag,
                )
            )

    def close(self, *, complete: bool) -> None:
        """Print it."""
        del complete  # an error says itself that there is more
        if self._rows:
            say_table(("picture", "person", "confidence", "face", "tag"), self._rows)


class Failures(Output):
    """A line on stderr for each failure, at the end, for a handful of pictures."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, found: Found) -> None:
        """Take one."""
        if found.error is not None:
            self._lines.append(f"{printable(found.image)}: {one_line(found.error)}")

    def close(self, *, complete: bool) -> None:
        """Tell of them."""
        del complete  # as above
        for line in self._lines:
            tell(line)


class Lines(Output):
    """One line for each picture, with the best candidate: for folders of any size."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False)

    def add(self, found: Found) -> None:
        """Take one."""
        best = found.candidates[0] if found.candidates else None
        confidence = "" if best is None else f"{best.confidence:.1f}"
        whom = found.reason if found.error is not None else "nobody" if best is None else best.person_id
        line = (
            f"{found.verdict:10}  {confidence:>5}  {printable(whom):{_PERSON_WIDTH}}  {printable(found.image, 1_000)}"
        )
        # Printed by way of sys.stdout, which a live display may have put itself in front of.
        with self._console.capture() as colored:
            self._console.print(Text(line, _STYLES[found.verdict]))
        say(colored.get(), end="")


class Json(Output):
    """One document, ``{"images": [...]}``, written as the findings come: one picture a line."""

    def __init__(self) -> None:
        self._begun = False

    def add(self, found: Found) -> None:
        """Take one."""
        # In ASCII, which every terminal and pipe can carry.
        say(("," if self._begun else '{"images": [') + "\n" + json.dumps(_fields(found)), end="")
        self._begun = True

    def close(self, *, complete: bool) -> None:
        """End the document, if there is one."""
        if self._begun or complete:
            say("\n]}" if self._begun else '{"images": []}')


class Csv(Output):
    """A table for other programs: one row for each picture and candidate.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        # A file's name need not be text in any encoding.
        self._file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        self._writer = csv.writer(self._file)
        self._writer.writerow(CSV_COLUMNS)

    def add(self, found: Found) -> None:
        """Take one."""
        error = "" if found.error is None else one_line(found.error)
        if not found.candidates:
            self._writer.writerow((found.image, found.verdict, "", "", "", "", "", error))
        for rank, candidate in enumerate(found.candidates, 1):
            whom = (candidate.person_id, candidate.confidence, candidate.face_id, candidate.tag)
            self._writer.writerow((found.image, found.verdict, rank, *whom, error))

    def close(self, *, complete: bool) -> None:
        """Close the file."""
        del complete  # rows need no end
        self._file.close()


def _fields(found: Found) -> dict[str, object]:
    return {
        "image": found.image,
        "recognized": found.verdict is Verdict.RECOGNIZED,
        "candidates": [
            {
                "person_id": candidate.person_id,
                "face_id": candidate.face_id,
                "confidence": candidate.confidence,
                "tag": candidate.tag,
            }
            for candidate in found.candidates
        ],
        "error": None if found.error is None else one_line(found.error),
    }
