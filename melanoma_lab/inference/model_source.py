"""Find the network that ``model=`` names: a run's, a file, a folder or a registered model.

A model folder of MLflow is read as data: nothing that it names is imported or run. MLflow's own
loaders import modules that an ``MLmodel`` names, and may unpickle files. This module only reads
whether the folder holds a plain Keras network, and where; Keras then loads it in safe mode.

This module does not load TensorFlow. It loads MLflow only for runs and registered models, to find
and download files, never to load a network.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from melanoma_lab.config.compatibility import MODEL_FORMS, NO_MODEL
from melanoma_lab.config.schema.tracking import Tracking, describe_tracking_uri
from melanoma_lab.core import untrusted_files
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.formatting import truncate
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.out_of_distribution import OutOfDistributionDetector
from melanoma_lab.models.safe_loading import check_keras_file
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.client import connect_for_reading, find_run, locked_access
from melanoma_lab.tracking.locations import local_folder
from melanoma_lab.tracking.logged_model import ModelInfo, download_model, find_ready_models
from melanoma_lab.tracking.offline_store import MODEL_FOLDER
from melanoma_lab.tracking.run_reader import (
    MAX_LISTED_RUNS,
    ListedRun,
    explain_missing_folder,
    list_runs_if_missing,
)

#: The number of newest runs that an error names if none resembles a mistyped id.
NEWEST = 3
MLMODEL_FILE: Final = "MLmodel"
#: MLflow's name of a Keras network, in the folder that the flavor's ``data`` names.
NETWORK_FILE: Final = "model.keras"
#: The format of MLflow's run ids.
RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
#: The maximum size in bytes of a file that describes a network; ours have a few thousand.
MAX_DESCRIPTION_BYTES: Final = 2**20

_Read = TypeVar("_Read")


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
    """Find the network that ``model=`` names; downloads go to the temporary folder ``scratch``.

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
    folder = path.parent.parent if path.name == NETWORK_FILE else path
    if (folder / MLMODEL_FILE).is_file():
        return _read_folder(typed, folder)
    if path.is_file():
        return ModelSource(typed, check_keras_file(path), None)
    raise UserError(f"model={truncate(typed)}: no MLmodel in this folder; expected {MODEL_FORMS}.")


def _read_folder(
    typed: str, folder: Path, *, run: str | None = None, note: str = ""
) -> ModelSource:
    network, card = read_model_folder(folder)
    return ModelSource(
        typed,
        network,
        card,
        read_appearance(folder),
        read_advice(folder),
        run or read_run_id(folder),
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
    if run_id and (unsent / MLMODEL_FILE).is_file():  # not sent to the server yet
        return _read_folder(typed, unsent, run=run_id)
    existing = list_runs_if_missing(run_id, tracked.uri)
    if existing is not None:
        raise _build_unknown_error(typed, run_id, tracked, existing)  # before MLflow is loaded
    client = connect_for_reading(tracked)
    with locked_access(tracked.uri):
        run = find_run(client, run_id)
        if run is None:
            raise _build_unknown_error(typed, run_id, tracked, _list_newest_runs(client))
        if run.info.lifecycle_stage != "active":
            raise UserError(
                f"model={truncate(typed)}: this run was deleted; "
                f"mlflow runs restore --run-id {run_id}"
            )
        ready = find_ready_models(client, run)
        if not ready:
            raise UserError(f"model={truncate(typed)}: {_explain_no_model(run)}")
        _refuse_missing(typed, ready[-1].artifact_location, run_id)
        folder = download_model(ready[-1].model_uri, scratch / "model")
        return _read_folder(typed, folder, run=run_id, note=_describe_unfinished(run))


def _list_newest_runs(client: Any) -> list[ListedRun]:
    """List the newest recorded runs, newest first."""
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=MAX_LISTED_RUNS) if experiments else []
    return [ListedRun(run.info.run_id, run.info.run_name, "arm" in run.data.tags) for run in runs]


