"""The results of the verbs that a later revision of the API adds to the 13."""

from __future__ import annotations

from attrs import field, frozen

from face_async.models.base import Model
from face_async.models.results import Candidate, Result, most_confident_first


@frozen(kw_only=True)
class DetectedFace(Model):
    """A face in a picture, which is stored nowhere.

    A server may describe the first faces of a picture alone, the hosted one five: the others have id and box, and None
    for all the rest.

    Attributes:
        face_id: An id that names no stored face.
        x: Left edge of the face's box, in pixels of the picture.
        y: Upper edge of the box, in pixels.
        width: Width of the box, in pixels.
        height: Height of the box, in pixels.
        gender: 0 (female) to 100 (male).
        age: 0 to 100.
        expression: 0 (normal), 50 (smile) to 100 (laugh).
        glass: Whether the face wears glasses.
        pitch: Turn up or down, -30 to 30 degrees.
        yaw: Turn left or right, -30 to 30 degrees.
        roll: Turn in the picture's plane, -180 to 180 degrees.
        beauty: 0 to 100; the local server does not measure it, and says 0.
    """

    face_id: str
    x: int
    y: int
    width: float
    height: float
    gender: int | None = None
    age: int | None = None
    expression: int | None = None
    glass: bool | None = None
    pitch: int | None = None
    yaw: int | None = None
    roll: int | None = None
    beauty: int | None = None


@frozen(kw_only=True)
class DetectResult(Result):
    """The faces in a picture (beyond the specification: detect).

    Attributes:
        faces: At least one; the local server puts the largest first.
        image_width: Width of the picture, in pixels.
        image_height: Height of the picture, in pixels.
    """

    faces: tuple[DetectedFace, ...] = field(metadata={"wire": "face"})
    image_width: int
    image_height: int


@frozen(kw_only=True)
class FaceBox(Model):
    """Where a face is in its picture.

    Attributes:
        x: Left edge, in pixels.
        y: Upper edge, in pixels.
        width: Width, in pixels.
        height: Height, in pixels.
    """

    x: int
    y: int
    width: float
    height: float


@frozen(kw_only=True)
class IdentifiedFace(Model):
    """A face in a picture, and whom it may show.

    Attributes:
        candidates: At most five persons, the most confident first.
        box: Where the face is.
    """

    candidates: tuple[Candidate, ...] = field(converter=most_confident_first)
    box: FaceBox = field(metadata={"wire": "face_rect"})

    @property
    def best(self) -> Candidate | None:
        """The most confident candidate, None when there is none."""
        return self.candidates[0] if self.candidates else None


@frozen(kw_only=True)
class MultiIdentifyResult(Result):
    """Whom of some groups the faces in a picture may show (beyond the specification: multidentify).

    Attributes:
        faces: At least one; the local server puts the largest first.
    """

    faces: tuple[IdentifiedFace, ...] = field(metadata={"wire": "results"})


@frozen(kw_only=True)
class AddGroupIdsResult(Result):
    """A person was put in groups (beyond the specification: addgroupids).

    Attributes:
        person_id: The person's id.
        added: How many groups the person was put in.
        group_ids: Those groups, without the ones that the person was in before. Where ``meta.settled`` is not empty,
            an answer was lost, and these are all groups of the call, since nobody can tell them apart.
    """

    person_id: str
    added: int
    group_ids: tuple[str, ...]


@frozen(kw_only=True)
class DelGroupIdsResult(Result):
    """A person was taken out of groups (beyond the specification: delgroupids).

    Attributes:
        person_id: The person's id.
        deleted: How many groups the person was taken out of.
        group_ids: Those groups, without the ones that the person was not in. Where ``meta.settled`` is not empty, an
            answer was lost, and these are all groups of the call, since nobody can tell them apart.
    """

    person_id: str
    deleted: int
    group_ids: tuple[str, ...]
