"""Where a picture comes from, and what is known of it before it is sent.

Anywhere an image is taken it may be a path, bytes, a binary file object, or a URL that the *server* fetches. A
:class:`Picture` is one such source on its way into a request: nothing is opened when it is made, a file is looked at
when its turn comes and read only while it is sent.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
import stat
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, cast, runtime_checkable
from weakref import WeakValueDictionary

from attrs import field, frozen

from face_async.errors import ImageRefusedError, printable, quoted, utf8
from face_async.images import threads

if TYPE_CHECKING:
    from attrs import Attribute

# O_NONBLOCK: opening a pipe that nobody writes to must not hang; O_BINARY: Windows would translate line ends.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_NO_PATH = (
    (re.compile(r"data:[^,]{0,200},", re.IGNORECASE), "a data URI: decode what follows the comma, and give the bytes"),
    (
        re.compile(r"(?:/9j/|iVBORw0KGgo|Qk[0-3]|UklGR|R0lGOD)[A-Za-z0-9+/_=\s-]{20}"),
        "a picture in base64: decode it, and give the bytes",
    ),
    (re.compile(r"b['\"]\\"), "bytes that were turned into a str: give the bytes themselves"),
    (re.compile(r"https?://", re.IGNORECASE), "a URL: give it as it is, or as ImageUrl"),
    (re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE), "a URL, but only http and https URLs are fetched"),
)
"""How a str begins that was meant as something else than a path -> what it is instead."""
_UNFIT_FOR_URL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
KINDS = "JPEG, PNG, BMP or WebP"
"""What a picture is, for messages."""

_HEAD_BYTES = 16
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", "image/png", ".png"),
    (b"BM", "image/bmp", ".bmp"),
)


@runtime_checkable
class BinaryFile(Protocol):
    """A binary file object, synchronous or asynchronous.

    When the call has ended, it may be closed or read further. The exception is one that may deliver nothing for any
    time, such as a pipe, a socket or the body of an HTTP answer, if its call is cancelled, or ends at its deadline,
    before the picture was read: then a thread still waits in its ``read``, what comes is lost, and further calls refuse
    it. Closing it, and on asyncio the end of the program, may wait for that thread; a time-out of the object's own,
    such as ``socket.settimeout()`` sets, ends that.
    """

    def read(self, size: int = ..., /) -> bytes | Awaitable[bytes]:
        """Return at most ``size`` bytes, none at the end."""
        ...


def is_url(text: str) -> bool:
    """Return whether a str names a picture by URL; any other str is a path."""
    return text[:8].lower().startswith(("http://", "https://"))


def _check_url(_: object, attribute: Attribute[str], value: str) -> None:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise TypeError(f"{attribute.name} must be a str, not {type(value).__name__}")
    if not is_url(value) or _UNFIT_FOR_URL.search(value):
        raise ValueError(f"{attribute.name} must begin with http:// or https:// and have no white space")


@frozen
class ImageUrl:
    """A picture that the server fetches by itself.

    Raises:
        ValueError: It is no http or https URL.
    """

    url: str = field(validator=_check_url)


def _check_name(_: object, attribute: Attribute[str | None], value: str | None) -> None:
    if value is None:
        return
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise TypeError(f"{attribute.name} must be a str, not {type(value).__name__}")
    utf8(attribute.name, value)


def _check_media_type(_: object, attribute: Attribute[str | None], value: str | None) -> None:
    if value is not None and not _MEDIA_TYPE.fullmatch(value):
        raise ValueError(f"{attribute.name} must look like 'image/jpeg'")


@frozen
class ImageFile:
    """A picture whose file name or media type matters to the server.

    Attributes:
        source: A path, bytes or a binary file object.
        name: The file name to send; a neutral one such as ``image0.jpg`` when None.
        media_type: Its media type; told from the first bytes when None.
    """

    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile = field(repr=False)
    name: str | None = field(default=None, validator=_check_name)
    media_type: str | None = field(default=None, validator=_check_media_type)


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | ImageUrl | ImageFile
"""Whatever an image may be given as."""


def as_image(source: ImageSource | Picture) -> Picture | ImageUrl:
    """Return what a source stands for: a URL for the server, or a picture to upload, which may be one already.

    Raises:
        TypeError: It is nothing that an image can be, or a file opened in text mode.
        ValueError: It is a malformed URL.
    """
    if isinstance(source, ImageUrl | Picture):
        return source
    if isinstance(source, str) and is_url(source):
        return ImageUrl(source)
    if isinstance(source, ImageFile):
        return Picture(source.source, name=source.name, media_type=source.media_type)
    return Picture(source)


class Picture:
    """One picture on its way into a request.

    Attributes:
        label: What to call it in messages: the path, never its content.
        path: The file it is in, None when it does not come from a path.
        content: Its bytes, None while they are not in memory.
        size: Its size in bytes, -1 until it is known.
        head: Its first bytes, once they are known.
    """

    __slots__ = ("_file", "_media_type", "_name", "_stamp", "content", "head", "label", "path", "size")

    def __init__(self, source: ImageSource, *, name: str | None = None, media_type: str | None = None) -> None:
        self.path: str | None = None
        self.content: bytes | None = None
        self.size = -1
        self.head = b""
        self._file: BinaryFile | None = None
        self._stamp: tuple[int, ...] | None = None
        self._name = name
        self._media_type = media_type
        if isinstance(source, str | os.PathLike):
            self.path = os.fspath(source)
            self.label = f"the image {quoted(self.path)}"
        elif isinstance(source, bytes | bytearray | memoryview):
            self.label = "the image"
            self.keep(bytes(source))
        elif isinstance(source, io.TextIOBase):
            raise TypeError("the image's file is opened in text mode; open it with mode 'rb'")
        elif isinstance(source, BinaryFile):
            self.label = "the image"
            self._file = source
        else:
            raise TypeError(
                "an image must be a path, bytes, a binary file object or a URL, "
                f"not {type(cast('object', source)).__name__}"
            )

    @property
    def in_file_object(self) -> bool:
        """Whether it is still to be read from a file object."""
        return self._file is not None

    @property
    def is_known(self) -> bool:
        """Whether its first bytes are those of a JPEG, PNG, BMP or WebP, which is what makes a picture, not a name."""
        return bool(self._magic[1])

    def check_known(self) -> None:
        """Refuse, with ``ImageRefusedError``, what is no picture by its first bytes."""
        if not self.is_known:
            raise ImageRefusedError(f"{self.label} is no {KINDS} picture; convert it to one of these")

    @property
    def media_type(self) -> str:
        """The media type, as given or told from the first bytes."""
        return self._media_type or self._magic[0]

    def filename(self, index: int) -> str:
        """Return the name to send: the given one or a neutral one, never the local path."""
        return self._name if self._name is not None else f"image{index}{self._magic[1]}"

    @property
    def _magic(self) -> tuple[str, str]:
        for magic, media_type, extension in _MAGIC:
            if self.head.startswith(magic):
                return media_type, extension
        if self.head[:4] == b"RIFF" and self.head[8:12] == b"WEBP":
            return "image/webp", ".webp"
        return "application/octet-stream", ""

    def keep(self, content: bytes) -> None:
        """Hold the picture in memory from now on."""
        self.content = content
        self.size = len(content)
        self.head = content[:_HEAD_BYTES]

    def as_file(self, content: bytes) -> ImageFile:
        """Return the same picture as a source in memory."""
        return ImageFile(content, name=self._name, media_type=self._media_type)

    async def read_file_object(self, max_bytes: int) -> None:
        """Read a file object, once, so that it can be sent more than once; does nothing for other sources.

        No more than ``max_bytes`` and one are read: a picture of that size is refused, whatever follows.

        Raises:
            ImageRefusedError: It cannot be read, or was read before, so that the picture or its beginning is missing.
            TypeError: It gives something else than bytes.
        """
        if self._file is None:
            return
        file = self._file
        if _given_up.get(id(file)) is file:  # even asking for its position might wait for the thread
            raise ImageRefusedError(f"{self.label} was not read to its end by an earlier call; open its file again")
        began = await _position(file)
        content = await self._content_of(file, max_bytes + 1)
        self._file = None
        self.keep(content)
        if not self.content and (ended := await _position(file)) != 0:
            was = "was" if ended else "is empty, or was"
            raise ImageRefusedError(
                f"{self.label}'s file gives no bytes: it {was} already read to its end; call seek(0) before it is sent"
            )
        if began and not self.is_known:
            raise ImageRefusedError(
                f"{self.label}'s file was already read up to byte {began:,}, and what follows is no picture; "
                "call seek(0) before it is sent"
            )

    async def _content_of(self, file: BinaryFile, left: int) -> bytes:
        """Return what a file object gives up to its end, or so many bytes."""
        pieces: list[bytes] = []
        while left > 0:
            try:
                piece = await self._piece(file, left)
            except TypeError:
                raise  # a mistake of the caller's: read() takes no size, say
            except Exception as error:  # archives have errors of their own, each module others
                raise ImageRefusedError(f"{self.label} cannot be read: {_reason(error)}") from error
            if not isinstance(piece, bytes | bytearray):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped files
                raise TypeError(f"the image's file must give bytes, not {type(piece).__name__}")
            if not piece:
                break
            pieces.append(bytes(piece))
            left -= len(piece)
        return b"".join(pieces)

    async def _piece(self, file: BinaryFile, size: int) -> bytes:
        read = file.read
        if inspect.iscoroutinefunction(read) or isinstance(file, io.BytesIO):
            found = read(size)
        elif not threads.may_stall(file):
            found = await threads.file_objects.run(read, size)
        else:
            try:
                found = await threads.streams.run(read, size)
            except BaseException:
                with suppress(TypeError):  # few kinds have no weak references
                    _given_up[id(file)] = file
                raise
        return await found if isinstance(found, Awaitable) else found

    def look(self, keep_up_to: int) -> None:
        """Open the file, note its size and first bytes, and keep it whole if it is small. Runs in a worker thread.

        Args:
            keep_up_to: The size in bytes up to which the content is kept.

        Raises:
            ImageRefusedError: It is missing, unreadable or no regular file.
        """
        with self.opened() as reader:
            size = reader.size
            if size <= keep_up_to:
                self.keep(reader.read(size))
            else:
                self.size = size
                self.head = reader.read(min(size, _HEAD_BYTES))

    def opened(self) -> PictureReader:
        """Open the picture's file; blocks, so call it in a worker thread.

        Raises:
            ImageRefusedError: It is missing, unreadable, no regular file, or not the file it was when first opened.
        """
        reader = PictureReader(self)
        if self._stamp is None:
            self._stamp = reader.stamp
        elif self._stamp != reader.stamp:
            reader.close()
            raise self.changed()
        return reader

    def changed(self) -> ImageRefusedError:
        """Return the error for a file that did not stay the same."""
        return ImageRefusedError(f"{self.label} changed while it was being sent; send it again when it is complete")


class PictureReader:
    """An open file of a picture, read piece by piece. Its methods block, but :meth:`close` only for an instant."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._fd = -1
        try:
            self._fd = os.open(cast("str", picture.path), _OPEN_FLAGS)
            status = os.fstat(self._fd)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self.close()
            raise ImageRefusedError(_unreadable(picture, error)) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise ImageRefusedError(f"{picture.label} is no regular file")
        self.size = status.st_size
        self.stamp = _stamp(status)
        self.left = status.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            ImageRefusedError: The file is shorter than it was, has changed by its end, or cannot be read.
        """
        pieces: list[bytes] = []
        wanted = size
        try:
            while wanted:
                piece = os.read(self._fd, wanted)
                if not piece:
                    raise self._picture.changed()
                pieces.append(piece)
                wanted -= len(piece)
            self.left -= size
            if not self.left and _stamp(os.fstat(self._fd)) != self.stamp:
                raise self._picture.changed()
        except OSError as error:
            raise ImageRefusedError(f"{self._picture.label} cannot be read: {error.strerror}") from error
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file; doing so twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_given_up: WeakValueDictionary[int, BinaryFile] = WeakValueDictionary()
"""File objects that were not read to their end, as a thread was left in their ``read``; by their ids."""


def _unreadable(picture: Picture, error: OSError | ValueError) -> str:
    """Return why a path cannot be opened; of what was never meant as a path no character, as it may be the picture."""
    path = str(picture.path)
    no_path = f"the image cannot be read: it is neither a path nor a URL, but a str of {len(path):,} characters"
    for pattern, what in _NO_PATH:
        if pattern.match(path):
            return f"{no_path} that looks like {what}"
    if getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return no_path
    return f"{picture.label} cannot be read: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error))


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


async def _position(file: object) -> int | None:
    """Return how many bytes of a file object were read, None if it does not tell."""
    # The uploads of web frameworks have no tell(), but the file that has.
    tell = getattr(file, "tell", None) or getattr(getattr(file, "file", None), "tell", None)
    try:
        found: object = tell() if tell is not None else None
        position = await cast("Awaitable[object]", found) if isinstance(found, Awaitable) else found
    except (OSError, ValueError):  # a pipe, or a closed file
        return None
    return position if isinstance(position, int) else None


async def in_memory(source: ImageSource, max_bytes: int) -> ImageSource:
    """Return an image that can be sent in several requests at once: read into memory, unless it is a URL.

    Raises:
        ImageRefusedError: The file is missing or cannot be read.
    """
    picture = as_image(source)
    if isinstance(picture, ImageUrl):
        return picture
    await picture.read_file_object(max_bytes)
    if picture.content is None:
        await threads.pictures.run(picture.look, max_bytes)
    return source if picture.content is None else picture.as_file(picture.content)
