"""The application: a route for each endpoint, and the steps from a request to its answer."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import weakref
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from anyio.lowlevel import RunVar
from attrs import field, frozen
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from face_async.errors import ReturnCode
from face_async.limits import ServiceLimits
from face_async.server import recognition
from face_async.server.bounds.admission import RequestLimits
from face_async.server.bounds.bodies import BodyMemory, most_body_bytes
from face_async.server.envelope import envelope
from face_async.server.faults import ScriptedAnswer
from face_async.server.fetch import Fetcher
from face_async.server.guard import Guard
from face_async.server.handlers import WITHOUT_SESSION_ID, Call
from face_async.server.later import ALL_HANDLERS
from face_async.server.operations.accounts import AccountsFile, CurrentGuard
from face_async.server.operations.calls import CallObserver
from face_async.server.operations.health import Health
from face_async.server.operations.routes import operations_routes
from face_async.server.pictures import FaceFinder
from face_async.server.recognition.thumbnails import keeping_thumbnails
from face_async.server.refusal import Refusal
from face_async.server.request.cors import Cors, check_origins
from face_async.server.request.forms import read_form
from face_async.server.request.parameters import Parameters
from face_async.server.request.target import ROOT, Targets
from face_async.server.storage.base import StoreError
from face_async.server.storage.failures import FailureLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from face_async.server.faults import Faults
    from face_async.server.guard import Account
    from face_async.server.operations.calls import CallRecord
    from face_async.server.operations.metrics import Metrics
    from face_async.server.recognition import Recognizer
    from face_async.server.storage.storage import Storage
    from face_async.signature import Credentials

DATABASE_HEADER = "X-Face-Database"
"""The header of a getgroupids answer that has the identity of the database: a client that keeps a record of what it has
enrolled learns by it that the record is another database's."""

logger = logging.getLogger("face_async.server")


