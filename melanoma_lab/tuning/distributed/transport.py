"""What travels between the chief of a search and its workers.

Keras Tuner's messages, and beside them, as metadata of each call, what these have no place for:
Keras Tuner's messages hold scores in 32 bits and no reason of a failure, and they say neither which
process asks nor for which search.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.tuning.distributed.process_role import ORACLE_IP, ORACLE_PORT, ProcessRole

#: The metadata's key; gRPC takes bytes where it ends in -bin.
KEY = "melanoma-lab-bin"
#: Seconds in which a server that stops ends the calls that it is answering.
LAST_ANSWERS = 2.0
#: Where a chief listens whose workers are all of its own machine.
LOOPBACK = "127.0.0.1"
#: Calls that a chief answers at once; all but one wait for the oracle at any time.
CALLS = 8
#: Of servers: a port that another one has is refused, instead of shared with it. Of channels: no
#: proxy of the environment stands between machines of one network.
SERVER_OPTIONS = (("grpc.so_reuseport", 0),)
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)
#: gRPC keeps no more of metadata than 8 KiB.
LONGEST_TEXT = 2000


def pack_metadata(**facts: Any) -> tuple[tuple[str, bytes], ...]:
    """Pack facts into the metadata of a call; texts are shortened to ``LONGEST_TEXT``."""
    short = {k: v[:LONGEST_TEXT] if isinstance(v, str) else v for k, v in facts.items()}
    return ((KEY, json.dumps(short).encode()),)


def unpack_metadata(metadata: Sequence[Any] | None) -> dict[str, Any]:
    """Return the facts that ``pack_metadata`` packed; none if another program made the call."""
    found: Mapping[str, Any] = {entry[0]: entry[1] for entry in metadata or ()}
    return dict(json.loads(found[KEY])) if KEY in found else {}


def import_grpc() -> Any:
    """Import the package ``grpc`` at its first use, with its printing and fork support disabled.

    Fork support is not needed: after a fork, processes of the lab always start another program.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc

    return grpc


@contextmanager
def open_server(role: ProcessRole | None) -> Iterator[tuple[Any, int]]:
    """Have a server, not started yet, whose port nobody else gets while the block lasts.

    Args:
        role: of the chief; None: for workers of this machine alone, at any free port.

    Yields:
        The server and its port.

    Raises:
        UserError: the port is another's, or the address is none of this machine's.
    """
    address = f"{LOOPBACK}:0" if role is None else role.address
    server = import_grpc().server(
        ThreadPoolExecutor(CALLS, thread_name_prefix="chief"), options=SERVER_OPTIONS
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    try:
        if not port:
            raise UserError(
                f"{ORACLE_IP}, {ORACLE_PORT}: the chief cannot listen at {address}. Is another "
                "program at this port, or the address none of this machine's? Choose another port; "
                f"{ORACLE_IP}=0.0.0.0 of the chief listens at all addresses."
            )
        yield server, port
    finally:
        server.stop(LAST_ANSWERS).wait()


@contextmanager
def open_channel(role: ProcessRole, *, timeout: float) -> Iterator[Any]:
    """Open a channel to the chief, and wait until the chief answers.

    Args:
        role: the role of this worker, with the chief's address.
        timeout: the longest time to wait, in seconds.

    Raises:
        RunError: the chief has not answered by then.
    """
    with import_grpc().insecure_channel(role.address, options=CHANNEL_OPTIONS) as channel:
        try:
            import_grpc().channel_ready_future(channel).result(timeout=timeout)
        except import_grpc().FutureTimeoutError:
            raise RunError(
                f"No chief answers at {role.address} after {timeout:g} s (tuner.chief_timeout). "
                "Start the same command there with KERASTUNER_TUNER_ID=chief, or correct "
                f"{ORACLE_IP} and {ORACLE_PORT}."
            ) from None
        yield channel
