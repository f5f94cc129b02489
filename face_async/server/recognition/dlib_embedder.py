"""The program of a child process: aligned faces come in from standard input, embeddings go out to standard output.

A script that imports nothing of the package, so that it starts fast, and nothing of the program that needs it.
It ends when its input does, which is also what happens when its parent dies.
"""

import importlib
import math
import sys
from typing import Any

import numpy as np

dlib: Any = importlib.import_module("dlib")  # it has no annotations

CHIP_SHAPE = (150, 150, 3)


def main() -> None:
    """Answer each 150 x 150 RGB picture with 128 numbers of 4 bytes."""
    model = dlib.face_recognition_model_v1(sys.argv[1])
    while pixels := sys.stdin.buffer.read(math.prod(CHIP_SHAPE)):
        chip = np.frombuffer(pixels, np.uint8).reshape(CHIP_SHAPE)
        sys.stdout.buffer.write(np.array(model.compute_face_descriptor(chip), np.float32).tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
