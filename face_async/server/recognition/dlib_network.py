"""Real recognition with dlib: HOG detection, five landmarks, and 128 numbers a face from a residual network.

Measured on 2 cores, a picture scaled to 800 pixels: detection takes a third of the time, embedding two thirds.
Two facts shape this module. Detection lets other threads run, but a detector shared by threads corrupts memory.
Embedding holds the GIL throughout, which would freeze the server's event loop for as long as it lasts. So every
picture under way has a lane: a detector in this process, and the network in a child process. With two pictures
at once that is 1.7 times as fast as threads alone; one at a time, it costs nothing.

The children are plain subprocesses and no ``multiprocessing``, which would run the caller's main module again in
each of them. They live outside the terminal's process group, so Ctrl-C reaches this process only.
"""

from __future__ import annotations

import cmath
import contextlib
import importlib
import importlib.util
import math
import subprocess
import sys
import weakref
from functools import cache, cached_property
from pathlib import Path
from queue import LifoQueue
from typing import IO, TYPE_CHECKING, Protocol, cast

import numpy as np

from face_async.errors import ReturnCode
from face_async.images import processors
from face_async.server.recognition.face import Face, decode, distances
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from PIL import Image

    from face_async.server.recognition.face import Picture

    Pixels = npt.NDArray[np.uint8]
    Embedding = npt.NDArray[np.float32]

_NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
_LONGEST_SIDE = 1600  # pixels, of the picture that faces are cut from
_FIRST_LOOK = 800  # pixels; finds faces from a tenth of the picture on, four times as fast as the closer look
_NOSE_DEPTH = 0.45  # how far the nose stands out before the eyes, in distances between the eyes
_EMBEDDING_BYTES = 128 * 4
_MAX_LANES = 8  # each takes about 60 MB once it is used


def is_installed() -> bool:
    """Return whether dlib and its models are there."""
    return importlib.util.find_spec("dlib") is not None and _model(_NETWORK).is_file()


class DlibRecognizer:
    """Tells real faces apart; published accuracy 99.38 % on Labeled Faces in the Wild.

    Gender, age, expression, glasses and pitch are not measured. Detector and network are loaded when they are
    first needed, about half a second.
    """

    name = "dlib"
    is_euclidean = True

    def __init__(self) -> None:
        self._lanes = [_Lane() for _ in range(min(processors(), _MAX_LANES))]
        self._idle: LifoQueue[_Lane] = LifoQueue()  # last in, first out: no more lanes are opened than are used
        for lane in self._lanes:
            self._idle.put(lane)
        weakref.finalize(self, _stop_all, self._lanes)

    def find_face(self, picture: bytes) -> Face:
        """Return the largest face.

        Raises:
            Refusal: -1101 when there is none, -1103 when the network's process fails twice, or as
                :func:`~face_async.server.recognition.face.decode`.
        """
        decoded = decode(picture, longest_side=_LONGEST_SIDE)
        lane = self._idle.get()
        try:
            return lane.find_face(decoded)
        finally:
            self._idle.put(lane)

    def similarities(self, probe: Embedding, gallery: Embedding) -> npt.NDArray[np.float64]:
        """Return 100 at distance 0, 75 at the published threshold 0.6, 0 from 1.2, on straight lines between."""
        return np.interp(distances(probe, gallery), (0.0, 0.6, 1.2), (100.0, 75.0, 0.0))

    def close(self) -> None:
        """End the child processes once the pictures under way are done; the next picture starts them anew."""
        mine = [self._idle.get() for _ in self._lanes]
        _stop_all(mine)
        for lane in mine:
            self._idle.put(lane)


