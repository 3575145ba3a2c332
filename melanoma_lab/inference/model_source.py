"""Find the network that ``model=`` names: a run's, a file, a folder or a registered model.

This module does not load TensorFlow. It loads MLflow only for runs and registered models, to find
and download files, never to load a network.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_lab.config.compatibility import MODEL_FORMS, NO_MODEL
from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.out_of_distribution import OutOfDistributionDetector
from melanoma_lab.inference import mlmodel
from melanoma_lab.models.safe_loading import check_keras_file
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.client import connect_for_reading, find_run, locked_access
from melanoma_lab.tracking.logged_model import download_model, find_ready_models
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.offline_store import MODEL_FOLDER
from melanoma_lab.tracking.run_reader import explain_missing_folder
from melanoma_lab.tracking.sqlite_reader import MAX_LISTED_RUNS, ListedRun, list_runs_if_missing
from melanoma_lab.tracking.uris import local_folder

#: The number of newest runs that an error names if none resembles a mistyped id.
NEWEST = 3


@dataclass(frozen=True)
class ModelSource:
    """A saved network that was found but not loaded.

    Attributes:
        typed: the value of ``model``.
        network: the path of its ``.keras`` file.
        card: the description of its inputs and outputs; None if there is none.
        appearance: the detector of images unlike its training images; None if there is none.
        advice: the decision rule chosen on val; None if there is none.
        run: the MLflow id of the run that trained it; None if unknown.
        note: a remark for the user; may be empty.
    """

    typed: str
    network: Path
    card: ModelInfo | None
    appearance: OutOfDistributionDetector | None = None
    advice: DecisionRule | None = None
    run: str | None = None
    note: str = ""


def find_model(typed: str | None, tracked: Tracking, scratch: Path) -> ModelSource:
    """Find the network that ``model=`` names.

    Args:
        typed: the value of ``model``.
        tracked: the settings of the tracking server.
        scratch: a temporary folder for downloads.

    Raises:
        UserError: there is no such model, or it cannot be loaded without running code from it.
    """
    if not typed:
        raise UserError(NO_MODEL)
    if typed.startswith("models:/"):
        return _find_registered(typed, tracked, scratch)
    if typed.startswith("runs:/"):
        return _find_by_run(typed, typed.removeprefix("runs:/").split("/")[0], tracked, scratch)
    path = Path(typed).expanduser()
    try:
        if path.exists():
            return _find_by_path(typed, path)
    except (OSError, ValueError):  # no valid path: too long, or contains a zero byte
        pass
    if path.name != typed or path.suffix:
        raise UserError(f"model={truncate(typed)}: no such file or folder; expected {MODEL_FORMS}.")
    return _find_by_run(typed, typed, tracked, scratch)


def resolve_model_info(source: ModelSource, n_outputs: int) -> ModelInfo:
    """Return the description of a network; number its classes if it has no description.

    Args:
        source: the saved network.
        n_outputs: the number of the network's outputs.

    Raises:
        UserError: the description has another number of classes.
    """
    if source.card is None:
        return ModelInfo(tuple(f"class_{k}" for k in range(n_outputs)), decoding=DECODING_VERSION)
    if len(source.card.slugs) != n_outputs:
        raise UserError(
            f"model={source.typed}: names {len(source.card.slugs)} classes, but its network has "
            f"{n_outputs} outputs."
        )
    return source.card


def _find_by_path(typed: str, path: Path) -> ModelSource:
    # If the network is inside a model's folder, that folder has the description.
    folder = path.parent.parent if path.name == mlmodel.NETWORK_FILE else path
    if path.is_file() and not (folder / mlmodel.MLMODEL_FILE).is_file():
        return ModelSource(typed, check_keras_file(path), None)
    if not (folder / mlmodel.MLMODEL_FILE).is_file():
        raise UserError(
            f"model={truncate(typed)}: no MLmodel in this folder; expected {MODEL_FORMS}."
        )
    return _read_folder(typed, folder)


def _read_folder(
    typed: str, folder: Path, *, run: str | None = None, note: str = ""
) -> ModelSource:
    network, card = mlmodel.read_model_folder(folder)
    return ModelSource(
        typed,
        network,
        card,
        mlmodel.read_appearance(folder),
        mlmodel.read_advice(folder),
        run or mlmodel.read_run_id(folder),
        note,
    )


def _find_registered(typed: str, tracked: Tracking, scratch: Path) -> ModelSource:
    """Find a registered model by version or alias, or a logged model by its id."""
    from mlflow.exceptions import MlflowException

    client = connect_for_reading(tracked)
    try:
        _refuse_missing(typed, _find_location(client, typed), None)
        folder = download_model(typed, scratch / "model")
    except (MlflowException, OSError) as error:
        names = [
            entry.name for entry in client.search_registered_models(max_results=MAX_LISTED_RUNS)
        ]
        known = f" Registered: {', '.join(names[:10])}." if names else " No model is registered."
        raise UserError(
            f"model={truncate(typed)}: not in {describe_tracking_uri(tracked.uri)} "
            f"({truncate(get_first_line(error))}).{known}"
        ) from error
    return _read_folder(typed, folder)


def _find_location(client: Any, typed: str) -> str:
    """Return the URI of ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or ``models:/ID``."""
    name, _, version = typed.removeprefix("models:/").partition("/")
    if "@" in name:
        name, _, alias = name.partition("@")
        version = client.get_model_version_by_alias(name, alias).version
    if not version:
        return str(client.get_logged_model(name).artifact_location)
    if not str(version).isdigit():  # such as "latest", which MLflow resolves
        return typed
    return str(client.get_model_version_download_uri(name, version))


def _find_by_run(typed: str, run_id: str, tracked: Tracking, scratch: Path) -> ModelSource:
    unsent = Path(tracked.unsent) / run_id / MODEL_FOLDER
    if run_id and (unsent / mlmodel.MLMODEL_FILE).is_file():  # not sent to the server yet
        return _read_folder(typed, unsent, run=run_id)
    existing = list_runs_if_missing(run_id, tracked.uri)
    if existing is not None:
        raise _build_unknown_error(typed, run_id, tracked, existing)  # before MLflow is loaded
    client = connect_for_reading(tracked)
    with locked_access(tracked.uri):
        run = _require_active_run(client, typed, run_id, tracked)
        ready = find_ready_models(client, run)
        if not ready:
            raise UserError(f"model={truncate(typed)}: {_explain_no_model(run)}")
        _refuse_missing(typed, ready[-1].artifact_location, run_id)
        folder = download_model(ready[-1].model_uri, scratch / "model")
        return _read_folder(typed, folder, run=run_id, note=_describe_unfinished(run))


def _require_active_run(client: Any, typed: str, run_id: str, tracked: Tracking) -> Any:
    run = find_run(client, run_id)
    if run is None:
        raise _build_unknown_error(typed, run_id, tracked, _list_newest_runs(client))
    if run.info.lifecycle_stage != "active":
        raise UserError(
            f"model={truncate(typed)}: this run was deleted; mlflow runs restore --run-id {run_id}"
        )
    return run


def _list_newest_runs(client: Any) -> list[ListedRun]:
    """List the newest recorded runs, newest first."""
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=MAX_LISTED_RUNS) if experiments else []
    return [ListedRun(run.info.run_id, run.info.run_name, "arm" in run.data.tags) for run in runs]


def _build_unknown_error(
    typed: str, run_id: str, tracked: Tracking, existing: Sequence[ListedRun]
) -> UserError:
    """Build the error about a run that does not exist; it suggests one that does."""
    return UserError(
        f"model={truncate(typed)}: neither a file or folder here nor a run in "
        f"{describe_tracking_uri(tracked.uri)}. {_suggest_run(run_id, existing)}"
    )


def _suggest_run(run_id: str, existing: Sequence[ListedRun]) -> str:
    ids = [run.run_id for run in existing]
    starting = [found for found in ids if len(run_id) >= 4 and found.startswith(run_id)]
    close = starting[:1] or difflib.get_close_matches(run_id, ids, n=1, cutoff=0.7)
    if close:
        return f"Did you mean {close[0]}?"
    newest = [f"{run.run_id} ({run.name})" for run in existing if run.of_arm]
    if not newest:
        return "No run is recorded there."
    return f"The newest: {', '.join(newest[:NEWEST])}."


def _explain_no_model(run: Any) -> str:
    tags = run.data.tags
    if EVALUATED_TAG in tags:
        return (
            "this run evaluated a model and trained none; the evaluated model: "
            f"{tags[EVALUATED_TAG]}"
        )
    if tags.get("trivial") == "true":
        return (
            f"a trivial classifier ({tags.get('arm')}) has no model; its predictions are in its "
            "run's predictions.csv."
        )
    if run.data.params.get("tracking.model", "").lower() == "false":
        return "this run was trained with tracking.model=false and saved no model; train it again."
    if run.info.status != "FINISHED":
        why = f" ({tags['reason']})" if tags.get("reason") else ""
        return f"this run is {run.info.status}{why} and has no model."
    return "this run has no model; expected one that has trained a network."


def _describe_unfinished(run: Any) -> str:
    """Return a remark about a model whose run did not finish; empty if it did."""
    if run.info.status == "FINISHED":
        return ""
    why = run.data.tags.get("reason")
    return f"Its run is {run.info.status}{f': {why}' if why else ''}"


def _refuse_missing(typed: str, location: str, run_id: str | None) -> None:
    """Refuse a model whose local folder does not exist."""
    folder = local_folder(location)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"model={truncate(typed)}: its network is not in "
            f"{folder}{explain_missing_folder(folder, run_id)}."
        )
