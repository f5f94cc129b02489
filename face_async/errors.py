"""Every error, and every return code as one table.

::

    FaceError
    ├── LimitError                       a limit of the service; nothing was done
    │   ├── FaceLimitError               more than 20 faces for one person
    │   ├── PersonLimitError             more than 10,000 persons in one group
    │   ├── GroupLimitError              more than 5,000 groups for one appid
    │   ├── RequestTooLargeError         more than 1.5 MB in one request
    │   └── ImageRefusedError            an image that cannot be sent: a GIF, empty, missing, changed
    └── CallError                        a call failed; ``maybe_applied`` says what that means
        ├── TransportError               no answer
        │   └── DeadlineError            the whole call took longer than its deadline
        ├── UnsupportedError             the server lacks an endpoint of a later revision of the API
        ├── ResponseError                an answer that breaks the specification; ``path`` says where
        └── ServiceError                 an answer with a code other than 0
            ├── AuthError                4-6, 9-14
            ├── RateLimitedError         15
            ├── NotFoundError            16, -1303, -1305, -1306, -1307
            ├── AlreadyExistsError       -1302
            ├── DuplicateFaceError       -1312
            ├── ImageError               -1101 to -1109, -1300, -1308, -1400, -1403
            ├── InvalidParameterError    3, 21, -1301, -1304, -1313
            ├── UnavailableError         24, 107, 108, 213, -1200
            └── FaceLimitRefusal, PersonLimitRefusal, GroupLimitRefusal, RequestTooLargeRefusal
                                         -1309, -1310, -1311, 23: each is also the LimitError of
                                         its kind, so one ``except`` catches both sides' checks

Wrong arguments raise the built-in ``TypeError`` and ``ValueError``, before anything is sent.
Every error pickles, and none carries a secret, a signature or a byte of a picture.
"""

from __future__ import annotations

import copy
import copyreg
import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Required, Self, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Mapping


_LONGEST_QUOTE = 500  # characters, so that nearly every path is seen to its end
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""What OpenSSL, by its versions, says of an answer that is not TLS."""

_LOOK_FIRST = "; the effect may have happened, look before repeating it"


class FaceError(Exception):
    """Base of everything this package raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception pickles by calling the class with its args, which keyword-only arguments break.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed lacks it


class LimitError(FaceError):
    """The request exceeds a limit of the service, and nothing was done (Spec: 2)."""


class FaceLimitError(LimitError):
    """The person would hold more faces than a person may: 20 (Spec: 2, item 3)."""


class PersonLimitError(LimitError):
    """The group would hold more persons than a group may: 10,000 (Spec: 2, item 2)."""


class GroupLimitError(LimitError):
    """The appid would hold more groups than an appid may: 5,000 (Spec: 2, item 1)."""


class RequestTooLargeError(LimitError):
    """The request's body would be larger than 1.5 MB (Spec: 2, item 4)."""


class ImageRefusedError(LimitError):
    """The image cannot be sent: it is a GIF, empty, missing, unreadable, or changed meanwhile (Spec: 2, item 6)."""


class CallFacts(TypedDict, total=False):
    """What every :class:`CallError` is made with; see its attributes."""

    endpoint: Required[str]
    subject: str
    maybe_applied: bool
    attempts: int


class CallError(FaceError):
    """A call that was begun has failed.

    Attributes:
        endpoint: The specification's name of the endpoint, such as ``"identify"``.
        subject: What the call was about, such as ``"person 'ada'"``; ``""`` where it named no person, group or face.
        attempts: How many times the request was tried; 0 when the call never left the queue.
        maybe_applied: True when the effect may have happened all the same: an answer was lost on the way, and looking
            did not settle what became of it. False when the service cannot have acted on the request, and for calls
            that change nothing anyway.
    """

    def __init__(
        self, message: str, *, endpoint: str, subject: str = "", maybe_applied: bool = False, attempts: int = 1
    ) -> None:
        super().__init__(message + _LOOK_FIRST if maybe_applied else message)
        self.endpoint = endpoint
        self.subject = subject
        self.maybe_applied = maybe_applied
        self.attempts = attempts

    @property
    def reason(self) -> str:
        """Why the call has failed: the message without the advice to look whether the effect happened."""
        return str(self).replace(_LOOK_FIRST, "")

    def in_doubt(self) -> Self:
        """Return a copy whose :attr:`maybe_applied` is True, and which says so; itself if it is already."""
        if self.maybe_applied:
            return self
        error = self.remarked(_LOOK_FIRST)
        error.maybe_applied = True
        return error

    def remarked(self, remark: str) -> Self:
        """Return a copy whose message ends with a remark; itself if it has it already."""
        if remark in str(self):
            return self
        error = copy.copy(self)
        error.args = (f"{self}{remark}",)
        return error.with_traceback(self.__traceback__)


