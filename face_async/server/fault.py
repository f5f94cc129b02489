"""One scripted fault, and the answer that it gives in place of the endpoint's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, NoReturn

from attrs import field, fields, frozen
from starlette.responses import HTMLResponse, Response

from face_async.errors import CODES
from face_async.server.envelope import envelope
from face_async.server.handlers import HANDLERS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_STATUSES = frozenset(range(200, 600)) - {204, 304}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "endpoint": (str, NoneType),
    "times": (int,),
    "code": (int, NoneType),
    "status": (int, NoneType),
    "headers": (Mapping, NoneType),
    "after": (bool,),
    "drop_request": (bool,),
    "drop_response": (bool,),
    "partial": (int, NoneType),
    "late": (int, NoneType),
    "delay": (int, float),
}


@frozen
class Fault:
    """One entry of the script; its attributes are the arguments of :meth:`Faults.add`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range, or contradicts another one.
    """

    endpoint: str | None = None
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
        self._check_types()
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
            return envelope(CODES[self.code], data, status=self.status or 200, headers=self.headers)
        if self.status is not None:
            return HTMLResponse(f"<html><body><h1>{self.status}</h1></body></html>", self.status, self.headers)
        return _LostAnswer()

    def _check_types(self) -> None:
        for name, kinds in _TYPES.items():
            value: object = getattr(self, name)
            # True counts as an int for Python, but as a slip here.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise TypeError(f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}")
        for text in (text for item in (self.headers or {}).items() for text in item):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
                raise TypeError(f'headers must map str to str, such as {{"Retry-After": "3"}}, not {self.headers!r}')

    def _check_ranges(self) -> None:
        if self.endpoint is not None and self.endpoint not in HANDLERS:
            raise ValueError(f"endpoint must be one of {', '.join(HANDLERS)}, not {self.endpoint!r}")
        if self.code is not None and self.code not in CODES:
            raise ValueError(f"code must be one of the table face_async.CODES, not {self.code}")
        if self.status is not None and self.status not in _STATUSES:
            raise ValueError(f"status must be 200 to 599, and one that comes with a body, not {self.status}")
        for name, least in (("times", 1), ("partial", 0), ("late", 1), ("delay", 0)):
            value: float | None = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name} must be {least} or more, not {value}")

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


class AnswerLostError(ConnectionError):
    """A scripted fault broke the connection."""

    def __init__(self) -> None:
        super().__init__("a scripted fault broke the connection")


class _LostAnswer(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:  # noqa: ARG002 - as ASGI has it
        # An answer that has begun cannot be replaced by a page for status 500: all that is left is to hang up.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        raise AnswerLostError