class _Lane:
    """What looks at one picture at a time."""

    def __init__(self) -> None:
        self._embedder = _Embedder()

    def find_face(self, picture: Picture) -> Face:
        self._embedder.start()  # it loads its network while this process looks for the face
        image = picture.image
        box = self._largest(image)
        pixels = np.asarray(image)
        shape = _predictor()(pixels, box)
        embedding = self._embedder.embed(_library().get_face_chip(pixels, shape))
        zoom = picture.width / image.width
        left, right = (round(min(max(edge, 0), image.width) * zoom) for edge in (box.left(), box.right() + 1))
        top, bottom = (round(min(max(edge, 0), image.height) * zoom) for edge in (box.top(), box.bottom() + 1))
        roll, yaw = _pose([complex(point.x, point.y) for point in shape.parts()])
        return Face(left, top, float(right - left), float(bottom - top), roll=roll, yaw=yaw, embedding=embedding)

    def stop(self) -> None:
        self._embedder.stop()

    def _largest(self, image: Image.Image) -> _Rectangle:
        zoom = min(1.0, _FIRST_LOOK / max(image.size))
        for closer in (zoom, 2 * zoom):
            size = max(1, round(image.width * closer)), max(1, round(image.height * closer))
            found = self._detector(np.asarray(image.resize(size) if size != image.size else image))
            if found:
                best = max(found, key=lambda box: box.area())
                edges = (best.left(), best.top(), best.right(), best.bottom())
                return _library().rectangle(*(round(edge / closer) for edge in edges))
        raise Refusal(ReturnCode.SDK_IMAGE_FACEDETECT_FAILED)

    @cached_property
    def _detector(self) -> _Detector:
        return _library().get_frontal_face_detector()


class _Embedder:
    """The network in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            program = Path(__file__).with_name("dlib_embedder.py")
            # -P: the modules beside the program are no top-level modules.
            command = [sys.executable, "-P", str(program), str(_model(_NETWORK))]
            self._process = subprocess.Popen(  # noqa: S603 - our own program, our own interpreter
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        return self._process

    def embed(self, chip: Pixels) -> Embedding:
        for _ in range(2):  # once more in a new process, if someone has killed the old one
            process = self.start()
            chips, embeddings = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
            with contextlib.suppress(OSError):
                chips.write(chip.tobytes())
                chips.flush()
                answer = embeddings.read(_EMBEDDING_BYTES)
                if len(answer) == _EMBEDDING_BYTES:
                    return np.frombuffer(answer, np.float32)
            self.stop()
        raise Refusal(ReturnCode.SDK_FEAT_PROCESSFAILED)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError), process:  # what it never read cannot be flushed
                pass


def _stop_all(lanes: Iterable[_Lane]) -> None:
    for lane in lanes:
        lane.stop()


def _pose(landmarks: Sequence[complex]) -> tuple[int, int]:
    """Return roll and yaw in degrees, from points of the picture as complex numbers."""
    right_eye, left_eye = sum(landmarks[0:2]) / 2, sum(landmarks[2:4]) / 2  # as they lie in the picture
    between = right_eye - left_eye
    if not between:
        return 0, 0
    aside = ((landmarks[4] - (left_eye + right_eye) / 2) / between).real
    yaw = math.degrees(math.atan(aside / _NOSE_DEPTH))
    return round(math.degrees(cmath.phase(between))), round(min(max(yaw, -30), 30))


def _model(name: str) -> Path:
    # The package itself cannot be imported where setuptools is absent: it needs pkg_resources.
    package = importlib.util.find_spec("face_recognition_models")
    folders = (package and package.submodule_search_locations) or [""]
    return Path(folders[0], "models", name)


@cache
def _predictor() -> _Predictor:
    """Where eyes and nose are; unlike a detector, it may be shared by threads."""
    return _library().shape_predictor(str(_model(_LANDMARKS)))


@cache
def _library() -> _Dlib:
    return cast("_Dlib", importlib.import_module("dlib"))


# dlib has no annotations; these are the parts of it that are used here.


class _Rectangle(Protocol):
    def left(self) -> int: ...
    def top(self) -> int: ...
    def right(self) -> int: ...
    def bottom(self) -> int: ...
    def area(self) -> int: ...


class _Point(Protocol):
    x: int
    y: int


class _Shape(Protocol):
    def parts(self) -> Iterable[_Point]: ...


class _Detector(Protocol):
    def __call__(self, pixels: Pixels, /) -> Sequence[_Rectangle]: ...


class _Predictor(Protocol):
    def __call__(self, pixels: Pixels, box: _Rectangle, /) -> _Shape: ...


class _Dlib(Protocol):
    def get_frontal_face_detector(self) -> _Detector: ...
    def shape_predictor(self, path: str, /) -> _Predictor: ...
    def rectangle(self, left: int, top: int, right: int, bottom: int, /) -> _Rectangle: ...
    def get_face_chip(self, pixels: Pixels, shape: _Shape, /) -> Pixels: ...
