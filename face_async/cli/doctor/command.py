"""``doctor``: check everything that can be wrong, and say what to do about it."""

from __future__ import annotations

from gettext import gettext as _
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import asdict
from rich.table import Table
from rich.text import Text

from face_async.cli.doctor.checks import CheckResult, CheckVerdict, check_installation, check_variables
from face_async.cli.doctor.checks_local import check_local
from face_async.cli.doctor.checks_service import check_service
from face_async.cli.exits import Exit
from face_async.cli.language import translated
from face_async.cli.options import AsJson, BaseUrl, Db, RecognizerName, RecognizerOption, ServiceChoice
from face_async.cli.output import say_json, wide_console
from face_async.errors import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STYLES = {CheckVerdict.OK: "green", CheckVerdict.WARNING: "bold yellow", CheckVerdict.WRONG: "bold red"}
_LONGEST_TEXT = 1_000
_TOPIC_WIDTH = 20  # of the longest one in either language, on the terminal


def doctor(
    *,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    groups: Annotated[
        int, typer.Option("--groups", metavar="N", min=0, help="Count the persons of N groups, a call each.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Check configuration, connection, clock, signature, limits and installation; nothing is changed.

    Every check is one line: ok, warning or wrong, and what to do about it. The exit code is 0 unless something is
    wrong; then it is 2 for the configuration or the installation, 3 for the connection, 1 for a refusal by the service.
    """
    console = wide_console()
    results: list[CheckResult] = []

    async def check_all() -> None:
        async for result in _check_all(db, base_url, recognizer, groups):
            results.append(result)
            if not as_json:
                console.print(_row(result))

    anyio.run(check_all)
    # The first failure is the cause of those that follow.
    code = next((result.exit for result in results if result.verdict is CheckVerdict.WRONG), Exit.OK)
    if as_json:
        checks = [asdict(result, filter=lambda attribute, _: attribute.name != "exit") for result in results]
        say_json({"healthy": code is Exit.OK, "checks": checks})
    raise typer.Exit(code)


async def _check_all(
    db: Path | None, base_url: str | None, recognizer: RecognizerName, groups: int
) -> AsyncIterator[CheckResult]:
    for result in check_installation():
        yield result
    variables = list(check_variables(base_url))
    for result in variables:
        yield result
    if any(result.verdict is CheckVerdict.WRONG for result in variables) and db is None:
        return
    service = ServiceChoice.of(db, base_url, recognizer)
    if service.database is not None:
        results = check_local(service, service.database, groups)
    else:
        results = check_service(service, groups)
    async for result in results:
        yield result


def _row(result: CheckResult) -> Table:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=7)
    row.add_column(width=_TOPIC_WIDTH)
    row.add_column(overflow="fold")
    text = Text(printable(translated(result.said), _LONGEST_TEXT))
    if result.mend:
        style = "bold" if result.verdict is CheckVerdict.WRONG else ""
        text.append(f"; {printable(translated(result.mend), _LONGEST_TEXT)}", style)
    row.add_row(Text(_(result.verdict), _STYLES[result.verdict]), Text(translated(_(result.topic))), text)
    return row
