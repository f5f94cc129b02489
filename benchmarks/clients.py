"""The interface behind which all clients are compared, this package behind it, and what its peers have in common.

All send the same parameters, sign every request, and check that the answer's code is 0. Only the floor does less:
it sends one signature for ever and does not decode answers, since nothing can cost less than it does.
"""

# ruff: noqa: D102 - an overriding method is documented where it was declared

from __future__ import annotations

import asyncio
import base64
import hmac
import importlib.util
import itertools
import json
import secrets
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

# Nothing of face_async is imported before it is measured: it would count for its peers' memory.
APPID, BUCKET, GROUP, PERSON, PERSONS = "123456", "test", "staff", "person0", 250
SECRET_ID, SECRET_KEY = "AKIDexampleSecretId", "exampleSecretKey"
PICTURE_URL = "http://pictures.example.com/2019/06/21/" + "portrait-" * 10 + ".jpg"  # makes a JSON body of 200 bytes
TIMEOUT = 120.0
IDENTIFY, ADDFACE = "/face/identify", "/face/addface"

Next = Callable[[], str | None]
Done = Callable[[float], None]
Failed = Callable[[Exception], None]


class Client(ABC):
    """One way to reach the service: with a base URL, for so many calls in flight."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    uvloop: ClassVar[bool] = False
    tells_times: ClassVar[bool] = False

    def __init__(self, base_url: str, in_flight: int) -> None:
        self.base_url = base_url
        self.in_flight = in_flight

    @classmethod
    def missing(cls) -> str:
        """Return why this client cannot be run here, empty if it can."""
        needed = [cls.needs] * bool(cls.needs) + ["uvloop"] * cls.uvloop
        return next((f"{name} is not installed" for name in needed if not importlib.util.find_spec(name)), "")

    @abstractmethod
    async def open(self) -> None:
        """Make ready."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""

    @abstractmethod
    async def ask(self, url: str) -> object:
        """Identify a picture by its URL: a small JSON call."""

    @abstractmethod
    async def upload(self, path: str) -> object:
        """Identify the picture in a file."""

    @abstractmethod
    async def add(self, path: str) -> object:
        """Add the picture in a file to a person."""

    async def work(self, kind: str, following: Next, done: Done, failed: Failed) -> None:
        """Make calls, ``in_flight`` at a time, until there are no more."""

        async def worker() -> None:
            call = getattr(self, kind)
            while (item := following()) is not None:
                started = time.perf_counter()
                try:
                    await call(item)
                    done(time.perf_counter() - started)
                except Exception as error:  # noqa: BLE001 - a peer's failures are counted
                    failed(error)

        await asyncio.gather(*(worker() for _ in range(self.in_flight)))


class FaceAsync(Client):
    """This package, over httpx."""

    name = "face_async"
    options: ClassVar[dict[str, Any]] = {}
    _added: Iterator[int]

    async def open(self) -> None:
        from face_async import Credentials, FaceSession, Throttle  # noqa: PLC0415 - see above

        # As many calls at once as its peers make: by default the bytes in flight would bound large uploads to fewer.
        throttle = Throttle(max_concurrency=self.in_flight, max_bytes_in_flight=2**30)
        options = {"timeout": TIMEOUT, "deadline": TIMEOUT, "throttle": throttle, **self.options}
        self._added = itertools.count()
        self.session = FaceSession(APPID, BUCKET, Credentials(SECRET_ID, SECRET_KEY), base_url=self.base_url, **options)

    async def aclose(self) -> None:
        await self.session.aclose()

    async def ask(self, url: str) -> object:
        return await self.session.identify(GROUP, url)

    async def upload(self, path: str) -> object:
        return await self.session.identify(GROUP, path)

    async def add(self, path: str) -> object:
        result = await self.session.add_face(PERSON, [path])
        result.raise_for_failures()
        return result

    async def work(self, kind: str, following: Next, done: Done, failed: Failed) -> None:
        """Make calls; adding goes through the bulk verb.

        Every person gets 20 pictures: in packs one after another, and otherwise, as the peers do, one a request, person
        by person in turn, since a person's requests follow one another.
        """
        if kind not in {"add", "pack"}:
            await super().work(kind, following, done, failed)
            return
        pack = kind == "pack"
        paths = zip(self._added, iter(following, None))  # noqa: B905 - the first has no end
        size = 20 * PERSONS
        pairs = ((f"person{index // size}-{index // 20 if pack else index % PERSONS}", path) for index, path in paths)
        async with self.session.add_faces(pairs, pack=pack, max_at_once=self.in_flight) as outcomes:
            async for outcome in outcomes:
                if outcome.error is None:
                    done(0.0)  # how long one of them took is not told
                else:
                    failed(outcome.error)


class FaceAsyncAsyncio(FaceAsync):
    """This package over its own connections, as it is without the extra speed."""

    name = "asyncio"
    options: ClassVar[dict[str, Any]] = {"http": "asyncio"}

    async def open(self) -> None:
        sys.modules["httptools"] = None  # type: ignore[assignment]  # as if it were not installed
        await super().open()

    async def aclose(self) -> None:
        await super().aclose()
        del sys.modules["httptools"]


class FaceAsyncSpeed(FaceAsync):
    """The same with httptools and uvloop: all of the extra speed."""

    name = "asyncio+speed"
    needs = "httptools"
    uvloop = True
    options: ClassVar[dict[str, Any]] = {"http": "asyncio"}


def signature() -> str:
    """Return the value of Authorization for one request."""
    now, nonce = int(time.time()), secrets.randbelow(1_000_000_000)
    text = f"a={APPID}&b={BUCKET}&k={SECRET_ID}&e={now + 300}&t={now}&r={nonce}&u=0&f=".encode()
    return base64.b64encode(hmac.digest(SECRET_KEY.encode(), text, "sha1") + text).decode()


def json_body(url: str) -> bytes:
    """Return the body of the small call."""
    return json.dumps({"appid": APPID, "bucket": BUCKET, "group_id": GROUP, "url": url}).encode()


def form_body(fields: dict[str, str], name: str, picture: bytes) -> tuple[str, bytes]:
    """Return a boundary, and the form written with it."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="image0.jpg"\r\nContent-Type: image/jpeg'
    head = "".join(parts) + f"--{boundary}\r\n{disposition}\r\n\r\n"
    return boundary, b"".join((head.encode(), picture, f"\r\n--{boundary}--\r\n".encode()))
