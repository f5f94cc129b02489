"""The floor: asyncio without any library. Whatever a client costs above this is its own."""

# ruff: noqa: D102 - an overriding method is documented where it was declared

from __future__ import annotations

import asyncio
import os
from typing import cast
from urllib.parse import urlsplit

from clients import ADDFACE, APPID, BUCKET, GROUP, IDENTIFY, PERSON, Client, form_body, json_body, signature


class Connection(asyncio.Protocol):
    """One connection that sends prepared bytes and waits for a whole answer."""

    def __init__(self) -> None:
        self._pieces = b""
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces = self._pieces + data if self._pieces else data
        head = self._pieces.find(b"\r\n\r\n")
        if head < 0 or self._answered is None:
            return
        at = self._pieces.lower().index(b"content-length:") + 15
        if len(self._pieces) >= head + 4 + int(self._pieces[at : self._pieces.index(b"\r", at)]):
            answer, self._pieces = self._pieces, b""
            if not self._answered.done():
                self._answered.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("the server closed the connection"))

    def exchange(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future is its answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class RawAsyncio(Client):
    """Prepared requests over connections that are kept, a file read in one step, nothing decoded."""

    name = "raw asyncio"

    async def open(self) -> None:
        parts = urlsplit(self.base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._common = (
            f"Host: {parts.netloc}\r\nUser-Agent: floor\r\nAccept: application/json\r\nAuthorization: {signature()}\r\n"
        )
        self._idle: list[Connection] = []

    async def aclose(self) -> None:
        for connection in self._idle:
            connection.close()

    async def ask(self, url: str) -> object:
        return await self._send(IDENTIFY, "application/json", json_body(url))

    async def upload(self, path: str) -> object:
        fields = {"appid": APPID, "bucket": BUCKET, "group_id": GROUP}
        return await self._send_picture(IDENTIFY, fields, "image", path)

    async def add(self, path: str) -> object:
        fields = {"appid": APPID, "bucket": BUCKET, "person_id": PERSON}
        return await self._send_picture(ADDFACE, fields, "images[0]", path)

    async def _send_picture(self, path: str, fields: dict[str, str], name: str, picture: str) -> bytes:
        file = os.open(picture, os.O_RDONLY)
        try:
            content = os.read(file, 1 << 24)
        finally:
            os.close(file)
        boundary, body = form_body(fields, name, content)
        return await self._send(path, f"multipart/form-data; boundary={boundary}", body)

    async def _send(self, path: str, content_type: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\n{self._common}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        answer = await connection.exchange(head.encode() + body)
        if not answer.startswith(b"HTTP/1.1 200") or b'"code": 0' not in answer.replace(b'":0', b'": 0'):
            raise ValueError(f"the server refused: {answer!r}")
        self._idle.append(connection)
        return answer
