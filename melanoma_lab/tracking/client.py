"""Reaching the tracking server or its database: in bounded time, and in words that a user knows."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from melanoma_lab.config.schema.tracking import (
    TRACKING_URI_VARIABLE,
    Tracking,
    check_tracking_uri,
    describe_tracking_uri,
    mask_password,
)
from melanoma_lab.core.console import console, show_progress
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.heavy_imports import import_heavy
from melanoma_lab.core.locks import get_lock_path, hold_lock
from melanoma_lab.core.shell_commands import format_lab_command, format_program
from melanoma_lab.tracking.database import (
    TrackingError,
    create_or_check_tables,
    explain_damage,
    is_empty,
    silence_mlflow_logs,
)
from melanoma_lab.tracking.relocation import build_location_tags, relocate_artifacts
from melanoma_lab.tracking.uris import (
    build_artifact_location,
    build_mlflow_uri,
    make_absolute_uri,
    sqlite_path,
)

#: Makes MLflow's pages show an experiment as model training, not as language-model evaluation, and
#: its charts begin with what arms are judged by.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "test/balanced_accuracy",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
#: How long a server may take, as MLflow's own environment variables say it; one that the user has
#: set counts instead. MLflow's defaults, 120 s and seven retries, keep a command hanging for four
#: minutes at a port where nobody answers, and for twenty before a server that hangs.
DEFAULT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
#: A server that passes a model on to a store of its own answers when it is there.
UPLOAD_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
#: For requests that only try to tidy up.
CLEANUP_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def connect_for_reading(tracking: Tracking) -> Any:
    """Connect to what has been tracked, in this thread, and create nothing.

    Args:
        tracking: where runs are recorded.

    Returns:
        An MlflowClient.

    Raises:
        UserError: nothing has been recorded there, or it cannot be used.
    """
    with locked_access(tracking.uri):
        _refuse_empty(tracking.uri)
        with show_progress("connecting to MLflow"):
            client = mlflow_client(tracking.uri)
            client.search_experiments(max_results=1)  # does anybody answer?
        return client


def refuse_empty(uri: str) -> None:
    """Refuse an SQLite database that is not there or has nothing in it.

    Args:
        uri: where runs are recorded.

    Raises:
        UserError: it is such a database, or cannot be used.
    """
    with translate_errors(uri):
        _refuse_empty(uri)


def _refuse_empty(uri: str) -> None:
    database = sqlite_path(uri)
    if database is not None and is_empty(database):
        what = "nothing is in this file" if database.exists() else "no such file"
        raise UserError(
            f"{describe_tracking_uri(uri)}: {what}; nothing has been trained from this folder yet."
        )


def find_run(client: Any, run_id: str) -> Any:
    """A run of that id as MLflow has it; None where there is none.

    Args:
        client: as of ``connect_for_reading``.
        run_id: as somebody typed it.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


@contextmanager
def locked_access(uri: str, *, training: bool = False) -> Iterator[None]:
    """Begin to use a tracking server or its database in the block, and be the only one that does.

    Args:
        uri: of either.
        training: as for ``translate_errors``.

    Raises:
        TrackingError: it raised in the block.
    """
    with translate_errors(uri, training=training), _first_use(uri):
        yield


@contextmanager
def translate_errors(uri: str, *, training: bool = False) -> Iterator[None]:
    """Say whose fault it is where the tracking server or its database raises.

    Args:
        uri: of either.
        training: a run is to be recorded there, which can be done without.

    Raises:
        UserError: there is no such kind of URI.
        TrackingError: it raised in the block.
    """
    check_tracking_uri(uri)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a database driver or an HTTP client raises
        advice = ""
        if uri.startswith(("http://", "https://")):
            advice = " Start it, or name another."
            if training:
                advice = (
                    " Start it, or train without it: tracking.offline=true keeps the run on disk, "
                    f"and `{format_lab_command('sync')}` sends it later."
                )
        database = sqlite_path(uri)
        if database is not None and (told := explain_damage(database, find_root_cause(error))):
            raise TrackingError(
                f"{describe_tracking_uri(make_absolute_uri(uri))}: {told}"
            ) from error
        raise TrackingError(
            f"{describe_tracking_uri(uri)}: cannot be used ({summarize_error(error)}).{advice}"
        ) from error


def find_root_cause(error: BaseException) -> BaseException:
    """What an error came from, at the very end.

    MLflow wraps what requests raises, which wraps what urllib3 raises, which says at the very end
    that the connection was refused.
    """
    seen = {id(error)}
    while True:
        nested = [
            error.__cause__,
            getattr(error, "reason", None),
            error.__context__,
            *error.args,
        ]
        inner = next(
            (e for e in nested if isinstance(e, BaseException) and id(e) not in seen), None
        )
        if inner is None:
            return error
        seen.add(id(inner))
        error = inner


