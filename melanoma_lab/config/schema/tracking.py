"""Where runs are recorded: by default where ``MLFLOW_TRACKING_URI`` says, else in a file here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from melanoma_lab.core.errors import UserError, require

#: MLflow's own variable for where runs are recorded.
TRACKING_URI_VARIABLE: Final = "MLFLOW_TRACKING_URI"
#: Where runs are recorded when nobody says anything: where a bare ``mlflow ui`` looks.
DEFAULT_TRACKING_URI: Final = "sqlite:///mlflow.db"
#: How the configuration says it, to be looked up anew for every command of a process.
URI_INTERPOLATION: Final = f'${{oc.env:{TRACKING_URI_VARIABLE},"{DEFAULT_TRACKING_URI}"}}'
#: MLflow's own variable that allows what it otherwise refuses: runs as files in a folder.
FILE_STORE_VARIABLE: Final = "MLFLOW_ALLOW_FILE_STORE"


def get_default_uri() -> str:
    """Where runs are recorded that no command says it of; an empty variable says nothing."""
    return os.environ.get(TRACKING_URI_VARIABLE) or DEFAULT_TRACKING_URI


def describe_tracking_uri(uri: str) -> str:
    """A tracking URI and what it was given by, as messages begin; passwords are left out."""
    given_by = (
        TRACKING_URI_VARIABLE if uri == os.environ.get(TRACKING_URI_VARIABLE) else "tracking.uri"
    )
    return f"{given_by}={mask_password(uri)}"


def mask_password(uri: str) -> str:
    """A URI as it may be shown and recorded: ``https://user:***@host`` for one with a password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


@dataclass
class Tracking:
    """Where runs are recorded."""

    #: MLflow tracking URI; empty: what ``MLFLOW_TRACKING_URI`` says, else a file here.
    uri: str = ""
    #: Folder or URI for artifacts when the URI names a database; null: ``mlruns`` beside it.
    artifacts: str | None = None
    #: Keep the trained network with the run.
    model: bool = True
    #: Keep images of the dataset with the run, in its plots and its page of mistakes. false, where
    #: they must not lie wherever runs are tracked.
    images: bool = True
    #: Register it under this name, as a new version (``models:/NAME/VERSION``); null: not at all.
    register: str | None = None
    #: Send nothing: keep runs in the folder ``unsent`` until ``sync`` sends them.
    offline: bool = False
    #: Folder of runs that were not sent, or not whole.
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
            raise UserError("tracking.register: tracking.model=false keeps no model to register.")


def check_tracking_uri(uri: str) -> None:
    """Refuse what MLflow would take for a folder, and an SQLite file that is not named.

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
        wrong = "" if allowed else "MLflow keeps no runs in a folder any more"
    else:
        wrong = ""
    if wrong:
        raise UserError(
            f"{describe_tracking_uri(uri)}: {wrong}; expected a file, such as sqlite:///runs.db "
            "(in the current folder) or sqlite:////data/runs.db, or a server, such as http://HOST:5000."
        )
