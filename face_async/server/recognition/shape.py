"""The 88 points of a face that the endpoint shape answers, chosen from the mesh's 468.

Which point stands where in its part is documented nowhere but in how many there are; here every part runs from the
picture's left to its right: contours begin at their left end and go round by the upper side.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face_async.images.decoding import DecodedPicture
    from face_async.server.recognition.mesh import Mesh

# Left and right are the picture's: those of a person who looks into the camera are the other way round.
PARTS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "face_profile": (
            *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148),
            152,  # the chin
            *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454),
        ),
        "left_eye": (33, 160, 159, 158, 133, 153, 145, 144),
        "right_eye": (362, 385, 386, 387, 263, 373, 374, 380),
        "left_eyebrow": (70, 63, 105, 66, 107, 65, 52, 53),
        "right_eyebrow": (336, 296, 334, 293, 300, 283, 282, 295),
        "mouth": (
            *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # around the lips
            *(78, 81, 82, 13, 312, 311, 308, 402, 14, 178),  # where they meet
        ),
        "nose": (168, 6, 195, 4, 198, 129, 98, 97, 2, 326, 327, 358, 420),  # down the bridge, then along the nostrils
    }
)
"""The mesh's points of each part, by the endpoint's names."""


def points_of(picture: DecodedPicture, mesh: Mesh) -> dict[str, list[tuple[int, int]]]:
    """Return the points of each part, x and y in pixels of the picture as sent; those outside lie on its edge."""
    zoom = picture.width / picture.image.width
    flat = np.clip(np.rint(mesh.points[:, :2] * zoom), 0, [picture.width - 1, picture.height - 1]).astype(int)
    return {part: [(int(x), int(y)) for x, y in flat[list(places)]] for part, places in PARTS.items()}
