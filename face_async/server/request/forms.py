"""A request's body as parameters and pictures: JSON and multipart/form-data, as clients of every kind write them.

What official clients send as multipart, and so what is accepted: text parts with a filename (Python), pictures
without one (PHP), a Content-Length in every part and the word ``null`` for an absent name or tag (Java), parts
without a Content-Type (Python, PHP), and the stray semicolon after ``name="appid"`` of the specification's samples.
Whether a part is a picture is therefore decided by its name alone. Lists are ``group_ids[0]``, ``group_ids[]`` or a
name that is repeated, or stands there once. Where a text part has the name of a picture's file part, the file counts.

JSON is also read under the media types that HTTP libraries choose by themselves, and may hold pictures in base64. That,
and no more of this module, is refused by a strict server.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from typing import TYPE_CHECKING, NamedTuple, cast

import anyio.lowlevel
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

_SLICE = 8_192  # bytes that are parsed at once
_TURN_SECONDS = 0.002

_PICTURE_LISTS = frozenset({"images"})
_PICTURES = _PICTURE_LISTS | {"image", "imageA", "imageB"}
_LISTS = frozenset({"group_ids", "face_ids", "urls"})
_NULL_FIELDS = frozenset({"person_name", "tag"})
_INDEXED = re.compile(r"(\w+)\[(\d{0,6})\]", re.ASCII)

_JSON = b"application/json"
_MISLABELED_JSON = frozenset(
    {b"", b"text/plain", b"text/json", b"application/x-www-form-urlencoded", b"application/octet-stream"}
)
_DATA_URL = re.compile(r"\s*data:[\w/+.-]*;base64,", re.ASCII)
_WHITE_SPACE = re.compile(r"\s+")


@frozen
class Form:
    """The content of a request: read, and not yet checked.

    Attributes:
        fields: Parameters by name; a list where the name was indexed or repeated. JSON may hold any type.
        pictures: Picture bytes by name without the index, in the order of the indices.
    """

    fields: Mapping[str, object]
    pictures: Mapping[str, list[bytes]] = field(factory=dict[str, list[bytes]])


async def read_form(
    request: Request, max_bytes: int, *, strict: bool = False, take: Callable[[int], object] = lambda _: None
) -> Form:
    """Read a request's body.

    Args:
        request: The request.
        max_bytes: The most bytes that are taken.
        take: Called with the size of each piece of the body that is kept.
        strict: Whether JSON must be labeled as such, and must hold no pictures.

    Raises:
        Refusal: 3 when it cannot be read as its Content-Type says, 21 for text that is not UTF-8 and pictures that are
            not base64, 23 when it is larger than ``max_bytes``.
        ClientDisconnect: The connection ended before the body did.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type == _JSON or (media_type in _MISLABELED_JSON and not strict):
        return await _read_json(request, max_bytes, take, strict=strict)
    if media_type == b"multipart/form-data":
        return await _read_multipart(request, options.get(b"boundary", b""), max_bytes, take)
    raise Refusal(ReturnCode.BAD_REQUEST)


async def _read_json(request: Request, max_bytes: int, take: Callable[[int], object], *, strict: bool) -> Form:
    body = bytearray()
    await _pour(request, max_bytes, take, body.extend)
    try:
        sent: object = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # bad UTF-8, bad JSON, numbers of 5,000 digits, 100,000 brackets
        raise Refusal(ReturnCode.BAD_REQUEST) from None
    if not isinstance(sent, dict):
        raise Refusal(ReturnCode.BAD_REQUEST)
    fields = cast("dict[str, object]", sent)
    found = {name: fields.pop(name) for name in _PICTURES & fields.keys()}
    if fields.get("tag") == "null" and (fields.get("url") or fields.get("urls")):
        del fields["tag"]  # Java's client writes so, for URLs alone
    pictures = {name: _pictures(value, strict=strict) for name, value in found.items() if value is not None}
    return Form(fields, pictures)


