"""Request bodies: exact length first, then chunks on demand, as often as a request is tried.

A file is opened when its bytes are sent, in a worker thread, one hop per chunk; at most one chunk of it is in memory.
The last chunk is handed over last of all, so an attempt whose :attr:`Attempt.handed_over` is false cannot have been
executed: the server has not seen a whole request.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import anyio.to_thread

from face_async.limits import check_image, check_request_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from face_async.images import Picture, PictureReader
    from face_async.limits import ServiceLimits

CHUNK_BYTES = 256 * 1024
"""The size of a chunk: most pictures whole, since every chunk costs a hop to a worker thread."""

_UNSAFE_IN_NAME = str.maketrans({"\r": "%0D", "\n": "%0A", '"': "%22", "\0": "%00"})


class Body(ABC):
    """A body of known length that can be sent any number of times.

    Attributes:
        content_type: The value of the Content-Type header.
        length: The bytes of the whole body; known once :meth:`load` has returned.
    """

    content_type: str
    length: int

    @abstractmethod
    async def load(self, limits: ServiceLimits) -> None:
        """Learn the length; raises a ``LimitError`` for whatever cannot be sent."""

    def attempt(self) -> Attempt:
        """Return the body for one attempt; close it afterwards, whatever happened."""
        return Attempt(self)

    @abstractmethod
    def segments(self) -> Iterable[bytes | Picture]:
        """Return the pieces of the body in their order."""


class JsonBody(Body):
    """A JSON document, in memory."""

    content_type = "application/json"

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    async def load(self, limits: ServiceLimits) -> None:
        check_request_size(self.length, limits)

    def segments(self) -> Iterable[bytes | Picture]:
        return (self._content,)


class MultipartBody(Body):
    """A ``multipart/form-data`` document: text fields, then pictures that are read lazily."""

    def __init__(self, texts: Sequence[tuple[str, str]], pictures: Sequence[tuple[str, Picture]]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = -1
        self._delimiter = f"--{boundary}"
        self._texts = texts
        self._pictures = pictures

    async def load(self, limits: ServiceLimits) -> None:
        pictures = [picture for _, picture in self._pictures]
        for picture in pictures:
            await picture.read_file_object(limits.max_request_bytes)
        if any(picture.size < 0 for picture in pictures):
            await anyio.to_thread.run_sync(_look, pictures)
        for picture in pictures:
            check_image(picture.label, picture.size, picture.head)
        self.length = sum(len(part) if isinstance(part, bytes) else part.size for part in self.segments())
        check_request_size(self.length, limits)

    def segments(self) -> Iterable[bytes | Picture]:
        before = ""
        for name, value in self._texts:
            before += f'{self._delimiter}\r\nContent-Disposition: form-data; name="{_safe(name)}"\r\n\r\n{value}\r\n'
        for index, (name, picture) in enumerate(self._pictures):
            before += (
                f'{self._delimiter}\r\nContent-Disposition: form-data; name="{_safe(name)}"; '
                f'filename="{_safe(picture.filename(index))}"\r\nContent-Type: {picture.media_type}\r\n\r\n'
            )
            yield before.encode()
            yield picture
            before = "\r\n"
        yield f"{before}{self._delimiter}--\r\n".encode()


class Attempt:
    """A body being sent once, as an asynchronous iterable of chunks.

    Attributes:
        handed_over: Whether the last chunk was given away, so that the server may have a whole request.
    """

    def __init__(self, body: Body) -> None:
        self.handed_over = False
        self._body = body
        self._reader: PictureReader | None = None

    @property
    def length(self) -> int:
        """The bytes of the whole body."""
        return self._body.length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pending: list[bytes] = []
        for segment in self._body.segments():
            if isinstance(segment, bytes):
                pending.append(segment)
                continue
            async for piece in self._pieces(segment, room=CHUNK_BYTES - sum(map(len, pending))):
                pending.append(piece)
                if sum(map(len, pending)) >= CHUNK_BYTES:
                    yield b"".join(pending)
                    pending.clear()
        self.handed_over = True
        yield b"".join(pending)

    async def _pieces(self, picture: Picture, room: int) -> AsyncIterator[bytes]:
        """Yield a picture so that the first piece fills ``room`` bytes of a chunk and the others whole chunks."""
        room = max(room, 1)
        if picture.content is not None:
            for start in (0, *range(room, picture.size, CHUNK_BYTES)):
                yield picture.content[start : start + CHUNK_BYTES if start else room]
            return
        self._reader = await anyio.to_thread.run_sync(picture.opened)
        while self._reader.left:
            yield await anyio.to_thread.run_sync(self._reader.read, min(room, self._reader.left))
            room = CHUNK_BYTES
        self.close()

    def close(self) -> None:
        """Close the file that is being sent, if any; synchronous, so that it works under cancellation too."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _look(pictures: Iterable[Picture]) -> None:
    room = CHUNK_BYTES
    for picture in pictures:
        if picture.size < 0:
            picture.look(keep_up_to=room)
            room -= len(picture.content or b"")


def _safe(name: str) -> str:
    """Return a name fit to stand between quotes in a part's header, escaped as browsers do."""
    return name.translate(_UNSAFE_IN_NAME)
