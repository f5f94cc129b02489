"""Texts of any characters: PostgreSQL has no U+0000, which names and tags may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.string import StrBinaryDumper, StrDumper, TextBinaryLoader, TextLoader

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import Buffer

_ESCAPE = "\x1a"  # which stands before itself, or for U+0000 with a 0 behind


def _kept(text: str) -> str:
    if "\x00" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE * 2).replace("\x00", f"{_ESCAPE}0")


def _told(text: str) -> str:
    if _ESCAPE not in text:
        return text
    # Between doubled escapes there is none but those of U+0000.
    return _ESCAPE.join(part.replace(f"{_ESCAPE}0", "\x00") for part in text.split(_ESCAPE * 2))


class _Dumper(StrDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_kept(obj))


class _BinaryDumper(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_kept(obj))


class _Loader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return _told(text) if isinstance(text, str) else text


class _BinaryLoader(TextBinaryLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return _told(text) if isinstance(text, str) else text


def adapt_texts(connection: psycopg.Connection) -> None:
    """Let a connection keep texts of any characters in columns of the type varchar."""
    connection.adapters.register_dumper(str, _BinaryDumper)
    connection.adapters.register_dumper(str, _Dumper)  # the last one is what is used unless told otherwise
    connection.adapters.register_loader("varchar", _Loader)
    connection.adapters.register_loader("varchar", _BinaryLoader)
