"""Request bodies: exact length first, then chunks on demand, as often as a request is tried.

A file is opened when its bytes are sent, and read in a worker thread; at most one chunk of it is in memory.
The last chunk is handed over last of all, so an attempt whose :attr:`SentBody.handed_over` is false cannot have been
executed: the server has not seen a whole request.
"""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Self, cast

from face_async.errors import LimitError
from face_async.images import threads
from face_async.limits import check_image, check_request_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from face_async.images import Picture, PictureReader
    from face_async.images.thread_jobs import ThreadJobs
    from face_async.limits import ServiceLimits

WHOLE_BYTES = 256 * 1024
"""Up to this size a body is read and sent in one piece: most pictures, since every piece costs a worker thread."""

CHUNK_BYTES = 64 * 1024
"""The size of a larger body's chunks, which bounds what an upload under way keeps in memory."""

_BOUNDARY_KEY = secrets.token_bytes(32)
_boundaries = count()

_UNSAFE_IN_NAME = str.maketrans({"\r": "%0D", "\n": "%0A", '"': "%22", "\0": "%00"})


class Body(ABC):
    """A body of known length that can be sent any number of times.

    Attributes:
        content_type: The value of the Content-Type header.
        length: The bytes of the whole body; known once it is prepared.
        segments: The body in its order, bytes and pictures that are in files; known once it is prepared.
        in_memory: Whether no segment is in a file; known once it is prepared.
        waits: Whether it must be loaded from files or file objects, which may take any time, before it is prepared.
    """

    content_type: str
    length: int
    segments: Sequence[bytes | Picture]
    in_memory = True
    waits = False

    @property
    @abstractmethod
    def size(self) -> int:
        """The bytes of the whole body, exact once the sizes of all its pictures are known; no file is read for it."""

    @abstractmethod
    def prepare(self, limits: ServiceLimits) -> None:
        """Learn the length; raises a ``LimitError`` for what cannot be sent."""

    async def load(self, limits: ServiceLimits, jobs: ThreadJobs) -> None:  # noqa: ARG002 - most bodies are in memory
        """Look at files, read file objects, and prepare it."""
        self.prepare(limits)

    def attempt(self) -> SentBody:
        """Return the body for one attempt; close it afterwards, whatever happened."""
        return SentBody(self)


class JsonBody(Body):
    """A JSON document, in memory."""

    content_type = "application/json"

    def __init__(self, content: bytes) -> None:
        self.segments = (content,)
        self.length = len(content)

    def prepare(self, limits: ServiceLimits) -> None:
        check_request_size(self.length, limits)

    @property
    def size(self) -> int:
        """The bytes of the document."""
        return self.length


class MultipartBody(Body):
    """A ``multipart/form-data`` document: text fields, then pictures that are read lazily."""

    def __init__(self, texts: Sequence[tuple[str, str]], pictures: Sequence[tuple[str, Picture]]) -> None:
        # As unpredictable as random bytes, which cost a system call: no picture can hold it on purpose.
        boundary = blake2b(b"%d" % next(_boundaries), key=_BOUNDARY_KEY, digest_size=16).hexdigest()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = -1
        self.segments = ()
        self.waits = any(picture.size < 0 for _, picture in pictures)
        self._delimiter = f"--{boundary}"
        self._texts = texts
        self._pictures = pictures

    async def load(self, limits: ServiceLimits, jobs: ThreadJobs) -> None:
        pictures = [picture for _, picture in self._pictures]
        for picture in pictures:
            await picture.read_file_object(limits.max_request_bytes)
        if any(picture.size < 0 for picture in pictures):
            await jobs.run(partial(_look, pictures), files=len(pictures))
        self.prepare(limits)

    def prepare(self, limits: ServiceLimits) -> None:
        for _, picture in self._pictures:
            check_image(picture.label, picture.size, picture.head)
        self.segments = tuple(self._assemble())
        self.in_memory = all(isinstance(segment, bytes) for segment in self.segments)
        self.length = sum(map(_size, self.segments))
        check_request_size(self.length, limits)

    @property
    def size(self) -> int:
        """The bytes of the document, headers and boundaries included."""
        return sum(map(_size, self._assemble()))

    def _assemble(self) -> Iterator[bytes | Picture]:
        before = ""
        for name, value in self._texts:
            before += f'{self._delimiter}\r\nContent-Disposition: form-data; name="{_safe(name)}"\r\n\r\n{value}\r\n'
        for index, (name, picture) in enumerate(self._pictures):
            before += (
                f'{self._delimiter}\r\nContent-Disposition: form-data; name="{_safe(name)}"; '
                f'filename="{_safe(picture.filename(index))}"\r\nContent-Type: {picture.media_type}\r\n\r\n'
            )
            yield before.encode()
            yield picture if picture.content is None else picture.content
            before = "\r\n"
        yield f"{before}{self._delimiter}--\r\n".encode()


