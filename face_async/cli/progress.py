"""How commands that take a while show on stderr how far they have come: as a bar, or as lines now and then."""

from __future__ import annotations

import enum
import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from gettext import gettext as _
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from face_async.cli.language import translated
from face_async.cli.output import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Task, TaskID

T = TypeVar("T")

_LINE_EVERY = 10.0  # seconds between lines
_WINDOW = 10.0  # seconds over which the speed is averaged


class ProgressStyle(enum.StrEnum):
    """How progress is shown."""

    NEVER = "never"
    LOG = "log"
    BAR = "bar"


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """Shows how far a command has come, in one kind of work after another.

    Args:
        style: How; None is a bar on a terminal, and lines elsewhere if the work takes long enough.
        quiet: Shows nothing, whatever the style.
    """

    def __init__(self, style: ProgressStyle | None = None, *, quiet: bool = False) -> None:
        terminal = Console(stderr=True)
        # Console.is_terminal is also true when the environment forces colors into a file.
        usual = ProgressStyle.BAR if sys.stderr.isatty() and not terminal.is_dumb_terminal else ProgressStyle.LOG
        self._style = ProgressStyle.NEVER if quiet else style or usual
        self._bar = _bar(terminal, shown=self._style is ProgressStyle.BAR)
        self._ends_with_line = style is ProgressStyle.LOG
        self._word = ""
        self._line: TaskID | None = None
        self._completed = 0
        self._total: int | None = None
        self._samples: deque[tuple[float, int, int]] = deque()
        self._said, self._said_at = "", time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._end()

    def begin(self, word: str, total: int | None = None) -> None:
        """Begin with a kind of work, called ``word``; ``total`` is how much there is to do, None while that is unknown.

        What was done of it before may be shown by the first :meth:`show`: it is not taken for speed.
        """
        self._end()
        if self._line is not None:
            self._bar.remove_task(self._line)
        self._word, self._completed, self._total = word, 0, total
        self._samples.clear()
        self._line = self._bar.add_task(word, total=total, speed="", note="", failed="")

    def show(self, completed: int, *, total: int | None = None, failed: int = 0, size: int = 0, note: str = "") -> None:
        """Show how far the work has come.

        Args:
            completed: What is done, failures among it.
            total: All there is to do, if it has changed.
            failed: The failures.
            size: The bytes done, for the speed.
            note: Further words.
        """
        self._completed, self._total = completed, self._total if total is None else total
        if self._style is ProgressStyle.NEVER or self._line is None:
            return
        failures, speed = _("{failed:,} failed").format(failed=failed) if failed else "", self._speed(completed, size)
        if self._style is ProgressStyle.BAR:
            self._bar.update(
                self._line, total=self._total, completed=completed, speed=speed, note=note, failed=failures
            )
            return
        done = (
            f"{completed:,}"
            if self._total is None
            else _("{completed:,} of {total:,}").format(completed=completed, total=self._total)
        )
        self._said = f"{self._word}: " + ", ".join(filter(None, (done, failures, note, speed)))
        if time.monotonic() - self._said_at >= _LINE_EVERY:
            self._ends_with_line = True
            self._tell()

    def advance(self) -> None:
        """Show that one more is done."""
        self.show(self._completed + 1)

    def track(self, items: Iterable[T], word: str, total: int) -> Iterator[T]:
        """Yield items, and show how many have been dealt with."""
        self.begin(word, total)
        for item in items:
            yield item
            self.advance()

    def _end(self) -> None:
        if self._said and self._ends_with_line:
            self._tell()
        self._said = ""

    def _tell(self) -> None:
        self._said_at = time.monotonic()
        tell(self._said)
        self._said = ""

    def _speed(self, completed: int, size: int) -> str:
        now = time.monotonic()
        self._samples.append((now, completed, size))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, completed_then, size_then = self._samples[0]
        if now - then < 1:
            return ""
        rate = f"{short_number((completed - completed_then) / (now - then))}/s"
        return f"{rate} {decimal(int((size - size_then) / (now - then)))}/s" if size else rate


class OutageNotice:
    """Tells when a run begins to wait for the service, and when it goes on."""

    def __init__(self) -> None:
        self._away: str | None = None

    def show(self, away: str | None, *, goes_on: bool = True) -> None:
        """Tell of a change; ``away`` is why the service is waited for, None while it is not."""
        if away == self._away:
            return
        self._away = away
        if away is not None:
            tell(_("waiting for the service: {reason}").format(reason=translated(away)))
        elif goes_on:
            tell(_("the service is back"))


def short_number(number: float) -> str:
    """Return a number with two digits or more."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"  # noqa: PLR2004 - two digits tell enough


def _bar(terminal: Console, *, shown: bool) -> Progress:
    """Return a bar that is removed at its end."""
    # Ctrl-C is echoed as ^C; behind a line as wide as the terminal, that would begin a new one.
    width = max(1, terminal.width - len("^C"))
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        _DoneColumn(),
        TextColumn("{task.fields[speed]}", style="dim"),
        TextColumn("{task.fields[note]}", style="dim"),
        TextColumn("{task.fields[failed]}", style="red"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, width=width, force_terminal=True) if shown else terminal,
        transient=True,
        disable=not shown,
        # Lines that are printed meanwhile go above the bar; output into a file stays there.
        redirect_stdout=sys.stdout.isatty(),
        expand=True,
    )


class _DoneColumn(ProgressColumn):
    """The number of things done, and of all if that is known."""

    def render(self, task: Task) -> Text:
        """Return the column of a task."""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f}" if task.total is not None else f"{task.completed:,.0f}")
