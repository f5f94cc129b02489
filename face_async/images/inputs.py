"""Images out of an input that goes on: files in archives, in ``with`` blocks, in pipes."""

from __future__ import annotations

import io
import os
import socket
import stat
from typing import TYPE_CHECKING

from face_async.images import ImageFile, ImageUrl, as_image

if TYPE_CHECKING:
    from face_async.images import ImageSource


async def detached(source: ImageSource, max_bytes: int) -> ImageSource:
    """Return an image that stays as it is whatever its input does next: a file object is read, all others stay.

    Files in an archive share its position, and a file in a ``with`` block is closed when the next one is asked for.
    Only pipes and sockets of their own stay unread: they depend on no other file, and may let everybody wait.

    Raises:
        ImageRefusedError: As :meth:`Picture.read_file_object`.
    """
    file = source.source if isinstance(source, ImageFile) else source
    if not hasattr(file, "read") or _is_stream(file):
        return source
    picture = as_image(source)
    if isinstance(picture, ImageUrl):
        return source
    await picture.read_file_object(max_bytes)
    return source if picture.content is None else picture.as_file(picture.content)


def _is_stream(file: object) -> bool:
    raw: object = getattr(file, "raw", file)
    if isinstance(raw, socket.SocketIO):
        return True
    return isinstance(raw, io.FileIO) and not raw.closed and not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
