"""The command line: ``face-async``.

::

    _app.py        all commands, each in the file or folder of its family
    look.py        groups, persons, faces, info
    delete.py      delete
    recognize.py   verify, compare
    serve.py       serve
    identify/      identify: one picture, some, or folders of them
    enroll/        enroll, merge-journals
    doctor/        doctor, and all that it checks
    demo/          demo, and who takes part
    html/          the pages that reports are made of
    pictures.py    pictures in folders, smaller copies of them, and where the face is
    options.py     options that commands share, and the session that they ask for
    output.py      what goes to the terminal: tables, JSON, foreign text made harmless
    progress.py    the live display
    exits.py       exit codes, and one line for every error
"""

import io
import sys


def main() -> None:
    """Run the command line; the entry point ``face-async``."""
    try:
        from face_async.cli._app import app  # noqa: PLC0415 - typer and rich may be absent
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit("face-async: the command line needs typer and rich; install 'face_async[cli]'")
    except KeyboardInterrupt:
        # As exits.py has it, which may not be imported yet.
        sys.stderr.write("face-async: interrupted\n")
        sys.exit(130)
    # A name that the terminal cannot show is no error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportUnknownMemberType]
    app()
