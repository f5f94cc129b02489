"""What this process may use of the machine: memory and processors, as its container has them; read once."""

from __future__ import annotations

import contextlib
import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/")


@cache
def memory_limit(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process may use: the least of its control groups' limits and the machine's.

    Args:
        root: The folder under which ``proc`` and ``sys`` are looked for.
    """
    limits = [_machine_memory()]
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((folder / name).read_text()))
    return min(limits)


@cache
def processors(root: Path = _ROOT) -> int:
    """Return how many processors this process may keep busy, at least 1: a part of one counts as one.

    Args:
        root: The folder under which ``proc`` and ``sys`` are looked for.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for folder in _control_groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            limits.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # -1: no limit
                limits.append(int(quota) / int(period))
    return max(1, math.ceil(min(limits)))


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 4 * 1024**3  # a system that does not say, such as Windows


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    # Limits hold for a group and all below it. A container may see its own group as the root whatever its path is.
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root / "sys" / "fs" / "cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys" / "fs" / "cgroup" / controller
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from (mount / part for part in (group, *group.parents))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.count(":") >= 2]  # noqa: PLR2004 - three fields
    except OSError:
        return []
