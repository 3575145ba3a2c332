"""The run that is being trained, on its way to MLflow; on disk where that cannot take it.

Connecting takes seconds (MLflow's import, a new database's tables), so it is done in the
background while TensorFlow loads. From then on no server can stop a training: figures are sent in
the background, files at the end, and what did not arrive is kept for ``sync``.
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
from melanoma_lab.core.console import console, show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.locks import get_process_id
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.tracking.background_sender import BackgroundSender
from melanoma_lab.tracking.client import (
    CLEANUP_TIMEOUTS,
    get_or_create_experiment,
    http_timeouts,
    locked_access,
    mlflow_client,
    summarize_error,
)
from melanoma_lab.tracking.database import TrackingError
from melanoma_lab.tracking.logged_model import save_network
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.offline_store import (
    ARTIFACTS_FOLDER,
    MODEL_FOLDER,
    MetricPoint,
    RunRecord,
    load_offline_runs,
    save_offline_run,
)
from melanoma_lab.tracking.relocation import relocate_artifacts
from melanoma_lab.tracking.resumed_run import (
    can_resume_run,
    discard_offline_run,
    fetch_recorded_state,
)
from melanoma_lab.tracking.upload import (
    LONGEST_REASON,
    PROCESS_TAG,
    REASON_TAG,
    log_artifacts_and_model,
    log_metric_points,
    log_params_and_tags,
    register_if_requested,
)
from melanoma_lab.tracking.uris import make_absolute_uri

#: Servers that took a run of this process. When one of them is down later, that is an outage and
#: no mistyped address: the multirun's other jobs are trained all the same.
_PROVEN: set[str] = set()
#: Seconds that an interrupted command still waits for its figures to be sent.
_LAST_WAIT = 5.0


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
    """A run that the study has.

    Attributes:
        run_id: MLflow's; of a run that is kept on disk, its own.
        tags: as recorded.
        metrics: of each the last value.
    """

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


class Tracker:
    """One run at a time in an MLflow experiment.

    Args:
        client: an MlflowClient; None: runs are kept on disk.
        experiment_id: of the study.
        tracking: where runs are recorded.
        study: its name.
        outage: why there is no client, if nobody asked for that.
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
        #: Where the last run is kept, if it was not sent.
        self.kept: Path | None = None
        #: What its model is registered as, ``NAME/VERSION``, if it was.
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
        """Record what happens in the block as one run.

        The run ends FINISHED; KILLED where the block was interrupted; FAILED, with the tag
        ``summarize_error``, where it raised.

        Args:
            name: what the run is called in the list of runs.
            tags: searchable facts about the run.
            params: the resolved configuration, flattened.
            continuing: the id of the run to go on with; it keeps what it has. None: a new one.
            line: as for ``show_progress``, while the run is sent at its end.

        Yields:
            The run's id.

        Raises:
            UserError: the tracking server takes no run.
            RunError: it took the run but not all of what the block recorded; that is kept.
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
            except BaseException as error:  # noqa: BLE001 - raised below, when the run has ended
                failure = error
            if failure is None:
                self._end("FINISHED")
            elif isinstance(failure, (KeyboardInterrupt, SystemExit)):  # a scheduler's, too
                self._end("KILLED", "interrupted")
            else:
                self._end("FAILED", f"{type(failure).__name__}: {failure}")
            if self._problem is not None and failure is None:
                raise RunError(self._explain())
            if failure is not None:
                if self._problem is not None:
                    console.print(self._explain(), style="yellow", markup=False)
                raise failure

    def _begin(
        self, name: str, tags: dict[str, str], params: dict[str, str], continuing: str | None
    ) -> RunRecord:
        """Open the run, on the server where there is one."""
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
            so_far = fetch_recorded_state(self._client, continuing)
            self._points = so_far.points
            record.tags |= so_far.tags
            record.params |= so_far.params  # such as a cache folder that has moved
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
        """Send what is left of the run, or keep it."""
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
                _close(record.run_id, "FAILED", f"not all of it was sent; it is in {self.kept}")
        if isinstance(self._problem, KeyboardInterrupt):
            console.print(self._explain(), style="yellow", markup=False)
            raise self._problem

    def _send(self, wait: float | None) -> BaseException | None:
        """Send what is left; returns why it could not be, an interruption included."""
        import mlflow

        run_id = self._record.run_id
        try:
            if self._sender and (problem := self._sender.close(wait)):
                return problem
            # Another process may know the folder by another path, as from within a container.
            relocate_artifacts(self._tracking.uri)
            log_params_and_tags(self._client, run_id, self._record)
            log_artifacts_and_model(self._client, run_id, self._files)
            self.registered = register_if_requested(self._client, run_id, self._record, self._files)
            mlflow.end_run(self._record.status)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - of a server, of a driver
            return error
        return None

    def _explain(self) -> str:
        """What became of a run that could not be sent, and what to type."""
        problem = self._problem or self._outage
        where = "" if self.kept is None else f" It is kept in {self.kept}"
        command = format_lab_command("sync")
        if self.kept is not None and self.kept.parent != Path(self._tracking.unsent):
            command += f" tracking.unsent={self.kept.parent}"
        return (
            f"{describe_tracking_uri(self._tracking.uri)} did not take the whole run "
            f"({summarize_error(problem) if problem else 'no answer'}).{where}; nothing is lost. "
            f"When it works again, send it: {command}"
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures of the run; NaN stays NaN. They are sent in the background.

        A continued run that has a figure of this step keeps the one it has.

        Args:
            metrics: figures by name.
            step: the epoch, for figures that have one.
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
        """Record facts that only the end of a run knows; they are sent when it ends."""
        self._record.tags |= tags

    def log_folder(self, folder: Path) -> None:
        """Keep everything in a folder with the run; it is sent when the run ends."""
        with _staging():
            shutil.copytree(folder, self._files / ARTIFACTS_FOLDER, dirs_exist_ok=True)

    def log_network(
        self, network: Any, card: ModelInfo, beside: Mapping[str, str] | None = None
    ) -> None:
        """Keep a Keras model with the run, ready for ``mlflow models serve``.

        Args:
            network: what ``save_network`` takes, as are the others.
            card: what its inputs and outputs mean.
            beside: name -> text of further files in its folder.
        """
        with _staging():
            save_network(network, card, self._files / MODEL_FOLDER, beside)

    def find_finished(self, tags: Mapping[str, str]) -> FinishedRun | None:
        """The newest finished run with these tags in the study, if there is one.

        Runs that are kept on disk count.
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
        """What the run under way is called."""
        return self._record.name

    @property
    def tags(self) -> dict[str, str]:
        """Facts of the run that are recorded so far."""
        return dict(self._record.tags)

    @property
    def started(self) -> int:
        """When the run began, in milliseconds since 1970."""
        return self._record.start_time

    @property
    def client(self) -> Any:
        """The MlflowClient; None where runs are kept on disk."""
        return self._client

    def can_resume(self, run_id: str) -> bool:
        """Whether the study has this run and it has not finished."""
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
    """Say where there is no room for what waits to be sent."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{tempfile.gettempdir()}: cannot be written ({summarize_error(error)}). Make room "
            "there, or name another folder in the environment variable TMPDIR."
        ) from error


def _close(run_id: str, status: str, why: str = "") -> None:
    """End MLflow's active run, whether or not its server still answers."""
    import mlflow

    with http_timeouts(CLEANUP_TIMEOUTS), suppress(Exception):
        if why:
            mlflow.MlflowClient().set_tag(run_id, REASON_TAG, why)
    with http_timeouts(CLEANUP_TIMEOUTS), suppress(Exception):
        mlflow.end_run(status)


def _now() -> int:
    return int(time.time() * 1000)


def _is_alive(process: int) -> bool:
    """Whether a process of this number exists; a number used again counts as alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
