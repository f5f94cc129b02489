"""Help texts, and typer's complaints about arguments, in the user's language."""

from __future__ import annotations

import contextlib
from gettext import gettext as _
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from face_async.cli.language import translated

if TYPE_CHECKING:
    from collections.abc import Generator

# typer's own types come from different modules by its version: hence Any.


class _Translated:
    """Help in the user's language: texts stand in English where typer wants them, and each is translated as a whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        command: Any = self
        for name in ("help", "epilog", "rich_help_panel"):
            _translate(command, name)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and options, those that typer adds included."""
        command: Any = super()
        parameters: list[Any] = command.get_params(ctx)
        for parameter in parameters:
            _translate(parameter, "help")
        return parameters

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write how a command is called."""
        command: Any = self
        formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)), prefix=_("Usage: "))


class TranslatedCommand(_Translated, TyperCommand):
    """A command whose help is in the user's language."""


class TranslatedGroup(_Translated, TyperGroup):
    """A group of commands whose help, and what typer says of wrong arguments, is in the user's language."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments before the command."""
        with _translated_complaints():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> object:
        """Read the arguments of the command, and run it."""
        with _translated_complaints():
            return super().invoke(ctx)


@contextlib.contextmanager
def _translated_complaints() -> Generator[None]:
    try:
        yield
    except Exception as error:
        complaining: Any = error
        if hasattr(error, "format_message"):
            complaint = translated(complaining.format_message())
            complaining.format_message = lambda: complaint
        raise


def _translate(thing: Any, name: str) -> None:
    if text := getattr(thing, name, None):
        setattr(thing, name, _(text))
