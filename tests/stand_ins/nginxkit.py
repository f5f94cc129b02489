"""Debian's nginx before a server, as a process of its own that leaves nothing behind; it needs no rights.

A test that asks for the fixture is marked ``@pytest.mark.external("nginx")``, and its module imports
``nginx_for_tests``, whatever its name::

    nginx = start_nginx(server.url, "keepalive_requests 3;")
    ...                                 # talk to nginx.url
    nginx.stop()
    nginx.requests                      # what was answered, and on which connections
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from timing import PATIENCE

CONFIGURATION = """
daemon off;
{user}
pid nginx.pid;
worker_shutdown_timeout 1s;
events {{}}
http {{
    log_format told '$connection $status $request_length';
    access_log access.log told;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    {http}
    server {{
        listen {address}{tls};
        {server}
        location / {{
            proxy_pass {upstream};
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""
"""As Debian's own where nothing else is said; paths are below the process's folder."""


@dataclass(frozen=True)
class Served:
    """A request that nginx has answered.

    Attributes:
        connection: The number of the client's connection; connections to the upstream are counted with them.
        status: The status of the answer; 499 if the client did not wait for one.
        length: How many bytes of the request were read, the head included.
    """

    connection: int
    status: int
    length: int


class Nginx:
    """A process of nginx, from its creation until :meth:`stop`, or for a ``with`` block.

    Args:
        folder: An empty folder for its files.
        upstream: The base URL of the server behind it.
        directives: Directives for its one server, such as ``"client_max_body_size 2m;"``.
        http: Directives that must stand outside a server, such as ``"limit_req_zone ...;"``.
        tls: A file with a certificate and its key, to speak https.

    Attributes:
        url: Its base URL.
    """

    def __init__(self, folder: Path, upstream: str, *directives: str, http: str = "", tls: Path | None = None) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # It is handed over listening: no other process can take the port, and nobody has to wait for the start.
            address = "{}:{}".format(*listener.getsockname())
            self.url = f"{'http' if tls is None else 'https'}://{address}"
            if tls is not None:
                directives += (f"ssl_certificate {tls};", f"ssl_certificate_key {tls};")
            (folder / "nginx.conf").write_text(
                CONFIGURATION.format(
                    user="user root;" if os.geteuid() == 0 else "",  # for folders that only their owner may enter
                    address=address,
                    tls="" if tls is None else " ssl",
                    upstream=upstream,
                    server="\n        ".join(directives),
                    http=http,
                ),
                "utf-8",
            )
            command = ["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
            checked = subprocess.run([*command, "-t", "-q"], capture_output=True, check=False, timeout=PATIENCE)
            assert checked.returncode == 0, (folder / "error.log").read_text("utf-8")
            self._process = subprocess.Popen(
                command, pass_fds=[listener.fileno()], env={**os.environ, "NGINX": f"{listener.fileno()};"}
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; from then on connections are refused."""
        self._process.send_signal(signal.SIGQUIT)  # it ends what it has begun, logs included
        assert self._process.wait(PATIENCE) == 0, self.errors

    @property
    def requests(self) -> list[Served]:
        """The requests that were answered, in the order of their ends; complete once it is stopped."""
        lines = (self._folder / "access.log").read_text("ascii").splitlines()
        return [Served(*map(int, line.split())) for line in lines]

    @property
    def errors(self) -> str:
        """What nginx has to say about what went wrong."""
        return (self._folder / "error.log").read_text("utf-8")


@pytest.fixture(name="start_nginx")
def nginx_for_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Nginx]]:
    """Return a function that starts nginx as :class:`Nginx` does, in a folder of its own, and ends it with the test."""
    with ExitStack() as running:

        def start(upstream: str, *directives: str, http: str = "", tls: Path | None = None) -> Nginx:
            folder = tmp_path_factory.mktemp("nginx")
            return running.enter_context(Nginx(folder, upstream, *directives, http=http, tls=tls))

        yield start
