"""Sending a run to the tracking server, in steps that can be repeated without duplicates.

Metrics are sent in the background while the network trains. A run that is resumed sends only what
the server does not have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.tracking.client import UPLOAD_TIMEOUTS, get_or_create_experiment, http_timeouts
from melanoma_lab.tracking.logged_model import log_saved_model, register_model
from melanoma_lab.tracking.offline_store import (
    ARTIFACTS_FOLDER,
    MODEL_FOLDER,
    MetricPoint,
    RunRecord,
)

#: Tag with the process of a run, by which a later command sees whether the run still runs.
PROCESS_TAG = "process"
#: Tag with the reason why a run did not finish.
REASON_TAG = "reason"
#: Tag of a run that ``sync`` had to create: the id under which it was trained.
SYNCED_TAG = "synced_from"
#: Tag with the number of times a run was resumed; with the suffix ``_at``, the last time.
RESUMED_TAG = "resumed"
#: MLflow's limit for the characters of a parameter.
LONGEST_PARAM = 6000
LONGEST_REASON = 500


def fetch_recorded_state(
    client: Any, run_id: str
) -> tuple[dict[str, str], dict[str, str], frozenset[tuple[str, int]]]:
    """Read what the server has of a run that is resumed, and remove why it ended from its tags.

    Returns:
        New values of the tags that count resumptions; the logged params; name and step of each
        logged value of a metric.
    """
    data = client.get_run(run_id).data
    points = frozenset(
        (key, point.step)
        for key in data.metrics
        for point in client.get_metric_history(run_id, key)
    )
    if REASON_TAG in data.tags:
        client.delete_tag(run_id, REASON_TAG)
    tags = {
        RESUMED_TAG: str(int(data.tags.get(RESUMED_TAG, "0")) + 1),
        f"{RESUMED_TAG}_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return tags, dict(data.params), points


def log_metric_points(client: Any, run_id: str, points: list[MetricPoint]) -> None:
    """Log values of metrics; values that the server has already are not duplicated."""
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(*point) for point in points])


def flatten_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten a nested configuration to dotted keys.

    Returns:
        The values as text by dotted key; numbers, None and lists are in JSON.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten_params(value, f"{name}."))
        elif isinstance(value, str):
            flat[name] = value
        else:
            flat[name] = json.dumps(value)
    return flat


def log_params_and_tags(client: Any, run_id: str, record: RunRecord) -> None:
    """Log a run's parameters and tags."""
    from mlflow.entities import Param, RunTag

    client.log_batch(
        run_id,
        params=[Param(key, value[:LONGEST_PARAM]) for key, value in record.params.items()],
        tags=[RunTag(key, value) for key, value in record.tags.items()],
    )


def log_artifacts_and_model(client: Any, run_id: str, folder: Path) -> None:
    """Log a run's artifacts and its model if the folder has them."""
    with http_timeouts(UPLOAD_TIMEOUTS):
        if (folder / ARTIFACTS_FOLDER).is_dir():
            client.log_artifacts(run_id, str(folder / ARTIFACTS_FOLDER))
        if (folder / MODEL_FOLDER).is_dir():
            log_saved_model(client, run_id, folder / MODEL_FOLDER)


def register_if_requested(client: Any, run_id: str, record: RunRecord, folder: Path) -> str | None:
    """Register a run's model if configured; return ``NAME/VERSION``, or None if it is not."""
    if record.register is None or not (folder / MODEL_FOLDER).is_dir():
        return None
    return f"{record.register}/{register_model(client, run_id, record.register)}"


def send_offline_run(client: Any, record: RunRecord, folder: Path, tracking: Tracking) -> str:
    """Send a stored run to its MLflow run, created if the server does not have it; return its id.

    Sending can be interrupted anywhere and repeated: values, files and the model are not
    duplicated, and an MLflow run that was created before is found again.
    """
    run_id = _find_or_create_run(client, record, tracking)
    log_params_and_tags(client, run_id, record)
    log_metric_points(client, run_id, record.metrics)
    log_artifacts_and_model(client, run_id, folder)
    register_if_requested(client, run_id, record, folder)
    stale = client.get_run(run_id).data.tags.keys() & {REASON_TAG} - record.tags.keys()
    for tag in stale:  # another command wrongly marked the run as killed
        client.delete_tag(run_id, tag)
    client.set_terminated(run_id, record.status, record.end_time)
    return run_id


def _find_or_create_run(client: Any, record: RunRecord, tracking: Tracking) -> str:
    """Return the id of a record's MLflow run; create the run if the server does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(record.run_id).info.lifecycle_stage == "active":
            return record.run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    experiment = get_or_create_experiment(client, tracking, record.study)
    sent = client.search_runs([experiment], f"tags.{SYNCED_TAG} = '{record.run_id}'", max_results=1)
    if sent:
        return str(sent[0].info.run_id)
    run = client.create_run(
        experiment,
        start_time=record.start_time,
        tags={**record.tags, SYNCED_TAG: record.run_id},
        run_name=record.name,
    )
    return str(run.info.run_id)


class BackgroundSender:
    """Background thread that sends all waiting items in one request, in order.

    MLflow can log in the background itself, but it loses what it fails to send, and the process
    does not end if the server hangs (mlflow/mlflow#20575). Here nothing is dropped before it is
    sent. A slow server gets fewer and larger requests. After a failure, all unsent items are sent
    again together with the next ones, and once more at the end.

    Args:
        send: function that sends a list of items and raises an error if it fails. It may get the
            same items again after that.
    """

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self._send = send
        self._waiting: list[Any] = []
        self._changed = threading.Condition()
        self._due = self._sending = self._closed = False
        self._failures = 0
        self._problem: Exception | None = None
        # A daemon: a server that hangs must not keep the process from ending.
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def put(self, things: Sequence[Any]) -> None:
        """Queue items for sending and return at once."""
        with self._changed:
            self._waiting += things
            self._due = True
            self._changed.notify_all()

    def close(self, patience: float | None = None) -> Exception | None:
        """Wait until all items are sent or an attempt has failed; then stop sending.

        Args:
            patience: the longest time to wait in seconds; None: as long as an attempt takes.

        Returns:
            Why some items were not sent; None if all were sent.
        """
        with self._changed:
            failures = self._failures
            self._changed.wait_for(self._idle, patience)
            if self._waiting and self._failures == failures and not self._sending:
                self._due = True  # an attempt that failed before may work now
                self._changed.notify_all()
                self._changed.wait_for(self._idle, patience)
            self._closed = True
            self._changed.notify_all()
            if not self._waiting:
                return None
            return self._problem or TimeoutError("no answer in time")

    def _idle(self) -> bool:
        return not self._due and not self._sending

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed)
                if self._closed:
                    return
                things = list(self._waiting)
                self._due, self._sending = False, True
            problem = None
            try:
                self._send(things)
            except Exception as error:  # noqa: BLE001 - close returns it
                problem = error
            with self._changed:
                self._sending = False
                self._problem = problem
                if problem is None:
                    del self._waiting[: len(things)]
                else:
                    self._failures += 1
                self._changed.notify_all()
