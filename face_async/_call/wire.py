"""From a call to a request, and from an answer to a result: no I/O, no clock, no HTTP library."""

from __future__ import annotations

import json
import re
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from attrs import frozen

from face_async._call.judgement import REDIRECTS, Failure
from face_async._call.multipart import JsonBody, MultipartBody
from face_async.endpoints import URL_FIELDS
from face_async.errors import (
    ResponseError,
    ReturnCode,
    ServiceError,
    UnsupportedError,
    call_label,
    service_error,
    utf8,
)
from face_async.images import ImageUrl, as_image
from face_async.limits import check_face_ids, check_group_ids, check_id, check_image_count, check_text
from face_async.models import AddFaceResult, SchemaViolation, structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from face_async._call.multipart import Body
    from face_async.endpoints import Endpoint, Fields, Images
    from face_async.errors import CallError, CallFacts
    from face_async.images import ImageSource, Picture
    from face_async.limits import ServiceLimits

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

MAX_TOKENS = 65_536
"""The most strings, colons, commas and opening brackets of an answer: the longest good one, 10,000 ids, has 20,000."""

MAX_TEXT_BYTES = 6 * 1024 * 1024
"""The most memory that an answer takes as text: the longest good one has 1.4 MB, or four times that with one emoji."""

FactsOf: TypeAlias = "Callable[[Failure], CallFacts]"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Request(Generic[T_co]):
    """A call, checked and encoded.

    Attributes:
        endpoint: What is called.
        body: What is sent.
        fields: The text parameters that were given.
        urls: The parameters that carry URLs of images.
        pictures: The pictures, each with its parameter.
    """

    endpoint: Endpoint[T_co]
    body: Body
    fields: Fields
    urls: Mapping[str, str | Sequence[str]]
    pictures: tuple[tuple[str, Picture], ...]

    @property
    def images(self) -> list[ImageUrl | Picture]:
        """The images; those of addface in their order."""
        return [*(ImageUrl(url) for _, url in _flat(self.urls)), *(picture for _, picture in self.pictures)]


_FIRST_ERROR_STATUS = 400
_NO_SUCH_ENDPOINT = frozenset({404, 405, 501})
_TOO_LARGE = 413
_LIMIT_IN_FRONT = "HTTP 413; if that is a proxy, raise its limit, such as nginx's client_max_body_size of 1 MB"


def encode(endpoint: Endpoint[T], fields: Fields, images: Images, limits: ServiceLimits) -> Request[T]:
    """Check a call's parameters and encode it: JSON, or multipart when a picture is to be sent.

    Raises:
        TypeError, ValueError: A parameter that the service would refuse.
        LimitError: More images than one request may carry.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name in fields.keys() & _IDS - given.keys():
        raise TypeError(f"{name} must not be None")
    for name, value in given.items():
        _check_field(name, value, limits)
    urls, pictures = _split(images, limits)
    return Request(endpoint, _body({**given, **urls}, pictures), given, urls, pictures)


_IDS = frozenset({"group_ids", "face_ids", "group_id", "person_id", "face_id"})
"""Fields whose None is a mistake, such as one read from a database: without them a call is about something else."""


def _check_field(name: str, value: str | int | Sequence[str], limits: ServiceLimits) -> None:
    if name == "group_ids":
        check_group_ids(cast("Sequence[str]", value), limits)
    elif name == "face_ids":
        check_face_ids(cast("Sequence[str]", value), limits)
    elif name in {"group_id", "person_id", "face_id"}:
        check_id(name, cast("str", value), limits)
    elif name in {"person_name", "tag"}:
        check_text(name, cast("str", value), limits)


def _split(images: Images, limits: ServiceLimits) -> tuple[dict[str, str | list[str]], tuple[tuple[str, Picture], ...]]:
    """Divide images into URL parameters and pictures to send, under the specification's names."""
    urls: dict[str, str | list[str]] = {}
    pictures: list[tuple[str, Picture]] = []
    for name, value in images.items():
        if name == "images":
            found_urls, found_pictures = _split_list(value, limits)
            if found_urls:
                urls[URL_FIELDS[name]] = found_urls
            pictures += [(f"{name}[{index}]", picture) for index, picture in enumerate(found_pictures)]
            continue
        image = as_image(cast("ImageSource", value))
        if isinstance(image, ImageUrl):
            urls[URL_FIELDS.get(name, name)] = image.url
        else:
            pictures.append((name, image))
    return urls, tuple(pictures)


