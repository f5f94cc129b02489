"""Files to run the server with: in a container, beside PostgreSQL, as a service of systemd."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEPLOYMENT_FILES = ("Dockerfile", "compose.yaml", "face-async.service")
WHEELS = "wheels"
"""The folder from which the Dockerfile takes this package, where its wheel is there."""


def write_deployment_files(folder: Path) -> list[Path]:
    """Write the files into a folder, which is made if it is missing, and return their paths.

    Raises:
        FileExistsError: One of them is there already; nothing was written.
        OSError: The folder cannot be written.
    """
    paths = [folder / name for name in DEPLOYMENT_FILES]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} exists already: name another folder, or remove it first")
    (folder / WHEELS).mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_bytes(files(__name__).joinpath(path.name).read_bytes())
    return paths
