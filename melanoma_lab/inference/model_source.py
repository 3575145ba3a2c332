"""Which network ``model=`` names: a run's, a file's, a folder's or a registered one.

No TensorFlow here; MLflow only where a run or a registered model is asked for, to find and fetch
files, never to load them.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melanoma_lab import tracking
from melanoma_lab.config.required_keys import MODEL_FORMS, NO_MODEL
from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.data.untrusted_tables import check_table
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.out_of_distribution import OutOfDistributionDetector
from melanoma_lab.evaluation.predictions import PROBABILITY_PREFIX
from melanoma_lab.inference import mlmodel
from melanoma_lab.models.safe_loading import check_keras_file
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.artifacts import explain_missing_folder, fetch_artifact
from melanoma_lab.tracking.client import find_run, locked_access
from melanoma_lab.tracking.logged_model import find_logged_models
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.offline_store import MODEL_FOLDER
from melanoma_lab.tracking.sqlite_reader import MAX_LISTED_RUNS, ListedRun, list_runs_if_missing
from melanoma_lab.tracking.uris import local_folder

#: Runs that are named where none is near a mistyped one.
NEWEST = 3


@dataclass(frozen=True)
class ModelSource:
    """A network that has been found and not been loaded.

    Attributes:
        typed: what named it.
        network: its ``.keras`` file.
        card: what it says about itself; None where it says nothing.
        appearance: of its training images; None where nothing says it.
        advice: how its answers are to be read; None where nothing says it.
        run: MLflow's id of the run that trained it, where that is known.
        note: what else is to be known; empty where nothing is.
    """

    typed: str
    network: Path
    card: ModelInfo | None
    appearance: OutOfDistributionDetector | None = None
    advice: DecisionRule | None = None
    run: str | None = None
    note: str = ""


def find_model(typed: str | None, tracked: Tracking, scratch: Path) -> ModelSource:
    """Find what ``model=`` names.

    Args:
        typed: as typed.
        tracked: where runs are recorded.
        scratch: a folder for what has to be downloaded.

    Raises:
        UserError: there is no such model, or it is none that can be used without running its code.
    """
    if not typed:
        raise UserError(NO_MODEL)
    if typed.startswith("models:/"):
        return _registered(typed, tracked, scratch)
    if typed.startswith("runs:/"):
        return _of_run(typed, typed.removeprefix("runs:/").split("/")[0], tracked, scratch)
    path = Path(typed).expanduser()
    try:
        if path.exists():
            return _of_path(typed, path)
    except (OSError, ValueError):  # too long, or with a zero in it: no path
        pass
    if path.name != typed or path.suffix:
        raise UserError(f"model={truncate(typed)}: no such file or folder; expected {MODEL_FORMS}.")
    return _of_run(typed, typed, tracked, scratch)


def resolve_model_info(source: ModelSource, n_outputs: int) -> ModelInfo:
    """What a network's outputs mean; numbered where nothing says it.

    Raises:
        UserError: it says so of another number of them.
    """
    if source.card is None:
        return ModelInfo(tuple(f"class_{k}" for k in range(n_outputs)), decoding=DECODING_VERSION)
    if len(source.card.slugs) != n_outputs:
        raise UserError(
            f"model={source.typed}: names {len(source.card.slugs)} classes, but its network has "
            f"{n_outputs} outputs."
        )
    return source.card


def _of_path(typed: str, path: Path) -> ModelSource:
    # A network within a model's folder: the folder says what its outputs are called.
    around = path.parent.parent if path.name == mlmodel.NETWORK_FILE else path
    if path.is_file() and not (around / mlmodel.MLMODEL_FILE).is_file():
        return ModelSource(typed, check_keras_file(path), None)
    if not (around / mlmodel.MLMODEL_FILE).is_file():
        raise UserError(
            f"model={truncate(typed)}: no MLmodel in this folder; expected {MODEL_FORMS}."
        )
    return _of_folder(typed, around)


def _of_folder(typed: str, folder: Path, *, run: str | None = None, note: str = "") -> ModelSource:
    network, card = mlmodel.read_model_folder(folder)
    looks, advice = mlmodel.read_appearance(folder), mlmodel.read_advice(folder)
    return ModelSource(
        typed, network, card, looks, advice, run or mlmodel.read_run_id(folder), note
    )


def _registered(typed: str, tracked: Tracking, scratch: Path) -> ModelSource:
    """A registered model, by version or alias, or one by its own id."""
    from mlflow.exceptions import MlflowException

    client = tracking.connect_for_reading(tracked)
    try:
        _refuse_missing(typed, _location(client, typed), None)
        folder = _local(typed, scratch)
    except (MlflowException, OSError) as error:
        names = [
            entry.name for entry in client.search_registered_models(max_results=MAX_LISTED_RUNS)
        ]
        there = f" Registered: {', '.join(names[:10])}." if names else " No model is registered."
        raise UserError(
            f"model={truncate(typed)}: not in {describe_tracking_uri(tracked.uri)} "
            f"({truncate(get_first_line(error))}).{there}"
        ) from error
    return _of_folder(typed, folder)


def _location(client: Any, typed: str) -> str:
    """Where the files of ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or ``models:/ID`` lie."""
    name, _, version = typed.removeprefix("models:/").partition("/")
    if "@" in name:
        name, _, alias = name.partition("@")
        version = client.get_model_version_by_alias(name, alias).version
    if not version:
        return str(client.get_logged_model(name).artifact_location)
    if not str(version).isdigit():  # such as "latest": MLflow looks it up
        return typed
    return str(client.get_model_version_download_uri(name, version))


def _of_run(typed: str, run_id: str, tracked: Tracking, scratch: Path) -> ModelSource:
    kept = Path(tracked.unsent) / run_id / MODEL_FOLDER
    if run_id and (kept / mlmodel.MLMODEL_FILE).is_file():  # waits to be sent
        return _of_folder(typed, kept, run=run_id)
    there = list_runs_if_missing(run_id, tracked.uri)
    if there is not None:
        raise _unknown(typed, run_id, tracked, there)  # before MLflow is loaded
    client = tracking.connect_for_reading(tracked)
    with locked_access(tracked.uri):
        run = _tracked_run(client, typed, run_id, tracked)
        ready = [model for model in find_logged_models(client, run) if model.status == "READY"]
        if not ready:
            raise UserError(f"model={truncate(typed)}: {_why_no_model(run)}")
        _refuse_missing(typed, ready[-1].artifact_location, run_id)
        folder = _local(ready[-1].model_uri, scratch)
        source = _of_folder(typed, folder, run=run_id, note=_doubt(run))
        if source.card is None:
            return replace(source, card=_card_of_table(client, run, scratch))
        return source


def _tracked_run(client: Any, typed: str, run_id: str, tracked: Tracking) -> Any:
    run = find_run(client, run_id)
    if run is None:
        raise _unknown(typed, run_id, tracked, _newest(client))
    if run.info.lifecycle_stage != "active":
        raise UserError(
            f"model={truncate(typed)}: this run was deleted; mlflow runs restore --run-id {run_id}"
        )
    return run


def _newest(client: Any) -> list[ListedRun]:
    """The newest runs that are recorded, newest first."""
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=MAX_LISTED_RUNS) if experiments else []
    return [ListedRun(run.info.run_id, run.info.run_name, "arm" in run.data.tags) for run in runs]


def _unknown(typed: str, run_id: str, tracked: Tracking, there: Sequence[ListedRun]) -> UserError:
    """The error of a run that is not there, which points to one that is."""
    return UserError(
        f"model={truncate(typed)}: neither a file or folder here nor a run in "
        f"{describe_tracking_uri(tracked.uri)}. {_nearest_run(run_id, there)}"
    )


def _nearest_run(run_id: str, there: Sequence[ListedRun]) -> str:
    ids = [run.run_id for run in there]
    starting = [found for found in ids if len(run_id) >= 4 and found.startswith(run_id)]
    close = starting[:1] or difflib.get_close_matches(run_id, ids, n=1, cutoff=0.7)
    if close:
        return f"Did you mean {close[0]}?"
    newest = [f"{run.run_id} ({run.name})" for run in there if run.of_arm]
    if not newest:
        return "No run is recorded there."
    return f"The newest: {', '.join(newest[:NEWEST])}."


def _why_no_model(run: Any) -> str:
    tags = run.data.tags
    if EVALUATED_TAG in tags:
        return f"this run evaluated a model and trained none; its model: {tags[EVALUATED_TAG]}"
    if tags.get("trivial") == "true":
        return (
            f"a trivial classifier ({tags.get('arm')}) keeps no model; what it predicts is in its "
            "run's predictions.csv."
        )
    if run.data.params.get("tracking.model", "").lower() == "false":
        return "this run was trained with tracking.model=false and kept no model; train it again."
    if run.info.status != "FINISHED":
        why = f" ({tags['reason']})" if tags.get("reason") else ""
        return f"this run is {run.info.status}{why} and has no model."
    return "this run has no model; expected one that has trained a network."


def _doubt(run: Any) -> str:
    """What is to be known of a model whose run did not end well."""
    if run.info.status == "FINISHED":
        return ""
    why = run.data.tags.get("reason")
    return f"Its run is {run.info.status}{f': {why}' if why else ''}"


def _refuse_missing(typed: str, location: str, run_id: str | None) -> None:
    """Say where a model's files were expected, where they are not there."""
    folder = local_folder(location)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"model={truncate(typed)}: its network is not in "
            f"{folder}{explain_missing_folder(folder, run_id)}."
        )


def _local(uri: str, scratch: Path) -> Path:
    """A copy of a model's folder."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=uri, dst_path=str(scratch / "model")))


def _card_of_table(client: Any, run: Any, scratch: Path) -> ModelInfo | None:
    """The classes by the columns of a run's predictions table, for models without a card."""
    try:
        path = fetch_artifact(client, run, "predictions.csv", scratch)
    except OSError:
        return None
    check_table(path)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            header = next(csv.reader(file), [])
        except csv.Error:
            return None
    slugs = [name.removeprefix(PROBABILITY_PREFIX) for name in header if "/" in name]
    return ModelInfo(tuple(slugs)) if slugs else None
