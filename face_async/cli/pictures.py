"""Pictures that a demo shows and sends, and smaller copies of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

Picture: TypeAlias = bytes | Path


def smaller_copy(picture: Picture, longest_side: int) -> bytes | None:
    """Return an upright JPEG of at most ``longest_side`` pixels either way, None when the picture cannot be read.

    The copy leaves behind what cameras write beside the picture: where, when and with what it was taken.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - slow to import, and only demos need it

    try:
        with Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture)) as original:
            copy = ImageOps.exif_transpose(original).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    copy.thumbnail((longest_side, longest_side))
    jpeg = io.BytesIO()
    copy.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()
