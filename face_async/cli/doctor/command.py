"""``doctor``: look at everything that has to be right, and say what is not and how to mend it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.table import Table
from rich.text import Text

from face_async.cli.doctor.checks import Check, Verdict, check_installation, check_variables
from face_async.cli.doctor.checks_local import check_local
from face_async.cli.doctor.checks_service import check_service
from face_async.cli.exits import Exit
from face_async.cli.options import AsJson, BaseUrl, Db, Recognizer, RecognizerName, Target
from face_async.cli.output import say_json, wide_console
from face_async.errors import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "bold yellow", Verdict.WRONG: "bold red"}
_LONGEST_TEXT = 1_000
_TOPIC_WIDTH = len("extra recognition")


def doctor(
    *,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: Recognizer = RecognizerName.AUTO,
    groups: Annotated[
        int, typer.Option("--groups", metavar="N", min=0, help="Count the persons of so many groups, a call each.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Check configuration, connection, clock, signature, limits and installation; nothing is changed.

    Every check is one line: ok, warning or wrong, and how to mend it. The exit code is 0 unless something is wrong;
    then it is 2 for the configuration or the installation, 3 for the connection, 1 for what the service refuses.
    """
    console = wide_console()
    checks: list[Check] = []

    async def look() -> None:
        async for check in _examine(db, base_url, recognizer, groups):
            checks.append(check)
            if not as_json:
                console.print(_row(check))

    anyio.run(look)
    # The first thing that is wrong is the cause of what follows.
    code = next((check.exit for check in checks if check.verdict is Verdict.WRONG), Exit.OK)
    if as_json:
        say_json({"healthy": code is Exit.OK, "checks": [check.fields for check in checks]})
    raise typer.Exit(code)


async def _examine(
    db: Path | None, base_url: str | None, recognizer: RecognizerName, groups: int
) -> AsyncIterator[Check]:
    for check in check_installation():
        yield check
    variables = check_variables(base_url)
    for check in variables:
        yield check
    if any(check.verdict is Verdict.WRONG for check in variables) and db is None:
        return
    target = Target.asked_for(db, base_url, recognizer)
    if target.database is not None:
        checks = check_local(target, target.database, groups)
    else:
        checks = check_service(target, groups)
    async for check in checks:
        yield check


def _row(check: Check) -> Table:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=7)
    row.add_column(width=_TOPIC_WIDTH)
    row.add_column(overflow="fold")
    text = Text(printable(check.said, _LONGEST_TEXT))
    if check.mend:
        text.append(f"; {printable(check.mend, _LONGEST_TEXT)}", "bold" if check.verdict is Verdict.WRONG else "")
    row.add_row(Text(check.verdict, _STYLES[check.verdict]), Text(check.topic), text)
    return row
