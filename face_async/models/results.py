"""The results of the 13 verbs: one frozen class per answer.

Attribute names are the specification's with word breaks. Every result carries ``session_id``, the server's identifier
of the request (``""`` where it sent none), and ``meta``, which takes no part in equality.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

from face_async.errors import FaceError, ReturnCode, ServiceError, service_error

# Needed at run time: the converter resolves the annotations of AddFaceResult.
from face_async.images import ImageSource  # noqa: TC001
from face_async.models.base import SHOWN_AS, Model

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

_OURS = {"ours": True}  # attributes that the wire must not set


@frozen
class Meta(Model):
    """How an answer came.

    Attributes:
        status: The HTTP status.
        attempts: How many requests it took, 1 or more.
        elapsed: Seconds from the call to its result, queueing and retries included.
        queued: Seconds of it spent waiting for the throttle.
        settled: How it is known that the effect happened, when an answer was lost and the outcome had to be looked up;
            empty when the last answer told it.
    """

    status: int = 0
    attempts: int = 0
    elapsed: float = 0.0
    queued: float = 0.0
    settled: str = ""


@frozen(kw_only=True)
class Result(Model):
    """What all results have: the server's identifier of the request, and how the answer came."""

    session_id: str = ""
    meta: Meta = field(default=Meta(), eq=False, repr=False, metadata=_OURS)


@frozen(kw_only=True)
class NewPersonResult(Result):
    """A person was created (Spec: 2.1).

    Attributes:
        person_id: The person's id.
        suc_group: How many groups the person was put in.
        suc_face: How many faces were stored: 1 with an image, else 0.
        face_id: The id of the image's face, ``""`` without one.
        group_ids: The groups that the person was put in, in no particular order; with ``exist_ok``, of a person who
            existed, those that the person is in.
    """

    person_id: str
    suc_group: int
    suc_face: int
    face_id: str = ""
    group_ids: tuple[str, ...]

    @property
    def created(self) -> bool:
        """Whether the person was created, which is else because they existed, and ``exist_ok`` permitted that."""
        return self.suc_group > 0


@frozen(kw_only=True)
class DelPersonResult(Result):
    """A person was deleted (Spec: 2.2).

    Attributes:
        person_id: The person's id.
        deleted: How many persons were deleted: 1.
    """

    person_id: str
    deleted: int


@frozen(kw_only=True)
class FaceOutcome(Model):
    """What became of one image of an :class:`AddFaceResult`.

    Attributes:
        image: The image as it was given.
        code: Its return code, 0 when a face was added.
        face_id: The new face's id, None when none was added, or when its answer was lost and the id cannot be told.
        subject: Whom it was to be added to, such as ``"person 'ada'"``.
    """

    image: ImageSource | None = field(default=None, eq=False, repr=False)
    subject: str = field(default="", eq=False, repr=False)
    code: int
    face_id: str | None

    @property
    def added(self) -> bool:
        """Whether a face was added."""
        return self.code == ReturnCode.OK

    @property
    def error(self) -> ServiceError | None:
        """The error that the code stands for, None when a face was added."""
        return None if self.added else service_error(self.code, endpoint="addface", subject=self.subject)


@frozen(kw_only=True)
class AddFaceResult(Result):
    """Some or all of the images were added to a person (Spec: 2.3).

    Attributes:
        added: How many faces were added.
        face_ids: Their ids as the server listed them; :attr:`faces` says which belongs to which image.
        ret_codes: The return code of every image, in input order.
        images: The images as they were given, in input order.
        subject: Whom they were to be added to, such as ``"person 'ada'"``.
    """

    added: int
    face_ids: tuple[str, ...]
    ret_codes: tuple[int, ...]
    images: tuple[ImageSource, ...] = field(default=(), eq=False, repr=False, metadata=_OURS)
    subject: str = field(default="", eq=False, repr=False, metadata=_OURS)

    def __attrs_post_init__(self) -> None:
        good = self.ret_codes.count(0)
        if self.added != good:
            raise ValueError(f"added is {self.added}, but {good} of ret_codes are 0")
        # The specification does not say which of two shapes face_ids has: one entry per image, or per added face.
        if len(self.face_ids) not in {len(self.ret_codes), good}:
            raise ValueError(f"{len(self.face_ids)} face_ids fit neither {len(self.ret_codes)} images nor {good} added")

    @property
    def faces(self) -> tuple[FaceOutcome, ...]:
        """One outcome per image, in input order."""
        positional = len(self.face_ids) == len(self.ret_codes)
        ids = iter(self.face_ids)
        found = [next(ids) if positional or code == ReturnCode.OK else None for code in self.ret_codes]
        images = self.images or (None,) * len(self.ret_codes)
        return tuple(
            FaceOutcome(
                image=image,
                code=code,
                face_id=(face_id or None) if code == ReturnCode.OK else None,
                subject=self.subject,
            )
            for image, code, face_id in zip(images, self.ret_codes, found, strict=True)
        )

    def raise_for_failures(self) -> None:
        """Raise the error of the first image that was not added.

        Raises:
            ServiceError: Of the class that the image's code stands for, such as ``DuplicateFaceError``.
        """
        for face in self.faces:
            if face.error is not None:
                raise face.error


