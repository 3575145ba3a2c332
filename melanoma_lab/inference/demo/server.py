"""What listens: a socket that is taken first, and waitress, which serves it when all is loaded."""

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

#: Requests that are dealt with at once; images wait for each other all the same.
THREADS = 4
#: Times the largest upload that is still read to its end, so that the page can say it is too large.
PATIENCE = 10


def check_demo_installed() -> None:
    """Refuse to start without what serves the page.

    Raises:
        UserError: the extra is not installed.
    """
    if missing := [n for n in ("flask", "waitress") if importlib.util.find_spec(n) is None]:
        raise UserError(f"demo needs {' and '.join(missing)}: {format_extra_install('demo')}")


def bind_socket(host: str, port: int) -> socket.socket:
    """Take an address, so that nobody else can while the model is loaded.

    Args:
        host: a name or an address.
        port: 0: any that is free.

    Returns:
        A bound socket that does not listen yet.

    Raises:
        UserError: the address is no address of this machine, or is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # or a port would stay taken for a minute after its server
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen()
        except OSError:
            taken.close()
            raise
    except (OSError, UnicodeError) as error:
        raise UserError(_why_not(host, port, error)) from error
    return taken


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def format_address(taken: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = taken.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - named, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Any, taken: socket.socket, *, max_megabytes: int) -> None:
    """Serve until interrupted.

    Args:
        app: a WSGI application.
        taken: of ``bind_socket``.
        max_megabytes: of the largest upload.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    from waitress import create_server

    # It warns of every request that waits a moment, as those of a page's second image do.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app,
        sockets=[taken],
        threads=THREADS,
        ident=None,
        max_request_body_size=PATIENCE * max_megabytes * 10**6,
    )
    try:
        server.run()  # comes back when interrupted
    finally:
        server.close()
    raise KeyboardInterrupt


def _why_not(host: str, port: int, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return (
            f"demo.port={port}: in use on {host}, perhaps by another demo; choose another, or "
            "demo.port=0 for any that is free."
        )
    if code == errno.EACCES:
        return f"demo.port={port}: not for you to take; choose one above 1023."
    said = getattr(error, "strerror", None) or str(error)
    return f"demo.host={host}: no address of this machine ({said}); the default is 127.0.0.1."