class TransportError(CallError):
    """No complete answer came back."""


class DeadlineError(TransportError):
    """The whole call, queueing and retries included, took longer than its deadline."""


class UnsupportedError(CallError):
    """The server does not have the endpoint, which is not in the specification but in a later revision of the API.

    Nothing was done. Update the server, or do without.
    """


class ResponseError(CallError):
    """The answer breaks the specification.

    Attributes:
        status: The HTTP status of the answer.
        path: Where the answer is wrong, such as ``"$.data.candidates[0].confidence"``; ``"$"`` is the whole.
        location: Where it points if it is a redirect, as received; else ``""``.
    """

    def __init__(
        self, problem: str, *, status: int, path: str = "$", location: str = "", **call: Unpack[CallFacts]
    ) -> None:
        what = f"{call_label(call['endpoint'], call.get('subject', ''))}: the answer (HTTP {status})"
        if location:
            said = f"is a redirect to {printable(location)}, and none is followed: if that is the service, set base_url"
        else:
            said = f"breaks the specification at {path}: {problem}"
        super().__init__(f"{what} {said}", **call)
        self.status = status
        self.path = path
        self.location = location


class ServiceError(CallError):
    """The service answered with a code other than 0 (Spec: 3).

    Attributes:
        code: The return code.
        name: The back end's name of the code, such as ``"ERROR_PERSON_NOT_EXISTED"``.
        message: What the server wrote, as received.
        data: The answer's ``data``, empty when it had none; a failed comparison puts ``fail_flag`` here.
        session_id: The server's identifier of the request, or ``""``.
    """

    def __init__(
        self,
        code: int,
        message: str = "",
        *,
        data: Mapping[str, object] | None = None,
        session_id: str = "",
        **call: Unpack[CallFacts],
    ) -> None:
        known = CODES.get(code)
        self.code = int(code)
        self.name = known.name if known else f"UNKNOWN_{code}"
        self.message = message
        self.data: Mapping[str, object] = dict(data or {})
        self.session_id = session_id
        meaning = known.meaning if known else "a code the specification does not list"
        said = "" if message in {"", self.name} else f" (the server says: {printable(message)})"
        # A failed comparison says which of its two pictures failed (Spec: 2.13).
        flag = self.data.get("fail_flag")
        which = " in the first picture" if flag == 1 else " in the second picture" if flag == 2 else ""  # noqa: PLR2004 - the values of the specification
        label = call_label(call["endpoint"], call.get("subject", ""))
        super().__init__(f"{label}: {code} {self.name}{which}: {meaning}{said}", **call)


class AuthError(ServiceError):
    """The signature, or the account it names, was not accepted: codes 4-6 and 9-14."""


class RateLimitedError(ServiceError):
    """Too many requests: code 15. Nothing was done."""


class NotFoundError(ServiceError):
    """The bucket, person, face or group does not exist: codes 16, -1303, -1305, -1306, -1307."""


class AlreadyExistsError(ServiceError):
    """A person of this id exists already: code -1302."""


class DuplicateFaceError(ServiceError):
    """The person already has almost the same face: code -1312."""


class ImageError(ServiceError):
    """The picture holds no face, cannot be decoded or fetched: codes -1101 to -1109, -1300, -1308, -1400, -1403."""


class InvalidParameterError(ServiceError):
    """A parameter is missing, malformed or too long: codes 3, 21, -1301, -1304, -1313."""


class UnavailableError(ServiceError):
    """The service, or a part of it, does not work now: codes 24, 107, 108, 213, -1200."""


class FaceLimitRefusal(FaceLimitError, ServiceError):  # noqa: N818 - the Error it refines is its base
    """The server's own refusal of more than 20 faces for a person: code -1309."""


class PersonLimitRefusal(PersonLimitError, ServiceError):  # noqa: N818 - the Error it refines is its base
    """The server's own refusal of more than 10,000 persons in a group: code -1310."""


class GroupLimitRefusal(GroupLimitError, ServiceError):  # noqa: N818 - the Error it refines is its base
    """The server's own refusal of more than 5,000 groups for an appid: code -1311."""


class RequestTooLargeRefusal(RequestTooLargeError, ServiceError):  # noqa: N818 - the Error it refines is its base
    """The refusal of a body by the server, over 1.5 MB, or by a proxy before it, as its HTTP status says: code 23."""