def _build_unknown_error(
    typed: str, run_id: str, tracked: Tracking, existing: Sequence[ListedRun]
) -> UserError:
    """Build the error about a run that does not exist; it suggests one that does."""
    ids = [run.run_id for run in existing]
    starting = [found for found in ids if len(run_id) >= 4 and found.startswith(run_id)]
    close = starting[:1] or difflib.get_close_matches(run_id, ids, n=1, cutoff=0.7)
    newest = [f"{run.run_id} ({run.name})" for run in existing if run.of_arm]
    if close:
        suggestion = f"Did you mean {close[0]}?"
    elif newest:
        suggestion = f"The newest: {', '.join(newest[:NEWEST])}."
    else:
        suggestion = "No run is recorded there."
    return UserError(
        f"model={truncate(typed)}: neither a file or folder here nor a run in "
        f"{describe_tracking_uri(tracked.uri)}. {suggestion}"
    )


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


def read_model_folder(folder: Path) -> tuple[Path, ModelInfo | None]:
    """Read the path and the description of the network in a folder with the file ``MLmodel``.

    Returns:
        The ``.keras`` file, which is inside the folder, and the description, None if there is none.

    Raises:
        UserError: the folder does not hold a plain Keras network.
    """
    mlmodel = folder / MLMODEL_FILE
    content = untrusted_files.read_yaml(mlmodel)
    try:
        card = ModelInfo.read(content.get("metadata"))
    except ValueError as error:
        raise UserError(f"{mlmodel}: {truncate(error)}.") from error
    flavors = content.get("flavors")
    network = folder / _find_data_folder(flavors, mlmodel) / NETWORK_FILE
    if not network.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{mlmodel}: names a network outside of its folder, {network}.")
    return check_keras_file(network), card


def read_run_id(folder: Path) -> str | None:
    """Read the MLflow id of the run that logged a model; return None if its folder has none.

    Raises:
        UserError: the folder's description cannot be read.
    """
    run = untrusted_files.read_yaml(folder / MLMODEL_FILE).get("run_id")
    return run if isinstance(run, str) and RUN_ID.fullmatch(run) else None


def read_appearance(folder: Path) -> OutOfDistributionDetector | None:
    """Read the out-of-distribution detector of a model; return None if its folder has none.

    Raises:
        UserError: the file is damaged.
    """
    return _read_optional(folder / out_of_distribution.FILE, OutOfDistributionDetector.read)


def read_advice(folder: Path) -> DecisionRule | None:
    """Read the decision rule of a model; return None if its folder has none.

    Raises:
        UserError: the file is damaged.
    """
    return _read_optional(folder / decision_rule.FILE, DecisionRule.read)


def _read_optional(path: Path, read: Callable[[str], _Read]) -> _Read | None:
    """Read and parse a file; return None if it does not exist."""
    if not path.is_file():
        return None
    text = untrusted_files.read_text(path, MAX_DESCRIPTION_BYTES)
    try:
        return read(text)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({truncate(error)}).") from error


def _find_data_folder(flavors: Any, mlmodel: Path) -> str:
    """Return the name of the sub-folder with the network.

    Raises:
        UserError: loading the model would need its own code or another library than Keras.
    """
    flavors = flavors if isinstance(flavors, dict) else {}
    keras = flavors.get("tensorflow")
    served = flavors.get("python_function") or {"loader_module": "mlflow.tensorflow"}
    if not isinstance(keras, dict) or keras.get("model_type") != "keras":
        raise UserError(
            f"{mlmodel}: expected a network of Keras, logged by mlflow.tensorflow. Received "
            f"{truncate(', '.join(map(str, flavors)) or 'no flavors')}."
        )
    loader = served.get("loader_module") if isinstance(served, dict) else None
    if loader != "mlflow.tensorflow" or keras.get("code") or served.get("code"):
        raise UserError(
            f"{mlmodel}: contains code or its own loader ({truncate(loader)}); code from a model "
            "is not run."
        )
    data = keras.get("data")
    if not isinstance(data, str):
        raise UserError(f"{mlmodel}: does not name the path of its network (data).")
    return data
