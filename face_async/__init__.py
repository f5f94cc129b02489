"""Asynchronous client for the 13-endpoint face recognition API.

What may be imported by path: ``face_async`` and

- ``face_async.errors``, ``face_async.models``, ``face_async.images``: whose names ``face_async`` has, too;
- ``face_async.sync``: the session for programs without async;
- ``face_async.ingest``: resumable enrollment of folders and manifests;
- ``face_async.fleet``: the same on many processes or machines (extras ``fleet``, ``dask``, ``ray``);
- ``face_async.local``, ``face_async.server``: the local server, in this process or on a socket (extra ``server``);
- ``face_async.testing``: a server for the tests of your own program (extra ``server``);
- ``face_async.portraits``: drawn people (extra ``server``).

Everything else is private, whatever its name.
"""

from face_async._call.observation import Attempt
from face_async._call.retry import RetryPolicy
from face_async._call.telemetry import Telemetry
from face_async._call.throttle import Throttle, ThrottleState
from face_async._transports.base import Answer
from face_async._version import __version__
from face_async.bulk.allowances import Key
from face_async.bulk.api import BulkApi
from face_async.bulk.fitting import fit_image
from face_async.bulk.ledger import LimitLedger
from face_async.bulk.outcomes import Outcome, Outcomes
from face_async.bulk.persons import NewPerson
from face_async.bulk.sharding import ShardedGroup
from face_async.endpoints import FaceApi, Fields, Images
from face_async.errors import (
    CODES,
    AlreadyExistsError,
    AuthError,
    CallError,
    Code,
    DeadlineError,
    DuplicateFaceError,
    FaceError,
    FaceLimitError,
    FaceLimitRefusal,
    GroupLimitError,
    GroupLimitRefusal,
    ImageError,
    ImageRefusedError,
    InvalidParameterError,
    LimitError,
    NotFoundError,
    PersonLimitError,
    PersonLimitRefusal,
    RateLimitedError,
    RequestTooLargeError,
    RequestTooLargeRefusal,
    ResponseError,
    ReturnCode,
    ServiceError,
    TransportError,
    UnavailableError,
    UnsupportedError,
)
from face_async.images import ImageFile, ImageSource, ImageUrl
from face_async.limits import SAME_PERSON, SURELY_THE_SAME, ServiceLimits
from face_async.models import (
    AddFaceResult,
    AddGroupIdsResult,
    Candidate,
    CompareResult,
    DelFaceResult,
    DelGroupIdsResult,
    DelPersonResult,
    DetectedFace,
    DetectResult,
    FaceBox,
    FaceInfo,
    FaceOutcome,
    GroupsResult,
    IdentifiedFace,
    IdentifyResult,
    Meta,
    MultiIdentifyResult,
    NewPersonResult,
    PersonInfo,
    Result,
    SetInfoResult,
    VerifyResult,
)
from face_async.session import DEFAULT_BASE_URL, FaceSession, SessionOptions, Stats
from face_async.signature import Credentials

__all__ = [
    "CODES",
    "DEFAULT_BASE_URL",
    "SAME_PERSON",
    "SURELY_THE_SAME",
    "AddFaceResult",
    "AddGroupIdsResult",
    "AlreadyExistsError",
    "Answer",
    "Attempt",
    "AuthError",
    "BulkApi",
    "CallError",
    "Candidate",
    "Code",
    "CompareResult",
    "Credentials",
    "DeadlineError",
    "DelFaceResult",
    "DelGroupIdsResult",
    "DelPersonResult",
    "DetectResult",
    "DetectedFace",
    "DuplicateFaceError",
    "FaceApi",
    "FaceBox",
    "FaceError",
    "FaceInfo",
    "FaceLimitError",
    "FaceLimitRefusal",
    "FaceOutcome",
    "FaceSession",
    "Fields",
    "GroupLimitError",
    "GroupLimitRefusal",
    "GroupsResult",
    "IdentifiedFace",
    "IdentifyResult",
    "ImageError",
    "ImageFile",
    "ImageRefusedError",
    "ImageSource",
    "ImageUrl",
    "Images",
    "InvalidParameterError",
    "Key",
    "LimitError",
    "LimitLedger",
    "Meta",
    "MultiIdentifyResult",
    "NewPerson",
    "NewPersonResult",
    "NotFoundError",
    "Outcome",
    "Outcomes",
    "PersonInfo",
    "PersonLimitError",
    "PersonLimitRefusal",
    "RateLimitedError",
    "RequestTooLargeError",
    "RequestTooLargeRefusal",
    "ResponseError",
    "Result",
    "RetryPolicy",
    "ReturnCode",
    "ServiceError",
    "ServiceLimits",
    "SessionOptions",
    "SetInfoResult",
    "ShardedGroup",
    "Stats",
    "Telemetry",
    "Throttle",
    "ThrottleState",
    "TransportError",
    "UnavailableError",
    "UnsupportedError",
    "VerifyResult",
    "__version__",
    "fit_image",
]
