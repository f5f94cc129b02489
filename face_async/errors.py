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

import copyreg
import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class CallError(FaceError):
    """A call that was begun has failed.

    Attributes:
        endpoint: The specification's name of the endpoint, such as ``"identify"``.
        attempts: How many times the request was tried.
        maybe_applied: True when the effect may have happened all the same: an answer was lost on the way, and looking
            did not settle what became of it. False when the service cannot have acted on the request, and for calls
            that change nothing anyway.
    """

    def __init__(self, message: str, *, endpoint: str, maybe_applied: bool = False, attempts: int = 1) -> None:
        super().__init__(message + _LOOK_FIRST if maybe_applied else message)
        self.endpoint = endpoint
        self.maybe_applied = maybe_applied
        self.attempts = attempts

    def leave_in_doubt(self) -> None:
        """Set :attr:`maybe_applied`, and say so."""
        if not self.maybe_applied:
            self.maybe_applied = True
            self.args = (f"{self}{_LOOK_FIRST}",)


class TransportError(CallError):
    """No complete answer came back."""


class DeadlineError(TransportError):
    """The whole call, queueing and retries included, took longer than its deadline."""


class ResponseError(CallError):
    """The answer breaks the specification.

    Attributes:
        status: The HTTP status of the answer.
        path: Where the answer is wrong, such as ``"$.data.candidates[0].confidence"``; ``"$"`` is the whole.
    """

    def __init__(self, problem: str, *, endpoint: str, status: int, path: str = "$") -> None:
        message = f"{endpoint}: the answer (HTTP {status}) breaks the specification at {path}: {problem}"
        super().__init__(message, endpoint=endpoint)
        self.status = status
        self.path = path


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
        endpoint: str,
        data: Mapping[str, object] | None = None,
        session_id: str = "",
    ) -> None:
        known = CODES.get(code)
        self.code = code
        self.name = known.name if known else f"UNKNOWN_{code}"
        self.message = message
        self.data: Mapping[str, object] = dict(data or {})
        self.session_id = session_id
        meaning = known.meaning if known else "a code the specification does not list"
        said = "" if message in {"", self.name} else f" (the server says: {printable(message)})"
        # A failed comparison says which of its two pictures failed (Spec: 2.13).
        flag = self.data.get("fail_flag")
        which = " in the first picture" if flag == 1 else " in the second picture" if flag == 2 else ""  # noqa: PLR2004 - the values of the specification
        super().__init__(f"{endpoint}: {code} {self.name}{which}: {meaning}{said}", endpoint=endpoint)

    @property
    def retry(self) -> Retry:
        """What the code means for trying again; an unknown one is an answer."""
        return CODES[self.code].retry if self.code in CODES else Retry.NEVER


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
    """The server's own refusal of a body over 1.5 MB: code 23."""


class Retry(enum.Enum):
    """What a code means for trying again."""

    NEVER = "never"  # an answer: the same request would get it again
    LATER = "later"  # not executed; the same request may succeed later
    SLOWER = "slower"  # not executed; the same request may succeed at a lower rate
    CLOCK = "clock"  # not executed; may succeed once the clock is corrected
    HOPELESS = "hopeless"  # not executed; nor will any other request of this account be
    AMBIGUOUS = "ambiguous"  # executed or not, the code does not tell


@frozen
class Code:
    """One row of the table: a return code of the specification's chapter 3."""

    number: int
    error: type[ServiceError]
    name: str
    meaning: str
    retry: Retry = Retry.NEVER