class Retry(enum.Enum):
    """What a code means for trying again."""

    NEVER = "never"  # an answer: the same request would get it again
    LATER = "later"  # not executed; the same request may succeed later
    SLOWER = "slower"  # not executed; the same request may succeed at a lower rate
    CLOCK = "clock"  # not executed; it may succeed once the clock is corrected, and no request will before
    SMALLER = "smaller"  # not executed; a smaller request may succeed
    HOPELESS = "hopeless"  # not executed, and no other request of this account will be
    AMBIGUOUS = "ambiguous"  # executed or not: the code does not tell
    AWAY = "away"  # executed or not, since the service is overloaded or away; the same may succeed later, and slower


class Code(int):
    """One row of the table: a number with what it means.

    Attributes:
        error: The class of the error that stands for the code.
        meaning: The code in plain English, and what to do about it.
        retry: What the code means for trying again.
    """

    error: type[ServiceError]
    meaning: str
    retry: Retry

    def __new__(cls, number: int, error: type[ServiceError], meaning: str, retry: Retry = Retry.NEVER) -> Self:
        """Make a number that knows what it means."""
        code = super().__new__(cls, number)
        code.error, code.meaning, code.retry = error, meaning, retry
        return code


class ReturnCode(enum.IntEnum):
    """The table of return codes: chapter 3 of the specification, and 24 and -1313, which later documents add.

    A member equals its number, and has the attributes of its :class:`Code`. The names of 0 and of the negative codes
    are the back end's own; it was never seen to name a positive one.
    """

    def __init__(self, row: Code) -> None:
        self.error, self.meaning, self.retry = row.error, row.meaning, row.retry

    OK = Code(0, ServiceError, "success")
    BAD_REQUEST = Code(3, InvalidParameterError, "the request is wrong, or the account is unpaid")
    SIGNATURE_EMPTY = Code(4, AuthError, "no signature was sent", Retry.HOPELESS)
    SIGNATURE_MALFORMED = Code(5, AuthError, "the signature cannot be read", Retry.HOPELESS)
    SIGNATURE_TARGET_MISMATCH = Code(
        6, AuthError, "the signature is for another appid or bucket; check both", Retry.HOPELESS
    )
    SIGNATURE_EXPIRED = Code(9, AuthError, "the signature has expired; check this machine's clock", Retry.CLOCK)
    APPID_NOT_EXISTED = Code(10, AuthError, "the appid does not exist; check it", Retry.HOPELESS)
    SECRETID_NOT_EXISTED = Code(11, AuthError, "the SecretID does not exist; check it", Retry.HOPELESS)
    APPID_SECRETID_MISMATCH = Code(12, AuthError, "the SecretID belongs to another appid; check both", Retry.HOPELESS)
    REPLAY_ATTACK = Code(13, AuthError, "this signature was used before", Retry.AMBIGUOUS)
    SIGNATURE_MISMATCH = Code(14, AuthError, "the signature is wrong; check the SecretKey", Retry.HOPELESS)
    RATE_LIMITED = Code(15, RateLimitedError, "too many requests; send fewer a second", Retry.SLOWER)
    BUCKET_NOT_EXISTED = Code(16, NotFoundError, "the bucket does not exist; check it", Retry.HOPELESS)
    PARAMETER_INVALID = Code(21, InvalidParameterError, "a parameter is invalid")
    REQUEST_TOO_LARGE = Code(
        23, RequestTooLargeRefusal, "the request is too large; send a smaller picture or fewer", Retry.SMALLER
    )
    GOING_OFFLINE = Code(
        24, UnavailableError, "the service has retired this interface; use a server of your own", Retry.HOPELESS
    )
    AUTH_UNAVAILABLE = Code(107, UnavailableError, "the authentication service is unavailable", Retry.LATER)
    AUTH_UNAVAILABLE_108 = Code(108, UnavailableError, "the authentication service is unavailable", Retry.LATER)
    INTERNAL_ERROR = Code(213, UnavailableError, "the service failed internally", Retry.AMBIGUOUS)
    SDK_IMAGE_FACEDETECT_FAILED = Code(-1101, ImageError, "no face was found; faces want at least 100 x 100 pixels")
    SDK_IMAGE_DECODE_FAILED = Code(
        -1102,
        ImageError,
        "the picture cannot be decoded; it may be damaged, have more than the local server's 80,000,000 pixels, or "
        "take more than its 224 MB of memory",
    )
    SDK_FEAT_PROCESSFAILED = Code(-1103, ImageError, "the face's features could not be computed")
    SDK_FACE_SHAPE_FAILED = Code(-1104, ImageError, "the face's outline could not be found")
    SDK_FACE_GENDER_FAILED = Code(-1105, ImageError, "the gender could not be estimated")
    SDK_FACE_EXPRESSION_FAILED = Code(-1106, ImageError, "the expression could not be estimated")
    SDK_FACE_AGE_FAILED = Code(-1107, ImageError, "the age could not be estimated")
    SDK_FACE_POSE_FAILED = Code(-1108, ImageError, "the pose could not be estimated")
    SDK_FACE_GLASS_FAILED = Code(-1109, ImageError, "glasses could not be detected")
    STORAGE_ERROR = Code(-1200, UnavailableError, "the service could not store features", Retry.AMBIGUOUS)
    ERROR_IMAGE_EMPTY = Code(-1300, ImageError, "no picture was sent, or an empty one")
    ERROR_PARAMETER_EMPTY = Code(-1301, InvalidParameterError, "a required parameter is missing or empty")
    ERROR_PERSON_EXISTED = Code(-1302, AlreadyExistsError, "a person of this id exists already")
    ERROR_PERSON_NOT_EXISTED = Code(-1303, NotFoundError, "no person of this id exists")
    ERROR_PARAMETER_TOO_LONG = Code(-1304, InvalidParameterError, "a parameter is too long")
    ERROR_FACE_NOT_EXISTED = Code(-1305, NotFoundError, "no face of this id exists")
    ERROR_GROUP_NOT_EXISTED = Code(-1306, NotFoundError, "no group of this id exists")
    ERROR_GROUPLIST_NOT_EXISTED = Code(-1307, NotFoundError, "the list of groups does not exist")
    ERROR_DOWNLOAD_IMAGE_FAILED = Code(-1308, ImageError, "the server could not, or may not, fetch the picture's URL")
    ERROR_FACE_NUM_EXCEED = Code(-1309, FaceLimitRefusal, "the person has all the faces that a person may have")
    ERROR_PERSON_NUM_EXCEED = Code(-1310, PersonLimitRefusal, "the group has all the persons that a group may have")
    ERROR_GROUP_NUM_EXCEED = Code(-1311, GroupLimitRefusal, "the appid has all the groups that an appid may have")
    ERROR_SAME_FACE_ADDED = Code(-1312, DuplicateFaceError, "the person already has almost the same face")
    ERROR_PARAMETER_INVALID = Code(-1313, InvalidParameterError, "an id has a space, slash, tab or line break")
    ERROR_IMAGE_FORMAT_INVALID = Code(-1400, ImageError, "the picture's format is not supported")
    ERROR_IMAGE_DOWNLOAD_FAILED = Code(-1403, ImageError, "the server could not fetch the picture")


