"""The memory that decoding really takes, measured in a process of its own: no more than it is held to need."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from timing import PATIENCE

from face_async.images.decoding import MAX_BYTES

MEASURE = """
import sys
from pathlib import Path
from face_async.images.decoding import decode

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

content = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes(), area=1_000)  # which imports what is needed
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
decode(content, area=1600 * 1600)
print(status("VmHWM") - before)
"""

# Bytes a pixel that the decoder needs by itself.
KINDS = {
    "transparent": ("RGBA", "PNG", {}, 4),
    "gray and transparent": ("LA", "PNG", {}, 4),
    "palette": ("P", "PNG", {"transparency": 0}, 1),
    "16 bits": ("I;16", "PNG", {}, 2),
    "progressive": ("RGB", "JPEG", {"progressive": True}, 3),
    "WebP": ("RGBA", "WEBP", {"lossless": True}, 16),
}
SCALED_BYTES = 45_000_000  # for the smaller copy that faces are found in, and whatever else


def stored(mode, side, kind, **options):
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell peaks of memory")
@pytest.mark.parametrize("name", KINDS)
def test_a_picture_takes_the_memory_of_its_pixels_and_no_copy_of_it(name, tmp_path, full):
    """With --full as many pixels as are decoded at all; the server's whole growth is then below 300 MB."""
    mode, kind, options, each = KINDS[name]
    side = int(min(0.99 * MAX_BYTES / each, 49_000_000 if full else 12_000_000) ** 0.5)
    for file, length in (("large", side), ("small", 50)):
        (tmp_path / file).write_bytes(stored(mode, length, kind, **options))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10 * PATIENCE)
    assert int(told.stdout) <= each * side**2 + SCALED_BYTES


KEEP = """
import gc, sys
from pathlib import Path
from PIL import Image
from face_async.images.decoding import UndecodableError, decode

content = Path(sys.argv[1]).read_bytes()
gc.disable()  # as garbage that leads in circles stays for a while
try:
    decode(content)
except UndecodableError as error:
    kept = error
assert kept.__traceback__ is not None
print(sum(isinstance(thing, Image.Image) for thing in gc.get_objects()))
"""

DAMAGES = {
    "broken off": lambda content: content[: len(content) // 2],
    "damaged": lambda content: content[:200] + bytes(100) + content[300:],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_error_keeps_no_picture(name, tmp_path):
    """However long somebody has it: its traceback leads to frames that had the picture."""
    file = io.BytesIO()
    Image.effect_noise((400, 400), 50).save(file, "PNG")
    (tmp_path / "picture").write_bytes(DAMAGES[name](file.getvalue()))
    command = [sys.executable, "-c", KEEP, str(tmp_path / "picture")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert told.stdout == "0\n"
