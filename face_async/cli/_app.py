"""All commands."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from face_async import __version__
from face_async.cli.databases import backup_db, copy_db
from face_async.cli.demo.command import demo
from face_async.cli.demo.draw import draw
from face_async.cli.deploy import deploy_files
from face_async.cli.doctor.command import doctor
from face_async.cli.enroll.command import enroll, merge_journals_command
from face_async.cli.exits import EXIT_CODES, OneLineErrors
from face_async.cli.identify.command import identify
from face_async.cli.language.help import TranslatedCommand
from face_async.cli.options import with_trust
from face_async.cli.output import OneLineLog, say
from face_async.cli.recognize import compare, verify
from face_async.cli.records import delete, faces, groups, info, persons
from face_async.cli.serve import serve_command

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    cls=OneLineErrors,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # errors that users can meet become one line; a bug shows Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FAMILIES: dict[str, tuple[Callable[..., None], ...]] = {
    "Start here": (demo, draw, serve_command, doctor),
    "Enroll": (enroll, merge_journals_command),
    "Recognize": (identify, verify, compare),
    "Look around": (groups, persons, faces, info),
    "Change": (delete,),
    "Operate": (copy_db, backup_db, deploy_files),
}

for _title, _commands in _FAMILIES.items():
    for _command in _commands:
        _name = _command.__name__.removesuffix("_command").replace("_", "-")
        app.command(_name, cls=TranslatedCommand, rich_help_panel=_title)(with_trust(_command))


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        say(f"face-async {__version__}")
        raise typer.Exit


@app.callback()
def face_async(
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Recognize faces: with a service, or with the local server of this package.

    Set FACE_ASYNC_APPID, FACE_ASYNC_BUCKET, FACE_ASYNC_SECRET_ID, FACE_ASYNC_SECRET_KEY and FACE_ASYNC_BASE_URL to use
    a service.

    With none of them set, they use the embedded local server and its database faces.db in the working folder.
    """
    logging.basicConfig(handlers=[OneLineLog()])
