"""What is measured: each workload with the calls in flight at which it is, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

KB, MB = 1000, 1_000_000
ADDED_BYTES = 60 * KB
"""The size of the pictures that are added; the server tells by it how many are in a request."""
OURS = "face_async", "face_async reqwest", "reqwest on uvloop"
ALL = (*OURS, "raw asyncio", "pyreqwest alone", "aiohttp", "aiohttp on uvloop", "httpx2", "plain httpx")
VENDOR = (*ALL, "qcloud_image")
_MOST = {"plain httpx": 256, "httpx kept": 256, "httpx2": 256, "qcloud_image": 64}
"""How many calls in flight a client is worth measuring at, where that is not all."""


@dataclass(frozen=True)
class Workload:
    """One kind of call.

    Attributes:
        name: What it is called in the tables.
        kind: The method of the clients that makes one call.
        in_flight: How many calls are under way at once, each value for itself.
        clients: Whom to measure.
        bytes: The size of the pictures, 0 for none.
        total: How many calls to make, 0 for as many as fit into the time.
        latency: Seconds that the server waits before it answers.
        slow: Whether the server reads slowly.
        seconds: How long to measure.
        limit: How long to go on when hardly any call has ended by then.
        warm_limit: How long to wait until all connections are open.
        once: Whether one round is enough.
    """

    name: str
    kind: str
    in_flight: tuple[int, ...]
    clients: tuple[str, ...] = VENDOR
    bytes: int = 0
    total: int = 0
    latency: float = 0.0
    slow: bool = False
    seconds: float = 0.8
    limit: float = 6.0
    warm_limit: float = 6.0
    once: bool = False

    def pairs(self) -> list[tuple[int, str]]:
        """Return what to measure in one round, without what is hopeless."""
        return [(n, name) for n in self.in_flight for name in self.clients if n <= _MOST.get(name, n)]


_SMALL = Workload("small JSON", "ask", (1, 16, 64, 256, 1000))
_KEPT = replace(_SMALL, clients=("httpx kept",), warm_limit=90.0, once=True)  # it takes so long to open 256 connections
_LATENCY = Workload("small JSON, 50 ms latency", "ask", (64, 256, 1000), ALL, latency=0.05, seconds=1.0)
_PICTURE = Workload("upload 100 KB", "upload", (1, 16, 64, 256), VENDOR, bytes=100 * KB)
_LARGE = Workload("upload 1.4 MB", "upload", (1, 16), VENDOR, bytes=1_400 * KB)
_BULK = Workload("bulk add, 60 KB", "add", (64,), VENDOR, bytes=ADDED_BYTES, total=5000, seconds=6.0, limit=6.0)
_PACKS = replace(_BULK, name="bulk add in packs, 60 KB", kind="pack", clients=OURS)
_SLOW = Workload(
    "slow server, 1.4 MB", "upload", (256,), (*OURS, "raw asyncio", "pyreqwest alone", "aiohttp", "httpx2"),
    bytes=1_400 * KB, total=256, slow=True, seconds=8.0, limit=8.0, once=True,
)  # fmt: skip

_NEAR = (*OURS, "raw asyncio", "aiohttp", "aiohttp on uvloop")
_BRIEF: dict[str, Any] = {"seconds": 0.35, "limit": 2.5, "warm_limit": 3.0}
SETS = {
    "full": [_SMALL, _KEPT, _LATENCY, _PICTURE, _LARGE, _BULK, _PACKS, _SLOW],
    "quick": [
        replace(_SMALL, in_flight=(16, 64, 256, 1000), clients=_NEAR, **_BRIEF),
        replace(_SMALL, in_flight=(16, 64, 256), clients=("plain httpx",), once=True, **_BRIEF),
        replace(_SMALL, in_flight=(16, 64), clients=("httpx kept",), once=True, **_BRIEF),
        replace(_SMALL, in_flight=(64,), clients=("pyreqwest alone", "httpx2", "qcloud_image"), once=True, **_BRIEF),
        replace(_LATENCY, in_flight=(256,), clients=_NEAR, **_BRIEF),
        replace(_PICTURE, in_flight=(16,), clients=_NEAR, **_BRIEF),
        replace(_PICTURE, in_flight=(16,), clients=("plain httpx", "qcloud_image"), once=True, **_BRIEF),
        replace(_LARGE, in_flight=(16,), clients=_NEAR, once=True, **_BRIEF),
        replace(_BULK, total=500, once=True, seconds=2.0, limit=2.0),
        replace(_PACKS, total=500, once=True, seconds=2.0, limit=2.0),
        replace(_SLOW, clients=(*OURS, "aiohttp"), seconds=3.5, limit=3.5),
    ],
    "smoke": [
        replace(_SMALL, in_flight=(4,), seconds=0.1, limit=1.0),
        replace(_PICTURE, in_flight=(4,), seconds=0.1, limit=1.0),
        replace(_BULK, total=20, seconds=1.0, limit=1.0),
        replace(_PACKS, total=400, seconds=1.0, limit=1.0),
    ],
}
ROUNDS = {"full": 3, "quick": 2, "smoke": 1}
IMPORTS = {"full": 15, "quick": 5, "smoke": 1}
"""How often each import is timed."""


def write_pictures(folder: Path, workload: Workload) -> list[str]:
    """Write what a workload uploads, and return the paths: one, or one for each call of a bulk."""
    if not workload.bytes:
        return []
    first = folder / f"{workload.bytes}.jpg"
    if not first.exists():
        first.write_bytes(
            b"\xff\xd8\xff\xe0" + bytes(range(256)) * (workload.bytes // 256) + bytes(workload.bytes % 256)
        )
        first.write_bytes(first.read_bytes()[: workload.bytes])
    if workload.kind not in {"add", "pack"}:
        return [str(first)]
    paths = [folder / f"{workload.bytes}-{index}.jpg" for index in range(workload.total)]
    for path in paths:
        if not path.exists():
            path.hardlink_to(first)  # files of their own to every client, without filling the disk
    return [str(path) for path in paths]
