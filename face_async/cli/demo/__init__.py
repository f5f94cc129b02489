"""``demo`` and ``draw``."""
