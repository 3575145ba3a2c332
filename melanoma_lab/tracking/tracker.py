"""Tracking of the run that is being trained, in MLflow, or on disk if MLflow fails.

Connecting takes seconds (MLflow's import, a new database's tables), so it is done in the
background while TensorFlow loads. From then on no server can stop a training: metrics are sent in
the background, files at the end, and data that could not be sent is stored for ``sync``.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.locks import get_process_id
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.tracking.client import (
    CLEANUP_TIMEOUTS,
    get_or_create_experiment,
    http_timeouts,
    locked_access,
    mlflow_client,
    summarize_error,
)
from melanoma_lab.tracking.database import TrackingError
from melanoma_lab.tracking.locations import make_absolute_uri, relocate_artifacts
from melanoma_lab.tracking.logged_model import ModelInfo, save_network
from melanoma_lab.tracking.offline_store import (
    ARTIFACTS_FOLDER,
    MODEL_FOLDER,
    MetricPoint,
    RunRecord,
    can_resume_run,
    discard_offline_run,
    load_offline_runs,
    save_offline_run,
)
from melanoma_lab.tracking.run_reader import RunIdentity
from melanoma_lab.tracking.upload import (
    LONGEST_REASON,
    PROCESS_TAG,
    REASON_TAG,
    BackgroundSender,
    fetch_recorded_state,
    log_artifacts_and_model,
    log_metric_points,
    log_params_and_tags,
    register_if_requested,
)

#: URIs where a run of this process was started. If one of them fails later, it is an outage and no
#: mistyped address, so the multirun's other jobs are still trained.
_PROVEN: set[str] = set()
#: Seconds that an interrupted command waits until its metrics are sent.
_LAST_WAIT = 5.0


def connect(tracking: Tracking, study: str) -> Future[Tracker]:
    """Start connecting to the tracking server in the background.

    Returns:
        A future; its result raises UserError if ``tracking.uri`` cannot be used.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="tracking")
    future = pool.submit(_connect, tracking, study)
    pool.shutdown(wait=False)
    return future


