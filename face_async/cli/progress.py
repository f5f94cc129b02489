"""The live display of commands that take a while: on stderr, and on a terminal only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Task


def live_progress(*columns: ProgressColumn, quiet: bool = False) -> Progress:
    """Return a display that is shown on a terminal only, and removed at its end."""
    usual = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DoneColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    terminal = Console(stderr=True)
    # Console.is_terminal is also true when the environment forces colors into a file.
    shown = sys.stderr.isatty() and not terminal.is_dumb_terminal and not quiet
    return Progress(
        *(columns or usual),
        # Ctrl-C is echoed as ^C; behind a line as wide as the terminal, that would begin a new one.
        console=Console(stderr=True, width=max(1, terminal.width - len("^C"))) if shown else terminal,
        transient=True,
        disable=not shown,
        # Lines that are printed meanwhile go above the display; output into a file stays there.
        redirect_stdout=sys.stdout.isatty(),
        expand=bool(columns),
    )


class DoneColumn(ProgressColumn):
    """The number of things done, and of all if that is known."""

    def render(self, task: Task) -> Text:
        """Return the column of a task."""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f}" if task.total is not None else f"{task.completed:,.0f}")


class _Speed(ProgressColumn):
    """The number of things done in a second, measured over the last seconds."""

    def render(self, task: Task) -> Text:
        """Return the column of a task."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s" if speed < 10 else f"{speed:,.0f}/s", style="dim")  # noqa: PLR2004
