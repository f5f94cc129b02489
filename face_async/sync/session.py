"""The session whose verbs block."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self, Unpack

import face_async
from face_async.bulk.outcomes import MAX_AT_ONCE
from face_async.sync.loop import LoopThread
from face_async.sync.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from face_async import (
        AddFaceResult,
        AddGroupIdsResult,
        Answer,
        CompareResult,
        Credentials,
        DelFaceResult,
        DelGroupIdsResult,
        DelPersonResult,
        DetectResult,
        FaceInfo,
        FaceOutcome,
        Fields,
        GroupsResult,
        IdentifyResult,
        Images,
        ImageSource,
        MultiIdentifyResult,
        NewPersonResult,
        PersonInfo,
        RetryPolicy,
        ServiceLimits,
        SessionOptions,
        SetInfoResult,
        Stats,
        Throttle,
        VerifyResult,
    )
    from face_async.bulk.api import Errors
    from face_async.bulk.limited import ImageT
    from face_async.bulk.lines import PairT
    from face_async.bulk.outage import OnOutage
    from face_async.bulk.outcomes import MapOptions
    from face_async.bulk.persons import PersonT


class FaceSession:
    """As :class:`face_async.FaceSession`, with verbs that block until they are done.

    They run in an event loop that the session has in a thread of its own, so that any number of threads may share it,
    also where an event loop runs already, as in a notebook. Use it as ``with FaceSession(...) as session``, or call
    :meth:`close` at the end. A call whose thread is interrupted is cancelled.

    Args:
        appid: The project's id.
        bucket: The name of the image space.
        credentials: The key pair to sign with.
        **options: Those of :class:`face_async.FaceSession`; ``http="asyncio"`` is the cheapest, and ``on_attempt`` is
            called in the session's thread.

    Raises:
        TypeError, ValueError: As :class:`face_async.FaceSession` raises them.
    """

    def __init__(self, appid: str, bucket: str, credentials: Credentials, **options: Unpack[SessionOptions]) -> None:
        self._session = face_async.FaceSession(appid, bucket, credentials, **options)
        self._loop = LoopThread()

    @classmethod
    def from_env(cls, **options: Unpack[SessionOptions]) -> Self:
        """As :meth:`face_async.FaceSession.from_env`."""
        session = cls.__new__(cls)
        session._session = face_async.FaceSession.from_env(**options)  # noqa: SLF001 - a session like this one
        session._loop = LoopThread()  # noqa: SLF001 - as above
        return session

    def with_options(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        throttle: Throttle | None = None,
    ) -> Self:
        session = self._session.with_options(timeout=timeout, deadline=deadline, retry=retry, throttle=throttle)
        other = copy.copy(self)
        other._session = session  # noqa: SLF001 - a copy of its own
        return other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and end the thread. Doing so twice is fine.

        Calls under way in other threads fail with ``TransportError``. In the block of a bulk verb, outcomes can no
        longer be taken, which raises ``RuntimeError`` as further calls do; what became of its items is in ``untaken``.

        Raises:
            RuntimeError: It is called in the session's own thread, by ``progress`` or ``on_attempt``.
        """
        self._loop.stop(self._session.aclose)

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def appid(self) -> str:
        """The project's id."""
        return self._session.appid

    @property
    def bucket(self) -> str:
        """The name of the image space."""
        return self._session.bucket

    @property
    def limits(self) -> ServiceLimits:
        """The service's limits, as this session enforces them."""
        return self._session.limits

    @property
    def planned_request_bytes(self) -> int:
        """The bytes of a body up to which requests are planned, as there."""
        return self._session.planned_request_bytes

    @property
    def stats(self) -> Stats:
        """A snapshot of what the session, with all its copies, has done so far."""
        return self._session.stats

    def new_person(
        self,
        person_id: str,
        group_ids: Sequence[str],
        image: ImageSource | None = None,
        *,
        person_name: str | None = None,
        tag: str | None = None,
        exist_ok: bool = False,
    ) -> NewPersonResult:
        return self._loop.wait(
            lambda: self._session.new_person(
                person_id, group_ids, image, person_name=person_name, tag=tag, exist_ok=exist_ok
            )
        )

    def del_person(self, person_id: str) -> DelPersonResult:
        return self._loop.wait(lambda: self._session.del_person(person_id))

    def add_face(self, person_id: str, images: Sequence[ImageSource], *, tag: str | None = None) -> AddFaceResult:
        return self._loop.wait(lambda: self._session.add_face(person_id, images, tag=tag))

    def del_face(self, person_id: str, face_ids: Sequence[str]) -> DelFaceResult:
        return self._loop.wait(lambda: self._session.del_face(person_id, face_ids))

    def set_info(self, person_id: str, *, person_name: str | None = None, tag: str | None = None) -> SetInfoResult:
        return self._loop.wait(lambda: self._session.set_info(person_id, person_name=person_name, tag=tag))

    def get_info(self, person_id: str) -> PersonInfo:
        return self._loop.wait(lambda: self._session.get_info(person_id))

    def get_group_ids(self) -> list[str]:
        return self._loop.wait(self._session.get_group_ids)

    def get_person_ids(self, group_id: str) -> list[str]:
        return self._loop.wait(lambda: self._session.get_person_ids(group_id))

    def get_face_ids(self, person_id: str) -> list[str]:
        return self._loop.wait(lambda: self._session.get_face_ids(person_id))

    def get_face_info(self, face_id: str) -> FaceInfo:
        return self._loop.wait(lambda: self._session.get_face_info(face_id))

    def verify(self, person_id: str, image: ImageSource) -> VerifyResult:
        return self._loop.wait(lambda: self._session.verify(person_id, image))

    def identify(self, group_id: str | Sequence[str], image: ImageSource) -> IdentifyResult:
        return self._loop.wait(lambda: self._session.identify(group_id, image))

    def compare(self, image_a: ImageSource, image_b: ImageSource) -> CompareResult:
        return self._loop.wait(lambda: self._session.compare(image_a, image_b))

    def detect(self, image: ImageSource, *, largest_only: bool = False) -> DetectResult:
        return self._loop.wait(lambda: self._session.detect(image, largest_only=largest_only))

    def add_group_ids(self, person_id: str, group_ids: Sequence[str]) -> AddGroupIdsResult:
        return self._loop.wait(lambda: self._session.add_group_ids(person_id, group_ids))

    def del_group_ids(self, person_id: str, group_ids: Sequence[str]) -> DelGroupIdsResult:
        return self._loop.wait(lambda: self._session.del_group_ids(person_id, group_ids))

    def multi_identify(self, group_ids: str | Sequence[str], image: ImageSource) -> MultiIdentifyResult:
        return self._loop.wait(lambda: self._session.multi_identify(group_ids, image))

    def identify_in_groups(
        self,
        image: ImageSource,
        group_ids: Sequence[str],
        *,
        top: int = 5,
        fit: bool = False,
        max_at_once: int = MAX_AT_ONCE,
        errors: Errors = "raise",
        on_outage: OnOutage = "fail",
    ) -> GroupsResult:
        return self._loop.wait(
            lambda: self._session.identify_in_groups(
                image, group_ids, top=top, fit=fit, max_at_once=max_at_once, errors=errors, on_outage=on_outage
            )
        )

    def request(self, path: str, fields: Fields, images: Images | None = None) -> Answer:
        return self._loop.wait(lambda: self._session.request(path, fields, images))

    def add_faces(
        self,
        pairs: Iterable[PairT],
        *,
        tag: str | None = None,
        pack: bool = True,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PairT, FaceOutcome]],
    ) -> Outcomes[PairT, FaceOutcome]:
        return Outcomes(
            self._loop,
            pairs,
            lambda given: self._session.add_faces(given, tag=tag, pack=pack, fit=fit, on_outage=on_outage, **options),
        )

    def new_persons(
        self,
        persons: Iterable[PersonT],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PersonT, NewPersonResult]],
    ) -> Outcomes[PersonT, NewPersonResult]:
        return Outcomes(
            self._loop, persons, lambda given: self._session.new_persons(given, fit=fit, on_outage=on_outage, **options)
        )

    def identify_many(
        self,
        images: Iterable[ImageT],
        group_id: str | Sequence[str],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[ImageT, IdentifyResult]],
    ) -> Outcomes[ImageT, IdentifyResult]:
        return Outcomes(
            self._loop,
            images,
            lambda given: self._session.identify_many(given, group_id, fit=fit, on_outage=on_outage, **options),
        )

    def verify_many(
        self,
        pairs: Iterable[PairT],
        *,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[PairT, VerifyResult]],
    ) -> Outcomes[PairT, VerifyResult]:
        return Outcomes(
            self._loop, pairs, lambda given: self._session.verify_many(given, fit=fit, on_outage=on_outage, **options)
        )

    def detect_many(
        self,
        images: Iterable[ImageT],
        *,
        largest_only: bool = False,
        fit: bool = False,
        on_outage: OnOutage = "fail",
        **options: Unpack[MapOptions[ImageT, DetectResult]],
    ) -> Outcomes[ImageT, DetectResult]:
        return Outcomes(
            self._loop,
            images,
            lambda given: self._session.detect_many(
                given, largest_only=largest_only, fit=fit, on_outage=on_outage, **options
            ),
        )


for _name, _method in vars(FaceSession).items():
    if not _name.startswith("_") and callable(_method) and _method.__doc__ is None:
        _method.__doc__ = getattr(face_async.FaceSession, _name).__doc__
