"""Scripted faults: what the local server is to do wrong in a test, to which request, and how often.

======================================== ==========================================================================
``faults.add("addface", ...)``           What the next such request meets
======================================== ==========================================================================
``code=15``                              the code, any of the table :data:`~face_async.errors.CODES`; nothing is done
``status=503``                           that HTTP status with a page of HTML; nothing is done
``status=429, code=15``                  that HTTP status with the code's envelope; nothing is done
``status=429, headers={...}``            headers beside them, such as ``{"Retry-After": "3"}``
``drop_request=True``                    nothing is done, and the connection breaks
``drop_response=True``                   all is done, and the connection breaks before the answer has come
``code=213, after=True``                 all is done, then that code or status is the answer
``code=213, partial=2``                  addface alone: the first 2 pictures are done, then that is the answer
``drop_response=True, partial=2``        the same, and the connection breaks
``code=213, late=1``                     that is the answer at once; all is done just before the next request (2: the
                                         one after it), or by :meth:`Faults.apply_late`, whichever comes first
``drop_response=True, late=1``           the same, and the connection breaks at once
``delay=0.5``                            half a second passes first; goes with all of these, and alone
======================================== ==========================================================================

``times=3`` gives the same to three requests. Faults of one endpoint are met in the order in which they were added, one
by each request; those without an endpoint by whichever request comes next. Only requests that are let in meet them:
one that has a bad signature, or that cannot be read, is refused as always and leaves the script as it is. What an
effect itself would be refused with is lost with its answer. ``faults.clock_skew = 3600`` sets the server's clock an
hour ahead, for its judgement of signatures and in its Date headers.

On a socket a broken connection is an answer that ends after its headers. In process the application raises
:class:`AnswerLostError`, which :class:`face_async.testing.FaceServer` turns into what a client sees on a socket.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio
from attrs import evolve

from face_async.server.fault import AnswerLostError, Fault, ScriptedAnswer
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from face_async.server.handlers import Call

__all__ = ["AnswerLostError", "Fault", "Faults", "ScriptedAnswer"]

Effect: TypeAlias = "Callable[[], Awaitable[dict[str, object]]]"
Handler: TypeAlias = "Callable[[Call], Awaitable[dict[str, object]]]"


class _Late:
    """An effect whose answer is long gone, and how many requests from now it happens."""

    def __init__(self, fault: Fault, requests: int, effect: Effect) -> None:
        self.fault = fault
        self.requests = requests
        self.effect = effect


class Faults:
    """The script of a server's faults; may be written and read in any thread, while the server runs in another.

    Attributes:
        clock_skew: Seconds by which the server's clock is ahead of the machine's.
    """

    def __init__(self) -> None:
        self.clock_skew = 0.0
        self._script: list[Fault] = []
        self._late: list[_Late] = []
        self._lock = threading.Lock()

    def add(
        self,
        endpoint: str | None = None,
        *,
        times: int = 1,
        code: int | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        after: bool = False,
        drop_request: bool = False,
        drop_response: bool = False,
        partial: int | None = None,
        late: int | None = None,
        delay: float = 0.0,
    ) -> None:
        """Add to the script; the table above says what goes together.

        Args:
            endpoint: The specification's name of an endpoint, such as ``"identify"``; None for any.
            times: How many requests meet the fault, 1 or more.
            code: The code of the answer.
            status: The HTTP status of the answer, 200 to 599.
            headers: Further headers of the answer.
            after: The effect happens before that answer, which otherwise comes in its place.
            drop_request: The connection breaks before the effect, which does not happen.
            drop_response: The connection breaks after the effect.
            partial: The effect is that of the first so many pictures, 0 or more; addface alone.
            late: The effect happens before the so manieth of the requests that follow, whatever they are, 1 or more.
            delay: Seconds that pass before effect and answer; with ``late``, before the answer. A client in process
                that does not wait for them takes the request with it: no effect. On a socket the server goes on.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of its range, or contradicts another one.
        """
        fault = Fault(
            endpoint,
            times=times,
            code=code,
            status=status,
            headers=headers,
            after=after,
            drop_request=drop_request,
            drop_response=drop_response,
            partial=partial,
            late=late,
            delay=delay,
        )
        with self._lock:
            self._script.append(fault)

    @property
    def pending(self) -> tuple[Fault, ...]:
        """What is still to come: faults that no request has met yet, and late effects that have not happened."""
        with self._lock:
            return (*self._script, *(evolve(late.fault, times=1) for late in self._late))

    def clear(self) -> None:
        """Forget the whole script; late effects will not happen, and the clock is right."""
        with self._lock:
            self._script.clear()
            self._late.clear()
            self.clock_skew = 0.0

    async def apply_late(self) -> None:
        """Let all late effects happen now."""
        with self._lock:
            due, self._late = self._late, []
        await _apply([late.effect for late in due])

    def skewed(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Return a clock that goes wrong by :attr:`clock_skew`; for the server."""
        return lambda: clock() + self.clock_skew

    async def perform(self, endpoint: str, handler: Handler, call: Call) -> dict[str, object]:
        """Answer a call by its handler, or as the script says; for the server.

        Raises:
            ScriptedAnswer: A fault answers.
            Refusal: The handler refuses.
        """
        with anyio.CancelScope(shield=True):  # those are not this client's to cancel
            await _apply(self._due())
        fault = self._take(endpoint)
        if fault is None:
            return await handler(call)
        effect = functools.partial(handler, call if fault.partial is None else _first_pictures(call, fault.partial))
        if fault.late is not None:
            with self._lock:
                self._late.append(_Late(fault, fault.late, effect))
        await anyio.sleep(fault.delay)
        if fault.applies_first:
            await _apply([effect])
        if fault.answers:
            raise ScriptedAnswer(fault)
        return await effect()

    def _take(self, endpoint: str) -> Fault | None:
        """Take the next fault for this endpoint off the script."""
        with self._lock:
            for index, fault in enumerate(self._script):
                if fault.endpoint in {None, endpoint}:
                    rest = [evolve(fault, times=fault.times - 1)] if fault.times > 1 else []
                    self._script[index : index + 1] = rest
                    return fault
        return None

    def _due(self) -> list[Effect]:
        """Count a request that has come in, and return the late effects whose time it is."""
        with self._lock:
            for late in self._late:
                late.requests -= 1
            due = [late.effect for late in self._late if late.requests == 0]
            self._late = [late for late in self._late if late.requests]
        return due


async def _apply(effects: Iterable[Effect]) -> None:
    for effect in effects:
        with contextlib.suppress(Refusal):  # that would have been the answer which nobody gets
            await effect()


def _first_pictures(call: Call, count: int) -> Call:
    """Return the call as if its request had only the first so many pictures, whether sent or by URL."""
    form = call.parameters.form
    pictures = {name: found[:count] for name, found in form.pictures.items()}
    values = dict(form.fields)
    urls = values.get("urls")
    if isinstance(urls, list):
        values["urls"] = cast("list[object]", urls)[:count]
    return evolve(call, parameters=evolve(call.parameters, form=evolve(form, fields=values, pictures=pictures)))