# The names of negative codes are the back end's own; it was never seen to name a positive one.
_ROWS = (
    Code(3, InvalidParameterError, "BAD_REQUEST", "the request is wrong, or the account is unpaid"),
    Code(4, AuthError, "SIGNATURE_EMPTY", "no signature was sent", Retry.HOPELESS),
    Code(5, AuthError, "SIGNATURE_MALFORMED", "the signature cannot be read", Retry.HOPELESS),
    Code(
        6,
        AuthError,
        "SIGNATURE_TARGET_MISMATCH",
        "the signature is for another appid or bucket; check both",
        Retry.HOPELESS,
    ),
    Code(9, AuthError, "SIGNATURE_EXPIRED", "the signature has expired; check this machine's clock", Retry.CLOCK),
    Code(10, AuthError, "APPID_NOT_EXISTED", "the appid does not exist; check it", Retry.HOPELESS),
    Code(11, AuthError, "SECRETID_NOT_EXISTED", "the SecretID does not exist; check it", Retry.HOPELESS),
    Code(12, AuthError, "APPID_SECRETID_MISMATCH", "the SecretID belongs to another appid; check both", Retry.HOPELESS),
    Code(13, AuthError, "REPLAY_ATTACK", "this signature was used before", Retry.AMBIGUOUS),
    Code(14, AuthError, "SIGNATURE_MISMATCH", "the signature is wrong; check the SecretKey", Retry.HOPELESS),
    Code(15, RateLimitedError, "RATE_LIMITED", "too many requests; send fewer a second", Retry.SLOWER),
    Code(16, NotFoundError, "BUCKET_NOT_EXISTED", "the bucket does not exist; check it", Retry.HOPELESS),
    Code(21, InvalidParameterError, "PARAMETER_INVALID", "a parameter is invalid"),
    Code(23, RequestTooLargeRefusal, "REQUEST_TOO_LARGE", "the request is too large; send a smaller picture or fewer"),
    Code(24, UnavailableError, "GOING_OFFLINE", "the service has retired this interface; use a server of your own"),
    Code(107, UnavailableError, "AUTH_UNAVAILABLE", "the authentication service is unavailable", Retry.LATER),
    Code(108, UnavailableError, "AUTH_UNAVAILABLE", "the authentication service is unavailable", Retry.LATER),
    Code(213, UnavailableError, "INTERNAL_ERROR", "the service failed internally", Retry.AMBIGUOUS),
    Code(-1101, ImageError, "SDK_IMAGE_FACEDETECT_FAILED", "no face was found; faces want at least 100 x 100 pixels"),
    Code(-1102, ImageError, "SDK_IMAGE_DECODE_FAILED", "the picture cannot be decoded; it may be damaged"),
    Code(-1103, ImageError, "SDK_FEAT_PROCESSFAILED", "the face's features could not be computed"),
    Code(-1104, ImageError, "SDK_FACE_SHAPE_FAILED", "the face's outline could not be found"),
    Code(-1105, ImageError, "SDK_FACE_GENDER_FAILED", "the gender could not be estimated"),
    Code(-1106, ImageError, "SDK_FACE_EXPRESSION_FAILED", "the expression could not be estimated"),
    Code(-1107, ImageError, "SDK_FACE_AGE_FAILED", "the age could not be estimated"),
    Code(-1108, ImageError, "SDK_FACE_POSE_FAILED", "the pose could not be estimated"),
    Code(-1109, ImageError, "SDK_FACE_GLASS_FAILED", "glasses could not be detected"),
    Code(-1200, UnavailableError, "STORAGE_ERROR", "the service could not store features", Retry.AMBIGUOUS),
    Code(-1300, ImageError, "ERROR_IMAGE_EMPTY", "no picture was sent, or an empty one"),
    Code(-1301, InvalidParameterError, "ERROR_PARAMETER_EMPTY", "a required parameter is missing or empty"),
    Code(-1302, AlreadyExistsError, "ERROR_PERSON_EXISTED", "a person of this id exists already"),
    Code(-1303, NotFoundError, "ERROR_PERSON_NOT_EXISTED", "no person of this id exists"),
    Code(-1304, InvalidParameterError, "ERROR_PARAMETER_TOO_LONG", "a parameter is too long"),
    Code(-1305, NotFoundError, "ERROR_FACE_NOT_EXISTED", "no face of this id exists"),
    Code(-1306, NotFoundError, "ERROR_GROUP_NOT_EXISTED", "no group of this id exists"),
    Code(-1307, NotFoundError, "ERROR_GROUPLIST_NOT_EXISTED", "the list of groups does not exist"),
    Code(-1308, ImageError, "ERROR_DOWNLOAD_IMAGE_FAILED", "the server could not, or may not, fetch the picture's URL"),
    Code(-1309, FaceLimitRefusal, "ERROR_FACE_NUM_EXCEED", "the person has all the faces that a person may have"),
    Code(-1310, PersonLimitRefusal, "ERROR_PERSON_NUM_EXCEED", "the group has all the persons that a group may have"),
    Code(-1311, GroupLimitRefusal, "ERROR_GROUP_NUM_EXCEED", "the appid has all the groups that an appid may have"),
    Code(-1312, DuplicateFaceError, "ERROR_SAME_FACE_ADDED", "the person already has almost the same face"),
    Code(-1313, InvalidParameterError, "ERROR_PARAMETER_INVALID", "an id has a space, slash, tab or line break"),
    Code(-1400, ImageError, "ERROR_IMAGE_FORMAT_INVALID", "the picture's format is not supported"),
    Code(-1403, ImageError, "ERROR_IMAGE_DOWNLOAD_FAILED", "the server could not fetch the picture"),
)

CODES: Mapping[int, Code] = MappingProxyType({row.number: row for row in _ROWS})
"""Every return code of chapter 3, and 24 and -1313, which later documents add: code -> its row."""


def service_error(
    code: int,
    message: str = "",
    *,
    endpoint: str,
    data: Mapping[str, object] | None = None,
    session_id: str = "",
) -> ServiceError:
    """Return the error that stands for ``code``, of the class that the table names; the base class if unknown."""
    known = CODES.get(code)
    error = known.error if known else ServiceError
    return error(code, message, endpoint=endpoint, data=data, session_id=session_id)


def is_hopeless(error: BaseException) -> bool:
    """Return whether an error says that no further call of this session can succeed: codes 4-6, 10-12, 14 and 16."""
    return isinstance(error, ServiceError) and error.retry is Retry.HOPELESS


def printable(text: str, limit: int = 200) -> str:
    """Return the first ``limit`` characters of a foreign text, escaped so that it is fit for a terminal."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return shown if len(text) <= limit else shown + "…"
