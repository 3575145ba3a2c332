"""The HTTP server: a socket that is bound before the model is loaded, then served by waitress."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import logging
import os
import socket
from typing import Any

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_extra_install

#: Requests that are handled in parallel; images are still answered one at a time.
THREADS = 4
#: Uploads up to this many times the limit are read completely, so that the page can refuse them.
PATIENCE = 10


def check_demo_installed() -> None:
    """Refuse to start if the packages that serve the page are missing.

    Raises:
        UserError: the extra ``demo`` is not installed.
    """
    if missing := [n for n in ("flask", "waitress") if importlib.util.find_spec(n) is None]:
        raise UserError(f"demo needs {' and '.join(missing)}: {format_extra_install('demo')}")


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind an address, so that no other process takes it while the model is loaded.

    ``port`` 0 means any free one. The socket listens; connections wait until it is served.

    Raises:
        UserError: the address is not one of this machine, or is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # else the port stays in use for a minute after the server ends
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen()
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        raise UserError(_explain_bind_error(host, port, error)) from error
    return bound


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def format_address(bound: socket.socket) -> str:
    """Return the URL of a bound socket for a browser on this machine."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - named, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Any, bound: socket.socket, *, max_megabytes: int) -> None:
    """Serve a WSGI application on a socket from ``bind_socket`` until interrupted.

    ``max_megabytes`` is the size of the largest accepted upload, in MB (10^6 bytes).

    Raises:
        KeyboardInterrupt: the server was interrupted.
    """
    from waitress import create_server

    # waitress warns of every request that waits for a thread, which is normal here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app,
        sockets=[bound],
        threads=THREADS,
        ident=None,
        max_request_body_size=PATIENCE * max_megabytes * 10**6,
    )
    try:
        server.run()  # returns when interrupted
    finally:
        server.close()
    raise KeyboardInterrupt


def _explain_bind_error(host: str, port: int, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return (
            f"demo.port={port}: in use on {host}, perhaps by another demo; choose another port, "
            "or demo.port=0 for any free one."
        )
    if code == errno.EACCES:
        return f"demo.port={port}: you may not use this port; choose one above 1023."
    reason = getattr(error, "strerror", None) or str(error)
    return f"demo.host={host}: not an address of this machine ({reason}); the default is 127.0.0.1."
