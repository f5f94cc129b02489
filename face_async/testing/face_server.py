"""The server of one test: the local server in this process, its faults, and the calls that it has received."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self, Unpack

import httpx
from attrs import define, field

from face_async.errors import ReturnCode, quoted
from face_async.local import LOCAL_APPID, LOCAL_BUCKET, random_credentials
from face_async.server import Faults, ServiceLimits, Store, create_app, serve_in_background
from face_async.server.faults import AnswerLostError, ScriptedAnswer
from face_async.server.later import ALL_HANDLERS
from face_async.server.refusal import Refusal
from face_async.session import FaceSession, ProjectAccess, SessionOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import ASGIApp

    from face_async.server import Recognizer
    from face_async.server.faults import Handler
    from face_async.server.handlers import Call

__all__ = ["FaceServer", "RecordedCall"]


def _sizes(pictures: Mapping[str, list[bytes]]) -> str:
    return repr({name: [f"{len(content)} bytes" for content in contents] for name, contents in pictures.items()})


@define
class RecordedCall:
    """One request that had a good signature and could be read.

    Attributes:
        endpoint: The specification's name of the endpoint.
        parameters: The text parameters by the specification's names, as they were sent.
        pictures: The pictures by the names of their parameters, in their order.
        code: The return code of the answer; None before the answer, and for an answer without one.
    """

    endpoint: str
    parameters: Mapping[str, object]
    pictures: Mapping[str, list[bytes]] = field(repr=_sizes)
    code: int | None = None


class FaceServer:
    """A local server in this process and in memory, with random credentials.

    Used as a context manager, or closed by :meth:`close`. It serves any number of sessions at once, in process and on
    sockets, on asyncio and on trio.

    Args:
        limits: The service's limits; small ones make tests of them short.
        recognizer: What finds and compares faces: ``"fingerprint"`` (needs no models, and is the same everywhere),
            ``"faces"``, or one of your own.

    Attributes:
        app: The server as an ASGI application.
        appid: An appid that it serves.
        bucket: A bucket of that appid.
        credentials: The key pair to sign with.
        limits: The service's limits.
        faults: The scripted faults; none at the beginning.
        transport: An httpx transport to the application, for any httpx client; it needs no closing.
    """

    def __init__(
        self, *, limits: ServiceLimits = ServiceLimits(), recognizer: str | Recognizer = "fingerprint"
    ) -> None:
        self.appid = LOCAL_APPID
        self.bucket = LOCAL_BUCKET
        self.credentials = random_credentials()
        self.limits = limits
        self._recorder = _Recorder()
        self.faults: Faults = self._recorder
        self._store = Store()
        self.app: ASGIApp = create_app(
            self._store, credentials=self.credentials, limits=limits, recognizer=recognizer, faults=self._recorder
        )
        self.transport: httpx.AsyncBaseTransport = _InProcess(self.app)

    def close(self) -> None:
        """Forget everything. A second call does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self, **options: Unpack[SessionOptions]) -> FaceSession:
        """Return a session on this server, in process: there is nothing to close.

        Nothing connects, reads or writes there, so ``timeout`` ends nothing: only ``deadline`` does. A time-out that is
        tried again is seen over sockets.

        Args:
            **options: The keyword arguments of :class:`~face_async.FaceSession`; with a ``base_url`` from
                :meth:`serve` the session uses sockets, and must be closed.
        """
        if "base_url" not in options:
            options["base_url"] = "http://localhost"
            options.setdefault("transport", self.transport)
        options.setdefault("limits", self.limits)
        return FaceSession(self.appid, self.bucket, self.credentials, **options)

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[str]:
        """Serve on a loopback socket for as long as the block runs, and yield the base URL."""
        async with serve_in_background(self.app) as running:
            yield running.base_url

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the environment variables with which :meth:`FaceSession.from_env` of any program calls this server.

        Args:
            base_url: What :meth:`serve` yielded.
        """
        return ProjectAccess(self.appid, self.bucket, self.credentials).environment(base_url)

    def calls(self, endpoint: str | None = None) -> list[RecordedCall]:
        """Return the calls so far, retries included, in the order in which they came in.

        Args:
            endpoint: The specification's name of an endpoint, such as ``"identify"``; None for all.

        Raises:
            ValueError: There is no such endpoint.
        """
        if endpoint is not None and endpoint not in ALL_HANDLERS:
            raise ValueError(f"endpoint must be one of {', '.join(ALL_HANDLERS)}, not {quoted(endpoint)}")
        return [call for call in self._recorder.calls if endpoint in {None, call.endpoint}]

    def snapshot(self) -> bytes:
        """Return the whole content: groups, persons, faces."""
        return self._store.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole content by that of a snapshot, of this server or another one; calls and faults stay.

        Raises:
            StoreError: It is no snapshot (:mod:`face_async.server`); nothing is replaced.
        """
        self._store.restore(snapshot)


class _Recorder(Faults):
    """Records every call that the script may change."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RecordedCall] = []

    async def perform(self, endpoint: str, handler: Handler, call: Call) -> dict[str, object]:
        form = call.parameters.form
        recorded = RecordedCall(endpoint, form.fields, form.pictures)
        self.calls.append(recorded)
        try:
            data = await super().perform(endpoint, handler, call)
        except (Refusal, ScriptedAnswer) as answer:
            recorded.code = answer.code
            raise
        recorded.code = ReturnCode.OK
        return data


class _InProcess(httpx.AsyncBaseTransport):
    """Calls the application; a connection that a fault breaks raises the same error as on a socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx.ASGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._inner.handle_async_request(request)
        except AnswerLostError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
