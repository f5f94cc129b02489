"""Print the lowest versions that pyproject.toml admits, as constraints for pip: ``name==version``, a line each."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(\[[\w,]+\])?([>=]=(?P<lowest>[\w.]+))?([,;].*)?")

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"].values()
requirements = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
bounds: dict[str, set[str]] = {}
for requirement in requirements:
    found = REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: .ci/lowest.py does not understand the requirement {requirement!r}")
    # Where a name stands without a version, as in anyio[trio], its bound stands elsewhere.
    bounds.setdefault(found["name"], set()).update({found["lowest"]} - {None})
del bounds[project["name"]]
for name, lowest in sorted(bounds.items()):
    if len(lowest) != 1:
        raise SystemExit(f"pyproject.toml: {name} needs one lower bound, the same wherever it stands")
    print(f"{name}=={lowest.pop()}")