def _pictures(value: object, *, strict: bool) -> list[bytes]:
    """Return pictures that JSON carries as base64, alone or in a list."""
    texts = cast("list[object]", value) if isinstance(value, list) else [value]
    if strict or not texts:
        raise Refusal(ReturnCode.PARAMETER_INVALID)
    return [_picture(text) for text in texts]


def _without_scheme(text: str) -> str:
    match = _DATA_URL.match(text)
    return text[match.end() :] if match else text


def _picture(text: object) -> bytes:
    if not isinstance(text, str):
        raise Refusal(ReturnCode.PARAMETER_INVALID)
    try:
        # Many encoders break lines; browsers put the scheme of a data URL before it.
        return base64.b64decode(_WHITE_SPACE.sub("", _without_scheme(text)), validate=True)
    except (binascii.Error, ValueError):  # the latter: characters beyond ASCII
        raise Refusal(ReturnCode.PARAMETER_INVALID) from None


async def _read_multipart(request: Request, boundary: bytes, max_bytes: int, take: Callable[[int], object]) -> Form:
    if not boundary:
        raise Refusal(ReturnCode.BAD_REQUEST)
    parts = _Parts()
    try:
        parser = parts.parser(boundary)
    except FormParserError:  # a boundary longer than any client's
        raise Refusal(ReturnCode.BAD_REQUEST) from None
    await _pour(request, max_bytes, take, parser.write)
    return parts.form()


async def _pour(
    request: Request, max_bytes: int, take: Callable[[int], object], write: Callable[[bytes], object]
) -> None:
    """Pass the body to ``write`` as it arrives, at most ``max_bytes`` of it.

    After a refusal the body is still read up to a limit, since many clients send all of it before they read the answer.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):  # noqa: PLR2004 - int() of a line is slow
        raise Refusal(ReturnCode.REQUEST_TOO_LARGE)
    problem: Refusal | None = None
    size, more = 0, True
    turn = _Turn()
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
            continue
        take(len(chunk))
        for start in range(0, len(chunk), _SLICE):
            problem = problem or _written(write, chunk[start : start + _SLICE])
            await turn.yield_if_long()
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


class _Turn:
    """Lets others have the event loop when one body, such as one of thousands of parts, has had it for long."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def yield_if_long(self) -> None:
        if time.perf_counter() - self._began > _TURN_SECONDS:
            await anyio.lowlevel.checkpoint()
            self._began = time.perf_counter()


class _Part(NamedTuple):
    place: int
    content: bytes
    is_file: bool
    is_listed: bool


class _Parts:
    """Gathers a multipart body's parts from the parser's callbacks."""

    def __init__(self) -> None:
        self._count = 0
        self._complete = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._is_file = False
        self._content = bytearray()
        self._parts: dict[str, list[_Part]] = {}

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
        for name, found in self._parts.items():
            parts = sorted(found, key=lambda part: part.place)
            if name in _PICTURES:
                files = [part for part in parts if part.is_file]
                kept = files if files and name not in _PICTURE_LISTS else parts
                pictures[name] = [part.content for part in kept]
                continue
            texts = [_text(part.content) for part in parts]
            single = len(parts) == 1 and not parts[0].is_listed and name not in _LISTS
            if not (single and name in _NULL_FIELDS and texts[0] == "null"):
                fields[name] = texts[0] if single else texts
        return Form(fields, pictures)

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise Refusal(ReturnCode.BAD_REQUEST)
        self._name = ""
        self._is_file = False
        self._content.clear()

    def _end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value.decode("latin-1"))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = b"filename" in options
        self._header_name.clear()
        self._header_value.clear()

    def _end(self) -> None:
        if not self._name:
            raise Refusal(ReturnCode.BAD_REQUEST)
        indexed = _INDEXED.fullmatch(self._name)
        name, place = (indexed[1], int(indexed[2] or 0)) if indexed else (self._name, 0)
        part = _Part(place, bytes(self._content), self._is_file, is_listed=indexed is not None)
        self._parts.setdefault(name, []).append(part)

    def _finish(self) -> None:
        self._complete = True


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(ReturnCode.PARAMETER_INVALID) from None
