"""Scripted faults: the mistakes that the local server makes in a test, for which requests, and how often.

======================================== ==========================================================================
``faults.add("addface", ...)``           The next such request
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

``times=3`` does the same to three requests. Faults of one endpoint are met in the order in which they were added, one
by each request; those without an endpoint by the next request, whatever it is. Only requests with a good signature and
a readable body meet faults; others are refused as always, and the script stays as it is. If the endpoint itself refuses
the request before or after a fault's answer, its refusal is not sent. ``faults.clock_skew = 3600`` sets the server's
clock an hour ahead, for the check of signatures and in Date headers.

On a socket a broken connection is an answer that ends after its headers. In process the application raises
:class:`AnswerLostError`, which :class:`face_async.testing.FaceServer` turns into what a client sees on a socket.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

import anyio
from attrs import define, evolve

from face_async.server.fault import AnswerLostError, Fault, ScriptedAnswer
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from face_async.server.handlers import Call

__all__ = ["AnswerLostError", "Fault", "Faults", "ScriptedAnswer"]

Effect: TypeAlias = "Callable[[], Awaitable[dict[str, object]]]"
Handler: TypeAlias = "Callable[[Call], Awaitable[dict[str, object]]]"
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@define(eq=False)
class _Late:
    """An effect that happens after its answer: before the ``requests``-th of the requests that follow."""

    fault: Fault
    requests: int
    effect: Effect


def _taking_arguments_of(make: Callable[P, T]) -> Callable[[Callable[[S, T], None]], Callable[Concatenate[S, P], None]]:
    """Return a decorator for methods: they take the arguments that make their argument, which are declared once."""

    def decorate(method: Callable[[S, T], None]) -> Callable[Concatenate[S, P], None]:
        def made(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
            method(self, make(*args, **kwargs))

        made.__doc__ = method.__doc__
        return made

    return decorate


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

    @_taking_arguments_of(Fault)
    def add(self, fault: Fault) -> None:
        """Add a fault to the script.

        Takes the arguments of :class:`Fault`; the table above says what goes together.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of its range, or contradicts another one.
        """
        with self._lock:
            self._script.append(fault)

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The rest of the script: faults that no request has met yet, and late effects that have not happened."""
        with self._lock:
            return (*self._script, *(evolve(late.fault, times=1) for late in self._late))

    def clear(self) -> None:
        """Forget the whole script: late effects will not happen, and the clock is right again."""
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
        """Return a clock that is :attr:`clock_skew` ahead; for the server."""
        return lambda: clock() + self.clock_skew

    async def perform(self, endpoint: str, handler: Handler, call: Call) -> dict[str, object]:
        """Answer a call by its handler, or as the script says; for the server, and for recorders to override.

        Args:
            endpoint: The specification's name of the endpoint.
            handler: Performs a call, and raises nothing but ``Refusal``.
            call: The request.

        Raises:
            ScriptedAnswer: A fault answers.
            Refusal: The handler refuses.
        """
        with anyio.CancelScope(shield=True):  # effects of other requests, which this client must not cancel
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
        """Count a request that has come in, and return the late effects that are due before it."""
        with self._lock:
            for late in self._late:
                late.requests -= 1
            due = [late.effect for late in self._late if late.requests == 0]
            self._late = [late for late in self._late if late.requests]
        return due


async def _apply(effects: Iterable[Effect]) -> None:
    for effect in effects:
        with contextlib.suppress(Refusal):  # a fault answers instead
            await effect()


def _first_pictures(call: Call, count: int) -> Call:
    """Return the call as if its request had only the first ``count`` pictures, whether sent or by URL."""
    form = call.parameters.form
    pictures = {name: contents[:count] for name, contents in form.pictures.items()}
    values = dict(form.fields)
    urls = values.get("urls")
    if isinstance(urls, list):
        values["urls"] = cast("list[object]", urls)[:count]
    return evolve(call, parameters=evolve(call.parameters, form=evolve(form, fields=values, pictures=pictures)))
