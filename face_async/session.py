"""The session: one pool of connections, shared by all tasks of a program."""

from __future__ import annotations

import copy
import os
import re
import time
from ipaddress import ip_address
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import anyio
from attrs import define, field, frozen
from attrs.validators import gt, instance_of

from face_async import _wire
from face_async._endpoints import ENDPOINTS, Endpoint
from face_async._retry import NOT_EXECUTED_STATUSES, RetryPolicy
from face_async._throttle import Throttle
from face_async._transport import Answer, AnswerRefused, HttpxLanes, HttpxTransport, Timeouts, TransportFailure
from face_async._version import __version__
from face_async.bulk import BulkApi
from face_async.errors import DeadlineError, FaceError, ResponseError, ServiceError, TransportError
from face_async.limits import ServiceLimits
from face_async.models import Meta, with_meta
from face_async.signature import MAX_NONCE, Credentials, check_token, sign

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import httpx

    from face_async._endpoints import Fields, Images
    from face_async._multipart import Attempt
    from face_async._transport import Transport

T = TypeVar("T")

Http: TypeAlias = Literal["httpx", "reqwest"]
"""The HTTP libraries that a session may stand on."""

DEFAULT_BASE_URL = "https://service.image.myqcloud.com"
"""The documented host (Spec: 2). Its vendor has retired it: point ``base_url`` at a server of your own."""

_LOOK_FIRST = "; the effect may have happened, look before repeating it"
_ENDPOINTS = {endpoint.name: endpoint for endpoint in ENDPOINTS}


