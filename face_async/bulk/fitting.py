"""Pictures that are too large for a request, made to fit.

Needs Pillow for pictures that do not fit already: ``pip install 'face_async[server]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from face_async.errors import ImageRefusedError
from face_async.images import ImageFile, ImageUrl, as_image
from face_async.images.machine import processors
from face_async.images.threads import Workers
from face_async.limits import ServiceLimits, check_image

if TYPE_CHECKING:
    import os

    from face_async.images import ImageSource, Picture

FORM_BYTES = 8_192
"""The bytes that are kept free for the form around a picture while it is not known which request it will be: ids, name
and tag at their longest, some 20 groups, and the headers of all parts."""

MAX_SOURCE_BYTES = 256 * 1024 * 1024
"""The largest file that is read in order to be made smaller."""

recompressions = Workers("recompressions", processors)
"""For pictures that are made smaller: more at once than there are processors only take longer."""

FITTING_BYTES = ServiceLimits().planned_request_bytes - FORM_BYTES
"""The bytes that a picture may have by the specification's limits, whatever request it is for: 1,491,808."""


def fit_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | ImageFile,
    *,
    max_bytes: int = FITTING_BYTES,
    min_side: int = 100,
) -> bytes:
    """Return a picture's bytes: as they are if they fit into a request, else as a JPEG that does.

    All pixels are kept while a good JPEG quality (75 to 90) allows it; only then the picture is scaled down, never up.
    The picture is turned upright as its EXIF data say, transparency becomes white, and all other metadata, such
    as the place, is left out.

    This is what ``fit=True`` of the bulk verbs and of enrollments does, with just the room that the request has. It
    blocks; in asynchronous code: ``await anyio.to_thread.run_sync(fit_image, "large.jpg")``.

    Args:
        source: A path or bytes: JPEG, PNG, BMP or WebP.
        max_bytes: How many bytes fit, 1 or more; for ``compare``, which sends two pictures, take half.
        min_side: Pixels of width and height that it is not scaled below, 1 or more. The service wants faces of at
            least 100 x 100 pixels, so give more where the face is only a part of the picture.

    Raises:
        ImageRefusedError: It is missing, a GIF, no picture, damaged, or has more than 80 million pixels.
        RequestTooLargeError: It does not fit without becoming smaller than ``min_side``.
        ImportError: It does not fit as it is, and Pillow is not installed.
        TypeError, ValueError: A wrong argument.
    """
    picture = _picture(source)
    if isinstance(picture, ImageUrl) or picture.in_file_object:
        raise TypeError("fit_image takes a path or bytes: read a file object, or download a URL, first")
    return _smaller(picture, max_bytes, min_side) or _content(picture)


async def fitted(source: ImageSource, *, max_bytes: int = FITTING_BYTES, min_side: int = 100) -> ImageSource:
    """Return an image that fits: as :func:`fit_image` makes it, but of any source, and without blocking.

    What fits already is returned as it was given, a file unread; so is a URL, which the server fetches.
    """
    picture = _picture(source)
    if isinstance(picture, ImageUrl):
        return source
    used_up = picture.in_file_object
    await picture.read_file_object(MAX_SOURCE_BYTES)
    smaller = await recompressions.run(_smaller, picture, max_bytes, min_side)
    if smaller is None and not used_up:
        return source
    given = source if isinstance(source, ImageFile) else ImageFile(b"")
    if smaller is None:
        return evolve(given, source=_content(picture))  # the file object cannot be read twice
    return evolve(given, source=smaller, media_type=None)


def _picture(source: ImageSource) -> Picture | ImageUrl:
    return as_image(source.source if isinstance(source, ImageFile) else source)  # whatever media type is declared


def _smaller(picture: Picture, max_bytes: int, min_side: int) -> bytes | None:
    """Return the bytes of the picture made to fit, None if it fits as it is."""
    if max_bytes < 1 or min_side < 1:
        raise ValueError(f"max_bytes and min_side must be 1 or more, not {max_bytes} and {min_side}")
    if picture.size < 0:
        picture.look(keep_up_to=0)
    check_image(picture.label, picture.size, picture.head)
    picture.check_known()
    if picture.size <= max_bytes:
        return None
    if picture.size > MAX_SOURCE_BYTES:
        raise ImageRefusedError(f"{picture.label} has more than {MAX_SOURCE_BYTES:,} bytes; scale it down first")
    from face_async.bulk.recompress import recompress  # noqa: PLC0415 - an extra, imported when it is needed

    return recompress(_content(picture), max_bytes, min_side=min_side, label=picture.label)


def _content(picture: Picture) -> bytes:
    if picture.content is not None:
        return picture.content
    with picture.opened() as reader:
        return reader.read(reader.size)
