"""Print the lowest version of everything that pyproject.toml asks for, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
lowest: dict[str, set[str]] = {}
for requirement in asked:
    name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(?:[>=]=([\w.]+))?(?:[,;].*)?", requirement).groups()
    lowest.setdefault(name, set()).update({bound} - {None})
for name, bounds in sorted(lowest.items()):
    if name == project["name"]:
        continue
    if len(bounds) != 1:
        raise SystemExit(f"pyproject.toml must give {name} one lower bound, not {len(bounds)}")
    print(f"{name}=={bounds.pop()}")