def _connect(tracking: Tracking, study: str) -> Tracker:
    if tracking.offline:
        return Tracker(None, "", tracking, study)
    try:
        with locked_access(tracking.uri, training=True):
            client = mlflow_client(tracking.uri)
            tracker = Tracker(
                client, get_or_create_experiment(client, tracking, study), tracking, study
            )
            tracker.reconcile()
            return tracker
    except TrackingError as error:
        if make_absolute_uri(tracking.uri) not in _PROVEN:
            raise
        return Tracker(None, "", tracking, study, outage=error)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of the study.

    Attributes:
        run_id: MLflow's id, or that of a run that is stored on disk.
    """

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


class Tracker:
    """Recorder of runs in an MLflow experiment, one run at a time.

    Args:
        client: an MlflowClient; None: runs are stored on disk.
        experiment_id: id of the study's MLflow experiment; empty without a client.
        outage: the error because of which there is no client; None if the user set
            ``tracking.offline``.
    """

    def __init__(
        self,
        client: Any,
        experiment_id: str,
        tracking: Tracking,
        study: str,
        *,
        outage: Exception | None = None,
    ) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self._tracking = tracking
        self._study = study
        self._outage = outage
        self.run_id = ""
        #: The folder of the last run if it was not sent.
        self.kept: Path | None = None
        #: ``NAME/VERSION`` of the last run's model if it was registered.
        self.registered: str | None = None
        self._record: RunRecord
        self._files: Path
        self._sender: BackgroundSender | None = None
        self._line = True
        self._problem: BaseException | None = None
        self._points: frozenset[tuple[str, int]] = frozenset()

    @contextmanager
    def run(
        self,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        *,
        continuing: str | None = None,
        line: bool = True,
    ) -> Iterator[str]:
        """Record everything that is logged in the block as one run; yield its id.

        The run's status becomes FINISHED; KILLED if the block was interrupted; FAILED if it raised
        an error. The tag ``reason`` says why a run did not finish.

        Args:
            continuing: id of the run to resume, which keeps its data; None: a new run.
            line: as for ``show_progress``, while the run is sent at its end.

        Raises:
            UserError: the run could not be started in MLflow.
            RunError: not everything could be sent to MLflow; the run is stored on disk.
        """
        with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as files:
            record = self._begin(name, dict(tags), dict(params), continuing)
            self._record, self._files, self._problem = record, Path(files), self._outage
            self._sender, self._line = None, line
            if self._client is not None:
                self._sender = BackgroundSender(
                    lambda points: log_metric_points(self._client, record.run_id, points)
                )
            failure: BaseException | None = None
            try:
                yield record.run_id
            except BaseException as error:  # noqa: BLE001 - raised again below, after the run ended
                failure = error
            if failure is None:
                self._end("FINISHED")
            elif isinstance(failure, (KeyboardInterrupt, SystemExit)):  # also by a scheduler
                self._end("KILLED", "interrupted")
            else:
                self._end("FAILED", f"{type(failure).__name__}: {failure}")
            if self._problem is not None and failure is None:
                raise RunError(self._explain())
            if failure is not None:
                if self._problem is not None:
                    show_note(self._explain())
                raise failure

    def _begin(
        self, name: str, tags: dict[str, str], params: dict[str, str], continuing: str | None
    ) -> RunRecord:
        """Start or resume the run, on the server if there is one."""
        tags[PROCESS_TAG] = get_process_id()
        artifacts = self._tracking.artifacts
        record = RunRecord(
            run_id=continuing or uuid.uuid4().hex,
            name=name,
            study=self._study,
            uri=make_absolute_uri(self._tracking.uri),
            artifacts=str(Path(artifacts).resolve())
            if artifacts and "://" not in artifacts
            else artifacts,
            start_time=_now(),
            tags=tags,
            params=params,
            register=self._tracking.register,
        )
        self.kept = self.registered = None
        self._points = frozenset()
        if self._client is not None:
            try:
                with locked_access(self._tracking.uri, training=True):
                    self._open(record, continuing)
                _PROVEN.add(record.uri)
            except TrackingError as error:
                if record.uri not in _PROVEN:
                    raise
                self._client, self._outage = None, error
        if continuing:
            discard_offline_run(continuing, Path(self._tracking.unsent))
        self.run_id = record.run_id
        return record

    def _open(self, record: RunRecord, continuing: str | None) -> None:
        import mlflow

        if continuing:
            tags, params, self._points = fetch_recorded_state(self._client, continuing)
            record.tags |= tags
            # Parameters of a run cannot be changed, for example a cache folder that was moved.
            record.params |= params
        run = mlflow.start_run(
            continuing,
            experiment_id=self.experiment_id,
            run_name=record.name,
            tags=record.tags,
        )
        record.run_id, record.start_time = run.info.run_id, run.info.start_time
        record.tags = dict(run.data.tags)
        try:
            log_params_and_tags(self._client, record.run_id, record)
        except BaseException:
            _close(record.run_id, "FAILED")
            raise

    def _end(self, status: str, why: str = "") -> None:
        """Send the rest of the run, or store it on disk."""
        record = self._record
        record.status, record.end_time = status, _now()
        if why:
            record.tags[REASON_TAG] = why[:LONGEST_REASON]
        if self._client is not None:
            limits, wait = (CLEANUP_TIMEOUTS, _LAST_WAIT) if status == "KILLED" else ({}, None)
            with http_timeouts(limits), show_progress("recording in MLflow", line=self._line):
                self._problem = self._send(wait)
        if self._client is None or self._problem is not None:
            self.kept = save_offline_run(record, self._files, Path(self._tracking.unsent))
            if self._client is not None:
                _close(
                    record.run_id,
                    "FAILED",
                    f"only a part was sent; the whole run is in {self.kept}",
                )
        if isinstance(self._problem, KeyboardInterrupt):
            show_note(self._explain())
            raise self._problem

    def _send(self, wait: float | None) -> BaseException | None:
        """Send the rest of the run; return the error or interrupt if that fails, else None."""
        import mlflow

        run_id = self._record.run_id
        try:
            if self._sender and (problem := self._sender.close(wait)):
                return problem
            # Another process, for example in a container, may have seen the folder at another path.
            relocate_artifacts(self._tracking.uri)
            log_params_and_tags(self._client, run_id, self._record)
            log_artifacts_and_model(self._client, run_id, self._files)
            self.registered = register_if_requested(self._client, run_id, self._record, self._files)
            mlflow.end_run(self._record.status)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - any server's or driver's
            return error
        return None

    def _explain(self) -> str:
        """Describe why a run was not sent, where it is, and the command that sends it."""
        problem = self._problem or self._outage
        where = "" if self.kept is None else f" The run is saved in {self.kept}"
        command = format_lab_command("sync")
        if self.kept is not None and self.kept.parent != Path(self._tracking.unsent):
            command += f" tracking.unsent={self.kept.parent}"
        return (
            f"{describe_tracking_uri(self._tracking.uri)} did not receive the whole run "
            f"({summarize_error(problem) if problem else 'no answer'}).{where}; nothing is lost. "
            f"Send it when the server works again: {command}"
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics of the run and send them in the background; NaN stays NaN.

        The step is an epoch, or 0 if the values belong to the whole run. A resumed run that has a
        metric's value for this step keeps that value.
        """
        now = _now()
        points = [
            MetricPoint(key, float(value), now, step)
            for key, value in metrics.items()
            if (key, step) not in self._points
        ]
        self._record.metrics += points
        if self._sender and points:
            self._sender.put(points)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add tags to the run; they are sent when the run ends."""
        self._record.tags |= tags

    def log_folder(self, folder: Path) -> None:
        """Log all files of a folder as artifacts; they are sent when the run ends."""
        with _staging():
            shutil.copytree(folder, self._files / ARTIFACTS_FOLDER, dirs_exist_ok=True)

    def log_network(
        self, network: Any, card: ModelInfo, beside: Mapping[str, str] | None = None
    ) -> None:
        """Log a Keras model, ready for ``mlflow models serve``; it is sent when the run ends.

        Args:
            beside: texts of further files to write into the model's folder, by file name.
        """
        with _staging():
            save_network(network, card, self._files / MODEL_FOLDER, beside)

    def find_finished(self, tags: Mapping[str, str]) -> FinishedRun | None:
        """Find a finished run of the study that has these tags.

        Returns:
            The oldest such run that is stored on disk, else the newest in MLflow; None if there is
            none.
        """
        for _, record in load_offline_runs(Path(self._tracking.unsent)):
            if (
                record.study == self._study
                and record.status == "FINISHED"
                and tags.items() <= record.tags.items()
            ):
                last = {point.key: point.value for point in record.metrics}
                return FinishedRun(record.run_id, record.tags, last)
        if self._client is None:
            return None
        wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        found = self._client.search_runs(
            [self.experiment_id],
            " and ".join(["attributes.status = 'FINISHED'", *wanted]),
            max_results=1,
        )
        if not found:
            return None
        (run,) = found
        return FinishedRun(str(run.info.run_id), dict(run.data.tags), dict(run.data.metrics))

    @property
    def run_name(self) -> str:
        """Name of the current run in the list of runs."""
        return self._record.name

    @property
    def identity(self) -> RunIdentity:
        """Identity of the current run, with the tags that it has so far."""
        return RunIdentity(self.run_id, self._record.start_time, dict(self._record.tags))

    @property
    def client(self) -> Any:
        """The MlflowClient; None if runs are stored on disk."""
        return self._client

    def can_resume(self, run_id: str) -> bool:
        """Return whether the study has this run and it has not finished."""
        unsent = Path(self._tracking.unsent)
        return can_resume_run(self._client, self.experiment_id, run_id, unsent)

    def reconcile(self) -> None:
        """Mark as KILLED the runs that a hard kill on this machine left RUNNING."""
        host = socket.gethostname()
        for run in self._client.search_runs(
            [self.experiment_id], "attributes.status = 'RUNNING'", max_results=1000
        ):
            where, _, process = run.data.tags.get(PROCESS_TAG, "").partition(":")
            if where == host and process.isdigit() and not _is_alive(int(process)):
                self._client.set_tag(run.info.run_id, REASON_TAG, "its process is gone")
                self._client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def _staging() -> Iterator[None]:
    """Translate errors of writing temporary files into a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{tempfile.gettempdir()}: cannot be written ({summarize_error(error)}). Free some "
            "space there, or name another folder in the environment variable TMPDIR."
        ) from error


def _close(run_id: str, status: str, why: str = "") -> None:
    """End MLflow's active run, and ignore errors if the server does not answer."""
    import mlflow

    with http_timeouts(CLEANUP_TIMEOUTS), suppress(Exception):
        if why:
            mlflow.MlflowClient().set_tag(run_id, REASON_TAG, why)
    with http_timeouts(CLEANUP_TIMEOUTS), suppress(Exception):
        mlflow.end_run(status)


def _now() -> int:
    return int(time.time() * 1000)


def _is_alive(process: int) -> bool:
    """Return whether a process with this id exists, even if it is a new one that reuses the id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
