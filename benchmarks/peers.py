"""The peers: other clients used as their documentation shows them, each a few lines."""

# ruff: noqa: D102 - an overriding method is documented where it was declared

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import time
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from clients import (
    ADDFACE,
    APPID,
    BUCKET,
    GROUP,
    IDENTIFY,
    PERSON,
    SECRET_ID,
    SECRET_KEY,
    TIMEOUT,
    Client,
    FaceAsync,
    FaceAsyncAsyncio,
    FaceAsyncSpeed,
    form_body,
    json_body,
    signature,
)
from floor import HttpcoreLanes, RawAsyncio

if TYPE_CHECKING:
    from clients import Done, Failed, Next


class Peer(Client):
    """A client that is given everything by hand: JSON or a form, signed, its answer checked."""

    async def ask(self, url: str) -> object:
        headers = {"Authorization": signature(), "Content-Type": "application/json"}
        return self.checked(await self.post_json(IDENTIFY, headers, json_body(url)))

    async def upload(self, path: str) -> object:
        fields = {"appid": APPID, "bucket": BUCKET, "group_id": GROUP}
        return self.checked(await self.post_form(IDENTIFY, {"Authorization": signature()}, fields, "image", path))

    async def add(self, path: str) -> object:
        fields = {"appid": APPID, "bucket": BUCKET, "person_id": PERSON}
        return self.checked(await self.post_form(ADDFACE, {"Authorization": signature()}, fields, "images[0]", path))

    def checked(self, content: bytes) -> object:
        """Decode an answer, which must be a good one."""
        envelope = json.loads(content)
        if envelope["code"] != 0:
            raise ValueError(f"the server refused: {envelope}")
        return envelope["data"]

    @abstractmethod
    async def post_json(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """Send a JSON body, return the answer's."""

    @abstractmethod
    async def post_form(
        self, path: str, headers: dict[str, str], fields: dict[str, str], name: str, picture: str
    ) -> bytes:
        """Send a form with the picture in a file, return the answer's body."""


class PlainHttpx(Peer):
    """httpx as its documentation shows it, with as many connections as calls in flight, kept as long as ours are.

    By default those unused for 5 seconds are given up. So under load it mends itself after some seconds, as most of its
    connections are idle most of the time: it goes on with a few of them.
    """

    name = "plain httpx"
    needs = "httpx"

    async def open(self) -> None:
        library = importlib.import_module(self.needs)
        most = self.in_flight
        limits = library.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=60.0)
        self.client = library.AsyncClient(base_url=self.base_url, limits=limits, timeout=TIMEOUT, trust_env=False)

    async def aclose(self) -> None:
        await self.client.aclose()

    async def post_json(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        return bytes((await self.client.post(path, headers=headers, content=body)).content)

    async def post_form(
        self, path: str, headers: dict[str, str], fields: dict[str, str], name: str, picture: str
    ) -> bytes:
        with open(picture, "rb") as file:  # noqa: ASYNC230, PTH123 - what everybody writes, and httpx needs it so
            files = {name: ("image0.jpg", file, "image/jpeg")}
            return bytes((await self.client.post(path, headers=headers, data=fields, files=files)).content)


class Httpx2(PlainHttpx):
    """The successor of httpx, used likewise."""

    name = "httpx2"
    needs = "httpx2"


class Aiohttp(Peer):
    """aiohttp as its documentation shows it."""

    name = "aiohttp"
    needs = "aiohttp"

    async def open(self) -> None:
        self.library = importlib.import_module("aiohttp")
        connector = self.library.TCPConnector(limit=self.in_flight)
        timeout = self.library.ClientTimeout(total=TIMEOUT)
        self.client = self.library.ClientSession(base_url=self.base_url, connector=connector, timeout=timeout)

    async def aclose(self) -> None:
        await self.client.close()

    async def post_json(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        async with self.client.post(path, headers=headers, data=body) as response:
            return bytes(await response.read())

    async def post_form(
        self, path: str, headers: dict[str, str], fields: dict[str, str], name: str, picture: str
    ) -> bytes:
        form = self.library.FormData(fields)
        with open(picture, "rb") as file:  # noqa: ASYNC230, PTH123 - as above
            form.add_field(name, file, filename="image0.jpg", content_type="image/jpeg")
            async with self.client.post(path, headers=headers, data=form) as response:
                return bytes(await response.read())


class AiohttpUvloop(Aiohttp):
    """The same on uvloop."""

    name = "aiohttp on uvloop"
    uvloop = True


class ByHand(Peer):
    """A client whose form is put together by hand, as bytes: the cheapest way that it knows."""

    async def post_form(
        self, path: str, headers: dict[str, str], fields: dict[str, str], name: str, picture: str
    ) -> bytes:
        boundary, body = form_body(fields, name, Path(picture).read_bytes())  # noqa: ASYNC240 - the cheapest way
        return await self.post_json(
            path, {**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}, body
        )


class Ry(ByHand):
    """reqwest, in Rust, by way of ry."""

    name = "ry"
    needs = "ry"

    async def open(self) -> None:
        import ry  # noqa: PLC0415 - optional

        self.client = ry.Client(timeout=ry.Duration(int(TIMEOUT)))

    async def aclose(self) -> None:
        """Do nothing: it has no end of its own."""

    async def post_json(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        response = await self.client.post(self.base_url + path, headers=headers, body=body)
        return bytes(await response.bytes())


class Wreq(ByHand):
    """Another client in Rust."""

    name = "wreq"
    needs = "wreq"

    async def open(self) -> None:
        import wreq  # noqa: PLC0415 - optional

        self.client = wreq.Client(timeout=timedelta(seconds=TIMEOUT), no_proxy=True)

    async def aclose(self) -> None:
        """Do nothing: it has no end of its own."""

    async def post_json(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        response = await self.client.post(self.base_url + path, headers=headers, body=body)
        return bytes(await response.bytes())


class Vendor(Client):
    """The vendor's own client in threads, 64 at most; it signs by itself."""

    name = "qcloud_image"
    needs = "qcloud_image"

    @classmethod
    def missing(cls) -> str:
        return super().missing() or ("" if importlib.util.find_spec("requests") else "requests is not installed")

    async def open(self) -> None:
        import qcloud_image  # noqa: PLC0415 - optional
        from qcloud_image.conf import Conf  # noqa: PLC0415

        Conf._Conf__SERVICE_ADDR = self.base_url.removeprefix("http://")  # noqa: SLF001 - it has no option for it
        self.library = qcloud_image
        self.client = qcloud_image.Client(APPID, SECRET_ID, SECRET_KEY, BUCKET)

    async def aclose(self) -> None:
        """Do nothing: it opens a connection for each call."""

    async def ask(self, url: str) -> object:
        return await asyncio.to_thread(self.in_thread, "ask", url)

    async def upload(self, path: str) -> object:
        return await asyncio.to_thread(self.in_thread, "upload", path)

    async def add(self, path: str) -> object:
        return await asyncio.to_thread(self.in_thread, "add", path)

    def in_thread(self, kind: str, item: str) -> object:
        """Make one call."""
        if kind == "ask":
            answer = self.client.face_identify(GROUP, self.library.CIUrl(item))
        elif kind == "upload":
            answer = self.client.face_identify(GROUP, self.library.CIFile(item))
        else:
            answer = self.client.face_addface(PERSON, self.library.CIFiles([item]))
        if answer["code"] != 0:
            raise ValueError(f"the server refused: {answer}")
        return answer["data"]

    async def work(self, kind: str, following: Next, done: Done, failed: Failed) -> None:
        """Make calls from threads, without asyncio."""

        def worker() -> None:
            while (item := following()) is not None:
                started = time.perf_counter()
                try:
                    self.in_thread(kind, item)
                    done(time.perf_counter() - started)
                except Exception as error:  # noqa: BLE001 - as above
                    failed(error)

        threads = min(self.in_flight, 64)
        with ThreadPoolExecutor(threads) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, worker) for _ in range(threads)))


def all_clients() -> dict[str, type[Client]]:
    """Return all clients by their names, ours first."""
    kinds: list[type[Client]] = [
        FaceAsync, FaceAsyncAsyncio, FaceAsyncSpeed, RawAsyncio, HttpcoreLanes, Aiohttp, AiohttpUvloop, Ry, Wreq,
        Httpx2, PlainHttpx, Vendor,
    ]  # fmt: skip
    return {kind.name: kind for kind in kinds}
