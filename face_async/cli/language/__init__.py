"""The language of the command line: Chinese where the environment asks for it, English otherwise.

Messages stand in English in the sources, and gettext brings them into the user's language: those of the command line
are marked by ``_``, help texts are translated as a whole, and those of the library, which stay English for programs,
when they are printed. The catalog is ``face_async/locale``; ``python tests/stand_ins/catalogkit.py`` brings it up to
date.

Nothing but the standard library is imported here: typer reads some of its words while it is imported.
"""

from __future__ import annotations

import gettext
import os
import re
import struct
from functools import cache
from pathlib import Path
from string import Formatter
from typing import NamedTuple, TypeAlias

LANGUAGE_VARIABLE = "FACE_ASYNC_LANG"
"""``zh`` or ``en``; without it gettext's own variables count: LANGUAGE, LC_ALL, LC_MESSAGES, LANG."""

DOMAIN = "face_async"
CATALOGS = Path(__file__).parents[2] / "locale"
OF_LIBRARY = "library\4"  # how a .mo file writes the context of a message

_SEPARATORS = (": ", "; ")


class Template(NamedTuple):
    """A message of the library.

    Attributes:
        pattern: What it looks like in English, with a group for each value.
        translation: The same in the user's language, with ``{0}`` and so on for the values.
        has_parts: Whether it has a separator in it, at which other messages are put together.
    """

    pattern: re.Pattern[str]
    translation: str
    has_parts: bool


Templates: TypeAlias = tuple[Template, ...]


def choose_language() -> None:
    """Make gettext, and with it typer, speak the language that the environment asks for."""
    if chosen := os.environ.get(LANGUAGE_VARIABLE):
        os.environ["LANGUAGE"] = "zh_CN" if chosen.startswith("zh") else "en"
    gettext.bindtextdomain(DOMAIN, CATALOGS)
    gettext.textdomain(DOMAIN)


def translated(message: str) -> str:
    """Return an English message of the library, or of typer, in the user's language.

    The catalog has such messages with ``{0}``, ``{1}`` and so on in place of their values, which may be messages again.
    What is not in it is translated part by part, or left as it is.
    """
    catalog = gettext.find(DOMAIN, CATALOGS) if gettext.textdomain() == DOMAIN else None
    return message if catalog is None else _translated(message, _templates(catalog))


def _translated(message: str, templates: Templates) -> str:
    if " " not in message:
        return message  # a name or a number
    is_whole = not any(separator in message for separator in _SEPARATORS)
    for template in templates:
        if (is_whole or template.has_parts) and (match := template.pattern.fullmatch(message)):
            return template.translation.format(*(_translated(value, templates) for value in match.groups()))
    for separator in _SEPARATORS:
        head, found, tail = message.partition(separator)
        if found:
            return f"{_translated(head, templates)}{separator}{_translated(tail, templates)}"
    return message


@cache
def _templates(catalog: str) -> Templates:
    """Return the messages of the library; those with most words come first."""
    content = Path(catalog).read_bytes()
    pairs = [
        (source.removeprefix(OF_LIBRARY), translation)
        for source, translation in zip(_texts(content, 12), _texts(content, 16), strict=True)
        if source.startswith(OF_LIBRARY)
    ]
    pairs.sort(key=lambda pair: -len("".join(literal for literal, *_ in Formatter().parse(pair[0]))))
    return tuple(
        Template(_pattern(source), translation, any(map(source.__contains__, _SEPARATORS)))
        for source, translation in pairs
    )


def _texts(content: bytes, place: int) -> list[str]:
    """Return the texts of a .mo file: the messages by the table at place 12, their translations by that at 16."""
    count, table = struct.unpack_from("<i", content, 8)[0], struct.unpack_from("<i", content, place)[0]
    spans = (struct.unpack_from("<ii", content, table + 8 * number) for number in range(count))
    return [content[start : start + length].decode() for length, start in spans]


def _pattern(template: str) -> re.Pattern[str]:
    pattern, follows = "", False
    for literal, name, *_ in Formatter().parse(template):
        # Of two values in a row, the second one goes on with the sentence: it begins with a semicolon, or is empty.
        value = r"((?:;.*?)?)" if follows and not literal else "(.*?)"
        pattern += re.escape(literal) + ("" if name is None else value)
        follows = name is not None
    return re.compile(pattern, re.DOTALL)
