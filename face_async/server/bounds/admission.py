"""The queue for recognition: bounded by its length and by the time that it takes.

A picture counts by its pixels, which decoding costs memory and time, rather than as one. What somebody has to wait for
is estimated by the pace of the pictures before; where that is too long, the request is refused at once, and told when
to come again.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from attrs import field, frozen
from attrs.validators import ge, gt, optional

from face_async.errors import ReturnCode
from face_async.images.machine import processors
from face_async.server.recognition import MAX_PIXELS
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_FIXED_PIXELS = 1_000_000  # that looking at any picture takes as much time as decoding these
_FIRST_PACE = 0.01  # seconds for as many pixels, until pictures have been looked at
_ADAPTION = 0.2  # how much the newest picture counts in the pace
_UNDECODED = {ReturnCode.ERROR_IMAGE_EMPTY, ReturnCode.ERROR_IMAGE_FORMAT_INVALID, ReturnCode.SDK_IMAGE_DECODE_FAILED}


@frozen
class RequestLimits:
    """What the requests under way may take together in one process; beyond it they get code 15, with Retry-After.

    Attributes:
        max_waiting: Pictures that wait for recognition, 0 or more.
        max_wait: Seconds that a picture may have to wait, more than 0: less than clients wait for an answer.
        max_body_bytes: Bytes of all bodies, and of pictures that are fetched for them, 1 or more; one body alone may
            have more. None: :func:`~face_async.server.bounds.bodies.most_body_bytes`.
    """

    max_waiting: int = field(default=1_000, validator=ge(0))
    max_wait: float = field(default=10.0, validator=gt(0))
    max_body_bytes: int | None = field(default=None, validator=optional(ge(1)))


def _count_nothing(_more: int) -> None:
    """Do nothing: nobody counts the pictures that wait."""


class RecognitionQueue:
    """Looks at pictures in worker threads, as many as there are processors; the others wait in order.

    It belongs to one event loop.

    Args:
        limits: How many pictures may wait, and how long.
        on_waiting: Called with 1 for a picture that has to wait, and with -1 once it does not wait any more.
    """

    def __init__(
        self, limits: RequestLimits = RequestLimits(), *, on_waiting: Callable[[int], object] | None = None
    ) -> None:
        self._on_waiting: Callable[[int], object] = on_waiting or _count_nothing
        self._max_waiting = limits.max_waiting
        self._max_wait = limits.max_wait
        self._threads = anyio.CapacityLimiter(processors())
        self._waiting: OrderedDict[anyio.Event, int] = OrderedDict()  # and their pixels
        self._running = 0
        self._pixels = 0  # of pictures that are being looked at
        self._pace = _FIRST_PACE / _FIXED_PIXELS  # seconds a pixel

    @property
    def is_free(self) -> bool:
        """Whether a picture that comes now can be looked at at once, or as soon as one of those under way has been."""
        return not self._waiting and self._running < self._threads.total_tokens

    def require_room(self, count: int) -> None:
        """Refuse a request that would have to wait for too long.

        Args:
            count: The pictures of the request, which may themselves take as long as they do.

        Raises:
            Refusal: 15, with the seconds after which there may be room.
        """
        if not self._waiting:
            return
        expected = self._expected_wait()
        if len(self._waiting) + count > self._max_waiting or expected > self._max_wait:
            raise self._refusal(expected)

    async def run(self, look: Callable[[bytes], T], content: bytes, *, pixels: int, waits: bool = False) -> T:
        """Return what a function sees in a picture, once it is the picture's turn.

        Args:
            look: The function, which is called in a worker thread.
            content: The picture.
            pixels: How many pixels it has.
            waits: Whether it waits however long it takes, since its request has been let in with other pictures.

        Raises:
            Refusal: 15 when its turn does not come in time, or what ``look`` raises.
        """
        await self._enter(pixels, waits=waits)
        paces: list[float] = []

        def timed() -> T:
            began, least = time.perf_counter(), 0.0
            try:
                return look(content)
            except Refusal as refusal:
                if refusal.code in _UNDECODED:
                    least = self._pace  # it claimed pixels that nobody had work with
                raise
            finally:
                # Here, as a busy event loop comes late to either end of it.
                paces.append(max(least, (time.perf_counter() - began) / (_FIXED_PIXELS + pixels)))

        try:
            return await anyio.to_thread.run_sync(timed, limiter=self._threads)
        finally:
            self._leave(pixels, paces)

    async def _enter(self, pixels: int, *, waits: bool) -> None:
        if not self._waiting and self._fits(pixels):
            self._begin(pixels)
            return
        turn = anyio.Event()
        self._waiting[turn] = pixels
        self._on_waiting(1)
        try:
            with anyio.move_on_after(None if waits else self._max_wait):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self._end(pixels)
            raise
        finally:
            self._waiting.pop(turn, None)
            self._on_waiting(-1)
            self._call_next()
        if not turn.is_set():
            raise self._refusal(self._expected_wait())

    def _leave(self, pixels: int, paces: Sequence[float]) -> None:
        for pace in paces:  # none if it was not begun
            self._pace += _ADAPTION * (pace - self._pace)
        self._end(pixels)
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            turn, pixels = next(iter(self._waiting.items()))
            if not self._fits(pixels):
                return
            del self._waiting[turn]
            self._begin(pixels)
            turn.set()

    def _fits(self, pixels: int) -> bool:
        if not self._running:
            return True
        return self._running < self._threads.total_tokens and self._pixels + pixels <= MAX_PIXELS

    def _begin(self, pixels: int) -> None:
        self._running += 1
        self._pixels += pixels

    def _end(self, pixels: int) -> None:
        self._running -= 1
        self._pixels -= pixels

    def _expected_wait(self) -> float:
        pixels = sum(self._waiting.values()) + self._pixels
        pictures = len(self._waiting) + self._running
        return self._pace * (pixels + pictures * _FIXED_PIXELS) / self._threads.total_tokens

    def _refusal(self, expected: float) -> Refusal:
        # Half the queue is gone by then: there is room for some, and it does not run empty meanwhile.
        return Refusal(ReturnCode.RATE_LIMITED, retry_after=math.ceil(max(1.0, min(expected, self._max_wait) / 2)))
