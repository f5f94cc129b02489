"""The session: one pool of connections, shared by all tasks of a program."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn, Self, TypedDict, TypeVar, Unpack, cast, get_args
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from face_async._call import wire
from face_async._call.attempts import Address, CallInFlight, CallOptions, CallRunner
from face_async._call.observation import Observers, logger
from face_async._call.retry import RetryPolicy, RetryQuota, check_policy
from face_async._call.settled_call import run_settled
from face_async._call.telemetry import CallTelemetry
from face_async._call.throttle import RunningThrottle, Throttle, ThrottleState
from face_async._transports import Answer, Http, Verify, host_of, open_transport
from face_async._transports import context_of as context_of  # noqa: PLC0414 - a name of this module, too
from face_async.bulk.api import BulkApi
from face_async.bulk.outage import SINGLE_ATTEMPT
from face_async.endpoints import ADD_FACE, ENDPOINTS, LATER_ENDPOINTS, Endpoint, subject_of
from face_async.errors import ResponseError, ServiceError, quoted
from face_async.limits import ServiceLimits
from face_async.signature import ACCOUNT_VARIABLES as ACCOUNT_VARIABLES  # noqa: PLC0414 - a name of this module, too
from face_async.signature import Credentials as Credentials  # noqa: PLC0414
from face_async.signature import check_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
    from types import TracebackType

    from face_async._call.observation import Attempt
    from face_async._call.telemetry import Telemetry
    from face_async._transports.libraries import AsyncTransport
    from face_async.endpoints import Fields, Images
    from face_async.images import ImageSource
    from face_async.models import AddFaceResult

T = TypeVar("T")

DEFAULT_BASE_URL = "https://service.image.myqcloud.com"
"""The documented host (Spec: 2). Its vendor has retired it: point ``base_url`` at a server of your own."""

BASE_URL_VARIABLE = "FACE_ASYNC_BASE_URL"
HTTP_VARIABLE = "FACE_ASYNC_HTTP"
HTTP_LIBRARIES: tuple[str, ...] = get_args(Http)
CA_FILE_VARIABLE = "FACE_ASYNC_CA_FILE"
ALLOW_INSECURE_VARIABLE = "FACE_ASYNC_ALLOW_INSECURE"
SESSION_VARIABLES = (*ACCOUNT_VARIABLES, BASE_URL_VARIABLE, HTTP_VARIABLE, CA_FILE_VARIABLE, ALLOW_INSECURE_VARIABLE)
"""All environment variables that a session reads."""

_MEANINGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}

_ENDPOINTS = {endpoint.name: endpoint for endpoint in (*ENDPOINTS, *LATER_ENDPOINTS)}


@frozen
class Stats:
    """What a session, with all its copies, has done so far.

    Attributes:
        requests: Requests begun, retries included.
        retries: Requests that were a further try.
        bytes_sent: Bytes of the bodies of all requests begun.
        connections: Connections that are open now.
        seconds_queued: Seconds that all calls together have waited for the throttle.
        throttle: How the throttle stands.
    """

    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    connections: int = 0
    seconds_queued: float = 0.0
    throttle: ThrottleState = field(factory=ThrottleState)


@frozen
class ProjectAccess:
    """An appid with one of its buckets, and a key to it.

    Attributes:
        appid: The project's id.
        bucket: The name of an image space of the project.
        credentials: The key pair to sign with.
    """

    appid: str
    bucket: str
    credentials: Credentials

    @classmethod
    def from_env(cls) -> Self | None:
        """Return the project that :data:`ACCOUNT_VARIABLES` describe, None when none of them is set.

        Raises:
            ValueError: Only some of them are set, or one has a value that cannot be used.
        """
        missing = [name for name in ACCOUNT_VARIABLES if not os.environ.get(name)]
        if missing == list(ACCOUNT_VARIABLES):
            return None
        if missing:
            raise ValueError(f"set the environment variables {', '.join(missing)} as well")
        appid, bucket, secret_id, secret_key = ACCOUNT_VARIABLES
        # The values stand in no variable here: a traceback that shows variables would show them.
        return cls(os.environ[appid], os.environ[bucket], Credentials(os.environ[secret_id], os.environ[secret_key]))

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the environment variables that lead :meth:`FaceSession.from_env` to this project at a base URL."""
        values = (self.appid, self.bucket, self.credentials.secret_id, self.credentials.secret_key)
        return {**dict(zip(ACCOUNT_VARIABLES, values, strict=True)), BASE_URL_VARIABLE: base_url}


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of :class:`FaceSession`."""

    base_url: str
    timeout: float
    deadline: float
    retry: RetryPolicy
    limits: ServiceLimits
    throttle: Throttle
    http: Http
    transport: AsyncTransport | None
    verify: Verify | None
    allow_insecure: bool
    on_attempt: Callable[[Attempt], object] | None
    telemetry: Telemetry | None


class FaceSession(BulkApi):
    """An asynchronous session with the service, to be shared by all tasks of a program.

    Use it as ``async with FaceSession(...) as session``, or call :meth:`aclose` at the end. Works on asyncio and trio.

    It belongs to the process and the event loop in which it is entered or makes its first call. In another event loop,
    or in a process that was forked since, every call raises ``RuntimeError``: open a session in each.

    Args:
        appid: The project's id.
        bucket: The name of the image space.
        credentials: The key pair to sign with.
        base_url: Where the service is: https, or http for a loopback address.
        timeout: Seconds for one attempt's connecting, and for each of its reads and writes.
        deadline: Seconds for a whole call, queueing and retries included.
        retry: How often a failed request is tried again.
        limits: The service's limits, checked before anything is sent.
        throttle: How much may be under way at once.
        http: What the session stands on: ``"httpx"`` (asyncio and trio), ``"httpx2"``, its maintained fork (the same;
            extra ``httpx2``), or ``"asyncio"``, connections of its own that cost two thirds as much (asyncio only;
            with the extra ``speed`` two fifths, on uvloop).
        transport: Any asynchronous transport of httpx or httpx2 to send with (proxies, tests, other back ends). It is
            not closed by the session, and heeds ``timeout`` or not, as it is made.
        verify: Who vouches for an https server: a file of certificates of authorities (PEM), such as a private one's,
            a folder of them, or an ``ssl.SSLContext``. None is what the environment variable ``SSL_CERT_FILE`` or
            ``SSL_CERT_DIR`` names, or else the authorities that certifi knows. A ``transport`` has its own.
        allow_insecure: Permits http to other addresses than loopback ones, and logs a warning when it is used.
        on_attempt: Called with an :class:`Attempt` after every attempt of every call, in the task that makes the call:
            a plain function that returns at once. What it raises is logged, and changes nothing.
        telemetry: Whom OpenTelemetry's spans and metrics are given to (extra ``telemetry``); None makes none.

    Raises:
        ValueError: An argument is out of its range, ``base_url`` is no URL to send secrets to, or the certificates
            cannot be read.
        TypeError: An argument is of the wrong type.
        ImportError: The extra that ``http`` or ``telemetry`` needs is not installed.
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
        transport: AsyncTransport | None = None,
        verify: Verify | None = None,
        allow_insecure: bool = False,
        on_attempt: Callable[[Attempt], object] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        check_token("appid", appid)
        check_token("bucket", bucket)
        if not isinstance(credentials, Credentials):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise TypeError("credentials must be Credentials(secret_id, secret_key)")
        for name, value, kind in (("base_url", base_url, str), ("limits", limits, ServiceLimits)):
            if not isinstance(value, kind):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
                raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
        where = check_base_url(base_url, allow_insecure=allow_insecure)
        if is_unprotected(base_url):
            logger.warning("pictures and signatures are sent unencrypted to %s", base_url)
        tls = None
        if transport is None and (verify is not None or where[0].startswith("https:")):
            tls = context_of(verify)
        elif verify is not None:
            raise ValueError("verify is not for a transport that is given: it decides itself whom to trust")
        self._address = Address(appid, bucket, credentials, *where)
        self._options = CallOptions(timeout, deadline, retry)
        self._limits = limits
        self._throttle = RunningThrottle(throttle)
        self._telemetry = None if telemetry is None else CallTelemetry(telemetry, base_url)
        observers = Observers(on_attempt, None if self._telemetry is None else self._telemetry.on_attempt)
        self._runner = CallRunner(self._address, open_transport(http, transport, tls), limits, observers)

    @classmethod
    def from_env(cls, **options: Unpack[SessionOptions]) -> Self:
        """Return a session configured by the environment.

        Reads ``FACE_ASYNC_APPID``, ``FACE_ASYNC_BUCKET``, ``FACE_ASYNC_SECRET_ID``, ``FACE_ASYNC_SECRET_KEY`` and,
        if they are set, ``FACE_ASYNC_BASE_URL``, ``FACE_ASYNC_HTTP``, ``FACE_ASYNC_CA_FILE`` (``verify``) and
        ``FACE_ASYNC_ALLOW_INSECURE`` (1, true or yes: ``allow_insecure``).

        Args:
            **options: The other arguments of the class; one that is given here goes before the environment's.

        Raises:
            ValueError: A variable is missing, or has a value that cannot be used.
        """
        project = ProjectAccess.from_env()
        if project is None:
            raise ValueError(f"set the environment variables {', '.join(ACCOUNT_VARIABLES)}")
        options.setdefault("base_url", os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL)
        options.setdefault("http", cast("Http", os.environ.get(HTTP_VARIABLE) or "httpx"))
        if options.get("transport") is None:
            options.setdefault("verify", os.environ.get(CA_FILE_VARIABLE) or None)
        options.setdefault("allow_insecure", insecure_is_allowed())
        return cls(project.appid, project.bucket, project.credentials, **options)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        throttle: Throttle | None = None,
    ) -> Self:
        """Return a light copy with other options that shares the rest; closing one closes both.

        A copy with a ``throttle`` of its own is bounded by that alone, and so is one with another ``retry.quota``.
        """
        mine = self._options
        policy = mine.retry if retry is None else check_policy(retry)
        ledger = self.ledger  # it may be made only now, and belongs to both
        other = type(self).__new__(type(self))
        vars(other).update(vars(self), ledger=ledger)
        other._options = CallOptions(  # noqa: SLF001 - a copy of its own
            timeout=mine.timeout if timeout is None else timeout,
            deadline=mine.deadline if deadline is None else deadline,
            retry=policy,
            quota=mine.quota if policy.quota == mine.retry.quota else RetryQuota(policy.quota),
        )
        if throttle is not None:
            other._throttle = RunningThrottle(throttle)  # noqa: SLF001 - as above
        return other

    @property
    def appid(self) -> str:
        """The project's id."""
        return self._address.appid

    @property
    def bucket(self) -> str:
        """The name of the image space."""
        return self._address.bucket

    @property
    def limits(self) -> ServiceLimits:
        """The service's limits, as this session enforces them."""
        return self._limits

    @property
    def planned_request_bytes(self) -> int:
        """The bytes of a body up to which requests are planned, in packs or with ``fit``.

        They are the limit's at first, and half of what was refused, once the server or a proxy before it has refused
        less (code 23, or HTTP status 413), or what was accepted since. A session and its copies remember that together.
        """
        return self._runner.planned_bytes

    @property
    def stats(self) -> Stats:
        """A snapshot of what the session, with all its copies, has done so far."""
        runner = self._runner
        return Stats(
            requests=runner.requests,
            retries=runner.retries,
            bytes_sent=runner.bytes_sent,
            connections=runner.transport.connections,
            seconds_queued=runner.seconds_queued,
            throttle=self._throttle.state,
        )

    async def probe(self) -> None:
        """As :meth:`BulkApi.probe`, without trying again."""
        await self.with_options(retry=SINGLE_ATTEMPT).get_group_ids()

    async def __aenter__(self) -> Self:
        self._runner.home.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls under way fail with ``TransportError``. Doing so twice is fine.

        Raises:
            RuntimeError: The session belongs to another process or event loop.
        """
        await self._runner.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FaceSession cannot be pickled or copied, as it has connections: open one in each process, from the same "
            "arguments or by FaceSession.from_env(); a copy with other options is session.with_options()"
        )

    def __repr__(self) -> str:
        address = self._address
        return f"FaceSession({address.appid!r}, {address.bucket!r}, base_url={address.base_url!r})"

    async def request(self, path: str, fields: Fields, images: Images | None = None) -> Answer:
        """Send any request, signed and retried, and return its answer undecoded.

        Args:
            path: An endpoint's name such as ``"identify"``, also written as a path such as ``"/face/identify"``. One
                that the specification does not list is taken to change something, so that it is not tried again
                after a lost answer.
            fields: The text parameters by their names, without appid and bucket.
            images: The picture parameters by their names.

        Raises:
            TransportError, LimitError, TypeError, ValueError: As for the verbs. No ``ServiceError``: the code is in
                the answer.
        """
        named = re.fullmatch(r"(?:/?face/)?([A-Za-z0-9_]+)", path)
        if named is None:
            raise ValueError(f"path must be the name of an endpoint such as 'identify', not {quoted(path)}")
        name = named[1]
        endpoint = _ENDPOINTS.get(name, Endpoint(name, "", object, effect=True))
        request = wire.encode(endpoint, self._signed_for(fields), images or {}, self._limits)
        call = CallInFlight(request, self._options, self._throttle, settles=False)
        kept: dict[BaseException | None, Answer] = {}

        def keep(call: CallInFlight[object], answer: Answer) -> Answer:
            error = wire.decode_error(answer.status, answer.content, call.facts)
            if error is not None:
                kept[error] = answer
                raise error  # so that it is retried if its code or status says so
            return answer

        try:
            return await self._watched(call, self._runner.run(call, keep))
        except (ServiceError, ResponseError) as error:
            answer = kept.get(error) or kept.get(error.__context__)  # a copy, if the quota has ended the call
            if answer is None:
                raise  # an answer that must not be read
            return answer

    def _request_size(self, endpoint: Endpoint[object], fields: Fields, images: Images) -> int:
        return super()._request_size(endpoint, self._signed_for(fields), images)

    async def _add_face(
        self,
        person_id: str,
        images: Sequence[ImageSource],
        *,
        tag: str | None = None,
        before: Collection[str] | None = None,
    ) -> AddFaceResult:
        fields: Fields = {"person_id": person_id, "tag": tag}
        result = await self._call(ADD_FACE, fields, {"images": images}, before)
        return evolve(result, images=tuple(images), subject=subject_of(fields))

    def _call(
        self,
        endpoint: Endpoint[T],
        fields: Fields,
        images: Images | None = None,
        before: Collection[str] | None = None,
    ) -> Awaitable[T]:
        request = wire.encode(endpoint, self._signed_for(fields), images or {}, self._limits)
        call = CallInFlight(request, self._options, self._throttle, settles=self._options.retry.max_attempts > 1)
        return self._watched(call, run_settled(self._runner, call, self, before))

    def _watched(self, call: CallInFlight[object], running: Coroutine[None, None, T]) -> Coroutine[None, None, T]:
        return running if self._telemetry is None else self._telemetry.trace(call, running)

    def _signed_for(self, fields: Fields) -> Fields:
        return {"appid": self._address.appid, "bucket": self._address.bucket, **fields}


def check_base_url(base_url: str, *, allow_insecure: bool) -> tuple[str, str]:
    """Check a base URL; return it without a trailing slash, and the value of the Host header.

    Raises:
        ValueError: It is no http or https URL, has more in it than an address, or would send secrets unencrypted.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        scheme = "http" if is_loopback(urlsplit(f"//{base_url}").hostname or "") else "https"
        hint = "" if "://" in base_url else f"; write {scheme}:// before it"
        raise ValueError(f"base_url must be an http or https URL, not {quoted(base_url)}{hint}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("base_url must hold neither a user, a query nor a fragment")
    if is_unprotected(base_url) and not allow_insecure:
        raise ValueError(
            f"{quoted(base_url)} would send pictures and signatures unencrypted; use https, or allow it: "
            f"allow_insecure=True, {ALLOW_INSECURE_VARIABLE}=1 or --insecure"
        )
    return base_url.rstrip("/"), host_of(base_url)


def is_unprotected(base_url: str) -> bool:
    """Return whether what is sent to a URL leaves this machine unencrypted."""
    parts = urlsplit(base_url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def insecure_is_allowed() -> bool:
    """Return whether the environment allows http to other addresses than loopback ones.

    Raises:
        ValueError: The variable has a value that says neither yes nor no.
    """
    value = os.environ.get(ALLOW_INSECURE_VARIABLE, "").lower()
    if value not in _MEANINGS:
        raise ValueError(f"{ALLOW_INSECURE_VARIABLE} must be 1, true or yes, or 0, false or no, not {quoted(value)}")
    return _MEANINGS[value]


def is_loopback(host: str) -> bool:
    """Return whether a host, by its name or IP address, is this machine: ``localhost``, ``127.0.0.0/8`` or ``::1``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
