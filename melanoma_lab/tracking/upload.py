"""Sending a run to the tracking server, in steps that may be repeated without doubling anything."""

from __future__ import annotations

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

#: Which process a run belongs to; lets a later command tell a running run from a dead one.
PROCESS_TAG = "process"
#: Why a run did not finish.
REASON_TAG = "reason"
#: On a run that ``sync`` had to make anew: the id that it was trained under.
SYNCED_TAG = "synced_from"
#: MLflow keeps this many characters of a parameter.
LONGEST_PARAM = 6000
LONGEST_REASON = 500


def log_metric_points(client: Any, run_id: str, points: list[MetricPoint]) -> None:
    """Log metrics; a point that the server has already is not doubled."""
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(*point) for point in points])


def log_params_and_tags(client: Any, run_id: str, record: RunRecord) -> None:
    """Log a run's parameters and tags."""
    from mlflow.entities import Param, RunTag

    client.log_batch(
        run_id,
        params=[Param(key, value[:LONGEST_PARAM]) for key, value in record.params.items()],
        tags=[RunTag(key, value) for key, value in record.tags.items()],
    )


def log_artifacts_and_model(client: Any, run_id: str, folder: Path) -> None:
    """Log a run's artifacts and its model, as far as the folder has them."""
    with http_timeouts(UPLOAD_TIMEOUTS):
        if (folder / ARTIFACTS_FOLDER).is_dir():
            client.log_artifacts(run_id, str(folder / ARTIFACTS_FOLDER))
        if (folder / MODEL_FOLDER).is_dir():
            log_saved_model(client, run_id, folder / MODEL_FOLDER)


def register_if_requested(client: Any, run_id: str, record: RunRecord, folder: Path) -> str | None:
    """Register a run's model where that was asked for; returns ``NAME/VERSION``."""
    if record.register is None or not (folder / MODEL_FOLDER).is_dir():
        return None
    return f"{record.register}/{register_model(client, run_id, record.register)}"


def send_offline_run(client: Any, record: RunRecord, folder: Path, tracking: Tracking) -> str:
    """Send a kept run: into its own MLflow run where the server has that, else into a new one.

    May be interrupted anywhere and repeated: values, files and the model are not doubled, and a
    run that was made anew is found again.

    Args:
        client: an MlflowClient.
        record: of the run.
        folder: its folder.
        tracking: where it is sent to.

    Returns:
        The id of the MLflow run.
    """
    run_id = _destination(client, record, tracking)
    log_params_and_tags(client, run_id, record)
    log_metric_points(client, run_id, record.metrics)
    log_artifacts_and_model(client, run_id, folder)
    register_if_requested(client, run_id, record, folder)
    stale = client.get_run(run_id).data.tags.keys() & {REASON_TAG} - record.tags.keys()
    for tag in stale:  # another command took the run for dead, which it was not
        client.delete_tag(run_id, tag)
    client.set_terminated(run_id, record.status, record.end_time)
    return run_id


def _destination(client: Any, record: RunRecord, tracking: Tracking) -> str:
    """The MLflow run that a record belongs to, made where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(record.run_id).info.lifecycle_stage == "active":
            return record.run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    experiment = get_or_create_experiment(client, tracking, record.study)
    made = client.search_runs([experiment], f"tags.{SYNCED_TAG} = '{record.run_id}'", max_results=1)
    if made:
        return str(made[0].info.run_id)
    run = client.create_run(
        experiment,
        start_time=record.start_time,
        tags={**record.tags, SYNCED_TAG: record.run_id},
        run_name=record.name,
    )
    return str(run.info.run_id)