def summarize_error(error: BaseException) -> str:
    """The innermost reason of an error, in one line."""
    error = find_root_cause(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    # shutil.Error lists, as text, what happened to each file.
    if found := re.search(r"\[Errno \d+\] ([^:'\"]+)", str(error)):
        return found[1]
    return get_first_line(error)


def mlflow_client(uri: str) -> Any:
    """An MlflowClient of the tracking server, which also becomes MLflow's own.

    A new SQLite database is made; one that was moved or copied with its artifacts finds them from
    here on.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name, value in DEFAULT_TIMEOUTS.items():
        os.environ.setdefault(name, value)
    if (database := sqlite_path(uri)) is not None:
        create_or_check_tables(database)
    import_heavy("mlflow")
    import mlflow

    silence_mlflow_logs()
    set_tracking_uri(build_mlflow_uri(uri))
    if n_runs := relocate_artifacts(uri):
        console.print(
            f"{sqlite_path(uri)} was moved or copied: the artifacts of its {n_runs} "
            f"run{'s' * (n_runs > 1)} are found beside it now.",
            style="yellow",
            markup=False,
        )
    return mlflow.MlflowClient()


def set_tracking_uri(uri: str | None) -> None:
    """Make a tracking URI MLflow's own, and leave the environment as it is.

    MLflow also puts it into the environment, where it would be taken for what the user says of the
    next command of this process, and of those that it starts.

    Args:
        uri: of the tracking server; None: MLflow's default.
    """
    import mlflow

    given = os.environ.get(TRACKING_URI_VARIABLE)
    mlflow.set_tracking_uri(uri)  # None: MLflow takes it for its default
    os.environ.pop(TRACKING_URI_VARIABLE, None)
    if given is not None:
        os.environ[TRACKING_URI_VARIABLE] = given


@contextmanager
def http_timeouts(settings: dict[str, str]) -> Iterator[None]:
    """Have other time limits in the block, unless the user's environment has its own."""
    changed = {k: v for k, v in settings.items() if os.environ.get(k) == DEFAULT_TIMEOUTS.get(k)}
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def get_or_create_experiment(client: Any, tracking: Tracking, study: str) -> str:
    """The MLflow experiment of a study, created where it does not exist.

    Raises:
        UserError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        try:
            root = _artifact_root(tracking, study)
            tags = EXPERIMENT_TAGS | build_location_tags(tracking.uri, root)
            return str(client.create_experiment(study, root, tags=tags))
        except MlflowException:
            experiment = client.get_experiment_by_name(study)
            if experiment is None:  # it failed for another reason than that someone was faster
                raise
    if experiment.lifecycle_stage != "active":
        where = shlex.quote(mask_password(make_absolute_uri(tracking.uri)))
        raise UserError(
            f"study={study}: the MLflow experiment of this name was deleted; restore it "
            f"({TRACKING_URI_VARIABLE}={where} {format_program('mlflow')} experiments restore -x "
            f"{experiment.experiment_id}) or choose another name."
        )
    return str(experiment.experiment_id)


def _artifact_root(tracking: Tracking, study: str) -> str | None:
    """Where a new experiment keeps its artifacts; a tracking server decides for itself.

    An experiment of the lab's own gets a root of its own: the default one of a bare ``mlflow ui``
    cannot be written to without that server.
    """
    if tracking.artifacts:
        root = tracking.artifacts.rstrip("/")
        return (
            f"{root}/{study}"
            if "://" in root
            else build_artifact_location(Path(root).resolve() / study)
        )
    if _is_server(tracking.uri):
        return None
    database = sqlite_path(tracking.uri)
    return build_artifact_location((database.parent if database else Path.cwd()) / "mlruns" / study)


def _is_server(uri: str) -> bool:
    """Whether a tracking server is behind a URI, which keeps its database in order itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def _first_use(uri: str) -> AbstractContextManager[Any]:
    """A lock around the first use of a database: its tables must be made by one process only."""
    if _is_server(uri):
        return nullcontext()
    if (database := sqlite_path(uri)) is not None:
        return hold_lock(get_lock_path(str(database.resolve())))
    if uri.startswith("postgres"):
        return _postgresql_lock(uri)
    # Without user, password and options: the lock's name can be read by others.
    place = urlsplit(uri)
    return hold_lock(get_lock_path(place.netloc.rpartition("@")[2] + place.path))


@contextmanager
def _postgresql_lock(uri: str) -> Iterator[None]:
    """A lock that the server keeps for whoever uses this database, on whatever machine."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    # Each statement for itself: no transaction stays open beside the ones that make the tables.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('melanoma_lab'))"))
        yield  # the lock ends with the connection
