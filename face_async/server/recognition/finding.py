"""Where faces may be: BlazeFace, which looks at a small copy of a part of the picture and points at faces.

Of its two networks the short-range one is exact, but sees only faces from about a sixth of what it looks at; the
full-range one sees smaller ones. Both see faces that are turned in the picture's plane by up to about 60 degrees.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from PIL import Image

from face_async.server.recognition import networks
from face_async.server.recognition.geometry import Points, angle_of

_LEAST_SCORE = 0.5
_SAME_FACE = 0.3  # of the union; boxes that share more mean the same face


@frozen(eq=False)
class Window:
    """A part of the picture to look at, in pixels of the picture; it may reach beyond the picture's edges.

    Attributes:
        left: Its left edge.
        top: Its upper edge.
        width: Its width.
        height: Its height.
        turns: How many quarter turns counter-clockwise it is turned by to be looked at.
    """

    left: int
    top: int
    width: int
    height: int
    turns: int = 0

    @classmethod
    def around(cls, middle: complex, side: float) -> Window:
        """Return a square window."""
        return cls(round(middle.real - side / 2), round(middle.imag - side / 2), round(side), round(side))


@frozen(eq=False)
class Sighting:
    """Where a face may be, in pixels of the picture.

    Attributes:
        middle: The middle of its box.
        side: The side of its box, from the brows to the chin.
        angle: The turn of its eyes, in radians, clockwise above 0.
        score: 0.5 to 1, how sure the network is.
    """

    middle: complex
    side: float
    angle: float
    score: float


class Detector:
    """One of the two networks."""

    def __init__(self, network: networks.Network, side: int, layers: tuple[tuple[int, int], ...]) -> None:
        """Open the network.

        Args:
            network: Which.
            side: Width and height of its input, in pixels.
            layers: Its grids of places: the pixels between two places, and how many boxes each place may answer.
        """
        self._session = networks.session(network)
        self._outputs = network.outputs
        self._side = side
        self._places = np.concatenate([_grid(side, stride, boxes) for stride, boxes in layers])

    def look(self, image: Image.Image, window: Window | None = None) -> list[Sighting]:
        """Return the faces that may be in a window, the whole picture for None; the surest first."""
        window = window or Window(0, 0, *image.size)
        canvas, zoom, corner = _canvas(image, window, self._side)
        turned = np.ascontiguousarray(np.rot90(canvas, window.turns))
        raw, logits = self._session.run(self._outputs, {"input": turned[None]})
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0].astype(np.float64), -80, 80)))
        sure = scores > _LEAST_SCORE
        numbers = raw[0, sure].astype(np.float64).reshape(-1, 8, 2)
        numbers[:, 0] += self._places[sure]
        numbers[:, 2:] += self._places[sure, None]
        return [self._sighting(points, score, window, zoom, corner) for points, score in _merged(numbers, scores[sure])]

    def _sighting(self, points: Points, score: float, window: Window, zoom: float, corner: complex) -> Sighting:
        box, right_eye, left_eye = _unturned(points[[0, 2, 3]], self._side, window.turns)
        x, y = (box - (corner.real, corner.imag)) / zoom
        middle = complex(window.left + x, window.top + y)
        return Sighting(middle, float(points[1].max()) / zoom, angle_of(left_eye - right_eye), score)


def short_range() -> Detector:
    """Return the detector of faces from about a sixth of the window."""
    return Detector(networks.SHORT_RANGE, 128, ((8, 2), (16, 6)))


def full_range() -> Detector:
    """Return the detector of faces from about a sixteenth of the window."""
    return Detector(networks.FULL_RANGE, 192, ((4, 1),))


def _grid(side: int, stride: int, boxes: int) -> Points:
    middles = np.arange(stride / 2, side, stride)
    down, across = np.meshgrid(middles, middles, indexing="ij")
    return np.repeat(np.column_stack([across.ravel(), down.ravel()]), boxes, axis=0)


def _canvas(image: Image.Image, window: Window, side: int) -> tuple[networks.Numbers, float, complex]:
    """Return the window in the middle of a square, -1 to 1, its zoom, and where its corner lies in the square."""
    zoom = side / max(window.width, window.height)
    size = max(1, round(window.width * zoom)), max(1, round(window.height * zoom))
    whole = (window.left, window.top, window.width, window.height) == (0, 0, *image.size)
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    part = image if whole else image.crop(box)
    small = part.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    canvas = np.full((side, side, 3), -1, np.float32)
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(small, np.float32) / 127.5 - 1
    return canvas, zoom, complex(left, top)


def _unturned(points: Points, side: int, turns: int) -> Points:
    """Return points of a square that was turned by quarter turns counter-clockwise as points of the square before."""
    for _ in range(turns % 4):
        points = np.column_stack([side - points[:, 1], points[:, 0]])
    return points


def _merged(faces: Points, scores: Points) -> list[tuple[Points, float]]:
    """Return the mean of the answers that mean the same face, weighed by their scores, and the best score."""
    order = np.argsort(-scores)
    faces, scores = faces[order], scores[order]
    low, high = faces[:, 0] - faces[:, 1] / 2, faces[:, 0] + faces[:, 1] / 2
    areas = (high - low).prod(axis=1)
    merged: list[tuple[Points, float]] = []
    free = np.ones(len(faces), np.bool_)
    while free.any():
        first = int(free.argmax())
        common = np.maximum(0, np.minimum(high[first], high) - np.maximum(low[first], low)).prod(axis=1)
        same = free & (common / (areas[first] + areas - common) > _SAME_FACE)
        same[first] = True
        merged.append((np.average(faces[same], axis=0, weights=scores[same]), float(scores[first])))
        free &= ~same
    return merged
