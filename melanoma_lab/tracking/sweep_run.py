"""The MLflow run of a search, which is the parent of the runs of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melanoma_lab.core.locks import get_process_id
from melanoma_lab.tracking.study_run import NOTE_TAG, PARENT_TAG
from melanoma_lab.tracking.upload import LONGEST_PARAM, LONGEST_REASON, PROCESS_TAG, REASON_TAG

#: Tag of the run of a search and of all its trials: the name of the search.
SWEEP_TAG = "sweep"
#: Tag of a trial: its id within the search.
TRIAL_TAG = "trial"
#: Tag of one of several runs of a trial; its parent run is the trial.
REPETITION_TAG = "trial_part"
#: Tag of a trial: its score in the search.
SCORE_TAG = "score"


def open_parent_run(
    client: Any,
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
) -> str:
    """Create a run that will be the parent of others, or reopen the one with the same tags.

    Args:
        client: an MlflowClient.
        experiment_id: id of the study's MLflow experiment.
        name: the run's name in the list of runs.
        tags: the run's tags; ``SWEEP_TAG``, ``TRIAL_TAG`` and ``PARENT_TAG`` identify the run.
        params: parameters of a new run; an existing run keeps its own.

    Returns:
        The run's id.
    """
    from mlflow.entities import Param, RunTag

    process = get_process_id()
    found = _find(client, experiment_id, tags)
    if found:
        client.update_run(found, status="RUNNING")
        client.set_tag(found, PROCESS_TAG, process)
        if REASON_TAG in client.get_run(found).data.tags:
            client.delete_tag(found, REASON_TAG)
        return found
    run = client.create_run(experiment_id, run_name=name, tags={**tags, PROCESS_TAG: process})
    run_id = str(run.info.run_id)
    client.log_batch(
        run_id,
        params=[Param(key, value[:LONGEST_PARAM]) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    return run_id


def close_parent_run(
    client: Any,
    run_id: str,
    status: str,
    *,
    why: str = "",
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """End a run that ``open_parent_run`` opened.

    Args:
        client: an MlflowClient.
        run_id: the run's id.
        status: MLflow's name of the status.
        why: the reason if the run did not finish, else empty.
        tags: tags that are known only at the end.
        metrics: metrics that are known only at the end.
    """
    for key, value in {
        **(tags or {}),
        **({REASON_TAG: why[:LONGEST_REASON]} if why else {}),
    }.items():
        client.set_tag(run_id, key, value)
    for key, figure in (metrics or {}).items():
        client.log_metric(run_id, key, figure)
    client.set_terminated(run_id, status)


def log_search_results(client: Any, run_id: str, files: Sequence[Path], note: str) -> None:
    """Log files and a description to the run of a search.

    Args:
        client: an MlflowClient.
        run_id: the run's id.
        files: files and folders to log as artifacts.
        note: the description on the run's page, in Markdown.
    """
    client.set_tag(run_id, NOTE_TAG, note)
    for path in files:
        if path.is_dir():
            client.log_artifacts(run_id, str(path), path.name)
        else:
            client.log_artifact(run_id, str(path))


def _find(client: Any, experiment_id: str, tags: Mapping[str, str]) -> str | None:
    """Return the id of the oldest run without an arm that has these tags, or None."""
    wanted = {key: tags[key] for key in (SWEEP_TAG, TRIAL_TAG, PARENT_TAG) if key in tags}
    found = client.search_runs(
        [experiment_id],
        " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items()),
        order_by=["attributes.start_time ASC"],
        max_results=1000,
    )
    own = [
        run
        for run in found
        if "arm" not in run.data.tags
        and wanted.keys() == (run.data.tags.keys() & {SWEEP_TAG, TRIAL_TAG, PARENT_TAG})
    ]
    return str(own[0].info.run_id) if own else None
