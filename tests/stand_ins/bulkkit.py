"""What the tests of bulk runs share: work that goes on when it is let, and a service whose lists can be held."""

from __future__ import annotations

import itertools

import anyio
import anyio.lowlevel
import pytest

from face_async.bulk.ledger import Key
from face_async.endpoints import FaceApi
from face_async.errors import service_error

ADA = Key("faces", "ada")


class Service(FaceApi):
    """A service that keeps names, answers the three lists, and notes who asked; it answers when it is let."""

    def __init__(self, *, faces=(), **groups):
        self.faces = {"ada": list(faces)}
        self.groups = {group: list(persons) for group, persons in groups.items()}
        self.asked = []
        self.failures = []
        self.open = anyio.Event()
        self.open.set()
        self._ids = itertools.count()

    async def _call(self, endpoint, fields, images=None):
        self.asked.append(" ".join([endpoint.name, *fields.values()]))
        await anyio.lowlevel.checkpoint()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        known = {"getfaceids": self.faces, "getpersonids": self.groups, "getgroupids": {None: tuple(self.groups)}}
        missing = {"getfaceids": -1303, "getpersonids": -1306}
        try:
            return tuple(known[endpoint.name][next(iter(fields.values()), None)])
        except KeyError:
            raise service_error(missing[endpoint.name], endpoint=endpoint.name) from None

    def shut(self):
        self.open = anyio.Event()

    def add(self, count=1, person="ada"):
        """Add faces, and return their ids."""
        new = [f"face{next(self._ids)}" for _ in range(count)]
        self.faces[person] += new
        return new

    def join(self, groups):
        """Put a new person into groups."""
        name = f"person{next(self._ids)}"
        for group in groups:
            self.groups.setdefault(group, []).append(name)


async def settled():
    """Let all tasks go on as far as they get without the outside world."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


def is_unused(ledger):
    """Whether nothing is reserved, nobody waits, and no key is taken for used."""
    return repr(ledger).endswith(" 0 in use, 0 reserved, 0 waiting>")


class Gate:
    """A call that ends, one item at a time, only when the test says so."""

    def __init__(self):
        self.running = []
        self.ended = []
        self._events = {}

    async def __call__(self, item):
        self.running.append(item)
        event = self._events.setdefault(item, anyio.Event())
        try:
            await event.wait()
        finally:
            self.running.remove(item)
            self.ended.append(item)
        return item

    def release(self, item):
        self._events.setdefault(item, anyio.Event()).set()


async def double(item):
    """Return twice the item, some time later."""
    await anyio.lowlevel.checkpoint()
    return 2 * item


def both_kinds(make):
    """Run a test with a generator and with an asynchronous one."""

    async def later(items):
        for item in items:
            await anyio.lowlevel.checkpoint()
            yield item

    return [pytest.param(make, id="sync"), pytest.param(lambda *args: later(make(*args)), id="async")]
