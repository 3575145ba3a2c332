"""Tracking: one MLflow run for each training, whatever becomes of it.

Connecting takes seconds (MLflow's import, a new database's tables), so it is done in the
background while TensorFlow loads; everything else is a call of milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from melanoma_lab.config.schema import Tracking
from melanoma_lab.errors import UserError

#: Which process a run belongs to; lets a later command tell a running run from a dead one.
PROCESS_TAG = "process"
#: Makes MLflow's pages show an experiment as model training, not as language-model evaluation.
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
#: MLflow keeps this many characters of a parameter.
LONGEST_PARAM = 6000
#: What the kept network needs to be served, by distribution name.
SERVING_REQUIREMENTS = ("keras", "tensorflow", "numpy")


def connect(tracking: Tracking, study: str) -> Future[Tracker]:
    """Start connecting to the tracking server in the background.

    Args:
        tracking: where runs are recorded.
        study: the MLflow experiment; created where it does not exist.

    Returns:
        A future; its result raises UserError where ``tracking.uri`` cannot be used.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="tracking")
    future = pool.submit(_connect, tracking, study)
    pool.shutdown(wait=False)
    return future


def _connect(tracking: Tracking, study: str) -> Tracker:
    with _usable(tracking):
        client = _client(tracking)
        tracker = Tracker(client, _experiment_id(client, tracking, study))
    tracker.reconcile()
    return tracker


def connect_for_reading(tracking: Tracking) -> Any:
    """Connect to what has been tracked, in this thread, and create nothing.

    Args:
        tracking: where runs are recorded.

    Returns:
        An MlflowClient.

    Raises:
        UserError: nothing has been recorded there, or it cannot be used.
    """
    database = _sqlite_path(tracking.uri)
    if database is not None and not database.is_file():
        raise UserError(
            f"tracking.uri={tracking.uri}: no such file; nothing has been trained from this folder "
            "yet."
        )
    with _usable(tracking):
        client = _client(tracking)
        client.search_experiments(max_results=1)  # does anybody answer?
        return client


@contextmanager
def _usable(tracking: Tracking) -> Iterator[None]:
    """Say whose fault it is where the tracking server or its database raises."""
    try:
        with _first_use(tracking.uri):
            yield
    except UserError:
        raise
    except Exception as error:  # whatever a database driver or an HTTP client raises
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise UserError(f"tracking.uri={tracking.uri}: cannot be used ({reason}).") from error


def _client(tracking: Tracking) -> Any:
    """An MlflowClient of the tracking server, which also becomes MLflow's own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Absolute: MLflow keeps a connection for each URI, and the folder may change.
    database = _sqlite_path(tracking.uri)
    mlflow.set_tracking_uri(f"sqlite:///{database}" if database else tracking.uri)
    return mlflow.MlflowClient()


def _experiment_id(client: Any, tracking: Tracking, study: str) -> str:
    """The MLflow experiment of a study, created where it does not exist."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        try:
            root = _artifact_root(tracking, study)
            return str(client.create_experiment(study, root, tags=TRAINING))
        except MlflowException:
            experiment = client.get_experiment_by_name(study)
            if experiment is None:  # it failed for another reason than that someone was faster
                raise
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"study={study}: the MLflow experiment of this name was deleted; restore it (mlflow "
            f"experiments restore -x {experiment.experiment_id}) or choose another name."
        )
    return str(experiment.experiment_id)


def _artifact_root(tracking: Tracking, study: str) -> str | None:
    """Where a new experiment keeps its artifacts; a tracking server decides for itself.

    An experiment of the lab's own gets a root of its own: the default one of a bare ``mlflow ui``
    cannot be written to without that server.
    """
    if tracking.artifacts:
        root = tracking.artifacts.rstrip("/")
        return f"{root}/{study}" if "://" in root else str(Path(root).resolve() / study)
    if tracking.uri.startswith(("http://", "https://", "databricks")):
        return None
    database = _sqlite_path(tracking.uri)
    return str((database.parent if database else Path.cwd()) / "mlruns" / study)


def _sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI, absolute."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).resolve() if uri.startswith(prefix) else None


def _first_use(uri: str) -> Any:
    """A lock around the first use of a database: its tables must be made by one process only."""
    database = _sqlite_path(uri)
    if database is None:
        return nullcontext()
    database.parent.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(database).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"melanoma_lab-{os.getuid()}-{name}.lock")


