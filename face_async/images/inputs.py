"""Images out of an input that goes on: files in archives, in ``with`` blocks, in pipes."""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING

from face_async.images import ImageFile, ImageUrl, as_image
from face_async.images.threads import may_stall

if TYPE_CHECKING:
    from face_async.images import ImageSource


def depends_on_input(source: ImageSource) -> bool:
    """Return whether an image may change with what its input does next: a file object does.

    Files in an archive share its position, and a file in a ``with`` block is closed when the next one is asked for.
    Only pipes and sockets of their own do not: they depend on no other file, and may let everybody wait.
    """
    file = source.source if isinstance(source, ImageFile) else source
    return hasattr(file, "read") and not _is_stream(file)


async def detached(source: ImageSource, max_bytes: int) -> ImageSource:
    """Return an image that depends on its input as one that does not any more: it is read.

    Raises:
        ImageRefusedError: As :meth:`Picture.read_file_object`.
    """
    picture = as_image(source)
    if isinstance(picture, ImageUrl):
        return source
    await picture.read_file_object(max_bytes)
    return source if picture.content is None else picture.as_file(picture.content)


def _is_stream(file: object) -> bool:
    raw: object = getattr(file, "raw", file)
    return isinstance(raw, io.FileIO | socket.SocketIO) and may_stall(raw)