@frozen
class Stats:
    """What a session, with all its copies, has done so far.

    Attributes:
        requests: Requests begun, retries included.
        retries: Requests that were a further try.
        bytes_sent: Bytes of the bodies of all requests begun.
        connections: Connections that are open now.
        seconds_queued: Seconds that all calls together have waited for the throttle.
    """

    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    connections: int = 0
    seconds_queued: float = 0.0


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of :class:`FaceSession`."""

    base_url: str
    timeout: float
    deadline: float
    retry: RetryPolicy
    limits: ServiceLimits
    throttle: Throttle
    http: Http
    transport: httpx.AsyncBaseTransport | None
    allow_insecure: bool


@frozen
class _CallOptions:
    """What a copy of a session may have of its own."""

    timeout: float = field(validator=gt(0))
    deadline: float = field(validator=gt(0))
    retry: RetryPolicy = field(validator=instance_of(RetryPolicy))


@define
class _Shared:
    """What all copies of a session have in common."""

    transport: Transport
    gate: anyio.Semaphore
    random: Random = field(factory=Random)
    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    seconds_queued: float = 0.0
    closed: bool = False


class FaceSession(BulkApi):
    """An asynchronous session with the service, to be shared by all tasks of a program.

    Use it as ``async with FaceSession(...) as session``, or call :meth:`aclose` at the end. Works on asyncio and trio.

    Args:
        appid: The project's id.
        bucket: The name of the image space.
        credentials: The key pair to sign with.
        base_url: Where the service is: https, or http for a loopback address.
        timeout: Seconds for one attempt's connecting, and for each of its reads and writes; with ``http="reqwest"`` for
            sending the whole request and the beginning of its answer, and for each further read.
        deadline: Seconds for a whole call, queueing and retries included.
        retry: How often a failed request is tried again.
        limits: The service's limits, checked before anything is sent.
        throttle: How much may be under way at once.
        http: The HTTP library: ``"httpx"`` (asyncio and trio), or ``"reqwest"`` (extra ``speed``; asyncio).
        transport: Any httpx transport to send with (proxies, tests, other back ends). It is not closed by the session.
        allow_insecure: Permits http to other addresses than loopback ones.

    Raises:
        ValueError: An argument is out of its range, or ``base_url`` is no URL to send secrets to.
        ImportError: ``http="reqwest"`` without the extra ``speed``.
    """

    def __init__(
        self,
        appid: str,
        bucket: str,
        credentials: Credentials,
        *,
        base_url: str = DEFAULT_BASE_URL,
        timeout: float = 15.0,
        deadline: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),
        limits: ServiceLimits = ServiceLimits(),
        throttle: Throttle = Throttle(),
        http: Http = "httpx",
        transport: httpx.AsyncBaseTransport | None = None,
        allow_insecure: bool = False,
    ) -> None:
        check_token("appid", appid)
        check_token("bucket", bucket)
        if not isinstance(credentials, Credentials):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise TypeError("credentials must be Credentials(secret_id, secret_key)")
        self._appid = appid
        self._bucket = bucket
        self._credentials = credentials
        self._base_url, self._host = _check_base_url(base_url, allow_insecure=allow_insecure)
        self._options = _CallOptions(timeout, deadline, retry)
        self._limits = limits
        self._shared = _Shared(
            transport=_open_transport(http, transport),
            gate=anyio.Semaphore(throttle.max_concurrency, fast_acquire=True),
        )

    @classmethod
    def from_env(cls, **options: Unpack[SessionOptions]) -> Self:
        """Return a session configured by the environment.

        Reads ``FACE_ASYNC_APPID``, ``FACE_ASYNC_BUCKET``, ``FACE_ASYNC_SECRET_ID``, ``FACE_ASYNC_SECRET_KEY`` and,
        if they are set, ``FACE_ASYNC_BASE_URL`` and ``FACE_ASYNC_HTTP``.

        Args:
            **options: The other arguments of the class; one that is given here goes before the environment's.

        Raises:
            ValueError: A variable is missing, or has a value that cannot be used.
        """
        names = [f"FACE_ASYNC_{name}" for name in ("APPID", "BUCKET", "SECRET_ID", "SECRET_KEY")]
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise ValueError(f"set the environment variables {', '.join(missing)}")
        appid, bucket, secret_id, secret_key = (os.environ[name] for name in names)
        options.setdefault("base_url", os.environ.get("FACE_ASYNC_BASE_URL") or DEFAULT_BASE_URL)
        options.setdefault("http", cast("Http", os.environ.get("FACE_ASYNC_HTTP") or "httpx"))
        return cls(appid, bucket, Credentials(secret_id, secret_key), **options)

    def with_options(
        self, *, timeout: float | None = None, deadline: float | None = None, retry: RetryPolicy | None = None
    ) -> Self:
        """Return a light copy with other options that shares the pool and the throttle; closing one closes both."""
        mine = self._options
        other = copy.copy(self)
        other._options = _CallOptions(  # noqa: SLF001 - a copy of its own
            timeout=mine.timeout if timeout is None else timeout,
            deadline=mine.deadline if deadline is None else deadline,
            retry=mine.retry if retry is None else retry,
        )
        return other

    @property
    def limits(self) -> ServiceLimits:
        """The service's limits, as this session enforces them."""
        return self._limits

    @property
    def stats(self) -> Stats:
        """A snapshot of what the session, with all its copies, has done so far."""
        shared = self._shared
        return Stats(
            requests=shared.requests,
            retries=shared.retries,
            bytes_sent=shared.bytes_sent,
            connections=shared.transport.connections,
            seconds_queued=shared.seconds_queued,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls under way fail with ``TransportError``. Doing so twice is fine."""
        self._shared.closed = True
        await self._shared.transport.aclose()

    def __repr__(self) -> str:
        return f"FaceSession({self._appid!r}, {self._bucket!r}, base_url={self._base_url!r})"

    async def request(self, path: str, fields: Fields, images: Images | None = None) -> Answer:
        """Send any request, signed and retried, and return its answer undecoded.

        Args:
            path: An endpoint's name such as ``"identify"``, also one that the specification does not list; those are
                taken to change something, so that they are not tried again after a lost answer.
            fields: The text parameters by their names, without appid and bucket.
            images: The picture parameters by their names.

        Raises:
            TransportError, LimitError, TypeError, ValueError: As for the verbs. No ``ServiceError``: the code is in
                the answer.
        """
        name = path.removeprefix("/face/")
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ValueError(f"path must be the name of an endpoint such as 'identify', not {path!r}")
        endpoint = _ENDPOINTS.get(name, Endpoint(name, "", object, effect=True))
        answers: list[Answer] = []

        def keep(answer: Answer) -> Answer:
            answers.append(answer)
            error = _wire.decode_error(name, answer.content)
            if error is not None:
                raise error  # so that it is retried if its code says so
            return answer

        request = _wire.encode(endpoint, self._signed_for(fields), images or {}, self._limits)
        try:
            return await self._perform(request, lambda answer, _: keep(answer))
        except ServiceError:
            return answers[-1]

    async def _call(self, endpoint: Endpoint[T], fields: Fields, images: Images | None = None) -> T:
        request = _wire.encode(endpoint, self._signed_for(fields), images or {}, self._limits)

        def read(answer: Answer, meta: Meta) -> T:
            return with_meta(_wire.decode(request, answer.status, answer.content), meta)

        return await self._perform(request, read)

    def _signed_for(self, fields: Fields) -> Fields:
        return {"appid": self._appid, "bucket": self._bucket, **fields}

    async def _perform(self, request: _wire.Request[object], read: Callable[[Answer, Meta], T]) -> T:
        """Take one call through the throttle, its attempts and its deadline."""
        shared = self._shared
        if shared.closed:
            raise RuntimeError("the session is closed; make calls inside its 'async with' block")
        started = time.monotonic()
        deadline = started + self._options.deadline
        await self._admit(request)
        try:
            queued = time.monotonic() - started
            shared.seconds_queued += queued
            await self._load(request, deadline)
            for attempt in count(1):
                body = request.body.attempt()
                try:
                    answer = await self._send(request, body, deadline)
                    return read(answer, Meta(answer.status, attempt, time.monotonic() - started, queued))
                except FaceError as error:
                    pause = self._judge(error, attempt, effect=request.endpoint.effect)
                    if pause is None or time.monotonic() + pause >= deadline:
                        raise
                finally:
                    body.close()
                shared.retries += 1
                await anyio.sleep(pause)
        finally:
            shared.gate.release()
        raise AssertionError("unreachable: attempts have no end")  # pragma: no cover

    async def _admit(self, request: _wire.Request[object]) -> None:
        """Wait for a place in the throttle, no longer than the deadline."""
        try:
            self._shared.gate.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(self._options.deadline):
                await self._shared.gate.acquire()
                return
            raise self._too_late(request) from None

    async def _load(self, request: _wire.Request[object], deadline: float) -> None:
        """Learn the body's length, which for files and file objects means to look at them."""
        if not request.body.waits:
            await request.body.load(self._limits)
            return
        with anyio.move_on_after(deadline - time.monotonic()):
            await request.body.load(self._limits)
            return
        raise self._too_late(request)

    def _too_late(
        self, request: _wire.Request[object], *, attempts: int = 0, maybe_applied: bool = False
    ) -> DeadlineError:
        name = request.endpoint.name
        advice = _LOOK_FIRST if maybe_applied else ""
        message = f"{name}: no answer within the deadline of {self._options.deadline:g} seconds{advice}"
        return DeadlineError(message, endpoint=name, maybe_applied=maybe_applied, attempts=attempts)

    def _judge(self, error: FaceError, attempt: int, *, effect: bool) -> float | None:
        """Complete an attempt's error, and return the seconds to wait before the next, None when there is none."""
        if isinstance(error, ResponseError):
            error.maybe_applied = effect and error.status not in NOT_EXECUTED_STATUSES
        if isinstance(error, TransportError | ResponseError | ServiceError):
            error.attempts = attempt
        if self._shared.closed:
            return None
        return self._options.retry.pause_before_retry(error, attempt, effect=effect, random=self._shared.random)

    async def _send(self, request: _wire.Request[object], body: Attempt, deadline: float) -> Answer:
        endpoint = request.endpoint
        shared = self._shared
        shared.requests += 1
        shared.bytes_sent += body.length
        url = self._base_url + endpoint.path
        timeouts = Timeouts(self._options.timeout, max(0.0, deadline - time.monotonic()))
        try:
            return await shared.transport.send(url, self._headers(request), body, timeouts)
        except TransportFailure as failure:
            reason, status = str(failure), None
            maybe_applied = endpoint.effect and body.handed_over and not failure.unsent
        except AnswerRefused as refused:
            reason, status, maybe_applied = str(refused), refused.status, False
        # Raised out here, so that nothing of the transport hangs on the error as its context.
        if status is not None:
            raise ResponseError(reason, endpoint=endpoint.name, status=status)
        if time.monotonic() >= deadline:
            raise self._too_late(request, maybe_applied=maybe_applied)
        message = f"{endpoint.name}: {self._base_url}: {reason}{_LOOK_FIRST if maybe_applied else ''}"
        raise TransportError(message, endpoint=endpoint.name, maybe_applied=maybe_applied)

    def _headers(self, request: _wire.Request[object]) -> dict[str, str]:
        return {
            "Host": self._host,
            "User-Agent": f"face_async/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": request.body.content_type,
            "Content-Length": str(request.body.length),
            "Authorization": sign(
                self._credentials,
                appid=self._appid,
                bucket=self._bucket,
                now=int(time.time()),
                nonce=self._shared.random.randint(0, MAX_NONCE),  # it must be new, not unpredictable
            ),
        }


def _open_transport(http: str, transport: httpx.AsyncBaseTransport | None) -> Transport:
    if transport is not None:
        return HttpxTransport(transport)
    if http == "httpx":
        return HttpxLanes()
    if http == "reqwest":
        from face_async._reqwest import Reqwest  # noqa: PLC0415 - an extra, imported when it is asked for

        return Reqwest()
    raise ValueError(f"http must be 'httpx' or 'reqwest', not {http!r}")


def _check_base_url(base_url: str, *, allow_insecure: bool) -> tuple[str, str]:
    """Return the base URL without a trailing slash, and the value of the Host header."""
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"base_url must be an http or https URL, not {base_url!r}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("base_url must hold neither a user, a query nor a fragment")
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(parts.hostname):
        raise ValueError(
            f"{base_url!r} would send pictures and signatures unencrypted; use https, or pass allow_insecure=True"
        )
    return base_url.rstrip("/"), parts.netloc


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
