"""The checks of a service: its address and connection, the clock, the signature, the limits."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from anyio.streams.tls import TLSAttribute, TLSStream

from face_async import RetryPolicy
from face_async.bulk.limited import request_size
from face_async.bulk.outcomes import Outcomes
from face_async.cli.doctor.checks import CheckVerdict, ok, warning, wrong
from face_async.cli.exits import Exit, exit_code, one_line
from face_async.endpoints import COMPARE
from face_async.errors import (
    DeadlineError,
    FaceError,
    RequestTooLargeError,
    ResponseError,
    ReturnCode,
    ServiceError,
    TransportError,
    innermost,
)
from face_async.session import DEFAULT_BASE_URL, context_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from anyio.abc import SocketStream

    from face_async import Answer
    from face_async.cli.doctor.checks import CheckResult
    from face_async.cli.options import ServiceChoice, Trust
    from face_async.session import FaceSession

_CONNECT_SECONDS = 10.0
_DEADLINE = 20.0
_ROUND_TRIPS = 3
_DAYS_LEFT = 21  # of a certificate; with fewer left it should be renewed
_SKEW_SECONDS, _MAX_SKEW_SECONDS = 30, 240  # a signature is good for 300
_NEARLY_FULL = 0.9
_SIZE_STEPS = 64  # in how fine steps a limit for requests is looked for
_SERVER_AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}

MENDS: Mapping[int, str] = {
    ReturnCode.BAD_REQUEST: "pay the account, or check whether something on the way changes requests",
    ReturnCode.SIGNATURE_EMPTY: "something on the way removes the Authorization header: a proxy?",
    ReturnCode.SIGNATURE_MALFORMED: (
        "something on the way changes the Authorization header, or this is no server for this API"
    ),
    ReturnCode.SIGNATURE_TARGET_MISMATCH: "check FACE_ASYNC_APPID and FACE_ASYNC_BUCKET: they must be one project's",
    ReturnCode.SIGNATURE_EXPIRED: "set this machine's clock (see clock), as with 'timedatectl set-ntp true'",
    ReturnCode.APPID_NOT_EXISTED: "check FACE_ASYNC_APPID; face-async serve prints the account that it takes",
    ReturnCode.SECRETID_NOT_EXISTED: (
        "check FACE_ASYNC_SECRET_ID; face-async serve makes up a new one at each start unless it is given one"
    ),
    ReturnCode.APPID_SECRETID_MISMATCH: (
        "FACE_ASYNC_SECRET_ID belongs to another project than FACE_ASYNC_APPID: take both from one"
    ),
    ReturnCode.REPLAY_ATTACK: "something on the way sends requests twice: a proxy?",
    ReturnCode.SIGNATURE_MISMATCH: (
        "check FACE_ASYNC_SECRET_KEY: it is the key that belongs to FACE_ASYNC_SECRET_ID, whole and without blanks"
    ),
    ReturnCode.RATE_LIMITED: "too many requests of this account at this time: send fewer a second",
    ReturnCode.BUCKET_NOT_EXISTED: "check FACE_ASYNC_BUCKET",
    ReturnCode.GOING_OFFLINE: "set FACE_ASYNC_BASE_URL to a server of your own (face-async serve)",
}
"""What to do about a code that a signed call without parameters may get."""


async def check_service(service: ServiceChoice, groups: int) -> AsyncIterator[CheckResult]:
    """Check the service that the environment names, up to the failure that makes further checks impossible."""
    address = urlsplit(service.base_url or DEFAULT_BASE_URL)
    host, secure = address.hostname or "", address.scheme == "https"
    port = address.port or (443 if secure else 80)
    async for result in _check_connection(host, port, service.trust if secure else None):
        yield result
        if result.verdict is CheckVerdict.WRONG:
            return
    async with service.open() as session:
        quick = session.with_options(deadline=_DEADLINE)
        async for result in _check_answers(quick):
            yield result
            if result.verdict is CheckVerdict.WRONG and result.topic != "clock":
                return
        async for result in check_limits(quick, groups):
            yield result
            if result.verdict is CheckVerdict.WRONG:
                return
        yield await _check_request_size(quick)


async def _check_request_size(session: FaceSession) -> CheckResult:
    """Check how large a request may be, by trying: a proxy before the server may have a limit of its own."""
    most = session.limits.planned_request_bytes
    once = session.with_options(retry=RetryPolicy(max_attempts=1))
    if await _arrives(once, most):
        return ok("request size", f"a request of {most:,} bytes arrives")
    arrives, too_large = 0, most
    while too_large - arrives > most // _SIZE_STEPS:
        tried = (arrives + too_large) // 2
        if await _arrives(once, tried):
            arrives = tried
        else:
            too_large = tried
    said = f"requests of {too_large:,} bytes are refused on the way, and of {arrives:,} arrive; {most:,} may be sent"
    mend = "raise the limit of what stands before the server, such as nginx: client_max_body_size 2m"
    return warning("request size", said, mend)


async def _arrives(session: FaceSession, size: int) -> bool:
    """Send two pictures that are none, for a comparison, which changes nothing: the service says so if it gets them."""
    form = request_size(session, COMPARE, {}, {"imageA": b"", "imageB": b"-"})
    try:
        await session.compare(bytes(max(1, size - form)), b"-")
    except (RequestTooLargeError, TransportError):
        return False
    except FaceError:
        pass
    return True


async def check_limits(session: FaceSession, groups: int) -> AsyncIterator[CheckResult]:
    """Check how near the account is to the service's limits; ``groups`` of the groups are counted, a call each."""
    limits = session.limits
    try:
        group_ids = await session.get_group_ids()
    except FaceError as error:
        yield _refused(error)
        return
    yield ok("signature", "a signed get_group_ids was answered")
    count, most = len(group_ids), limits.max_groups_per_appid
    mend = "put new persons into groups that exist, or use another appid"
    yield _check_limit("groups", f"{count:,} of {most:,} groups", count / most, mend)
    counted = group_ids[:groups]
    if not counted:
        return
    async with Outcomes(session.get_person_ids, counted, max_at_once=8) as outcomes:
        sizes: list[tuple[int, str]] = []
        async for outcome in outcomes:
            if outcome.error is not None:
                yield _refused(outcome.error, "persons")
                return
            sizes.append((len(outcome.unwrap()), outcome.item))
    size, group_id = max(sizes)
    most = limits.max_persons_per_group
    whole = "all groups" if len(sizes) == count else f"{len(sizes):,} of {count:,} groups (--groups)"
    said = f"{size:,} of {most:,} persons in {group_id}, the largest of {whole}"
    yield _check_limit("persons", said, size / most, "put new persons into another group")


