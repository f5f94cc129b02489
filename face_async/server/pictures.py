"""The faces in a request's pictures: fetched if necessary, and found in worker threads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar
from attrs import evolve, field, frozen
from cachetools import TTLCache

from face_async.errors import ReturnCode
from face_async.images.containers import pixels_of
from face_async.images.decoding import MAX_PIXELS, NoPictureError, UndecodableError, upright_size
from face_async.server.bounds.admission import RecognitionQueue, RequestLimits
from face_async.server.bounds.callers import while_connected
from face_async.server.refusal import Refusal
from face_async.server.request.parameters import PictureUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from face_async.server.bounds.bodies import HeldBody
    from face_async.server.fetch import Fetcher
    from face_async.server.recognition import Face, Recognizer

_REMEMBERED_SECONDS, _REMEMBERED = 10.0, 256

T = TypeVar("T")

Shape: TypeAlias = "Mapping[str, Sequence[tuple[int, int]]]"
"""A face's points, x and y in pixels of the picture, by the names of the endpoint shape."""


@frozen
class Found(Generic[T]):
    """What was found of the faces of one picture.

    Attributes:
        faces: At least one, the largest first.
        width: The upright picture's width in pixels.
        height: Its height in pixels.
    """

    faces: list[T]
    width: int
    height: int


class _RecentFaces:
    """Pictures looked at in one event loop: the queue, and what was seen in the last seconds."""

    def __init__(self, limits: RequestLimits, on_waiting: Callable[[int], object] | None) -> None:
        self.queue = RecognitionQueue(limits, on_waiting=on_waiting)
        self.seen: TTLCache[object, object] = TTLCache[object, object](_REMEMBERED, _REMEMBERED_SECONDS)
        self.under_way: dict[object, anyio.Event] = {}


