"""``identify``."""
