"""A request's body as parameters and pictures: JSON and multipart/form-data, as every official client writes them.

What official clients send as multipart, and so what is accepted: text parts with a filename (Python), pictures
without one (PHP), a Content-Length in every part and the word ``null`` for an absent name or tag (Java), parts
without a Content-Type (Python, PHP), and the stray semicolon after ``name="appid"`` of the specification's samples.
Whether a part is a picture is therefore decided by its name alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from attrs import field, frozen
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from face_async.errors import ReturnCode
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

MAX_PARTS = 8_192
"""Parts of one multipart body: room for a person in 5,000 groups."""

MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 16_384
"""Bytes of one header line: room for a percent-encoded path of any length that systems allow."""

_PICTURES = frozenset({"image", "images", "imageA", "imageB"})
_NULL_FIELDS = frozenset({"person_name", "tag"})
_INDEXED = re.compile(r"(\w+)\[(\d{1,6})\]", re.ASCII)


@frozen
class Form:
    """The content of a request: read, and not yet checked.

    Attributes:
        fields: Parameters by name; a list where the name was indexed or repeated. JSON may hold any type.
        pictures: Picture bytes by name without the index, in the order of the indices.
    """

    fields: Mapping[str, object]
    pictures: Mapping[str, list[bytes]] = field(factory=dict[str, list[bytes]])


async def read_form(request: Request, max_bytes: int) -> Form:
    """Read a request's body.

    Raises:
        Refusal: 3 when it cannot be read as its Content-Type says, 21 for text that is not UTF-8, 23 when it is
            larger than ``max_bytes``.
        ClientDisconnect: The connection ended before the body did.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type == b"application/json":
        return await _read_json(request, max_bytes)
    if media_type == b"multipart/form-data":
        return await _read_multipart(request, options.get(b"boundary", b""), max_bytes)
    raise Refusal(ReturnCode.BAD_REQUEST)


async def _read_json(request: Request, max_bytes: int) -> Form:
    body = bytearray()
    await _pour(request, max_bytes, body.extend)
    try:
        fields: object = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # bad UTF-8, bad JSON, numbers of 5,000 digits, 100,000 brackets
        raise Refusal(ReturnCode.BAD_REQUEST) from None
    if not isinstance(fields, dict):
        raise Refusal(ReturnCode.BAD_REQUEST)
    return Form(cast("dict[str, object]", fields))


async def _read_multipart(request: Request, boundary: bytes, max_bytes: int) -> Form:
    if not boundary:
        raise Refusal(ReturnCode.BAD_REQUEST)
    parts = _Parts()
    try:
        parser = parts.parser(boundary)
    except FormParserError:  # a boundary longer than any client's
        raise Refusal(ReturnCode.BAD_REQUEST) from None
    await _pour(request, max_bytes, parser.write)
    return parts.form()


async def _pour(request: Request, max_bytes: int, write: Callable[[bytes], object]) -> None:
    """Pass the body to ``write`` as it arrives, at most ``max_bytes`` of it.

    After a refusal the body is still read up to a limit, since many clients send all of it before they read the answer.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):  # noqa: PLR2004 - int() of a line is slow
        raise Refusal(ReturnCode.REQUEST_TOO_LARGE)
    problem: Refusal | None = None
    size, more = 0, True
    while more and size <= 2 * max_bytes:
        # Not request.stream(): leaving that generator half-way is a warning on trio.
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > max_bytes:
            problem = problem or Refusal(ReturnCode.REQUEST_TOO_LARGE)
        elif problem is None:
            problem = _written(write, chunk)
    if problem is not None:
        raise problem


def _written(write: Callable[[bytes], object], chunk: bytes) -> Refusal | None:
    try:
        write(chunk)
    except FormParserError:
        return Refusal(ReturnCode.BAD_REQUEST)
    except Refusal as refusal:
        return refusal
    return None


class _Parts:
    """Gathers a multipart body's parts from the parser's callbacks."""

    def __init__(self) -> None:
        self._count = 0
        self._complete = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._content = bytearray()
        self._contents: dict[str, list[tuple[int | None, bytes]]] = {}

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
                "on_part_end": self._end,
                "on_end": self._finish,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def form(self) -> Form:
        """Return the form; a body without its closing delimiter was cut short."""
        if not self._complete:
            raise Refusal(ReturnCode.BAD_REQUEST)
        fields: dict[str, object] = {}
        pictures: dict[str, list[bytes]] = {}
        for name, indexed in self._contents.items():
            contents = [content for _, content in sorted(indexed, key=lambda item: item[0] or 0)]
            if name in _PICTURES:
                pictures[name] = contents
                continue
            texts = [_text(content) for content in contents]
            single = len(indexed) == 1 and indexed[0][0] is None
            if not (single and name in _NULL_FIELDS and texts[0] == "null"):
                fields[name] = texts[0] if single else texts
        return Form(fields, pictures)

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise Refusal(ReturnCode.BAD_REQUEST)
        self._name = ""
        self._content.clear()

    def _end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value.decode("latin-1"))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _end(self) -> None:
        if not self._name:
            raise Refusal(ReturnCode.BAD_REQUEST)
        match = _INDEXED.fullmatch(self._name)
        name, index = (match[1], int(match[2])) if match else (self._name, None)
        self._contents.setdefault(name, []).append((index, bytes(self._content)))

    def _finish(self) -> None:
        self._complete = True


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(ReturnCode.PARAMETER_INVALID) from None
