"""``copy-db``, ``backup-db``: the local server's database as a whole."""

from __future__ import annotations

import os
from gettext import gettext as _
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import define

from face_async.cli.exits import terminated_as_interrupted
from face_async.cli.options import DB_VARIABLE, DEFAULT_DB, AsJson, ProgressOption, Quiet
from face_async.cli.output import say_json, tell
from face_async.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from face_async.server import Storage

DATABASE_HELP = (
    "The database: a file, created if it is missing, or postgresql://user@host/name "
    "(its password in PGPASSWORD or ~/.pgpass)."
)


def copy_db(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A file, or the URL of a PostgreSQL database.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A file or URL of a database that is new or empty.")],
    *,
    progress: ProgressOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Copy a database of the local server into a new one; each is a file or a PostgreSQL database.

    All groups, persons and faces are copied, or nothing. What a server writes during that time is not: stop the server
    before, and start it on the copy.
    """
    from face_async.server import copy_storage, open_storage  # noqa: PLC0415 - slow to import, and needs the extra

    check_argument(target)
    with (
        terminated_as_interrupted(),
        _opened(source) as origin,
        open_storage(target) as copy,
        ProgressDisplay(progress, quiet=quiet) as display,
    ):
        counts = copy_storage(origin, copy, progress=_Tables(display).show)
    _report(counts, quiet=quiet, as_json=as_json)


def backup_db(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make.")],
    *,
    db: Annotated[
        str, typer.Option("--db", metavar="PATH_OR_URL", envvar=DB_VARIABLE, help="The database to copy.")
    ] = str(DEFAULT_DB),
    progress: ProgressOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Copy the local server's database as it is at one moment into a new file, while the server runs.

    The file is a database of its own: serve it with --db, or bring it back into PostgreSQL with copy-db. It has faces
    in it: keep it as private as the database.

    To restore it: stop the server, remove faces.db-wal and faces.db-shm beside its database faces.db, and copy the
    backup over faces.db.
    """
    from face_async.server import back_up_storage  # noqa: PLC0415 - as above

    with terminated_as_interrupted(), _opened(db) as origin, ProgressDisplay(progress, quiet=quiet) as display:
        counts = back_up_storage(origin, file, progress=_Tables(display).show)
    _report(counts, quiet=quiet, as_json=as_json)


def check_argument(database: str) -> None:
    """Refuse the URL of a database with a password in it, unless it comes from the environment.

    Raises:
        ValueError: There is one.
    """
    from face_async.server.storage.names import without_password  # noqa: PLC0415 - as above

    if without_password(database) != database and database != os.environ.get(DB_VARIABLE):
        raise ValueError("everybody on this machine can read arguments: put the password into PGPASSWORD or ~/.pgpass")


def _opened(database: str) -> Storage:
    from face_async.server import open_storage  # noqa: PLC0415 - as above
    from face_async.server.storage.names import is_postgres_url  # noqa: PLC0415

    check_argument(database)
    if not is_postgres_url(database) and not Path(database).exists():
        raise ValueError(f"{database} is not there")  # it would be made
    return open_storage(database, gallery_memory=0)


@define
class _Tables:
    """Shows the tables that are copied, one after the other."""

    display: ProgressDisplay
    table: str = ""

    def show(self, table: str, count: int) -> None:
        if table != self.table:
            self.table = table
            self.display.begin(_("copying {table}").format(table=table))
        self.display.show(count)


def _report(counts: dict[str, int], *, quiet: bool, as_json: bool) -> None:
    if as_json:
        say_json(counts)
    elif not quiet:
        tell(
            _("copied {persons:,} persons with {faces:,} faces in {groups:,} groups").format(
                persons=counts["persons"], faces=counts["faces"], groups=counts["groups"]
            )
        )