def _check_limit(topic: str, said: str, used: float, mend: str) -> CheckResult:
    return ok(topic, said) if used < _NEARLY_FULL else warning(topic, said, mend)


async def _check_connection(host: str, port: int, trust: Trust | None) -> AsyncIterator[CheckResult]:
    if not _is_address(host):
        try:
            infos = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            mend = "check the host in FACE_ASYNC_BASE_URL, and this machine's name server"
            yield wrong("dns", f"{host} has no address: {error.strerror or error}", mend, Exit.NO_ANSWER)
            return
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in infos))
        yield ok("dns", f"{host} is {', '.join(addresses)}")
    started = time.perf_counter()
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            stream = await anyio.connect_tcp(host, port)
    except TimeoutError:
        mend = "look for a firewall on the way, and whether the server runs"
        yield wrong("connection", f"port {port} did not answer in {_CONNECT_SECONDS:g} s", mend, Exit.NO_ANSWER)
        return
    except OSError as error:
        mend = "check host and port in FACE_ASYNC_BASE_URL, and whether the server runs"
        yield wrong("connection", f"port {port} takes no connections: {innermost(error)}", mend, Exit.NO_ANSWER)
        return
    async with stream:
        yield ok("connection", f"port {port} took a connection in {_milliseconds(time.perf_counter() - started)}")
        if trust is not None:
            yield await _check_tls(stream, host, trust)


