"""What tells faces apart: 128 numbers of length 1, from the face turned upright and brought to one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from face_async.server.recognition import networks
from face_async.server.recognition.geometry import Points, Similarity
from face_async.server.recognition.mesh import MOUTH_LEFT, MOUTH_RIGHT, NOSE_TIP, Mesh

if TYPE_CHECKING:
    from PIL import Image

_PIXELS = 112

# Where the network expects right eye, left eye, tip of the nose, and the mouth's corners, in pixels.
_PLACES: Points = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
                            [41.5493, 92.3655], [70.7299, 92.2041]])  # fmt: skip


def aligned(image: Image.Image, mesh: Mesh) -> Image.Image:
    """Return the face as the network expects it, 112 pixels each way."""
    points = np.concatenate([mesh.eyes, mesh.points[[NOSE_TIP, MOUTH_RIGHT, MOUTH_LEFT], :2]])
    return Similarity.fit(_PLACES, points).cut(image, _PIXELS)


class Embedder:
    """The network that tells faces apart."""

    def __init__(self) -> None:
        self._session = networks.session(networks.EMBEDDING)

    def run(self, face: Image.Image) -> tuple[networks.Numbers, networks.Numbers]:
        """Return an aligned face's embedding, and the network's inner layer: 128 channels of 14 x 14 places."""
        blue_first = np.asarray(face, np.float32)[:, :, ::-1]
        pixels = np.ascontiguousarray(((blue_first - 127.5) / 128).transpose(2, 0, 1), np.float32)
        embedding, inner = self._session.run(networks.EMBEDDING.outputs, {"input": pixels[None]})
        return embedding[0], inner[0]
