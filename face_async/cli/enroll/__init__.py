"""``enroll`` and ``merge-journals``."""