@frozen(kw_only=True)
class DelFaceResult(Result):
    """Faces of a person were deleted (Spec: 2.4).

    Attributes:
        deleted: How many faces were deleted.
        face_ids: Their ids.
    """

    deleted: int
    face_ids: tuple[str, ...]


@frozen(kw_only=True)
class SetInfoResult(Result):
    """A person's name or tag was set (Spec: 2.5).

    Attributes:
        person_id: The person's id.
    """

    person_id: str


@frozen(kw_only=True)
class PersonInfo(Result):
    """What is known of a person (Spec: 2.6).

    Attributes:
        person_id: The person's id.
        person_name: The person's name, ``""`` when none was given.
        face_ids: The person's faces.
        group_ids: The groups that the person is in.
        tag: The remark, ``""`` when none was given.
    """

    person_id: str
    person_name: str
    face_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    tag: str = ""


@frozen(kw_only=True)
class FaceInfo(Result):
    """What is known of a face (Spec: 2.10).

    Attributes:
        face_id: The face's id.
        x: Left edge of the face's box, in pixels of its picture.
        y: Upper edge of the box, in pixels.
        width: Width of the box, in pixels.
        height: Height of the box, in pixels.
        gender: 0 (female) to 100 (male).
        age: 0 to 100; the local server guesses it.
        expression: 0 (normal), 50 (smile) to 100 (laugh).
        glass: Whether the face wears glasses.
        pitch: Turn up or down, -30 to 30 degrees; the specification does not say which is which, and below 0 is up on
            the local server.
        yaw: Turn left or right, -30 to 30 degrees; below 0 the nose points to the picture's left, likewise.
        roll: Turn in the picture's plane, -180 to 180 degrees; clockwise above 0, likewise.
    """

    face_id: str
    x: int
    y: int
    width: float
    height: float
    gender: int
    age: int
    expression: int
    glass: bool
    pitch: int
    yaw: int
    roll: int


@frozen(kw_only=True)
class VerifyResult(Result):
    """Whether a picture shows a person (Spec: 2.11).

    Attributes:
        confidence: Similarity to the person, 0 to 100.
        is_match: The service's judgement.
    """

    confidence: float
    is_match: bool = field(metadata={"wire": "ismatch"})


@frozen(kw_only=True)
class Candidate(Model):
    """A person whom a picture may show (Spec: 2.12).

    Attributes:
        person_id: The person's id.
        face_id: The person's face that is most alike.
        confidence: Similarity to it, 0 to 100.
        tag: The face's remark.
    """

    person_id: str
    face_id: str
    confidence: float
    tag: str = ""


def most_confident_first(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates sorted by their confidence, whatever the server's order."""
    return tuple(sorted(candidates, key=lambda candidate: candidate.confidence, reverse=True))


@frozen(kw_only=True)
class IdentifyResult(Result):
    """Whom of a group a picture may show (Spec: 2.12).

    Attributes:
        candidates: At most five persons, the most confident first.
    """

    candidates: tuple[Candidate, ...] = field(converter=most_confident_first)

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate, None when there is none."""
        return self.candidates[0] if self.candidates else None


def _as_errors(errors: Mapping[str, FaceError | ValueError | str]) -> Mapping[str, FaceError | ValueError]:
    """Return errors, which JSON has as texts."""
    return {name: FaceError(error) if isinstance(error, str) else error for name, error in errors.items()}


@frozen
class GroupsResult(Model):
    """The persons of several groups whom a picture may show.

    Attributes:
        candidates: The most alike persons of all groups, each once with the best confidence, the most confident first.
        by_group: Every group's own result, in the order in which the groups were given.
        errors: What went wrong, for the groups that have no result.
    """

    candidates: tuple[Candidate, ...]
    by_group: Mapping[str, IdentifyResult]
    errors: Mapping[str, FaceError | ValueError] = field(converter=_as_errors, metadata={SHOWN_AS: Mapping[str, str]})

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate, None when there is none."""
        return self.candidates[0] if self.candidates else None


@frozen(kw_only=True)
class CompareResult(Result):
    """How alike the faces of two pictures are (Spec: 2.13).

    Attributes:
        similarity: 0 to 100; from about 75 the vendor speaks of the same person.
    """

    similarity: float


def with_meta(result: T, meta: Meta) -> T:
    """Set how a new result came, and return it; a result without ``meta`` is returned unchanged."""
    if isinstance(result, Result):
        object.__setattr__(result, "meta", meta)  # a copy would cost as much as the signature
    return result
