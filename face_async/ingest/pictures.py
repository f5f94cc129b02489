"""The pictures of units: read once, hashed, and checked before anything is sent."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from face_async.bulk.fitting import MAX_SOURCE_BYTES, fit_image, recompressions
from face_async.bulk.packs import Photo
from face_async.errors import (
    FaceLimitError,
    GroupLimitError,
    ImageRefusedError,
    LimitError,
    PersonLimitError,
    RequestTooLargeError,
    ResponseError,
    ReturnCode,
    ServiceError,
    TransportError,
    quoted,
)
from face_async.images import ImageUrl, Picture, is_url
from face_async.images.thread_jobs import ThreadJobs
from face_async.ingest.journal import State, Unit
from face_async.ingest.objects import is_object_url, read_picture
from face_async.ingest.queries import stamp_of
from face_async.limits import check_image, check_request_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from face_async.limits import ServiceLimits

# What an error that is no answer of the service is noted as: the code of a limit that the service has, too, or a word.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (FaceLimitError, str(ReturnCode.ERROR_FACE_NUM_EXCEED)),
    (PersonLimitError, str(ReturnCode.ERROR_PERSON_NUM_EXCEED)),
    (GroupLimitError, str(ReturnCode.ERROR_GROUP_NUM_EXCEED)),
    (RequestTooLargeError, str(ReturnCode.REQUEST_TOO_LARGE)),
    (ImageRefusedError, "refused"),
    (TransportError, "no-answer"),
    (ResponseError, "bad-answer"),
    (ValueError, "invalid"),
)


@define(eq=False)
class UnitPhoto(Photo):
    """A picture that was read, and its unit with the hash of its bytes."""

    unit: Unit = field(kw_only=True)


class UnitReader:
    """Reads pictures, in worker threads.

    Args:
        limits: What fits a request.
        room: Tells how many bytes a unit's picture may have; larger ones are made smaller. None leaves them as they
            are, and refuses those that no request can carry.
    """

    def __init__(self, limits: ServiceLimits, room: Callable[[Unit], int] | None) -> None:
        self._limits = limits
        self._room = room
        self._jobs = ThreadJobs()

    async def read(self, units: Sequence[Unit], *, again: bool = False) -> tuple[list[UnitPhoto], list[Unit]]:
        """Read the pictures of units; return those that can be sent, and the units of those that cannot.

        With ``again`` they must have the bytes that they had when they were read before, whatever the files' dates.
        """
        room = self._room
        large = room is not None and any(is_object_url(unit.source) or unit.size > room(unit) for unit in units)
        read = self._read_again if again else self._photo

        def work() -> list[UnitPhoto | Unit]:
            return [read(unit) for unit in units]

        found = await (recompressions.run(work) if large else self._jobs.run(work, files=len(units)))
        photos = [one for one in found if isinstance(one, UnitPhoto)]
        return photos, [one for one in found if isinstance(one, Unit)]

    def _read_again(self, unit: Unit) -> UnitPhoto | Unit:
        found = self._photo(evolve(unit, stamp=stamp_of(unit.source)[1]))
        return changed(unit) if isinstance(found, UnitPhoto) and found.unit.sha256 != unit.sha256 else found

    def _photo(self, unit: Unit) -> UnitPhoto | Unit:
        if is_url(unit.source):
            read = evolve(unit, sha256=sha256(unit.source.encode()).digest())
            return UnitPhoto(ImageUrl(unit.source), unit.tag, unit=read)
        if is_object_url(unit.source):
            return self._content(unit)
        if not unit.stamp or not stamp_of(unit.source)[1]:
            return _missing(unit)
        found = self._content(unit)
        return changed(unit) if stamp_of(unit.source)[1] != unit.stamp else found

    def _content(self, unit: Unit) -> UnitPhoto | Unit:
        picture = Picture(unit.source)
        try:
            content = read_content(picture, unit.source, self._check_size)
            picture.keep(content)
            check_image(picture.label, picture.size, picture.head)
            picture.check_known()
            # The file is what is enrolled, whatever is made of it.
            read = evolve(unit, sha256=sha256(content).digest())
            sent = content if self._room is None else fit_image(content, max_bytes=self._room(unit))
            return UnitPhoto(Picture(sent), unit.tag, unit=read)
        except LimitError as error:
            return failed(unit, error)
        except FileNotFoundError:
            return _missing(unit)

    def _check_size(self, size: int) -> None:
        if self._room is None or size > MAX_SOURCE_BYTES:
            check_request_size(size, self._limits)


def read_content(picture: Picture, source: str, check_size: Callable[[int], object]) -> bytes:
    """Return the content of a picture in a file or in object storage, after ``check_size`` was called with its bytes.

    Raises:
        FileNotFoundError, ImageRefusedError, ObjectStorageError: As :meth:`Picture.opened`, and :func:`read_picture`.
    """
    if is_object_url(source):
        return read_picture(source, check_size)
    with picture.opened() as reader:
        check_size(reader.size)
        return reader.read(reader.size)


def sha256_of(source: str) -> bytes | None:
    """Return the hash of a picture's bytes, or of its URL; None if it cannot be read."""
    if is_url(source):
        return sha256(source.encode()).digest()

    def check_size(size: int) -> None:
        if size > MAX_SOURCE_BYTES:
            raise ImageRefusedError(f"{quoted(source)} has more than {MAX_SOURCE_BYTES:,} bytes")

    try:
        return sha256(read_content(Picture(source), source, check_size)).digest()
    except (FileNotFoundError, ImageRefusedError):
        return None


def failed(unit: Unit, error: Exception) -> Unit:
    """Return a unit that failed with an error."""
    if isinstance(error, ServiceError):
        return failed_with(unit, str(error.code), str(error))
    code = next(word for kind, word in _WORDS if isinstance(error, kind))
    return failed_with(unit, code, str(error))


def _missing(unit: Unit) -> Unit:
    return failed_with(unit, "missing", f"{quoted(unit.source)} is not there")


def changed(unit: Unit) -> Unit:
    """Return a unit whose file is not the one that was listed."""
    # Without its hash, so that another file that has those bytes is a unit of its own.
    reason = f"{quoted(unit.source)} has changed since it was listed; run again when it is complete"
    return failed_with(evolve(unit, sha256=None), "changed", reason)


def failed_with(unit: Unit, code: str, reason: str) -> Unit:
    """Return a unit that failed."""
    return evolve(unit, state=State.FAILED, code=code, reason=reason)
