"""Request bodies: exact length first, then chunks on demand, as often as a request is tried.

A file is opened when its bytes are sent, in a worker thread, one hop per chunk; at most one chunk of it is in memory.
The last chunk is handed over last of all, so an attempt whose :attr:`Attempt.handed_over` is false cannot have been
executed: the server has not seen a whole request.
"""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import anyio.to_thread

from face_async.limits import check_image, check_request_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """A body being sent once, as an asynchronous iterator of chunks.

    It is no generator: nobody closes a generator whose consumer was cancelled.

    Attributes:
        handed_over: Whether the last chunk was given away, so that the server may have a whole request.
        length: The bytes of the whole body.
    """

    def __init__(self, body: Body) -> None:
        self.handed_over = False
        self.length = body.length
        self._left = body.length
        self._segments = iter(body.segments())
        self._segment: bytes | Picture = b""
        self._segment_sent = 0
        self._segment_left = 0
        self._reader: PictureReader | None = None
        self._reading = threading.Lock()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        room = min(CHUNK_BYTES, self._left)
        self._left -= room
        pieces: list[bytes] = []
        while room:
            if not self._segment_left:
                self._begin(next(self._segments))
            size = min(room, self._segment_left)
            pieces.append(await self._piece(size))
            self._segment_sent += size
            self._segment_left -= size
            room -= size
        self.handed_over = not self._left
        return b"".join(pieces)

    def _begin(self, segment: bytes | Picture) -> None:
        self._segment = segment
        self._segment_sent = 0
        self._segment_left = len(segment) if isinstance(segment, bytes) else segment.size

    async def _piece(self, size: int) -> bytes:
        """Return the next bytes of the present segment."""
        if isinstance(self._segment, bytes):
            content = self._segment
        elif self._segment.content is not None:
            content = self._segment.content
        else:
            return await anyio.to_thread.run_sync(self._read, self._segment, size)
        return content[self._segment_sent : self._segment_sent + size]

    def _read(self, picture: Picture, size: int) -> bytes:
        """Read from a picture's file, opening it before and closing it behind. Runs in a worker thread."""
        try:
            with self._reading:
                if self._closed:
                    return b""
                if self._reader is None:
                    self._reader = picture.opened()
                content = self._reader.read(size)
                if not self._reader.left:
                    self._reader.close()
                    self._reader = None
                return content
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the file that is being sent, if any; synchronous, so that it works under cancellation too.

        A thread that still reads, since asyncio's own cancellation does not wait for threads, closes it afterwards.
        """
        self._closed = True
        if self._reading.acquire(blocking=False):
            try:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None
            finally:
                self._reading.release()


def _look(pictures: Iterable[Picture]) -> None:
    room = CHUNK_BYTES
    for picture in pictures:
        if picture.size < 0:
            picture.look(keep_up_to=room)
            room -= len(picture.content or b"")


def _safe(name: str) -> str:
    """Return a name fit to stand between quotes in a part's header, escaped as browsers do."""
    return name.translate(_UNSAFE_IN_NAME)
