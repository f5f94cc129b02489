"""Claims in object storage: only the holder of one may work on something, until it is released or has lapsed."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from typing import TYPE_CHECKING, Literal, TypeAlias
from uuid import uuid4

from face_async.fleet.layout import reporting_damage
from face_async.ingest.objects import ObjectStorageError

if TYPE_CHECKING:
    from face_async.ingest.objects import ObjectFolder, Version

LEASE = 30.0  # seconds without a sign of life after which a claim may be taken over
_TRUSTED = 0.6  # of these, the share for which its holder goes on: what is under way needs time to end
_RENEWALS = 6  # in that time
_ENDING = 5.0

Former: TypeAlias = Literal["nobody", "released", "lapsed"]
"""Whose a claim was before: nobody's, of one who has released it, or of one who is not heard of any more."""


class Claim:
    """A claim, which is an object that its holder replaces every few seconds; all methods block.

    It is made by a conditional put, and renewed and taken over by another one, each for the version that was read: of
    any number who try at the same time one succeeds. No clocks are compared: who waits for a claim to lapse measures
    for how long its object stays the same.

    Args:
        folder: The state that it is in.
        name: Its object.

    Attributes:
        note: What its holder tells the next one; after :meth:`take` what the former one has told.
    """

    def __init__(self, folder: ObjectFolder, name: str) -> None:
        self.note = ""
        self._folder = folder
        self._name = name
        self._owner = f"{platform.node()}:{os.getpid()}:{uuid4().hex}"
        self._beat = 0
        self._version: Version = {}
        self._trusted_until = 0.0
        self._watched: tuple[Version, float] | None = None
        self._other = ""
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    @property
    def other(self) -> str:
        """The host and the process id of the holder, once it was seen to be alive; "" before."""
        return self._other

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have it."""
        return time.monotonic() < self._trusted_until

    def take(self) -> Former | None:
        """Take the claim and begin to renew it; return whose it was, None while it may be another's.

        Raises:
            StateError: What the other one has left is damaged.
            ObjectStorageError: The storage cannot be used.
        """
        began = time.monotonic()
        found = self._folder.get_version(self._name)
        former: Former = "nobody"
        if found is None:
            version = self._folder.create(self._name, self._content())
        else:
            with reporting_damage(self._folder.url, self._name):
                other = json.loads(found[0])
                former = "released" if other["released"] else "lapsed"
                if former == "lapsed" and not self._lapsed(found[1], other):
                    return None
                self.note = str(other["note"])
            version = self._folder.replace(self._name, self._content(), found[1])
        if version is None:
            return None
        self._renewed(version, began)
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, args=(self._ended,), daemon=True)
        self._renewing.start()
        return former

    def release(self) -> None:
        """Give the claim back, with its note."""
        if self._stop_renewing() and self.is_held:
            self._folder.replace(self._name, self._content(released=True), self._version)
        self._trusted_until = 0.0

    def abandon(self) -> None:
        """Let the claim lapse, as if its holder had died."""
        self._stop_renewing()
        self._trusted_until = 0.0

    def _stop_renewing(self) -> bool:
        self._ended.set()
        if self._renewing is None:
            return False
        self._renewing.join(_ENDING)
        return not self._renewing.is_alive()

    def _lapsed(self, version: Version, other: dict[str, object]) -> bool:
        now = time.monotonic()
        if self._watched is None or self._watched[0] != version:
            if self._watched is not None:
                self._other = str(other["owner"]).rpartition(":")[0]
            self._watched = version, now
        return now - self._watched[1] >= float(str(other["seconds"]))

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(LEASE * _TRUSTED / _RENEWALS):
            began = time.monotonic()
            try:
                version = self._folder.replace(self._name, self._content(), self._version)
            except ObjectStorageError:  # which may pass before the claim lapses
                continue
            if version is None:
                self._trusted_until = 0.0
                return
            self._renewed(version, began)

    def _renewed(self, version: Version, began: float) -> None:
        self._version = version
        self._trusted_until = began + LEASE * _TRUSTED

    def _content(self, *, released: bool = False) -> bytes:
        self._beat += 1  # so that no two versions are the same
        content = {"owner": self._owner, "beat": self._beat, "seconds": LEASE, "released": released, "note": self.note}
        return json.dumps(content).encode()
