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
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, TypeAlias, cast

import anyio
from attrs import evolve, field, fields, frozen
from starlette.responses import HTMLResponse, Response

from face_async.errors import CODES
from face_async.server.envelope import envelope
from face_async.server.handlers import HANDLERS
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import Receive, Scope, Send

    from face_async.server.handlers import Call

Effect: TypeAlias = "Callable[[], Awaitable[dict[str, object]]]"
Handler: TypeAlias = "Callable[[Call], Awaitable[dict[str, object]]]"

_WITHOUT_BODY = frozenset({204, 304})


@frozen
class Fault:
    """One entry of the script; its attributes are the arguments of :meth:`Faults.add`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range, or contradicts another one.
    """

    endpoint: str | None
    times: int = field(default=1, kw_only=True)
    code: int | None = field(default=None, kw_only=True)
    status: int | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    after: bool = field(default=False, kw_only=True)
    drop_request: bool = field(default=False, kw_only=True)
    drop_response: bool = field(default=False, kw_only=True)
    partial: int | None = field(default=None, kw_only=True)
    late: int | None = field(default=None, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._check_ranges()
        self._check_combination()

    def __repr__(self) -> str:
        values = [(each, getattr(self, each.name)) for each in fields(Fault)]
        return f"Fault({', '.join(f'{each.name}={value!r}' for each, value in values if value != each.default)})"

    @property
    def answers(self) -> bool:
        """Whether something else than the endpoint's own answer comes back."""
        return self.code is not None or self.status is not None or self.drop_request or self.drop_response

    @property
    def applies_first(self) -> bool:
        """Whether the effect, or a part of it, happens before the fault's answer."""
        return self.late is None and (self.after or self.drop_response or self.partial is not None)

    def response(self, data: Mapping[str, object]) -> Response:
        """Return the fault's answer; ``data`` is for its envelope, if it has one."""
        if self.code is not None:
            return envelope(self.code, data, status=self.status or 200, headers=self.headers)
        if self.status is not None:
            return HTMLResponse(f"<html><body><h1>{self.status}</h1></body></html>", self.status, self.headers)
        return _LostAnswer()

    def _check_ranges(self) -> None:
        if self.endpoint is not None and self.endpoint not in HANDLERS:
            raise ValueError(f"endpoint must be one of {', '.join(HANDLERS)}, not {self.endpoint!r}")
        _check_int("times", self.times, 1)
        if self.code is not None:
            _check_int("code", self.code)
            if self.code not in CODES:
                raise ValueError(f"code must be one of the table face_async.CODES, not {self.code}")
        if self.status is not None:
            _check_int("status", self.status, 200, 599)
            if self.status in _WITHOUT_BODY:
                raise ValueError(f"status must be one that comes with a body, not {self.status}")
        if self.partial is not None:
            _check_int("partial", self.partial, 0)
        if self.late is not None:
            _check_int("late", self.late, 1)
        if not 0 <= self.delay < float("inf"):
            raise ValueError(f"delay must be a number of seconds, 0 or more, not {self.delay!r}")
        if self.headers is not None and not _are_texts(self.headers):
            raise TypeError('headers must map str to str, such as {"Retry-After": "3"}')

    def _check_combination(self) -> None:
        if not self.answers and not self.delay:
            raise ValueError("a fault needs a code, a status, drop_request, drop_response or a delay")
        if self.drop_request + self.drop_response + (self.code is not None or self.status is not None) > 1:
            raise ValueError("a fault has one answer: a code or status, or drop_request, or drop_response")
        if self.headers is not None and self.code is None and self.status is None:
            raise ValueError("headers need a code or a status to go with")
        later = self.after or self.partial is not None or self.late is not None
        if later and (self.drop_request or not self.answers):
            raise ValueError("after, partial and late need a code, a status or drop_response: what comes back instead")
        if self.after and self.late is not None:
            raise ValueError("after puts the effect before the answer, late behind it: choose one")
        if self.partial is not None and self.endpoint != "addface":
            raise ValueError('partial is for endpoint="addface" alone: no other request has several pictures')


def _check_int(name: str, value: object, least: int | None = None, most: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} must be {bounds}, not {value}")


def _are_texts(headers: object) -> bool:
    if not isinstance(headers, Mapping):
        return False
    items = cast("Mapping[object, object]", headers).items()
    return all(isinstance(name, str) and isinstance(value, str) for name, value in items)


class ScriptedAnswer(Exception):  # noqa: N818 - it travels to the answer; nothing is broken
    """What a fault answers in place of the endpoint."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(repr(fault))
        self.fault = fault


class AnswerLostError(ConnectionError):
    """A scripted fault broke the connection."""

    def __init__(self) -> None:
        super().__init__("a scripted fault broke the connection")


class _LostAnswer(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:  # noqa: ARG002 - as ASGI has it
        # An answer that has begun cannot be replaced by a page for status 500: all that is left is to hang up.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise AnswerLostError


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
