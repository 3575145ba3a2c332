"""MLflow runs that are parents of others: of a study, of a search, of a trial with several runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.core.locks import get_process_id
from melanoma_lab.tracking.upload import LONGEST_PARAM, LONGEST_REASON, PROCESS_TAG, REASON_TAG

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
        colour: colour of the run's arm, as ``#rrggbb``.
    """

    run_id: str
    tags: Mapping[str, str]
    name: str
    colour: str


def record_study(
    client: Any, study: str, members: Sequence[StudyMember], folder: Path, note: str
) -> str:
    """Make a study's runs children of one run, log the report to it, and return its id.

    The runs also get short names, their arm's colour and their dataset, which MLflow's tables and
    charts show by default. A name, colour or description that a user gave is kept. Recording can
    be repeated.

    Args:
        note: the description on the run's page, in Markdown.
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
    """Create a run that will be the parent of others, or reopen it; return its id.

    Args:
        tags: the run's tags; ``SWEEP_TAG``, ``TRIAL_TAG`` and ``PARENT_TAG`` identify the run.
        params: parameters of a new run; an existing run keeps its own.
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
    """End a run that ``open_parent_run`` opened."""
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