class SentBody:
    """A body being sent once, as an asynchronous iterator of chunks.

    It is no generator: a generator whose consumer is cancelled stays open.

    Attributes:
        handed_over: Whether the last chunk was given away, so that the server may have a whole request.
        failure: Why the body cannot be read to its end, if it cannot.
        length: The bytes of the whole body.
        in_memory: Whether no file has to be read for it.
    """

    def __init__(self, body: Body) -> None:
        self.handed_over = False
        self.failure: LimitError | None = None
        self.length = body.length
        self.in_memory = body.in_memory
        self._segments = body.segments
        self._left = body.length
        self._place = 0
        self._segment: bytes | Picture = b""
        self._segment_left = 0
        self._reader: PictureReader | None = None
        self._reading: threading.Lock | None = None  # made when the first file is read
        self._closed = False

    def in_one_go(self) -> Sequence[bytes] | None:
        """Return a small body's segments, all in memory, as handed over; None, with nothing handed over, for others."""
        if self.length > WHOLE_BYTES or not self.in_memory:
            return None
        self._left = 0
        self.handed_over = True
        return cast("Sequence[bytes]", self._segments)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        if (whole := self.in_one_go()) is not None:
            return b"".join(whole)
        room = min(CHUNK_BYTES, self._left)
        self._left -= room
        pieces: list[bytes] = []
        while room:
            if not self._segment_left:
                self._segment = self._segments[self._place]
                self._place += 1
                self._segment_left = _size(self._segment)
            size = min(room, self._segment_left)
            pieces.append(await self._piece(size))
            self._segment_left -= size
            room -= size
        self.handed_over = not self._left
        return b"".join(pieces)

    async def _piece(self, size: int) -> bytes:
        """Return the next bytes of the present segment."""
        if isinstance(self._segment, bytes):
            start = len(self._segment) - self._segment_left
            return self._segment[start : start + size]
        self._reading = self._reading or threading.Lock()
        try:
            return await threads.pictures.run(self._read, self._segment, size, self._reading)
        except LimitError as error:
            self.failure = error
            raise

    def _read(self, picture: Picture, size: int, reading: threading.Lock) -> bytes:
        """Read from a picture's file; open it first and close it at its end. Runs in a worker thread."""
        try:
            with reading:
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
        if self._reading is not None and self._reading.acquire(blocking=False):
            try:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None
            finally:
                self._reading.release()


def _size(segment: bytes | Picture) -> int:
    return len(segment) if isinstance(segment, bytes) else segment.size


def _look(pictures: Iterable[Picture]) -> None:
    room = WHOLE_BYTES
    for picture in pictures:
        if picture.size < 0:
            picture.look(keep_up_to=room)
            room -= len(picture.content or b"")


def _safe(name: str) -> str:
    """Return a name fit to stand between quotes in a part's header, escaped as browsers do."""
    return name.translate(_UNSAFE_IN_NAME)