CODES: Mapping[int, ReturnCode] = MappingProxyType({int(code): code for code in ReturnCode if code})
"""Every return code but 0: number -> its row of the table."""


def service_error(
    code: int,
    message: str = "",
    *,
    data: Mapping[str, object] | None = None,
    session_id: str = "",
    **call: Unpack[CallFacts],
) -> ServiceError:
    """Return the error that stands for ``code``, of the class that the table names; the base class if unknown."""
    known = CODES.get(code)
    error = known.error if known else ServiceError
    return error(code, message, data=data, session_id=session_id, **call)


def call_label(endpoint: str, subject: str) -> str:
    """Return what messages call a call, such as ``"identify for group 'staff'"``."""
    return f"{endpoint} for {subject}" if subject else endpoint


def utf8(name: str, text: str) -> bytes:
    """Return a text in UTF-8; ``name`` is what the error calls it.

    Raises:
        ValueError: It holds lone surrogates, which have no bytes in UTF-8.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has characters that UTF-8 cannot encode (lone surrogates)") from None


def innermost(error: BaseException) -> str:
    """Return the words of the error that others were raised from; of several, such as one an address, the first's."""
    while (cause := error.__cause__ or error.__context__) or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else cause  # type: ignore[assignment]
    if getattr(error, "reason", "") in _NO_TLS:
        return "the server does not speak TLS there: base_url may have to begin with http://, or to name another port"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def printable(text: str, limit: int = 200) -> str:
    """Return the first ``limit`` characters of a foreign text, escaped so that it is fit for a terminal."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return shown if len(text) <= limit else shown + "…"


def quoted(value: object) -> str:
    """Return what a user has given as messages quote it: escaped, and cut short as :func:`printable` does."""
    return f"'{printable(value, _LONGEST_QUOTE)}'" if isinstance(value, str) else printable(repr(value), _LONGEST_QUOTE)
