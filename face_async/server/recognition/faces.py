"""Real recognition: faces are found, measured, told apart and described by networks that run in this process.

Measured on one core: 43 ms of computing for a photograph of 0.3 to 3 megapixels, 21 ms for one of 250 x 250 pixels,
and 200 to 400 ms for a picture without a face. Two threads look at 1.9 times as many pictures as one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from face_async.errors import ReturnCode
from face_async.server.recognition.attributes import Guesser, Pose, expression
from face_async.server.recognition.base import MOST_FACES, Face, decode_or_refuse, distances
from face_async.server.recognition.calibration import similarities_at
from face_async.server.recognition.embedding import Embedder, aligned
from face_async.server.recognition.search import Finder
from face_async.server.recognition.shape import points_of
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    import numpy.typing as npt

    from face_async.images.decoding import DecodedPicture
    from face_async.server.recognition.mesh import Mesh

_AREA = 1600 * 1600  # pixels, of the picture that faces are cut from


class FacesRecognizer:
    """Tells real faces apart, and measures all that :class:`Face` has."""

    name = "faces"
    is_euclidean = True

    def __init__(self) -> None:
        self._eyes: _Eyes | None = None  # loaded for the first picture
        self._loading = threading.Lock()

    def find_face(self, picture: bytes) -> Face:
        """Return the largest face.

        Raises:
            Refusal: -1101 when there is none, or as :func:`~face_async.server.recognition.base.decode_or_refuse`.
        """
        return self.find_decoded_face(picture)[0]

    def find_decoded_face(self, picture: bytes) -> tuple[Face, DecodedPicture]:
        """Return what :meth:`find_face` returns, and the picture that it was found in."""
        decoded = decode_or_refuse(picture, area=_AREA)
        eyes = self._opened()
        mesh = eyes.finder.largest(decoded.image)
        if mesh is None:
            raise Refusal(ReturnCode.SDK_IMAGE_FACEDETECT_FAILED)
        return eyes.face(decoded, mesh), decoded

    def find_faces(self, picture: bytes, *, most: int = MOST_FACES) -> list[Face]:
        """Return all faces, the largest first, at most ``most``; none when there are none.

        Raises:
            Refusal: As :func:`~face_async.server.recognition.base.decode_or_refuse`.
        """
        decoded = decode_or_refuse(picture, area=_AREA)
        eyes = self._opened()
        return [eyes.face(decoded, mesh) for mesh in eyes.finder.all(decoded.image, most)]

    def find_shapes(self, picture: bytes, *, most: int = MOST_FACES) -> list[dict[str, list[tuple[int, int]]]]:
        """Return the 88 points of all faces, by :mod:`.shape`, the largest face first, at most ``most``.

        Raises:
            Refusal: As :func:`~face_async.server.recognition.base.decode_or_refuse`.
        """
        decoded = decode_or_refuse(picture, area=_AREA)
        return [points_of(decoded, mesh) for mesh in self._opened().finder.all(decoded.image, most)]

    def similarities(self, probe: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how alike ``probe`` is to each row, by :mod:`.calibration`."""
        return similarities_at(distances(probe, gallery))

    def close(self) -> None:
        """Do nothing: what is loaded is the whole process's, and its threads end with their pictures."""

    def _opened(self) -> _Eyes:
        with self._loading:
            if self._eyes is None:
                self._eyes = _Eyes()
            return self._eyes


class _Eyes:
    """The networks together; threads may share them."""

    def __init__(self) -> None:
        self.finder, self._embedder, self._guesser = Finder(), Embedder(), Guesser()

    def face(self, picture: DecodedPicture, mesh: Mesh) -> Face:
        image = picture.image
        embedding, inner = self._embedder.run(aligned(image, mesh))
        pose = Pose.of(mesh)
        zoom = picture.width / image.width
        edges = np.array([*mesh.points[:, :2].min(axis=0), *mesh.points[:, :2].max(axis=0)])
        left, top, right, bottom = np.rint(np.clip(edges, 0, [*image.size, *image.size]) * zoom).astype(int).tolist()
        return Face(
            left,
            top,
            float(right - left),
            float(bottom - top),
            gender=self._guesser.gender(image, mesh),
            age=self._guesser.age(image, mesh),
            expression=expression(mesh),
            glass=self._guesser.glass(inner),
            pitch=pose.pitch,
            yaw=pose.yaw,
            roll=pose.roll,
            embedding=embedding,
        )
