"""A model's folder as MLflow keeps it, read as data: nothing that it names is imported or run.

MLflow's own loaders import what an ``MLmodel`` names and may unpickle. Here the file is only asked
whether the folder holds a plain network of Keras, and where; Keras then reads that in safe mode.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from melanoma_lab.core import untrusted_files
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.evaluation.out_of_distribution import OutOfDistributionDetector
from melanoma_lab.models.safe_loading import check_keras_file
from melanoma_lab.tracking.model_info import ModelInfo

_Read = TypeVar("_Read")
MLMODEL_FILE: Final = "MLmodel"
#: Where MLflow keeps a network of Keras, below the folder that the flavor's ``data`` names.
NETWORK_FILE: Final = "model.keras"
#: How MLflow names runs.
RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
#: Bytes of what lies beside a network and says something of it; its own files have some thousands.
MAX_DESCRIPTION_BYTES: Final = 2**20


def read_model_folder(folder: Path) -> tuple[Path, ModelInfo | None]:
    """Where a model's network lies, and what it says about itself.

    Args:
        folder: with the file ``MLmodel``.

    Returns:
        The ``.keras`` file, inside the folder, and the card where there is one.

    Raises:
        UserError: the folder holds something else than a plain network of Keras.
    """
    described = folder / MLMODEL_FILE
    content = untrusted_files.read_yaml(described)
    try:
        card = ModelInfo.read(content.get("metadata"))
    except ValueError as error:
        raise UserError(f"{described}: {truncate(error)}.") from error
    flavors = content.get("flavors")
    network = folder / _data_of(flavors, described) / NETWORK_FILE
    if not network.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{described}: names a network outside of its folder, {network}.")
    return check_keras_file(network), card


def read_run_id(folder: Path) -> str | None:
    """MLflow's id of the run that a model was logged by; None where its folder does not say.

    Raises:
        UserError: the folder's description cannot be read.
    """
    run = untrusted_files.read_yaml(folder / MLMODEL_FILE).get("run_id")
    return run if isinstance(run, str) and RUN_ID.fullmatch(run) else None


def read_appearance(folder: Path) -> OutOfDistributionDetector | None:
    """What the training images of a model look like; None where its folder does not say.

    Raises:
        UserError: the file that says it is damaged.
    """
    return _beside(folder / out_of_distribution.FILE, OutOfDistributionDetector.read)


def read_advice(folder: Path) -> DecisionRule | None:
    """How the answers of a model are to be read; None where its folder does not say.

    Raises:
        UserError: the file that says it is damaged.
    """
    return _beside(folder / decision_rule.FILE, DecisionRule.read)


def _beside(path: Path, read: Callable[[str], _Read]) -> _Read | None:
    """What a file beside a model says; None where there is none."""
    if not path.is_file():
        return None
    text = untrusted_files.read_text(path, MAX_DESCRIPTION_BYTES)
    try:
        return read(text)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({truncate(error)}).") from error


def _data_of(flavors: Any, described: Path) -> str:
    """The sub-folder that holds the network.

    Raises:
        UserError: loading the model would need code that lies in it, or another library.
    """
    flavors = flavors if isinstance(flavors, dict) else {}
    keras = flavors.get("tensorflow")
    served = flavors.get("python_function") or {"loader_module": "mlflow.tensorflow"}
    if not isinstance(keras, dict) or keras.get("model_type") != "keras":
        raise UserError(
            f"{described}: expected a network of Keras, logged by mlflow.tensorflow. Received "
            f"{truncate(', '.join(map(str, flavors)) or 'no flavors')}."
        )
    loader = served.get("loader_module") if isinstance(served, dict) else None
    if loader != "mlflow.tensorflow" or keras.get("code") or served.get("code"):
        raise UserError(
            f"{described}: brings code or a loader of its own ({truncate(loader)}); code from a "
            "model is not run."
        )
    data = keras.get("data")
    if not isinstance(data, str):
        raise UserError(f"{described}: does not say where its network lies (data).")
    return data
