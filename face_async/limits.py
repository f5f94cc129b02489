"""The service's limits (Spec: 2), and the checks that a client can make alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import and_, ge, instance_of

from face_async.errors import FaceLimitError, GroupLimitError, ImageRefusedError, RequestTooLargeError, quoted, utf8

GIF_MAGIC = b"GIF8"
"""What every GIF begins with, whatever its name: GIF87a and GIF89a."""

SAME_PERSON = 75.0
"""Faces at least this similar, 0 to 100, are about the same person (Spec: 2.13)."""

SURELY_THE_SAME = 90.0
"""Faces at least this similar are the same person also where one is searched among many."""

ALMOST_THE_SAME = 99.0
"""Faces at least this similar come from copies of one picture (code -1312)."""

_count = and_(instance_of(int), ge(1))


@frozen
class ServiceLimits:
    """The limits of the service; the defaults are the specification's (Spec: 2).

    Attributes:
        max_groups_per_appid: Groups that one appid may have.
        max_persons_per_group: Persons that one group may have.
        max_faces_per_person: Faces that one person may have, and so the images of one addface request.
        max_request_bytes: Bytes of a request's encoded body over which it is certainly too large. The
            specification says "1.5MB" without defining the unit: this is the larger reading, 1.5 MiB. Lower it
            where a proxy takes less.
        planned_request_bytes: Bytes up to which requests are planned when there is a choice (the smaller
            reading of "1.5MB"); more than ``max_request_bytes`` becomes that.
        max_id_bytes: UTF-8 bytes of a group, person or face id. The specification has a code for "too long"
            (-1304) but no number.
        max_text_bytes: UTF-8 bytes of a person's name or a tag, for which the specification has no number either.
    """

    max_groups_per_appid: int = field(default=5_000, validator=_count)
    max_persons_per_group: int = field(default=10_000, validator=_count)
    max_faces_per_person: int = field(default=20, validator=_count)
    max_request_bytes: int = field(default=1_572_864, validator=_count)
    planned_request_bytes: int = field(default=1_500_000, validator=_count)
    max_id_bytes: int = field(default=128, validator=_count)
    max_text_bytes: int = field(default=1_024, validator=_count)

    def __attrs_post_init__(self) -> None:
        planned = min(self.planned_request_bytes, self.max_request_bytes)
        object.__setattr__(self, "planned_request_bytes", planned)  # only the class is frozen by now


_ILLEGAL_IN_ID = re.compile(r"[\s/\x00-\x1f\x7f-\x9f]")


def is_legal_id(value: str) -> bool:
    """Return whether an id has none of the characters that code -1313 forbids: white space, slash, controls."""
    return _ILLEGAL_IN_ID.search(value) is None


def check_id(name: str, value: str, limits: ServiceLimits) -> None:
    """Check a group, person or face id.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty (-1301), too long (-1304) or has white space or a slash in it (-1313).
    """
    _check_text(name, value, limits.max_id_bytes)
    if not value:
        raise ValueError(f"{name} must not be empty")
    if not is_legal_id(value):
        raise ValueError(f"{name} {quoted(value)} must not contain white space, slashes or control characters")


def check_text(name: str, value: str, limits: ServiceLimits) -> None:
    """Check a person's name or a tag, which may be empty.

    Raises:
        TypeError: It is not a str.
        ValueError: It is too long (-1304).
    """
    _check_text(name, value, limits.max_text_bytes)


def _check_text(name: str, value: str, max_bytes: int) -> None:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    size = len(utf8(name, value))
    if size > max_bytes:
        raise ValueError(f"{name} has {size:,} bytes in UTF-8, more than the {max_bytes:,} allowed")


def check_group_ids(group_ids: Sequence[str], limits: ServiceLimits) -> None:
    """Check the groups of a new person.

    Raises:
        TypeError: It is a single str, or holds something else than str.
        ValueError: It is empty, names a group twice, or holds an id that :func:`check_id` refuses.
        GroupLimitError: More groups than an appid may have.
    """
    _check_ids("group_ids", group_ids, limits)
    if len(group_ids) > limits.max_groups_per_appid:
        raise GroupLimitError(
            f"{len(group_ids):,} groups are more than the {limits.max_groups_per_appid:,} an appid may have"
        )


def check_face_ids(face_ids: Sequence[str], limits: ServiceLimits) -> None:
    """Check the faces to delete; raises TypeError and ValueError as :func:`check_group_ids`."""
    _check_ids("face_ids", face_ids, limits)


def check_list(name: str, ids: object) -> None:
    """Check that ids are in a list, or another sequence; raises TypeError."""
    if isinstance(ids, str):
        raise TypeError(f"{name} must be a list of str, not a single str: write [{quoted(ids)}]")
    if isinstance(ids, bytes):
        raise TypeError(f"{name} must be a list of str, not a single bytes")
    if not isinstance(ids, Sequence):
        raise TypeError(f"{name} must be a list of str, not {type(ids).__name__}")


def _check_ids(name: str, ids: Sequence[str], limits: ServiceLimits) -> None:
    check_list(name, ids)
    if not ids:
        raise ValueError(f"{name} must name at least one")
    for index, value in enumerate(ids):
        check_id(f"{name}[{index}]", value, limits)
    if len(set(ids)) != len(ids):
        raise ValueError(f"{name} must not name one twice")


def check_count(name: str, count: int) -> None:
    """Check a number of things, of which there must be one at least.

    Raises:
        TypeError: It is no int.
        ValueError: It is below 1.
    """
    if not isinstance(count, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, not {count}")


def check_image_count(count: int, limits: ServiceLimits) -> None:
    """Check how many images one addface request carries.

    Raises:
        ValueError: None at all.
        FaceLimitError: More than one person may have faces.
    """
    if count < 1:
        raise ValueError("images must hold at least one image")
    if count > limits.max_faces_per_person:
        raise FaceLimitError(
            f"{count} images are more than the {limits.max_faces_per_person} faces a person may have; "
            "add them to several persons, or choose the best"
        )


def check_request_size(size: int, limits: ServiceLimits) -> None:
    """Check the bytes of an encoded body.

    Raises:
        RequestTooLargeError: It is certainly over the limit.
    """
    if size > limits.max_request_bytes:
        raise RequestTooLargeError(
            f"the request would have {size:,} bytes, more than the {limits.max_request_bytes:,} allowed; "
            "scale the picture down, or send fewer in one call"
        )


def check_image(label: str, size: int, head: bytes) -> None:
    """Check an image by its size in bytes and its first bytes.

    Raises:
        ImageRefusedError: It is empty or a GIF.
    """
    if size == 0:
        raise ImageRefusedError(f"{label} is empty")
    if head.startswith(GIF_MAGIC):
        raise ImageRefusedError(f"{label} is a GIF, which the service does not accept; send a JPEG or PNG")
