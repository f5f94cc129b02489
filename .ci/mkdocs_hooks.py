"""What the documentation needs to be a site, beside being read where it lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_README = Path(__file__).parents[1] / "README.md"
# Pages link to source files, and the README to the pages, by their place in the project.
_SOURCE = re.compile(r"\[([^\]]+)\]\((?:(?:\.\./|face_async/(?!docs/))[^)]*|CHANGELOG\.md|LICENSE)\)")
_PAGE = re.compile(r"\]\(face_async/docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the README the first page."""
    files.append(File.generated(config, "index.md", content=_README.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page whose links lead to pages of the site; what is no page is named without a link."""
    return _PAGE.sub("](", _SOURCE.sub(r"\1", markdown))
