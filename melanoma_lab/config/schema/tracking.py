"""Where runs are recorded: by default at ``MLFLOW_TRACKING_URI``, else in a local file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from melanoma_lab.core.errors import UserError, require

#: MLflow's environment variable for the tracking URI.
TRACKING_URI_VARIABLE: Final = "MLFLOW_TRACKING_URI"
#: Tracking URI if none is set; ``mlflow ui`` without options uses it too.
DEFAULT_TRACKING_URI: Final = "sqlite:///mlflow.db"
#: The default of ``tracking.uri``; every command of a process resolves it anew.
URI_INTERPOLATION: Final = f'${{oc.env:{TRACKING_URI_VARIABLE},"{DEFAULT_TRACKING_URI}"}}'
#: MLflow's environment variable that allows recording runs as files in a folder.
FILE_STORE_VARIABLE: Final = "MLFLOW_ALLOW_FILE_STORE"


def get_default_uri() -> str:
    """Return the tracking URI used if no command names one; an empty variable counts as unset."""
    return os.environ.get(TRACKING_URI_VARIABLE) or DEFAULT_TRACKING_URI


def describe_tracking_uri(uri: str) -> str:
    """Format a tracking URI with the setting that it came from, without its password."""
    given_by = (
        TRACKING_URI_VARIABLE if uri == os.environ.get(TRACKING_URI_VARIABLE) else "tracking.uri"
    )
    return f"{given_by}={mask_password(uri)}"


def mask_password(uri: str) -> str:
    """Return a URI that is safe to show and record: a password in it becomes ``***``."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


@dataclass
class Tracking:
    """Where and how runs are recorded."""

    #: MLflow tracking URI; empty: ``MLFLOW_TRACKING_URI`` if it is set, else a local file.
    uri: str = ""
    #: Folder or URI for artifacts if ``uri`` names a database; null: ``mlruns`` next to it.
    artifacts: str | None = None
    #: Save the trained network with the run.
    model: bool = True
    #: Save images of the dataset with the run, in its plots and its page of mistakes. false if
    #: they must not be stored where runs are tracked.
    images: bool = True
    #: Name of the registered model that gets the network as a new version
    #: (``models:/NAME/VERSION``); null: do not register it.
    register: str | None = None
    #: Send nothing: store runs in the folder ``unsent`` until ``sync`` sends them.
    offline: bool = False
    #: Folder of runs that were not sent, or not completely.
    unsent: str = "unsent"

    def __post_init__(self) -> None:
        self.uri = self.uri or get_default_uri()
        require(
            self.register is None or re.fullmatch(r"[\w.-]*\w[\w.-]*", self.register),
            "tracking.register",
            "a name of letters, digits, dots, hyphens and underscores",
            self.register,
        )
        if self.register and not self.model:
            raise UserError("tracking.register: tracking.model=false saves no model to register.")


def check_tracking_uri(uri: str) -> None:
    """Refuse a URI that MLflow takes for a folder, and an SQLite URI that names no file.

    Raises:
        UserError: runs cannot be recorded there.
    """
    scheme, separator, rest = uri.partition(":")
    if scheme.startswith("databricks"):
        return
    if scheme.partition("+")[0] == "sqlite":
        wrong = "names no file" if not re.match(r"///[^?]", rest) else ""
    elif scheme == "file" or not separator or not rest.startswith("//"):
        allowed = os.environ.get(FILE_STORE_VARIABLE, "").lower() in {"true", "1"}
        wrong = "" if allowed else "MLflow no longer stores runs in a folder"
    else:
        wrong = ""
    if wrong:
        raise UserError(
            f"{describe_tracking_uri(uri)}: {wrong}; expected a file, such as sqlite:///runs.db "
            "(in the current folder) or sqlite:////data/runs.db, or a server, such as "
            "http://HOST:5000."
        )
