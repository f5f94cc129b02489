"""The faces in a request's pictures: fetched if necessary, and found in worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from attrs import frozen

from face_async.errors import ReturnCode
from face_async.images.machine import processors
from face_async.server.parameters import PictureUrl
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.server.fetch import Fetcher
    from face_async.server.recognition import Face, Recognizer

# A limiter belongs to the event loop that it was made in, and one application may serve several.
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("face_async.server.recognition")


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
        content = await self.fetcher.fetch(picture.value) if isinstance(picture, PictureUrl) else picture
        if not content:
            raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
        return await anyio.to_thread.run_sync(self.recognizer.find_face, content, limiter=_recognition_limiter())

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


def _recognition_limiter() -> anyio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(processors())
        _limiter.set(limiter)
        return limiter
