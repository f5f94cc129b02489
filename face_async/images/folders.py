"""Folders of pictures: what in them is a picture, and what systems and programs leave behind there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import define, field

from face_async.errors import ImageRefusedError, printable
from face_async.images import KINDS, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

_LITTER = frozenset(
    {
        # Synology, QNAP and other network storage
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@__thumb", "lost+found"),
        # Windows
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"),
        *("desktop.ini", "picasa.ini"),
        # Mac; all others that it leaves begin with a dot
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        # Programs that show pictures
        *("thumbnails", "thumbs", "_thumbs"),
    }
)
_LITTER_BEGINS = (".", "~$", "synofile_thumb", "synophoto_thumb")
_LITTER_ENDS = (".lrdata", ".tmp", ".part", ".partial", ".crdownload")
_SIDE_STREAMS = (":zone.identifier", ":afp_afpinfo", ":afp_resource", ":com.dropbox.", ":encryptable", ":smarttag")
_EXAMPLES = 3  # that are named


def is_litter(name: str) -> bool:
    """Return whether a file or folder is none of the user's by its name: hidden, or left by a system or a program.

    So thumbnails, deleted files and what a download has not finished are nobody's pictures.
    """
    lower = name.lower()
    return (
        lower in _LITTER
        or lower.startswith(_LITTER_BEGINS)
        or lower.endswith(_LITTER_ENDS)
        or any(stream in lower for stream in _SIDE_STREAMS)
    )


def names_in(folder: str | os.PathLike[str], pass_over: Callable[[str], object] | None = None) -> list[str]:
    """Return the names in a folder in their order, without litter; ``pass_over`` is called with the paths of that.

    Raises:
        OSError: The folder cannot be read.
    """
    # One folder's names are all that is ever held; a million of them are some 70 MB.
    names: list[str] = []
    for name in os.listdir(folder):  # noqa: PTH208 - names alone
        if not is_litter(name):
            names.append(name)
        elif pass_over is not None:
            pass_over(os.path.join(folder, name))  # noqa: PTH118 - a str is wanted
    names.sort()
    return names


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a picture by its first bytes, whatever its name. It blocks.

    One that is empty or cannot be read counts as a picture: whoever reads it reports why.
    """
    picture = Picture(path)
    try:
        picture.look(keep_up_to=0)
    except ImageRefusedError:
        return True
    return picture.is_known or not picture.size


@define
class PassedOver:
    """Counts what in folders is no picture.

    Attributes:
        litter: Files and folders that systems and programs have left there.
        others: Files that are no pictures.
    """

    litter: int = 0
    others: int = 0
    _examples: list[str] = field(factory=list[str], init=False)

    def count_litter(self, path: str) -> None:
        """Count a file or folder that a system or a program has left."""
        del path
        self.litter += 1

    def count_other(self, path: str) -> None:
        """Count a file that is no picture."""
        self.others += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(printable(path))

    def include(self, other: PassedOver) -> None:
        """Count what another one has counted, too."""
        self.litter += other.litter
        self.others += other.others
        self._examples = [*self._examples, *other._examples][:_EXAMPLES]

    def __str__(self) -> str:
        more = ", …" if self.others > len(self._examples) else ""
        said = (
            f"no {KINDS}: {self.others:,} ({', '.join(self._examples)}{more})" if self.others else "",
            f"left behind by systems and programs: {self.litter:,}" if self.litter else "",
        )
        return "; ".join(filter(None, said))
