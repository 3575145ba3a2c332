"""Connections to the tracking server or its database, with time limits and clear errors."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
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
from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import format_count
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
from melanoma_lab.tracking.locations import (
    build_artifact_location,
    build_location_tags,
    build_mlflow_uri,
    make_absolute_uri,
    relocate_artifacts,
    sqlite_path,
)

#: Make MLflow show an experiment as model training, not as language-model evaluation, with the
#: metric by which arms are compared as the first chart.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "test/balanced_accuracy",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
#: Time limits of requests, as MLflow's environment variables; a value set by the user is kept.
#: With MLflow's defaults, 120 s and seven retries, a command waits four minutes at a port where
#: nothing answers, and twenty minutes for a server that hangs.
DEFAULT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
#: A server that forwards a model to its own store answers only after the whole model is stored.
UPLOAD_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
#: For requests that only clean up.
CLEANUP_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def connect_for_reading(tracking: Tracking) -> Any:
    """Return an MlflowClient for tracked runs, connected in this thread; nothing is created.

    Raises:
        UserError: nothing has been recorded there, or the server or database cannot be used.
    """
    with locked_access(tracking.uri):
        refuse_empty(tracking.uri)
        with show_progress("connecting to MLflow"):
            client = mlflow_client(tracking.uri)
            client.search_experiments(max_results=1)  # raises if the server does not answer
        return client


def refuse_empty(uri: str) -> None:
    """Refuse an SQLite database that is missing or empty.

    Raises:
        UserError: the database is missing or empty.
        sqlite3.Error: the file cannot be read, or is no SQLite database.
    """
    database = sqlite_path(uri)
    if database is not None and is_empty(database):
        what = "this file is empty" if database.exists() else "no such file"
        raise UserError(
            f"{describe_tracking_uri(uri)}: {what}; nothing has been trained from this folder yet."
        )


def find_run(client: Any, run_id: str) -> Any:
    """Return MLflow's run with an id, or None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


def iterate_pages(search: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Yield everything that a search of an MlflowClient finds, page by page."""
    token = None
    while True:
        page = search(*args, **kwargs, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def locked_access(uri: str, *, training: bool = False) -> Iterator[None]:
    """Lock a database, but not a server, for its first use in the block; translate its errors.

    Raises:
        TrackingError: the server or its database raised an error in the block.
    """
    with translate_errors(uri, training=training), _first_use(uri):
        yield


@contextmanager
def translate_errors(uri: str, *, training: bool = False) -> Iterator[None]:
    """Translate errors of a tracking server or its database into errors that help the user.

    Args:
        training: whether a run will be recorded there; then the message also proposes
            ``tracking.offline=true``.

    Raises:
        UserError: the kind of URI is not supported.
        TrackingError: the server or its database raised an error in the block.
    """
    check_tracking_uri(uri)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # any error of a database driver or an HTTP client
        advice = ""
        if uri.startswith(("http://", "https://")):
            advice = " Start it, or name another."
            if training:
                advice = (
                    " Start it, or train without it: tracking.offline=true keeps the run on disk, "
                    f"and `{format_lab_command('sync')}` sends it later."
                )
        database = sqlite_path(uri)
        if database is not None and (damage := explain_damage(database, find_root_cause(error))):
            raise TrackingError(
                f"{describe_tracking_uri(make_absolute_uri(uri))}: {damage}"
            ) from error
        raise TrackingError(
            f"{describe_tracking_uri(uri)}: cannot be used ({summarize_error(error)}).{advice}"
        ) from error


def find_root_cause(error: BaseException) -> BaseException:
    """Return the innermost error that caused an error.

    MLflow wraps the errors of requests, which wraps those of urllib3; only the innermost says, for
    example, that the connection was refused.
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
    """Return the text of an error's root cause, in one line."""
    error = find_root_cause(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    # The text of shutil.Error contains one error for each file; the first is enough.
    if found := re.search(r"\[Errno \d+\] ([^:'\"]+)", str(error)):
        return found[1]
    return get_first_line(error)


def mlflow_client(uri: str) -> Any:
    """Return an MlflowClient of a tracking URI, and make it MLflow's current URI.

    Creates an SQLite database if it is missing. If one was moved or copied with its artifacts,
    its paths of artifacts are updated.
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
        show_note(
            f"{sqlite_path(uri)} was moved or copied: the artifacts of its "
            f"{format_count(n_runs, 'run')} are now read from its new folder."
        )
    return mlflow.MlflowClient()


def set_tracking_uri(uri: str | None) -> None:
    """Set MLflow's tracking URI without changing the environment.

    MLflow also writes it to an environment variable. There, later commands of this process and
    child processes would take it for a setting of the user.
    """
    import mlflow

    given = os.environ.get(TRACKING_URI_VARIABLE)
    mlflow.set_tracking_uri(uri)  # None: MLflow uses its default
    os.environ.pop(TRACKING_URI_VARIABLE, None)
    if given is not None:
        os.environ[TRACKING_URI_VARIABLE] = given


@contextmanager
def http_timeouts(settings: dict[str, str]) -> Iterator[None]:
    """Set other time limits, as MLflow's variables, in the block, unless the user has set them."""
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
    """Return the id of a study's MLflow experiment; create it if it does not exist.

    Raises:
        UserError: the experiment was deleted.
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
            if experiment is None:  # not because another process created it meanwhile
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
    """Return the artifact root of a new experiment, or None if the tracking server chooses it.

    Without a server, the root is set explicitly: the default root of a plain ``mlflow ui`` can only
    be written to through that server.
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
    """Return whether a URI is that of a tracking server, which manages its database itself."""
    return uri.startswith(("http://", "https://", "databricks"))


def _first_use(uri: str) -> AbstractContextManager[Any]:
    """Return a lock for the first use of a database: only one process may create its tables."""
    if _is_server(uri):
        return nullcontext()
    if (database := sqlite_path(uri)) is not None:
        return hold_lock(get_lock_path(str(database.resolve())))
    if uri.startswith("postgres"):
        return _postgresql_lock(uri)
    # Without user, password and options, because other users can read the lock's name.
    place = urlsplit(uri)
    return hold_lock(get_lock_path(place.netloc.rpartition("@")[2] + place.path))


@contextmanager
def _postgresql_lock(uri: str) -> Iterator[None]:
    """Hold a lock on the database server, so that it also excludes processes of other machines."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    # Commit each statement at once: no transaction stays open while the tables are created.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('melanoma_lab'))"))
        yield  # the lock ends with the connection
