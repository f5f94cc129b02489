"""``deploy-files``: write out the files to run the server with."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

from face_async.cli.output import say


def deploy_files(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder to write them in; made if it is missing.")
    ],
) -> None:
    """Write out a Dockerfile, a compose file with PostgreSQL, and a unit of systemd, and print their paths.

    Each says at its top how it is used. A file that is there already is not replaced.
    """
    from face_async.server.deploy import write_deployment_files  # noqa: PLC0415 - the server's extra may be absent

    for path in write_deployment_files(folder):
        say(str(path))