class Tracker:
    """One run at a time in an MLflow experiment.

    Args:
        client: an MlflowClient.
        experiment_id: of the study.
    """

    def __init__(self, client: Any, experiment_id: str) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self.run_id = ""

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Iterator[str]:
        """Record what happens in the block as one run.

        The run ends FINISHED; KILLED where the block was interrupted; FAILED, with the tag
        ``reason``, where it raised.

        Args:
            name: what the run is called in the list of runs.
            tags: searchable facts about the run.
            params: the resolved configuration, flattened.

        Yields:
            The run's id.
        """
        import mlflow
        from mlflow.entities import Param, RunStatus, RunTag

        process = f"{socket.gethostname()}:{os.getpid()}"
        mlflow.start_run(
            experiment_id=self.experiment_id,
            run_name=name,
            tags={PROCESS_TAG: process, **tags},
        )
        active = mlflow.active_run()
        self.run_id = active.info.run_id
        status, reason = RunStatus.FAILED, "stopped without saying why"
        try:
            self._client.log_batch(
                self.run_id,
                params=[Param(key, value[:LONGEST_PARAM]) for key, value in params.items()],
            )
            yield self.run_id
            status, reason = RunStatus.FINISHED, ""
        except KeyboardInterrupt:
            status, reason = RunStatus.KILLED, "interrupted"
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            if reason:
                self._client.log_batch(self.run_id, tags=[RunTag("reason", reason[:500])])
            mlflow.end_run(RunStatus.to_string(status))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures of the run, many in one call; NaN stays NaN.

        Args:
            metrics: figures by name.
            step: the epoch, for figures that have one.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()]
        )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts that only the end of a run knows."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def log_folder(self, folder: Path) -> None:
        """Keep everything in a folder with the run."""
        self._client.log_artifacts(self.run_id, str(folder))

    def log_network(self, network: Any) -> None:
        """Keep a Keras model with the run, ready for ``mlflow models serve``.

        The model takes raw uint8 pixels, shape (n, height, width, 3); scaling is inside it.
        """
        import keras
        import mlflow.tensorflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        shape = (-1, *network.input_shape[1:])
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), shape)]),
            Schema([TensorSpec(np.dtype("float32"), (-1, network.output_shape[-1]))]),
        )
        interactive = keras.utils.is_interactive_logging_enabled()
        keras.utils.disable_interactive_logging()  # MLflow tries the example out, with a bar
        try:
            mlflow.tensorflow.log_model(
                network,
                name="model",
                signature=signature,
                input_example=np.full((1, *shape[1:]), 127, np.uint8),
                # Named, because finding them out takes MLflow some twenty seconds.
                pip_requirements=[f"{name}=={version(name)}" for name in SERVING_REQUIREMENTS],
            )
        finally:
            if interactive:
                keras.utils.enable_interactive_logging()

    def finished_run(self, fingerprint: str) -> str | None:
        """The id of the newest finished run of this fingerprint in the study, if there is one."""
        found = self._client.search_runs(
            [self.experiment_id],
            f"attributes.status = 'FINISHED' and tags.fingerprint = '{fingerprint}'",
            max_results=1,
        )
        return str(found[0].info.run_id) if found else None

    def reconcile(self) -> None:
        """Mark as KILLED the runs that a hard kill on this machine left RUNNING."""
        from mlflow.entities import RunStatus

        host = socket.gethostname()
        for run in self._client.search_runs(
            [self.experiment_id], "attributes.status = 'RUNNING'", max_results=1000
        ):
            where, _, process = run.data.tags.get(PROCESS_TAG, "").partition(":")
            if where == host and process.isdigit() and not _is_alive(int(process)):
                self._client.set_tag(run.info.run_id, "reason", "its process is gone")
                self._client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))


def _is_alive(process: int) -> bool:
    """Whether a process of this number exists; a number used again counts as alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys; lists and mappings in lists as JSON.

    Args:
        config: plain containers, as OmegaConf.to_container gives them.
        prefix: put before every key.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, str):
            flat[name] = value
        else:
            flat[name] = json.dumps(value)
    return flat


def git_commit() -> str:
    """The commit of the lab's own code, ``+changes`` where files differ from it, or ``unknown``."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "--", "tracking.py"):
            return "unknown"  # installed below some other project's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