def create_app(
    store: Storage,
    *,
    credentials: Credentials | Sequence[Account] | AccountsFile,
    limits: ServiceLimits = ServiceLimits(),
    request_limits: RequestLimits = RequestLimits(),
    recognizer: str | Recognizer = "auto",
    faults: Faults | None = None,
    replay_protection: bool = False,
    keep_thumbnails: bool = False,
    strict: bool = False,
    url_allow_list: Iterable[str] = (),
    allow_origins: Iterable[str] = (),
    metrics: bool = False,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Return the face recognition service as an ASGI application; it runs on asyncio and on trio.

    It needs no lifespan events, and may be served by several event loops at once. Beside the endpoints, ``GET /health``
    tells whether it can do its work (HTTP status 200, else 503), and ``/health/live`` whether it runs at all.

    Args:
        store: The storage (:func:`open_storage`); whoever opened it closes it, after the last request.
        credentials: One key that is good for every appid and bucket, the accounts that exist, or a file of them.
        limits: The service's limits.
        request_limits: What requests under way may take together.
        recognizer: What compares faces: ``"faces"``, ``"fingerprint"``, ``"auto"`` (faces where it is installed)
            or a recognizer of your own, which you close.
        faults: Scripted faults, for tests; None for none.
        replay_protection: Whether a signature is good for one request only (code 13), in all processes on the
            store's database and after a restart. Then it may be good for an hour at most (code 9), and each account may
            use a million signatures within their lifetimes (code 13 beyond that). A request waits for one write.
        url_allow_list: Hosts from which pictures may be fetched, such as ``"example.com"``,
            ``"*.example.com:8080"`` or ``"127.0.0.1:9000"``; the scheme's own port unless one is named. A name must
            lead to public addresses; a private address must itself be listed. Empty: every URL gets code -1308.
        keep_thumbnails: Whether a small picture of each face that is added is stored with it, until it is deleted.
        strict: Whether requests must be as the specification and the official clients have them; otherwise those of
            hand-written programs are taken, too. :mod:`face_async.server.handlers` says what that concerns.
        allow_origins: Origins whose web pages may call the server, such as ``"https://example.com"``; ``"*"`` is all.
            Empty: browsers let no page of another origin do so.
        metrics: Whether ``/metrics`` tells Prometheus how many calls there were, and how long they took
            (:mod:`face_async.server.operations.metrics`).
        clock: Unix time in seconds.

    Raises:
        ValueError: An entry of ``url_allow_list`` or ``allow_origins`` cannot be read, no recognizer has this name, or
            the accounts have two keys for one SecretID of an appid.
        StoreError: The storage cannot be read, or the used signatures cannot be kept.
    """
    clock = clock if faults is None else faults.skewed(clock)
    fetcher = Fetcher(url_allow_list, max_bytes=limits.max_request_bytes)
    used = store.used_signatures() if replay_protection else None

    def guarding(keys: Credentials | Sequence[Account]) -> Guard:
        return Guard(keys, used=used, strict=strict, clock=clock)

    guard = _current(credentials, guarding)
    chosen = recognition.recognizer(recognizer) if isinstance(recognizer, str) else recognizer
    if others := store.recognizers() - {chosen.name}:
        which, advice = ", ".join(sorted(others)), recognition.what_to_do_about(others)
        logger.warning("%s cannot compare the faces that were added by %s: %s", chosen.name, which, advice)
    counted = _metrics(store) if metrics else None
    looking = keeping_thumbnails(chosen) if keep_thumbnails else chosen
    finder = FaceFinder(looking, fetcher, request_limits, on_waiting=counted.waiting if counted else None)
    endpoints = Endpoints(store, guard, finder, limits, faults, strict, store.identity(), CallObserver(counted))
    routes = [Route(f"{ROOT}{name}", endpoints.endpoint(name), methods=["POST"]) for name in ALL_HANDLERS]
    routes += operations_routes(Health(store.require_writable, chosen), counted)
    middleware = [Middleware(_Dated, clock=clock), Middleware(Targets)]
    if origins := tuple(allow_origins):
        middleware.append(Middleware(Cors, origins=check_origins(origins)))
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _refuse})
    if chosen is not recognizer:
        weakref.finalize(app, chosen.close)  # without lifespan events nothing else tells the end
    return app


def _current(
    credentials: Credentials | Sequence[Account] | AccountsFile,
    make: Callable[[Credentials | Sequence[Account]], Guard],
) -> Callable[[], Guard]:
    if isinstance(credentials, AccountsFile):
        return CurrentGuard(credentials, make)
    guard = make(credentials)
    return lambda: guard


def _metrics(store: Storage) -> Metrics:
    from face_async.server.operations.metrics import Metrics  # noqa: PLC0415 - slow to import

    return Metrics(store.count_faces)


@frozen
class Endpoints:
    """The endpoints of one application, and what they share."""

    store: Storage
    guard: Callable[[], Guard]
    finder: FaceFinder
    limits: ServiceLimits
    faults: Faults | None
    strict: bool
    identity: str
    observer: CallObserver
    failures: FailureLog = field(factory=FailureLog)
    # An application may be served by several event loops.
    _bodies: RunVar[BodyMemory] = field(factory=lambda: RunVar("face_async.server.bodies"))

    def endpoint(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of the specification's ``name``."""

        async def answer(request: Request) -> Response:
            session_id = secrets.token_hex(16)
            session = {} if name in WITHOUT_SESSION_ID else {"session_id": session_id}
            address = request.client.host if request.client else ""
            with self.observer.observe(name, session_id, address) as record:
                try:
                    with self._failures_refused(name, session_id):
                        found = await self._perform(name, request, record)
                        record.code = ReturnCode.OK
                        return envelope(ReturnCode.OK, {**found, **session}, headers=self._facts(name))
                except Refusal as refusal:
                    record.code = refusal.code
                    wait = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
                    return envelope(refusal.code, {**refusal.data, **session}, headers=wait)
                except ScriptedAnswer as scripted:
                    return scripted.fault.response(session)
                except ClientDisconnect:
                    return Response(status_code=400)  # the client has gone

        return answer

    def _facts(self, name: str) -> dict[str, str]:
        # Old clients read no headers; and only who has signed a request gets them.
        return {DATABASE_HEADER: self.identity} if name == "getgroupids" else {}

    async def _perform(self, name: str, request: Request, record: CallRecord) -> dict[str, object]:
        # The signature is checked before a byte of the body is read.
        guard = self.guard()
        signature = await guard.admit(request.headers.get("authorization", ""))
        with self._loop_bodies().held() as body:
            with body.arriving():
                most = self.limits.max_request_bytes
                form = await read_form(request, most, strict=self.strict, take=body.take)
            parameters = Parameters(form, self.limits, self.strict)
            appid, bucket = parameters.target()
            guard.check_target(signature, appid, bucket)
            record.appid = appid
            # A script's effects happen although their caller has gone.
            finder = self.finder.serving(appid, request if self.faults is None else None, body)
            call = Call(appid, parameters, self.store, finder, self.limits)

            async def handle(call: Call) -> dict[str, object]:
                with self._failures_refused(name, record.session_id):
                    return await ALL_HANDLERS[name](call)

            return await (handle(call) if self.faults is None else self.faults.perform(name, handle, call))

    def _loop_bodies(self) -> BodyMemory:
        try:
            return self._bodies.get()
        except LookupError:
            bodies = BodyMemory(self.finder.limits.max_body_bytes or most_body_bytes())
            self._bodies.set(bodies)
            return bodies

    @contextlib.contextmanager
    def _failures_refused(self, name: str, session_id: str) -> Generator[None]:
        """Log a failure inside, and raise a refusal instead: its code is all that the client learns."""
        try:
            yield
        except (Refusal, ScriptedAnswer, ClientDisconnect):
            raise
        except StoreError as error:
            self.failures.report(name, session_id, error)
            raise Refusal(ReturnCode.STORAGE_ERROR) from None
        except Exception:
            logger.exception("%s: internal error (session %s)", name, session_id)
            raise Refusal(ReturnCode.INTERNAL_ERROR) from None


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer what is no endpoint, or no POST, by an envelope, which every client of the API can read.

    What is not below the endpoints' path is not for such clients, and gets an HTTP status that says so.
    """
    if f"{request.scope['path']}/".startswith(ROOT):
        return envelope(ReturnCode.BAD_REQUEST, {})
    status = error.status_code if isinstance(error, HTTPException) else 500
    return PlainTextResponse(HTTPStatus(status).phrase, status)


@frozen
class _Dated:
    """Adds to every answer a Date by the clock that checks signatures, so that clients can correct their own."""

    app: ASGIApp
    clock: Callable[[], float]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(self.clock(), usegmt=True).encode()
                message["headers"] = [*message["headers"], (b"date", date)]
            await send(message)

        await self.app(scope, receive, send_dated)
