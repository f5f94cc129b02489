"""The client that compares servers: the cheapest one, with a method for each verb that they are measured by."""

# ruff: noqa: D102 - an overriding method is documented where it was declared

from __future__ import annotations

import itertools
import json
import os
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from clients import ADDFACE, APPID, BUCKET, GROUP, IDENTIFY, PERSON
from floor import RawAsyncio

PERSONS_PER_GROUP = 5_000


@cache
def picture_at(path: str) -> bytes:
    """Return the content of a file."""
    return Path(path).read_bytes()


class Calls(RawAsyncio):
    """One call each. What is called with is ``"PERSON PATH"``: a person's id, and the path of a picture.

    No picture is sent twice: a server that remembers what it has seen would not look at it again.
    """

    name: ClassVar[str] = "calls"
    tells_times = True

    async def open(self) -> None:
        await super().open()
        self._numbers = itertools.count()
        self._series = os.urandom(6).hex()

    async def hello(self, _item: str) -> object:
        return await self.json("hello")

    async def getgroupids(self, _item: str) -> object:
        return await self.json("getgroupids")

    async def getinfo(self, item: str) -> object:
        return await self.json("getinfo", person_id=item.split(maxsplit=1)[0])

    async def setinfo(self, item: str) -> object:
        return await self.json("setinfo", person_id=item.split(maxsplit=1)[0], tag=str(next(self._numbers)))

    async def verify(self, item: str) -> object:
        return await self.picture("/face/verify", "image", item, person_id=PERSON)

    async def identify(self, item: str) -> object:
        return await self.identify_in(GROUP, item)

    async def identify_in(self, group: str, item: str) -> object:
        return await self.picture(IDENTIFY, "image", item, group_id=group)

    async def addface(self, item: str) -> object:
        return await self.picture(ADDFACE, "images[0]", item, person_id=item.split(maxsplit=1)[0])

    async def newperson(self, item: str) -> object:
        number = next(self._numbers)
        return await self.newperson_in(f"{self._series}-{number // PERSONS_PER_GROUP}", item)

    async def newperson_in(self, group: str, item: str) -> object:
        fields = {"person_id": f"{self._series}-{next(self._numbers)}", "group_ids[0]": group}
        return await self.picture("/face/newperson", "image", item, **fields)

    async def json(self, verb: str, **fields: Any) -> bytes:
        body = json.dumps({"appid": APPID, "bucket": BUCKET, **fields}).encode()
        return await self.send(f"/face/{verb}", "application/json", body)

    async def picture(self, path: str, name: str, item: str, **fields: str) -> bytes:
        content = picture_at(item.split(maxsplit=1)[1]) + f"{self._series}{next(self._numbers)}".encode()
        return await self.send_form(path, {"appid": APPID, "bucket": BUCKET, **fields}, name, content)
