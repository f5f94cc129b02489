"""One scripted fault, and its answer in place of the endpoint's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from attrs import field, fields, frozen
from starlette.responses import HTMLResponse, Response

from face_async.errors import CODES, quoted
from face_async.server.envelope import envelope
from face_async.server.later import ALL_HANDLERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute
    from starlette.types import Receive, Scope, Send

_STATUSES = frozenset(range(200, 600)) - {204, 304}

_Validator: TypeAlias = "Callable[[Fault, Attribute[Any], Any], None]"  # Any: as attrs declares validators


def _of(*kinds: type, least: int | None = None) -> _Validator:
    """Return a validator for values of one of these types that are finite, and at least ``least`` unless None."""

    def check(_: Fault, attribute: Attribute[Any], value: object) -> None:
        # True is an int in Python, but a mistake here.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{attribute.name} must be {names}, not {quoted(value)}")
        if least is not None and isinstance(value, int | float) and not least <= value < math.inf:
            raise ValueError(f"{attribute.name} must be {least} or more, not {value}")

    return check


@frozen
class Fault:
    """One entry of the script of faults.

    Attributes:
        endpoint: The specification's name of an endpoint, such as ``"identify"``; None for any.
        times: How many requests meet the fault, 1 or more.
        code: The code of the answer.
        status: The HTTP status of the answer, 200 to 599.
        headers: Further headers of the answer.
        after: Whether the effect happens before that answer; otherwise it does not happen.
        drop_request: Whether the connection breaks before the effect, which does not happen.
        drop_response: Whether the connection breaks after the effect.
        partial: The effect is that of the first ``partial`` pictures, 0 or more; for addface alone.
        late: The effect happens before the ``late``-th of the requests that follow, whatever they are, 1 or more.
        delay: Seconds that pass before effect and answer; with ``late``, before the answer. A client in process that
            does not wait for them cancels the request: no effect. On a socket the server goes on.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range, or contradicts another one.
    """

    endpoint: str | None = field(default=None, validator=_of(str, NoneType))
    times: int = field(default=1, kw_only=True, validator=_of(int, least=1))
    code: int | None = field(default=None, kw_only=True, validator=_of(int, NoneType))
    status: int | None = field(default=None, kw_only=True, validator=_of(int, NoneType))
    headers: Mapping[str, str] | None = field(default=None, kw_only=True, validator=_of(Mapping, NoneType))
    after: bool = field(default=False, kw_only=True, validator=_of(bool))
    drop_request: bool = field(default=False, kw_only=True, validator=_of(bool))
    drop_response: bool = field(default=False, kw_only=True, validator=_of(bool))
    partial: int | None = field(default=None, kw_only=True, validator=_of(int, NoneType, least=0))
    late: int | None = field(default=None, kw_only=True, validator=_of(int, NoneType, least=1))
    delay: float = field(default=0.0, kw_only=True, validator=_of(int, float, least=0))

    def __attrs_post_init__(self) -> None:
        self._check_values()
        self._check_combination()

    def __repr__(self) -> str:
        values = [(each, getattr(self, each.name)) for each in fields(Fault)]
        return f"Fault({', '.join(f'{each.name}={value!r}' for each, value in values if value != each.default)})"

    @property
    def answers(self) -> bool:
        """Whether the endpoint's own answer is replaced."""
        return self.code is not None or self.status is not None or self.drop_request or self.drop_response

    @property
    def applies_first(self) -> bool:
        """Whether the effect, or a part of it, happens before the fault's answer."""
        return self.late is None and (self.after or self.drop_response or self.partial is not None)

    def response(self, data: Mapping[str, object]) -> Response:
        """Return the fault's answer; ``data`` is for its envelope, if it has one."""
        if self.code is not None:
            return envelope(CODES[self.code], data, status=self.status or 200, headers=self.headers)
        if self.status is not None:
            return HTMLResponse(f"<html><body><h1>{self.status}</h1></body></html>", self.status, self.headers)
        return _LostAnswer()

    def _check_values(self) -> None:
        for text in (text for item in (self.headers or {}).items() for text in item):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
                raise TypeError(
                    f'headers must map str to str, such as {{"Retry-After": "3"}}, not {quoted(self.headers)}'
                )
        if self.endpoint is not None and self.endpoint not in ALL_HANDLERS:
            raise ValueError(f"endpoint must be one of {', '.join(ALL_HANDLERS)}, not {quoted(self.endpoint)}")
        if self.code is not None and self.code not in CODES:
            raise ValueError(f"code must be one of the table face_async.CODES, not {self.code}")
        if self.status is not None and self.status not in _STATUSES:
            raise ValueError(f"status must be 200 to 599, and one that comes with a body, not {self.status}")

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


class ScriptedAnswer(Exception):  # noqa: N818 - it travels to the answer; nothing is broken
    """What a fault answers in place of the endpoint."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(repr(fault))
        self.fault = fault
        self.code = fault.code


class AnswerLostError(ConnectionError):
    """A scripted fault broke the connection."""

    def __init__(self) -> None:
        super().__init__("a scripted fault broke the connection")


class _LostAnswer(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:  # noqa: ARG002 - as ASGI has it
        # An answer that has begun cannot be replaced by a page for status 500: all that is left is to hang up.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise AnswerLostError
