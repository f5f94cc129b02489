"""The face's shape: MediaPipe's mesh of 468 points in three dimensions, and how sure it is that there is a face."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from face_async.server.recognition import networks
from face_async.server.recognition.geometry import Points, Similarity, angle_of

if TYPE_CHECKING:
    from PIL import Image

    from face_async.server.recognition.finding import Sighting

_PIXELS = 192
_SIGHTING_SCALE = 1.5  # sides of a detector's box, of what the network wants to see
_OUTLINE_SCALE = 1.35  # the same for the extent of a mesh, whose forehead reaches higher

# The names of points are those of the person: the right eye lies on the picture's left.
RIGHT_EYE = (33, 133)  # its outer and its inner corner
LEFT_EYE = (263, 362)
NOSE_TIP, NOSE_BASE = 1, 2
MOUTH_RIGHT, MOUTH_LEFT = 61, 291
LIP_UPPER, LIP_LOWER = 13, 14  # where the lips touch
FOREHEAD, CHIN = 10, 152


@frozen(eq=False)
class Mesh:
    """A measured face.

    Attributes:
        points: 468 rows of x, y and z in pixels of the picture; z grows away from the camera.
        certainty: 0 to 1, how sure the network is that this is a face.
    """

    points: Points
    certainty: float

    @property
    def eyes(self) -> Points:
        """The middles of right and left eye, as x and y."""
        return np.stack([self.points[list(eye), :2].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE)])

    @property
    def angle(self) -> float:
        """The turn of the line through the eyes' outer corners, in radians, clockwise above 0."""
        return angle_of(self.points[LEFT_EYE[0]] - self.points[RIGHT_EYE[0]])

    @property
    def area(self) -> float:
        """The area of the upright box around the face, in pixels: what makes a face the largest."""
        return float(np.ptp(self.points[:, :2], axis=0).prod())

    def outline(self) -> tuple[complex, float, float]:
        """Return middle, side and angle of the square around the face in the face's own direction."""
        right, left = self.eyes
        angle = angle_of(left - right)
        turn = Similarity(complex(math.cos(angle), math.sin(angle)), 0)
        back = Similarity(turn.factor.conjugate(), 0)
        upright = back.apply(self.points[:, :2])
        low, high = upright.min(axis=0), upright.max(axis=0)
        x, y = turn.apply((low + high)[None] / 2)[0]
        return complex(x, y), float((high - low).max()), angle


class Measurer:
    """The network that measures faces."""

    def __init__(self) -> None:
        self._session = networks.session(networks.MESH)

    def at(self, image: Image.Image, sighting: Sighting, *, turn: float = 0.0) -> Mesh:
        """Return the face of a sighting; ``turn`` is added to its angle, in radians."""
        return self._measure(image, sighting.middle, _SIGHTING_SCALE * sighting.side, sighting.angle + turn)

    def again(self, image: Image.Image, mesh: Mesh) -> Mesh:
        """Return the face measured from where a first measurement says that it is."""
        middle, side, angle = mesh.outline()
        return self._measure(image, middle, _OUTLINE_SCALE * side, angle)

    def _measure(self, image: Image.Image, middle: complex, side: float, angle: float) -> Mesh:
        placed = Similarity.square(middle, side, angle, _PIXELS)
        pixels = np.asarray(placed.cut(image, _PIXELS), np.float32) / np.float32(255)
        points, logit = self._session.run(networks.MESH.outputs, {"input": pixels[None]})
        certainty = 1 / (1 + math.exp(-float(logit.reshape(-1)[0])))
        return Mesh(placed.apply(points.reshape(468, 3).astype(np.float64)), certainty)
