"""A study as one run of its own in MLflow: its runs lie under it, its report is an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Marks the run that stands for a study; it has no arm, seed or metrics.
STUDY_TAG = "melanoma_lab.study"
#: MLflow's own names: what a run lies under, and the text on a run's page.
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
#: What of a study's folder is kept with the run; the folder holds the jobs' own files too.
REPORT = ("comparison.json", "report.md", "report.html")


def record_study(
    client: Any, study: str, runs: Mapping[str, Mapping[str, str]], folder: Path, note: str
) -> str:
    """Put a study's runs under one and keep the report with it; may be repeated.

    Args:
        client: an MlflowClient.
        study: the MLflow experiment.
        runs: ids of its compared runs -> their tags.
        folder: the study's, with the report.
        note: what its page says, in Markdown.

    Returns:
        The id of the study's run.
    """
    experiment = client.get_experiment_by_name(study).experiment_id
    parent = _find(client, experiment, study) or _make(client, experiment, study)
    client.set_tag(parent, NOTE_TAG, note)
    for name in REPORT:
        client.log_artifact(parent, str(folder / name))
    client.log_artifacts(parent, str(folder / "figures"), "figures")
    for run_id, tags in runs.items():
        if tags.get(PARENT_TAG) != parent:
            client.set_tag(run_id, PARENT_TAG, parent)
    return parent


def _find(client: Any, experiment: str, study: str) -> str | None:
    found = client.search_runs(
        [experiment],
        f"tags.`{STUDY_TAG}` = '{study}'",
        order_by=["attributes.start_time ASC"],  # the first, should two processes have made one
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def _make(client: Any, experiment: str, study: str) -> str:
    run = client.create_run(experiment, run_name=f"study {study}", tags={STUDY_TAG: study})
    client.set_terminated(run.info.run_id, "FINISHED")
    return _find(client, experiment, study) or str(run.info.run_id)