async def _check_tls(stream: SocketStream, host: str, trust: Trust) -> CheckResult:
    try:
        context = context_of(trust.ca_file)
    except ValueError as error:
        return wrong("tls", str(error), "name a file that this user may read", Exit.USAGE)
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            tls = await TLSStream.wrap(stream, hostname=host, ssl_context=context)
    except ssl.SSLCertVerificationError as error:
        mend = (
            "the server must present a certificate for this host, of an authority that the package certifi knows; "
            "a private one's certificate is named with --ca-file or FACE_ASYNC_CA_FILE"
        )
        return wrong("tls", f"the certificate is not good: {error.verify_message}", mend, Exit.NO_ANSWER)
    except (ssl.SSLError, OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        said = f"the server does not speak it: {getattr(error, 'reason', None) or type(error).__name__}"
        return wrong("tls", said, "check the port, and whether the server wants http", Exit.NO_ANSWER)
    connection: ssl.SSLObject = tls.extra(TLSAttribute.ssl_object)  # noqa: S610 - nothing of Django's
    certificate = connection.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
    said = f"{connection.version()}, the certificate is good for {days:.0f} more days"
    return ok("tls", said) if days >= _DAYS_LEFT else warning("tls", said, "renew it")


async def _check_answers(session: FaceSession) -> AsyncIterator[CheckResult]:
    trips: list[float] = []
    skews: list[float | None] = []
    for _ in range(_ROUND_TRIPS):
        asked, started = time.time(), time.perf_counter()
        try:
            answer = await session.request("getgroupids", {})
        except FaceError as error:
            yield _refused(error)
            return
        trips.append(time.perf_counter() - started)
        skews.append(skew_of(answer, asked + trips[-1] / 2))
    yield ok("round trip", f"{_milliseconds(min(trips))}, the best of {_ROUND_TRIPS}")
    yield check_clock(skews[trips.index(min(trips))])


def check_clock(skew: float | None) -> CheckResult:
    """Check two clocks; ``skew`` is how many seconds the server's is ahead, None when that is not known."""
    if skew is None:
        return warning("clock", "the server does not say what time it has", "compare the two clocks by hand")
    if abs(skew) <= _SKEW_SECONDS:
        return ok("clock", "this machine's and the server's agree")
    said = f"this machine's is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} the server's"
    if abs(skew) <= _MAX_SKEW_SECONDS:
        return warning("clock", said, "set it before signatures expire, as with 'timedatectl set-ntp true'")
    return wrong("clock", said, "signatures cannot be good: set it, as with 'timedatectl set-ntp true'", Exit.NO)


def skew_of(answer: Answer, local: float) -> float | None:
    """Return how many seconds the server's clock is ahead by the Date header, None without a good one."""
    dates = [value for name, value in answer.headers.items() if name.lower() == "date"]
    try:
        return parsedate_to_datetime(dates[0]).timestamp() - local
    except (IndexError, ValueError):
        return None


def _refused(error: FaceError | ValueError, topic: str = "signature") -> CheckResult:
    if isinstance(error, ServiceError):
        return wrong(topic, one_line(error), MENDS.get(error.code, "see the server's log"), Exit.NO)
    return wrong("answer", one_line(error), _mend_for(error), exit_code(error))


def _mend_for(error: FaceError | ValueError) -> str:
    match error:
        case ResponseError() if error.status in _SERVER_AWAY:
            return "a proxy answers, and does not reach the server: look whether that runs, and at the proxy's log"
        case ResponseError() if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return "a proxy on the way wants a login, which is never sent: have it let this machine through without one"
        case DeadlineError():
            return "the server takes connections, and does not answer: look whether it hangs or has too much to do"
        case _:
            return "something else than this API answers at FACE_ASYNC_BASE_URL: check host, port and path"


def _milliseconds(seconds: float) -> str:
    return f"{1_000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