def _split_list(value: object, limits: ServiceLimits) -> tuple[list[str], list[Picture]]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"images must be a list, not {type(value).__name__}: for a single image write [image]")
    sources = cast("Sequence[ImageSource]", value)
    check_image_count(len(sources), limits)
    images = [as_image(source) for source in sources]
    urls = [image.url for image in images if isinstance(image, ImageUrl)]
    pictures = [image for image in images if not isinstance(image, ImageUrl)]
    if urls and pictures:
        raise ValueError(
            f"{len(urls)} of the {len(images)} images are URLs, but one addface request carries either pictures or "
            "URLs (Spec: 2.3): call add_face once for each kind"
        )
    return urls, pictures


def _body(texts: Mapping[str, str | int | Sequence[str]], pictures: Sequence[tuple[str, Picture]]) -> Body:
    if not pictures:
        return JsonBody(utf8("a parameter", _ENCODER.encode(texts)))
    flat = _flat(texts)
    utf8("a parameter", "".join(name + text for name, text in (*flat, *((name, "") for name, _ in pictures))))
    return MultipartBody(flat, pictures)


def _flat(fields: Mapping[str, str | int | Sequence[str]]) -> list[tuple[str, str]]:
    """Write arrays as multipart does: ``group_ids[0]``, ``group_ids[1]`` and so on."""
    flat: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, str | int):
            flat.append((name, str(value)))
        else:
            flat += [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
    return flat


def decode_answer(
    request: Request[T], status: int, content: bytes, facts: FactsOf, headers: Mapping[str, str] = _NO_HEADERS
) -> T:
    """Return the result that an answer carries.

    Any HTTP status is accepted with a well-formed envelope, since the specification documents none for errors.

    Args:
        request: What was sent.
        status: The answer's HTTP status.
        content: The answer's body.
        facts: Returns what the error of an answer is made with.
        headers: The answer's headers, by their names in lower case.

    Raises:
        ServiceError: The envelope's code is not 0, or a proxy refused the request as too large.
        UnsupportedError: It is the answer of a server that lacks a later endpoint.
        ResponseError: The answer breaks the specification.
    """
    try:
        code, message, data = _envelope(content)
        if not code:
            return _result(request, data)
    except SchemaViolation as violation:
        problem, path = violation.problem, violation.path
    else:
        raise _explained(_service_error(code, message, data, facts), request.endpoint)
    # Raised out here, so that no foreign exception hangs on it as its context.
    raise _explained(unreadable(problem, status, facts, headers, path=path), request.endpoint)


def _explained(error: ServiceError | ResponseError, endpoint: Endpoint[object]) -> CallError:
    """Return an answer's error, or what it means where the endpoint is one that servers may lack."""
    if isinstance(error, ResponseError):
        denied = error.status in _NO_SUCH_ENDPOINT
    else:
        denied = error.code == ReturnCode.BAD_REQUEST and "account" not in error.message
    if not (denied and endpoint.later):
        return error
    label = call_label(error.endpoint, error.subject)
    return UnsupportedError(
        f"{label}: the server does not have this endpoint, which is beyond the specification: use a server that has "
        f"it, or do without ({error})",
        endpoint=error.endpoint,
        subject=error.subject,
    )


def _result(request: Request[T], data: object) -> T:
    if not isinstance(data, dict):
        problem = "missing" if data is None else f"expected an object, got {type(data).__name__}"
        raise SchemaViolation("$.data", problem)
    endpoint, value, path = request.endpoint, cast("object", data), "$.data"
    if endpoint.inside is not None:
        path = f"$.data.{endpoint.inside}"
        value = _member(cast("dict[str, object]", data), endpoint.inside, path)
    result = structure(value, endpoint.result, path)
    if isinstance(result, AddFaceResult) and len(result.ret_codes) != len(request.images):
        problem = f"{len(result.ret_codes)} codes for {len(request.images)} images"
        raise SchemaViolation("$.data.ret_codes", problem)
    return result


def decode_error(status: int, content: bytes, facts: FactsOf) -> CallError | None:
    """Return the error that an answer stands for, undecoded otherwise.

    That is its code's, if it has one other than 0; and that of an HTTP status which is itself an error, if it is no
    envelope. None for all the others.
    """
    try:
        code, message, data = _envelope(content)
    except SchemaViolation as violation:
        bad = status >= _FIRST_ERROR_STATUS
        return unreadable(violation.problem, status, facts, path=violation.path) if bad else None
    return _service_error(code, message, data, facts) if code else None


def unreadable(
    problem: str, status: int, facts: FactsOf, headers: Mapping[str, str] = _NO_HEADERS, *, path: str = "$"
) -> ServiceError | ResponseError:
    """Return the error of an answer that is no envelope: mostly one of a proxy, whose status may say enough.

    Args:
        problem: What is wrong with it.
        status: The answer's HTTP status.
        facts: Returns what the error of an answer is made with.
        headers: The answer's headers, by their names in lower case.
        path: Where it is wrong.
    """
    call = facts(Failure(status=status))
    if status == _TOO_LARGE:
        return service_error(ReturnCode.REQUEST_TOO_LARGE, _LIMIT_IN_FRONT, **call)
    location = headers.get("location", "") if status in REDIRECTS else ""
    return ResponseError(problem, status=status, path=path, location=location, **call)


def _service_error(code: int, message: str, data: object, facts: FactsOf) -> ServiceError:
    # With a code other than 0, data may be absent, null, empty or filled with zeros.
    details = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    session_id = details.get("session_id")
    return service_error(
        code,
        message,
        data=details,
        session_id=session_id if isinstance(session_id, str) else "",
        **facts(Failure(code=code)),
    )


def _envelope(content: bytes) -> tuple[int, str, object]:
    envelope = _parse(content)
    if not isinstance(envelope, dict):
        raise SchemaViolation("$", f"expected an object, got {type(envelope).__name__}")
    fields = cast("dict[str, object]", envelope)
    code = structure(_member(fields, "code", "$.code"), int, "$.code")
    message = structure(fields.get("message", ""), str, "$.message")
    return code, message, fields.get("data")


def _member(fields: dict[str, object], name: str, path: str) -> object:
    if name not in fields:
        raise SchemaViolation(path, "missing")
    return fields[name]


def _check_size(content: bytes) -> None:
    """Refuse an answer of few bytes that would be many as objects."""
    size = len(content)
    if size <= MAX_TOKENS:
        return  # as nearly always
    # The widest character of a text decides how many bytes each of its characters takes.
    width = 1 if content.isascii() else 4 if _BEYOND_16_BITS.search(content) else 2
    if size * width > MAX_TEXT_BYTES:
        raise SchemaViolation("$", f"as text it takes more than {MAX_TEXT_BYTES:,} bytes")
    # Counted fast, and if those are too many, without the ones inside of strings: ids may hold them, too.
    if sum(map(content.count, _SEPARATORS)) > MAX_TOKENS:
        beyond = islice(_TOKEN.finditer(content), MAX_TOKENS, None)
        if next(beyond, None):
            raise SchemaViolation("$", f"it has more than {MAX_TOKENS:,} strings, colons, commas and opening brackets")


def _parse(content: bytes) -> object:
    _check_size(content)
    try:
        return _DECODER.decode(content.decode())
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error.msg} at byte {error.pos}"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:  # also an integer of too many digits
        problem = str(error)
    raise SchemaViolation("$", problem)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    return found


# Made once: json.dumps and json.loads with any option make a new one for every call.
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)
_SEPARATORS = (b",", b":", b"[", b"{")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,:\[{]', re.DOTALL)
_BEYOND_16_BITS = re.compile(rb"[\xf0-\xff]")  # the first byte of a character that UTF-8 writes in four
