"""Exit codes, and errors as one line on stderr."""

from __future__ import annotations

import contextlib
import enum
import signal
from errno import EACCES, EADDRINUSE
from gettext import gettext as _
from typing import TYPE_CHECKING, Any, Self, cast

import typer

from face_async.cli.language import translated
from face_async.cli.language.help import TranslatedGroup
from face_async.cli.output import tell
from face_async.errors import FaceError, LimitError, ResponseError, ServiceError, TransportError, printable

if TYPE_CHECKING:
    from collections.abc import Generator

_EXPECTED = (FaceError, ValueError, OSError, ImportError)
_LONGEST_LINE = 1_000
_EXTRAS = {"distributed": "dask", "obstore": "fleet", "pyarrow": "fleet", "ray": "ray"}  # those that are not in "all"


class Exit(enum.IntEnum):
    """The exit codes of all commands, each with its meaning."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make a code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done, and the answer is yes"
    NO = 1, "the answer is no: not recognized, not enrolled, or refused by the service"
    USAGE = 2, "wrong arguments or input: a missing file, a GIF, a picture too large, a port in use"
    NO_ANSWER = 3, "no answer from the service, or none that can be understood"
    INTERRUPTED = 130, "Ctrl-C (which is how serve is stopped: there it is 0)"


EXIT_CODES = "Exit codes:\n\n" + "\n\n".join(f"{code.value}  {code.meaning}" for code in Exit)
"""All of them, for the help."""


class OneLineErrors(TranslatedGroup):
    """The group of all commands; an error of any becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> object:
        """Run a command; ``ctx`` is click's context, which versions of typer import from different modules."""
        try:
            return super().invoke(ctx)
        except (*_EXPECTED, ExceptionGroup) as error:
            first = _first(error)
            if isinstance(first, BrokenPipeError):
                raise first from None  # the reader of our output has gone, as `head` does: typer ends quietly
            if not isinstance(first, _EXPECTED) or _is_ours(first):
                raise
            raise fail(translated(one_line(first)), exit_code(first)) from None
        except (KeyboardInterrupt, typer.Abort):
            raise fail(_("interrupted"), Exit.INTERRUPTED) from None


@contextlib.contextmanager
def terminated_as_interrupted() -> Generator[None]:
    """Have SIGTERM, which schedulers of jobs send, and SIGHUP of a terminal that is closed, do what Ctrl-C does."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # no SIGHUP on Windows
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores it
    previous = [signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT)) for number in heeded]
    try:
        yield
    finally:
        for number, handler in zip(heeded, previous, strict=True):
            signal.signal(number, handler)


def fail(line: str, code: Exit = Exit.USAGE) -> typer.Exit:
    """Print one line, and return the exception that ends the command with ``code``."""
    tell(line)
    return typer.Exit(code)


def exit_code(error: Exception) -> Exit:
    """Return the exit code for an error."""
    match error:
        case ServiceError():  # first: a server's refusal of a limit is a LimitError, too
            return Exit.NO
        case TransportError() | ResponseError():
            return Exit.NO_ANSWER
        case LimitError() | _:
            return Exit.USAGE


def one_line(error: Exception) -> str:
    """Return the message of an error as one line, in English."""
    if isinstance(error, ModuleNotFoundError):
        return f"the module {error.name} is missing; install 'face_async[{_EXTRAS.get(error.name or '', 'all')}]'"
    if isinstance(error, OSError) and error.errno in {EADDRINUSE, EACCES} and "bind" in (error.strerror or ""):
        why = "another program listens there" if error.errno == EADDRINUSE else "ports below 1024 need more rights"
        return f"{error.strerror}: {why}; take another port with --port (0 takes a free one)"
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, _LONGEST_LINE)
    return printable(str(error) or type(error).__name__, _LONGEST_LINE)


def _first(error: Exception) -> Exception:
    """Return the first error of nested groups: tasks that fail together nearly always fail for one reason."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _is_ours(error: Exception) -> bool:
    """Return whether a module of this package is missing, which no extra would bring."""
    return isinstance(error, ImportError) and (error.name or "").startswith("face_async")
