"""The MLflow run of a study: the parent of the study's runs, with the report as artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Tag of the run that represents a study; this run has no arm, seed or metrics.
STUDY_TAG = "melanoma_lab.study"
#: Tags that MLflow defines: a run's parent, the description on the page of a run or experiment, a
#: run's name, the colour of its curves, the column Source.
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
NAME_TAG = "mlflow.runName"
COLOUR_TAG = "mlflow.runColor"
SOURCE = {"mlflow.source.name": "melanoma_lab compare", "mlflow.source.type": "LOCAL"}
#: Files of a study's folder that are logged; the folder also holds files of the jobs.
REPORT_FILES = ("comparison.json", "report.md", "report.html")


@dataclass(frozen=True)
class StudyMember:
    """A compared run.

    Attributes:
        run_id: MLflow's id.
        tags: the run's tags in MLflow.
        name: short name for the list of the study's runs.
        colour: colour of the run's arm, as ``#rrggbb``.
    """

    run_id: str
    tags: Mapping[str, str]
    name: str
    colour: str


def record_study(
    client: Any, study: str, members: Sequence[StudyMember], folder: Path, note: str
) -> str:
    """Make a study's runs children of one run and log the report to it.

    The runs also get short names, their arm's colour and their dataset, which MLflow's tables and
    charts show by default. A name, colour or description that a user gave is kept. Recording can
    be repeated.

    Args:
        client: an MlflowClient.
        study: the name of the MLflow experiment.
        members: the compared runs of the study.
        folder: the study's folder, with the report.
        note: the description on the run's page, in Markdown.

    Returns:
        The id of the study's run.
    """
    from mlflow.entities import RunTag

    experiment = client.get_experiment_by_name(study)
    parent = _find_study_run(client, experiment.experiment_id, study) or _create_study_run(
        client, experiment.experiment_id, study
    )
    before = client.get_run(parent).data.tags.get(NOTE_TAG, "")
    client.set_tag(parent, NOTE_TAG, note)
    if experiment.tags.get(NOTE_TAG, "") in {"", before}:
        client.set_experiment_tag(experiment.experiment_id, NOTE_TAG, note)
    for name in REPORT_FILES:
        client.log_artifact(parent, str(folder / name))
    client.log_artifacts(parent, str(folder / "figures"), "figures")
    for member in members:
        new = {COLOUR_TAG: member.colour} if COLOUR_TAG not in member.tags else {}
        if member.tags.get(PARENT_TAG) != parent:
            _show_dataset(client, member.run_id, member.tags)
            new[PARENT_TAG] = parent
        if new:
            client.log_batch(member.run_id, tags=[RunTag(*tag) for tag in new.items()])
        if member.tags.get(NAME_TAG) != member.name and _named_by_lab(member.tags):
            client.update_run(member.run_id, name=member.name)
    _show_dataset(client, parent, members[0].tags)
    return parent


def _named_by_lab(tags: Mapping[str, str]) -> bool:
    preset, seed = (re.escape(tags.get(tag, "")) for tag in ("experiment", "seed"))
    return re.match(rf"{preset}\b.* seed={seed}\b", tags.get(NAME_TAG, "")) is not None


def _show_dataset(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Log a run's dataset as an MLflow dataset; MLflow ignores one that is logged twice."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if "dataset" in tags and "dataset_digest" in tags:
        dataset = Dataset(tags["dataset"], tags["dataset_digest"], "melanoma_lab", "{}")
        used_as = InputTag("mlflow.data.context", tags.get("protocol", ""))
        client.log_inputs(run_id, [DatasetInput(dataset, [used_as])])


def _find_study_run(client: Any, experiment: str, study: str) -> str | None:
    found = client.search_runs(
        [experiment],
        f"tags.`{STUDY_TAG}` = '{study}'",
        order_by=["attributes.start_time ASC"],  # the first if two processes created one
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def _create_study_run(client: Any, experiment: str, study: str) -> str:
    tags = {STUDY_TAG: study, **SOURCE}
    run = client.create_run(experiment, run_name=f"study {study}", tags=tags)
    client.set_terminated(run.info.run_id, "FINISHED")
    return _find_study_run(client, experiment, study) or str(run.info.run_id)
