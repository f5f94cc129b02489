"""The command line: ``face-async``.

::

    _app.py        all commands, from the files and folders below
    records.py     groups, persons, faces, info, delete
    recognize.py   verify, compare
    serve.py       serve
    databases.py   copy-db, backup-db
    deploy.py      deploy-files
    identify/      identify: one picture, some, or folders of them
    enroll/        enroll, merge-journals
    fleet.py       runs on a cluster: enroll and identify with --cluster
    doctor/        doctor, and its checks
    demo/          demo, draw, and the people in them
    html/          the pages of reports
    pictures.py    pictures in folders, smaller copies of them, and the faces in them
    options.py     options that commands share, and the session that they lead to
    language/      Chinese or English
    output.py      output on the terminal: tables, JSON, foreign text made harmless
    progress.py    the live display
    exits.py       exit codes, and one line for every error
"""

import io
import os
import sys
from gettext import gettext as _

from face_async.cli.language import choose_language


def main() -> None:
    """Run the command line; the entry point ``face-async``."""
    _open_missing_streams()
    choose_language()
    try:
        from face_async.cli._app import app  # noqa: PLC0415 - packages of the extra may be missing
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"packaging", "rich", "typer"}:
            raise
        complaint = _("the command line needs {package}; install 'face_async[cli]'").format(package=missing)
        sys.exit(f"face-async: {complaint}")
    except KeyboardInterrupt:
        # As in exits.py, which may not be imported yet.
        sys.stderr.write(f"face-async: {_('interrupted')}\n")
        sys.exit(130)
    # A name that the terminal cannot show is no error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportUnknownMemberType]
    app()


def _open_missing_streams() -> None:
    """Lead the standard streams that this program was started without, as by ``>&-``, to nowhere.

    Otherwise a database would be opened under the number of one, and get what libraries write there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for good
