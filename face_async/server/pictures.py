"""The faces in a request's pictures: fetched if necessary, and found in worker threads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from attrs import frozen
from PIL import Image
from PIL.ExifTags import Base

from face_async.errors import ReturnCode
from face_async.images.machine import processors
from face_async.server.refusal import Refusal
from face_async.server.request.parameters import PictureUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from face_async.server.fetch import Fetcher
    from face_async.server.recognition import Face, Recognizer

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_ORIENTATION = Base.Orientation
_SIDEWAYS = range(5, 9)

# A limiter belongs to the event loop that it was made in, and one application may serve several.
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("face_async.server.recognition")


T = TypeVar("T")

Shape: TypeAlias = "Mapping[str, Sequence[tuple[int, int]]]"
"""A face's points, x and y in pixels of the picture, by the names of the endpoint shape."""


@frozen
class Found(Generic[T]):
    """What was found of the faces of one picture.

    Attributes:
        faces: At least one, the largest first.
        width: The picture's width in pixels, after any EXIF rotation.
        height: The picture's height in pixels.
    """

    faces: list[T]
    width: int
    height: int


@frozen
class FaceFinder:
    """Finds the face in each picture, in as many pictures at once as there are processors."""

    recognizer: Recognizer
    fetcher: Fetcher

    async def find(self, picture: bytes | PictureUrl | None) -> Face:
        """Return the face in a picture.

        Raises:
            Refusal: -1300 when there is no picture, -1308 when it cannot be fetched, or the recognizer's code.
        """
        content = await self._content(picture)
        return await anyio.to_thread.run_sync(self.recognizer.find_face, content, limiter=_recognition_limiter())

    async def find_faces(self, picture: bytes | PictureUrl | None, most: int) -> Found[Face]:
        """Return the ``most`` largest faces in a picture.

        Raises:
            Refusal: As :meth:`find`.
        """
        return await self._find_several(picture, lambda content: _faces(self.recognizer, content, most))

    async def find_shapes(self, picture: bytes | PictureUrl | None, most: int) -> Found[Shape]:
        """Return the points of the ``most`` largest faces in a picture.

        Raises:
            Refusal: As :meth:`find`, or -1104 when the recognizer has no points.
        """
        return await self._find_several(picture, lambda content: _shapes(self.recognizer, content, most))

    async def _find_several(self, picture: bytes | PictureUrl | None, find: Callable[[bytes], list[T]]) -> Found[T]:
        content = await self._content(picture)

        def look() -> Found[T]:
            faces = find(content)
            if not faces:
                raise Refusal(ReturnCode.SDK_IMAGE_FACEDETECT_FAILED)
            return Found(faces, *_size(content))

        return await anyio.to_thread.run_sync(look, limiter=_recognition_limiter())

    async def _content(self, picture: bytes | PictureUrl | None) -> bytes:
        content = await self.fetcher.fetch(picture.value) if isinstance(picture, PictureUrl) else picture
        if not content:
            raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
        return content

    async def find_all(self, pictures: Sequence[bytes | PictureUrl | None]) -> list[Face | Refusal]:
        """Return for each picture, in order, its face, or the refusal for it."""
        outcomes: dict[int, Face | Refusal] = {}

        async def find_one(index: int) -> None:
            try:
                outcomes[index] = await self.find(pictures[index])
            except Refusal as refusal:
                outcomes[index] = refusal

        async with anyio.create_task_group() as tasks:
            for index in range(len(pictures)):
                tasks.start_soon(find_one, index)
        return [outcomes[index] for index in range(len(pictures))]


def _faces(recognizer: Recognizer, content: bytes, most: int) -> list[Face]:
    # A recognizer from before there were endpoints for several faces knows the largest alone.
    find_faces = getattr(recognizer, "find_faces", None)
    return [recognizer.find_face(content)] if find_faces is None else find_faces(content, most=most)


def _shapes(recognizer: Recognizer, content: bytes, most: int) -> list[Shape]:
    find_shapes = getattr(recognizer, "find_shapes", None)
    if find_shapes is None:
        recognizer.find_face(content)  # what is wrong with the picture goes first
        raise Refusal(ReturnCode.SDK_FACE_SHAPE_FAILED)
    shapes: list[Shape] = find_shapes(content, most=most)
    return shapes


def _size(content: bytes) -> tuple[int, int]:
    """Return a picture's width and height, as it is to be looked at."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _SIDEWAYS else (width, height)
    except Exception as error:  # decoders raise whatever hostile bytes lead them to
        raise Refusal(ReturnCode.SDK_IMAGE_DECODE_FAILED) from error


def _recognition_limiter() -> anyio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(processors())
        _limiter.set(limiter)
        return limiter