@frozen
class FaceFinder:
    """Finds the faces in each picture, in as many pictures at once as there are processors.

    The same picture, sent by one account several times within seconds, for several groups, is looked at once.
    """

    recognizer: Recognizer
    fetcher: Fetcher
    limits: RequestLimits
    account: str = ""
    request: Request | None = None
    on_waiting: Callable[[int], object] | None = None
    body: HeldBody | None = None
    # An application may be served by several event loops.
    _looks: RunVar[_RecentFaces] = field(factory=lambda: RunVar("face_async.server.looks"))

    def serving(self, account: str, request: Request | None, body: HeldBody) -> FaceFinder:
        """Return the same finder for one account and its request: once its caller has gone, nothing more is looked at.

        Args:
            account: Whose pictures they are.
            request: The request, whose body has been read; None: whoever has sent it is waited for.
            body: The request's memory, of which pictures that are fetched take, too.
        """
        return evolve(self, account=account, request=request, body=body)

    async def find(self, picture: bytes | PictureUrl | None) -> Face:
        """Return the face in a picture.

        Raises:
            Refusal: -1300 when there is no picture, -1308 when it cannot be fetched, 15 when too many wait, or the
                recognizer's code.
            ClientDisconnect: The caller has gone.
        """
        return await self._find("face", picture, self.recognizer.find_face)

    async def find_faces(self, picture: bytes | PictureUrl | None, most: int) -> Found[Face]:
        """Return the ``most`` largest faces in a picture.

        Raises:
            Refusal: As :meth:`find`.
            ClientDisconnect: As :meth:`find`.
        """
        find = _several(lambda content: _faces(self.recognizer, content, most))
        return await self._find(f"{most} faces", picture, find)

    async def find_shapes(self, picture: bytes | PictureUrl | None, most: int) -> Found[Shape]:
        """Return the points of the ``most`` largest faces in a picture.

        Raises:
            Refusal: As :meth:`find`, or -1104 when the recognizer has no points.
            ClientDisconnect: As :meth:`find`.
        """
        find = _several(lambda content: _shapes(self.recognizer, content, most))
        return await self._find(f"{most} shapes", picture, find)

    async def find_all(self, pictures: Sequence[bytes | PictureUrl | None]) -> list[Face | Refusal]:
        """Return for each picture, in order, its face, or the refusal for it.

        Raises:
            Refusal: 15 when too many wait.
            ClientDisconnect: The caller has gone.
        """
        looks = self._loop_looks()
        looks.queue.require_room(len(pictures))
        outcomes: dict[int, Face | Refusal] = {}

        async def find_one(index: int) -> None:
            try:
                content = await self._content(pictures[index])
                outcomes[index] = await self._see(looks, "face", content, self.recognizer.find_face, waits=True)
            except Refusal as refusal:
                outcomes[index] = refusal

        async def find_each() -> None:
            async with anyio.create_task_group() as tasks:
                for index in range(len(pictures)):
                    tasks.start_soon(find_one, index)

        await while_connected(self.request, find_each)
        for outcome in outcomes.values():
            if isinstance(outcome, Refusal) and outcome.code == ReturnCode.RATE_LIMITED:
                raise outcome  # the whole request, which clients try again
        return [outcomes[index] for index in range(len(pictures))]

    async def _find(self, what: str, picture: bytes | PictureUrl | None, look: Callable[[bytes], T]) -> T:
        looks = self._loop_looks()

        async def find() -> T:
            content = await self._content(picture)
            looks.queue.require_room(1)
            return await self._see(looks, what, content, look)

        if looks.queue.is_free and not isinstance(picture, PictureUrl):
            return await find()  # there is hardly a wait that the caller could end by going
        return await while_connected(self.request, find)

    async def _content(self, picture: bytes | PictureUrl | None) -> bytes:
        content = await self.fetcher.fetch(picture.value, self.body) if isinstance(picture, PictureUrl) else picture
        if not content:
            raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
        return content

    async def _see(
        self, looks: _RecentFaces, what: str, content: bytes, look: Callable[[bytes], T], *, waits: bool = False
    ) -> T:
        key = (self.account, what, hashlib.sha256(content).digest())
        while key in looks.under_way:
            await looks.under_way[key].wait()  # and look oneself if the other one's caller has gone
        seen = looks.seen.get(key)
        if seen is None:
            looks.under_way[key] = anyio.Event()
            try:
                seen = looks.seen[key] = await _look(looks.queue, content, look, waits=waits)
            finally:
                looks.under_way.pop(key).set()
        if isinstance(seen, ReturnCode):
            raise Refusal(seen)
        return cast("T", seen)

    def _loop_looks(self) -> _RecentFaces:
        try:
            return self._looks.get()
        except LookupError:
            looks = _RecentFaces(self.limits, self.on_waiting)
            self._looks.set(looks)
            return looks


async def _look(queue: RecognitionQueue, content: bytes, look: Callable[[bytes], T], *, waits: bool) -> T | ReturnCode:
    pixels = pixels_of(content)
    if pixels > MAX_PIXELS:
        return ReturnCode.SDK_IMAGE_DECODE_FAILED  # at once: others would wait for all the pixels that it claims
    try:
        return await queue.run(look, content, pixels=pixels, waits=waits)
    except Refusal as refusal:
        if refusal.code == ReturnCode.RATE_LIMITED:
            raise
        return refusal.code


def _several(find: Callable[[bytes], list[T]]) -> Callable[[bytes], Found[T]]:
    def look(content: bytes) -> Found[T]:
        faces = find(content)
        if not faces:
            raise Refusal(ReturnCode.SDK_IMAGE_FACEDETECT_FAILED)
        return Found(faces, *_size(content))

    return look


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
    try:
        return upright_size(content)
    except (NoPictureError, UndecodableError) as error:  # a recognizer of one's own may look at other pictures
        raise Refusal(ReturnCode.SDK_IMAGE_DECODE_FAILED) from error
