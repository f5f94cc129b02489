"""How a worker reaches the service: what may travel in a task, and what may not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from attrs import frozen

from face_async.session import (
    ACCOUNT_VARIABLES,
    BASE_URL_VARIABLE,
    DEFAULT_BASE_URL,
    HTTP_VARIABLE,
    FaceSession,
    ProjectAccess,
    SessionOptions,
    check_base_url,
    insecure_is_allowed,
)

if TYPE_CHECKING:
    from face_async._call.throttle import Throttle

# A request holds up to 20 pictures, and with real recognition they wait for each other in the server.
_TIMEOUT, _DEADLINE = 60.0, 300.0


@frozen
class ServiceConnection:
    """What a worker needs to open a session, without the key: that is in the environment of each worker.

    Workers read ``FACE_ASYNC_SECRET_ID`` and ``FACE_ASYNC_SECRET_KEY``, and ``FACE_ASYNC_APPID`` and
    ``FACE_ASYNC_BUCKET``, which must be those of this connection; ``FACE_ASYNC_CA_FILE`` and ``FACE_ASYNC_HTTP``
    (``"asyncio"`` unless it is set) are theirs, too.

    Attributes:
        appid: The project's id.
        bucket: The name of the image space.
        base_url: Where the service is, as seen from the workers.
        allow_insecure: Permits http to other addresses than loopback ones.
        timeout: Seconds for one attempt's connecting, and for each of its reads and writes.
        deadline: Seconds for a whole call.

    Raises:
        ValueError: ``base_url`` is no URL to send secrets to.
    """

    appid: str
    bucket: str
    base_url: str = DEFAULT_BASE_URL
    allow_insecure: bool = False
    timeout: float = _TIMEOUT
    deadline: float = _DEADLINE

    def __attrs_post_init__(self) -> None:
        check_base_url(self.base_url, allow_insecure=self.allow_insecure)

    @classmethod
    def from_env(cls, *, base_url: str | None = None, allow_insecure: bool | None = None) -> Self:
        """Return the connection that the environment describes.

        Reads ``FACE_ASYNC_APPID``, ``FACE_ASYNC_BUCKET``, ``FACE_ASYNC_BASE_URL`` and ``FACE_ASYNC_ALLOW_INSECURE``;
        the key must be set here, too.

        Args:
            base_url: Goes before the environment's.
            allow_insecure: Goes before the environment's.

        Raises:
            ValueError: A variable is missing, or has a value that cannot be used.
        """
        project = _project()
        return cls(
            project.appid,
            project.bucket,
            base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL,
            insecure_is_allowed() if allow_insecure is None else allow_insecure,
        )

    def open(self, throttle: Throttle) -> FaceSession:
        """Return a session with the key that the environment of this process has.

        Args:
            throttle: How much may be under way at once in this session.

        Raises:
            ValueError: The environment has no key, or another project's.
        """
        project = _project()
        if (project.appid, project.bucket) != (self.appid, self.bucket):
            raise ValueError(
                f"this worker's environment is of appid {project.appid}, bucket {project.bucket}, and the run of appid "
                f"{self.appid}, bucket {self.bucket}: start the worker with the run's {', '.join(ACCOUNT_VARIABLES)}"
            )
        options: SessionOptions = {
            "base_url": self.base_url,
            "timeout": self.timeout,
            "deadline": self.deadline,
            "throttle": throttle,
            "allow_insecure": self.allow_insecure,
        }
        if not os.environ.get(HTTP_VARIABLE):
            options["http"] = "asyncio"  # the cheapest, and workers run on asyncio
        return FaceSession.from_env(**options)


def _project() -> ProjectAccess:
    project = ProjectAccess.from_env()
    if project is None:
        raise ValueError(f"set the environment variables {', '.join(ACCOUNT_VARIABLES)}, on every worker")
    return project
