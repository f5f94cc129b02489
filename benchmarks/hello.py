"""The least that a server on the same stack can do: Starlette on uvicorn, which answers every call with code 0."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request


async def hello(request: Request) -> JSONResponse:
    """Take a request and answer it."""
    await request.body()
    return JSONResponse({"code": 0, "message": "OK", "data": {}})


def main() -> None:
    """Serve on a free port, which is printed as ``face-async serve`` does."""
    app = Starlette(routes=[Route("/face/{verb}", hello, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as servers do, or answers wait for 40 ms
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, timeout_keep_alive=75)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
