"""Asynchronous client for the 13-endpoint face recognition API.

The house, floor by floor; a file imports only from floors below its own::

    1  errors  models  images  signature
    2  limits  _multipart  _endpoints  _retry  _throttle  _accounts  _hops  fitting
    3  _wire  _transport  _reqwest  _reconcile  ledger
    4  _caller  outcomes  _packs  bulk  sharding
    5  session   server/
    6  local  testing  ingest/
    7  cli/  pytest_plugin

``server``, ``local``, ``testing``, ``ingest`` and ``cli`` are imported by their own names; all but ``ingest`` want
extras.
"""

from face_async._endpoints import FaceApi
from face_async._retry import RetryPolicy
from face_async._throttle import Throttle, ThrottleState
from face_async._transport import Answer
from face_async._version import __version__
from face_async.bulk import BulkApi, GroupsResult, NewPerson
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
    GroupLimitError,
    ImageError,
    ImageRefusedError,
    InvalidParameterError,
    LimitError,
    NotFoundError,
    PersonLimitError,
    RateLimitedError,
    RequestTooLargeError,
    ResponseError,
    ServiceError,
    TransportError,
    UnavailableError,
)
from face_async.fitting import fit_image
from face_async.images import ImageFile, ImageSource, ImageUrl
from face_async.ledger import LimitLedger
from face_async.limits import ServiceLimits
from face_async.models import (
    AddFaceResult,
    Candidate,
    CompareResult,
    DelFaceResult,
    DelPersonResult,
    FaceInfo,
    FaceOutcome,
    IdentifyResult,
    Meta,
    NewPersonResult,
    PersonInfo,
    SetInfoResult,
    VerifyResult,
)
from face_async.outcomes import Outcome, Outcomes
from face_async.session import DEFAULT_BASE_URL, FaceSession, Stats
from face_async.sharding import ShardedGroup
from face_async.signature import Credentials

__all__ = [
    "CODES",
    "DEFAULT_BASE_URL",
    "AddFaceResult",
    "AlreadyExistsError",
    "Answer",
    "AuthError",
    "BulkApi",
    "CallError",
    "Candidate",
    "Code",
    "CompareResult",
    "Credentials",
    "DeadlineError",
    "DelFaceResult",
    "DelPersonResult",
    "DuplicateFaceError",
    "FaceApi",
    "FaceError",
    "FaceInfo",
    "FaceLimitError",
    "FaceOutcome",
    "FaceSession",
    "GroupLimitError",
    "GroupsResult",
    "IdentifyResult",
    "ImageError",
    "ImageFile",
    "ImageRefusedError",
    "ImageSource",
    "ImageUrl",
    "InvalidParameterError",
    "LimitError",
    "LimitLedger",
    "Meta",
    "NewPerson",
    "NewPersonResult",
    "NotFoundError",
    "Outcome",
    "Outcomes",
    "PersonInfo",
    "PersonLimitError",
    "RateLimitedError",
    "RequestTooLargeError",
    "ResponseError",
    "RetryPolicy",
    "ServiceError",
    "ServiceLimits",
    "SetInfoResult",
    "ShardedGroup",
    "Stats",
    "Throttle",
    "ThrottleState",
    "TransportError",
    "UnavailableError",
    "VerifyResult",
    "__version__",
    "fit_image",
]
