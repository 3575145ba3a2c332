"""Which part a process has in a search over several machines, by Keras Tuner's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from melanoma_lab.core.errors import UserError

#: Keras Tuner's environment variables: who this process is, and where the chief listens.
TUNER_ID, ORACLE_IP, ORACLE_PORT = (
    "KERASTUNER_TUNER_ID",
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
)
#: For a worker: the process of the chief, where that has started it.
CHIEF_PROCESS = "MELANOMA_LAB_CHIEF"


@dataclass(frozen=True)
class ProcessRole:
    """A process's part in a search of several.

    Attributes:
        name: the process's own; another's is another.
        host: where the chief listens.
        port: likewise.
        shares: whether the process shares its machine with as many as ``tuner.workers`` says.
    """

    name: str
    host: str
    port: int
    shares: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether it hands out the trials, as Keras Tuner decides it: by the name."""
        return "chief" in self.name

    @property
    def address(self) -> str:
        """Host and port, as gRPC takes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_role(environment: Mapping[str, str]) -> ProcessRole | None:
    """Read the role of this process from its environment.

    Args:
        environment: environment variables, such as ``os.environ``.

    Returns:
        The role; None if the process searches alone.

    Raises:
        UserError: only some of the variables are set, or the port is not valid.
    """
    names = (TUNER_ID, ORACLE_IP, ORACLE_PORT)
    given = {name: environment[name] for name in names if environment.get(name)}
    if not given:
        return None
    if missing := [name for name in names if name not in given]:
        raise UserError(
            f"{', '.join(given)}: set, but not {' and '.join(missing)}. A search over several "
            f"machines takes all three: {TUNER_ID}=chief of the one that hands out the trials and "
            f"another name of each worker, {ORACLE_IP} and {ORACLE_PORT} of the chief. Without any "
            "of them this process searches by itself."
        )
    port = given[ORACLE_PORT]
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UserError(f"{ORACLE_PORT}={port}: expected a port, 1 to 65535.")
    role = ProcessRole(given[TUNER_ID], given[ORACLE_IP], int(port))
    return replace(role, shares=role.is_chief or CHIEF_PROCESS in environment)
