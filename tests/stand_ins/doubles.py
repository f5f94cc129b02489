"""A stand-in for the network: answers from a list, and keeps what was sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx

from face_async import Credentials, FaceSession, RetryPolicy

AT_ONCE = RetryPolicy(base_delay=0)

CREDENTIALS = Credentials("AKIDexampleSecretId", "exampleSecretKey")


def envelope(data: object = None, code: int = 0, message: str = "OK") -> bytes:
    """Return an answer's body."""
    return json.dumps({"data": data, "code": code, "message": message}).encode()


@dataclass
class Sent:
    """One request as it left."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Network(httpx.AsyncBaseTransport):
    """Gives the answers in their order, the last one for ever; an answer is a body, or a body and its HTTP status."""

    answers: list[bytes | tuple[bytes, int]]
    sent: list[Sent] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = b"".join([chunk async for chunk in request.stream])
        self.sent.append(Sent(str(request.url), dict(request.headers), body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        content, status = answer if isinstance(answer, tuple) else (answer, 200)
        return httpx.Response(status, content=content)


def session_on(*answers: bytes | tuple[bytes, int], **options) -> tuple[FaceSession, Network]:
    """Return a session of the specification's project, and the network it talks to."""
    network = Network(list(answers))
    return FaceSession("123456", "test", CREDENTIALS, transport=network, **options), network
