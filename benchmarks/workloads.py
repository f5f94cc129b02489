"""What is measured: each workload with its clients, its calls in flight, and in how many slices of what length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KB = 1000
ADDED_BYTES = 60 * KB
"""The size of the pictures that are added; the server tells by it how many are in a request."""
OURS = "face_async", "asyncio", "asyncio+speed"
NEAR = (*OURS, "aiohttp", "raw asyncio", "httpcore alone")
PEERS = (*NEAR, "aiohttp on uvloop", "ry", "wreq", "httpx2", "qcloud_image")


@dataclass(frozen=True)
class Workload:
    """One kind of call.

    Attributes:
        name: What it is called in the tables.
        kind: The method of the clients that makes one call.
        in_flight: How many calls are under way at once, each value for itself.
        clients: Whom to compare.
        slices: How often each client has its turn, pinned and unpinned.
        seconds: How long a slice begins calls for, half as many again as are in flight at least; those under way are
            finished, and count.
        calls: How many calls a slice has at most, 0 for no limit.
        bytes: The size of the pictures, 0 for none.
        latency: Seconds that the server waits before it answers.
        slow: Whether the server reads slowly.
    """

    name: str
    kind: str
    in_flight: tuple[int, ...]
    clients: tuple[str, ...]
    slices: int = 10
    seconds: float = 0.05
    calls: int = 0
    bytes: int = 0
    latency: float = 0.0
    slow: bool = False


SMALL, LATENCY, UPLOAD = "small JSON", "small JSON, 50 ms latency", "upload 100 KB"
BULK, PACKS, SLOW = "bulk add, 60 KB", "bulk add in packs, 60 KB", "slow server, 1.4 MB"

_SMALL = Workload(SMALL, "ask", (16, 64, 256), NEAR)
_MANY = replace(_SMALL, in_flight=(1000,), slices=4)
_CROWD = replace(_SMALL, in_flight=(4000,), clients=(*OURS, "aiohttp", "httpcore alone"), slices=2)
_KEPT = replace(_SMALL, in_flight=(16,), clients=("face_async", "plain httpx"), slices=3, seconds=0.1)
_UPLOAD = Workload(UPLOAD, "upload", (16, 64), NEAR, bytes=100 * KB)
_BULK = Workload(BULK, "add", (64,), (*OURS, "qcloud_image"), slices=4, seconds=0.3, bytes=ADDED_BYTES)
_LATENCY = Workload(LATENCY, "ask", (256,), (*OURS, "aiohttp"), slices=4, seconds=0.3, latency=0.05)
_SLOW = Workload(SLOW, "upload", (256,), OURS, slices=1, seconds=60, calls=256, bytes=1_400 * KB, slow=True)

SETS = {
    "full": [
        replace(_SMALL, in_flight=(1, 16, 64, 256), clients=PEERS, slices=20),
        replace(_MANY, clients=PEERS, slices=8),
        replace(_CROWD, slices=5),
        replace(_KEPT, in_flight=(16, 64), slices=5),
        replace(_KEPT, in_flight=(256,), slices=1),
        replace(_UPLOAD, clients=PEERS, slices=20),
        replace(_BULK, slices=15),
        replace(_BULK, name=PACKS, kind="pack", slices=15),
        replace(_LATENCY, clients=PEERS, slices=15),
        _SLOW,
    ],
    "quick": [_SMALL, _MANY, _CROWD, _KEPT, _UPLOAD, _BULK, _LATENCY, _SLOW],
    "smoke": [
        replace(_SMALL, in_flight=(4,), slices=1),
        replace(_UPLOAD, in_flight=(4,), slices=1),
        replace(_BULK, slices=1, seconds=0.1),
        replace(_BULK, name=PACKS, kind="pack", slices=1, seconds=0.1),
    ],
}
IMPORTS = {"full": 25, "quick": 10, "smoke": 1}
"""How often each import is timed."""
OVERHEAD = {"full": 25, "quick": 10, "smoke": 1}
"""In how many slices what this package costs by itself is measured."""


def write_pictures(folder: Path, workload: Workload) -> list[str]:
    """Write what a workload uploads, and return the paths: one, or a thousand for a bulk."""
    if not workload.bytes:
        return []
    first = folder / f"{workload.bytes}.jpg"
    if not first.exists():
        content = b"\xff\xd8\xff\xe0" + bytes(range(256)) * (workload.bytes // 256 + 1)
        first.write_bytes(content[: workload.bytes])
    if workload.kind not in {"add", "pack"}:
        return [str(first)]
    paths = [folder / f"{workload.bytes}-{index}.jpg" for index in range(1000)]
    for path in paths:
        if not path.exists():
            path.hardlink_to(first)  # files of their own to every client, without filling the disk
    return [str(path) for path in paths]
