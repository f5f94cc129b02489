"""What recognizers share: a picture comes in, faces go out, and faces have distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from face_async.errors import ReturnCode
from face_async.images import decoding
from face_async.images.decoding import NoPictureError, UndecodableError
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from face_async.images.decoding import DecodedPicture

MOST_FACES = 100
"""How many faces of one picture are looked at, unless asked otherwise."""


@frozen
class Face:
    """A face as a recognizer sees it. What it cannot measure has the neutral value, and is never made up.

    Attributes:
        x: Left edge of the face's box, in pixels of the picture as sent, after any EXIF rotation.
        y: Upper edge of the box, in pixels.
        width: Width of the box, in pixels; the box lies inside the picture.
        height: Height of the box, in pixels.
        gender: 0 (female) to 100 (male); neutral: 50.
        age: 0 to 100; neutral: 0.
        expression: 0 (normal), 50 (smile) to 100 (laugh); neutral: 0.
        glass: Whether the face wears glasses; neutral: False.
        pitch: Turn up (below 0) or down, -30 to 30 degrees; neutral: 0.
        yaw: Turn of the nose to the picture's left (below 0) or right, -30 to 30 degrees; neutral: 0.
        roll: Turn in the picture's plane, clockwise above 0, -180 to 180 degrees; neutral: 0.
        embedding: One row of numbers; only embeddings of the same recognizer can be compared.
        thumbnail: A small picture of it as JPEG, which is stored with it; empty: none is.
    """

    x: int
    y: int
    width: float
    height: float
    gender: int = field(default=50, kw_only=True)
    age: int = field(default=0, kw_only=True)
    expression: int = field(default=0, kw_only=True)
    glass: bool = field(default=False, kw_only=True)
    pitch: int = field(default=0, kw_only=True)
    yaw: int = field(default=0, kw_only=True)
    roll: int = field(default=0, kw_only=True)
    embedding: npt.NDArray[np.float32] = field(eq=False, repr=False, kw_only=True)
    thumbnail: bytes = field(default=b"", eq=False, repr=False, kw_only=True)


class Recognizer(Protocol):
    """What the server asks to look at pictures; its methods may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What is stored beside embeddings, since those of different recognizers cannot be compared."""
        ...

    @property
    def is_euclidean(self) -> bool:
        """Whether similarity depends on the embeddings' Euclidean distance alone, and never grows with it.

        Then a picture is compared with a whole group by one matrix product and a few similarities; otherwise, and for
        recognizers without this attribute, by the similarities to all of the group's faces.
        """
        ...

    def find_face(self, picture: bytes) -> Face:
        """Return the largest face of a picture. It blocks, so call it in a worker thread.

        Raises:
            Refusal: -1101 when it shows no face, or as :func:`decode`.
        """
        ...

    def find_faces(self, picture: bytes, *, most: int = MOST_FACES) -> list[Face]:
        """Return the faces of a picture, the largest first, at most ``most``; [] when it shows none. It blocks, too.

        Raises:
            Refusal: As :func:`decode`.
        """
        ...

    def similarities(self, probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how alike ``probe`` is to each row of ``gallery``: 0 to 100.

        :data:`~face_async.limits.SAME_PERSON` and its neighbors are on this scale.
        """
        ...

    def close(self) -> None:
        """Give back what is held, waiting for pictures under way; a recognizer that is used again opens again."""
        ...


def decode_or_refuse(content: bytes, *, longest_side: int | None = None, area: int | None = None) -> DecodedPicture:
    """Return a picture as :func:`face_async.images.decoding.decode` does.

    Raises:
        Refusal: -1300 for no bytes at all, -1400 for anything but JPEG, PNG, BMP and WebP, -1102 for a picture that is
            damaged, breaks off, or has more than :data:`~face_async.images.decoding.MAX_PIXELS`, or takes more memory
            than :data:`~face_async.images.decoding.MAX_BYTES`.
    """
    if not content:
        raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
    try:
        return decoding.decode(content, longest_side=longest_side, area=area)
    except NoPictureError as error:
        raise Refusal(ReturnCode.ERROR_IMAGE_FORMAT_INVALID) from error
    except UndecodableError as error:
        raise Refusal(ReturnCode.SDK_IMAGE_DECODE_FAILED) from error


def distances(probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the Euclidean distance of each row of ``gallery`` to ``probe``."""
    difference = gallery - probe
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return np.sqrt(squares)
