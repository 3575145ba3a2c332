"""Read a model folder of MLflow as data: nothing that it names is imported or run.

MLflow's own loaders import modules that an ``MLmodel`` names, and may unpickle files. This module
only reads whether the folder holds a plain Keras network, and where; Keras then loads it in safe
mode.
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
from melanoma_lab.tracking.logged_model import ModelInfo

_Read = TypeVar("_Read")
MLMODEL_FILE: Final = "MLmodel"
#: MLflow's name of a Keras network, in the folder that the flavor's ``data`` names.
NETWORK_FILE: Final = "model.keras"
#: The format of MLflow's run ids.
RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
#: The maximum size in bytes of a file that describes a network; ours have a few thousand.
MAX_DESCRIPTION_BYTES: Final = 2**20


def read_model_folder(folder: Path) -> tuple[Path, ModelInfo | None]:
    """Read the path and the description of a model's network.

    Args:
        folder: the folder with the file ``MLmodel``.

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

    Args:
        folder: the model's folder.

    Raises:
        UserError: the folder's description cannot be read.
    """
    run = untrusted_files.read_yaml(folder / MLMODEL_FILE).get("run_id")
    return run if isinstance(run, str) and RUN_ID.fullmatch(run) else None


def read_appearance(folder: Path) -> OutOfDistributionDetector | None:
    """Read the out-of-distribution detector of a model; return None if its folder has none.

    Args:
        folder: the model's folder.

    Raises:
        UserError: the file is damaged.
    """
    return _read_optional(folder / out_of_distribution.FILE, OutOfDistributionDetector.read)


def read_advice(folder: Path) -> DecisionRule | None:
    """Read the decision rule of a model; return None if its folder has none.

    Args:
        folder: the model's folder.

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
