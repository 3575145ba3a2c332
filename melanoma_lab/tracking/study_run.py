"""A study as one run of its own in MLflow: its runs lie under it, its report is an artifact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Marks the run that stands for a study; it has no arm, seed or metrics.
STUDY_TAG = "melanoma_lab.study"
#: MLflow's own names: what a run lies under, the text on a run's or an experiment's page, what a
#: run is called, its curves' colour, what the column Source shows.
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
NAME_TAG = "mlflow.runName"
COLOUR_TAG = "mlflow.runColor"
SOURCE = {"mlflow.source.name": "melanoma_lab compare", "mlflow.source.type": "LOCAL"}
#: What of a study's folder is kept with the run; the folder holds the jobs' own files too.
REPORT_FILES = ("comparison.json", "report.md", "report.html")


@dataclass(frozen=True)
class StudyMember:
    """A compared run.

    Attributes:
        run_id: MLflow's.
        tags: as tracked.
        name: what it is to be called among the study's runs.
        colour: of its arm, as ``#rrggbb``.
    """

    run_id: str
    tags: Mapping[str, str]
    name: str
    colour: str


def record_study(
    client: Any, study: str, members: Sequence[StudyMember], folder: Path, note: str
) -> str:
    """Put a study's runs under one and keep the report with it; may be repeated.

    The runs get what MLflow's tables and charts show before anybody has chosen anything: short
    names, their arm's colour, their dataset. A name, colour or description that a user gave stays.

    Args:
        client: an MlflowClient.
        study: the MLflow experiment.
        members: its compared runs.
        folder: the study's, with the report.
        note: what its page says, in Markdown.

    Returns:
        The id of the study's run.
    """
    from mlflow.entities import RunTag

    experiment = client.get_experiment_by_name(study)
    parent = _find(client, experiment.experiment_id, study) or _make(
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
    """Say in MLflow's own terms which images a run saw; no second time where it knows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if "dataset" in tags and "dataset_digest" in tags:
        dataset = Dataset(tags["dataset"], tags["dataset_digest"], "melanoma_lab", "{}")
        used_as = InputTag("mlflow.data.context", tags.get("protocol", ""))
        client.log_inputs(run_id, [DatasetInput(dataset, [used_as])])


def _find(client: Any, experiment: str, study: str) -> str | None:
    found = client.search_runs(
        [experiment],
        f"tags.`{STUDY_TAG}` = '{study}'",
        order_by=["attributes.start_time ASC"],  # the first, should two processes have made one
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def _make(client: Any, experiment: str, study: str) -> str:
    tags = {STUDY_TAG: study, **SOURCE}
    run = client.create_run(experiment, run_name=f"study {study}", tags=tags)
    client.set_terminated(run.info.run_id, "FINISHED")
    return _find(client, experiment, study) or str(run.info.run_id)
