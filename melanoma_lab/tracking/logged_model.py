"""The trained network as MLflow's own kind of model: saved first, then logged from the disk.

In two steps, so that a network that could not be sent is kept and logged later, without TensorFlow.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melanoma_lab.tracking.model_info import NOTICE, ModelInfo

#: What the kept network needs to be served, by distribution name.
SERVING_REQUIREMENTS = ("keras", "tensorflow", "numpy")
#: The input of images, where there are others beside it.
PIXELS = "pixels"
#: What the model is called in its run.
MODEL_NAME = "model"
#: What a saved model's ``MLmodel`` says that the logged one's must say too.
_SAID = ("flavors", "signature", "metadata", "saved_input_example_info", "model_size_bytes")


def save_network(
    network: Any, card: ModelInfo, folder: Path, beside: Mapping[str, str] | None = None
) -> None:
    """Save a Keras model, ready for ``mlflow models serve``.

    The model takes raw uint8 pixels, shape (n, height, width, 3); scaling is inside it. With
    metadata it takes a dictionary of these as ``pixels`` and a column, shape (n, 1), for each of
    the encoding's: years, float32, or codes, int32. What the codes stand for is on the card.

    Args:
        network: the model.
        card: what its outputs mean; it becomes part of the folder.
        folder: to make.
        beside: name -> text of further files in it.
    """
    import mlflow.tensorflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from melanoma_lab.models.inputs import get_named_inputs

    named = get_named_inputs(network)
    several, taken = named is not None, named or {PIXELS: network.inputs[0]}
    example = {name: _example(tensor) for name, tensor in taken.items()}
    specs = [
        TensorSpec(array.dtype, (-1, *array.shape[1:]), name if several else None)
        for name, array in example.items()
    ]
    mlflow.tensorflow.save_model(
        network,
        str(folder),
        signature=ModelSignature(
            Schema(specs),
            Schema([TensorSpec(np.dtype("float32"), (-1, network.outputs[0].shape[-1]))]),
        ),
        input_example=example if several else example[PIXELS],
        metadata=card.metadata(),
        # Named, because finding them out takes MLflow some twenty seconds.
        pip_requirements=[f"{name}=={version(name)}" for name in SERVING_REQUIREMENTS],
    )
    for name, text in (beside or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def _example(tensor: Any) -> Any:
    """One grey image, or one value of what is known of a patient."""
    import numpy as np

    if len(tensor.shape) == len(("n", "height", "width", "channels")):
        return np.full((1, *tensor.shape[1:]), 127, np.uint8)
    return np.array([[50]], np.float32) if tensor.dtype == "float32" else np.array([[0]], np.int32)


def log_saved_model(client: Any, run_id: str, folder: Path) -> None:
    """Log a saved model as a run's; nothing is done where the run has it.

    Args:
        client: an MlflowClient.
        run_id: of the run.
        folder: what ``save_network`` made.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(run_id)
    for model in find_logged_models(client, run):
        if model.status == LoggedModelStatus.READY:
            return
        client.delete_logged_model(model.model_id)  # an interrupted attempt
    started = client.create_logged_model(
        run.info.experiment_id, name=MODEL_NAME, source_run_id=run_id, params=run.data.params
    )
    Model.log(
        artifact_path=None,
        flavor=_Saved(folder),
        run_id=run_id,
        model_id=started.model_id,
        validate_serving_input=False,  # TensorFlow would be loaded to see whether TensorFlow works
    )


def has_model(client: Any, run: Any) -> bool:
    """Whether a run has logged a model, whole.

    Args:
        client: an MlflowClient.
        run: as MLflow has it.
    """
    from mlflow.entities import LoggedModelStatus

    return any(model.status == LoggedModelStatus.READY for model in find_logged_models(client, run))


def download_model(run_id: str, folder: Path) -> Path:
    """Fetch a run's model from where MLflow keeps it.

    Args:
        run_id: of a run that has one.
        folder: where to put it.

    Returns:
        The model's folder.
    """
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(f"runs:/{run_id}/{MODEL_NAME}", dst_path=str(folder)))


def find_logged_models(client: Any, run: Any) -> list[Any]:
    """The models that a run has logged, whole or not.

    Args:
        client: an MlflowClient.
        run: as MLflow has it.
    """
    found, token = [], None
    while True:
        page = client.search_logged_models(
            [run.info.experiment_id], filter_string=f"name = '{MODEL_NAME}'", page_token=token
        )
        found += [model for model in page if model.source_run_id == run.info.run_id]
        token = page.token
        if not token:
            return found


class _Saved:
    """A flavor, as MLflow's ``Model.log`` takes it, of a model that is saved already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save_model(self, path: str, mlflow_model: Any, **_: Any) -> None:
        from mlflow.models import Model
        from mlflow.models.model import MLMODEL_FILE_NAME

        shutil.copytree(self._folder, path)
        saved = Model.load(str(self._folder))
        for name in _SAID:
            setattr(mlflow_model, name, getattr(saved, name))
        mlflow_model.save(str(Path(path) / MLMODEL_FILE_NAME))


def register_model(client: Any, run_id: str, name: str) -> str:
    """Register the model of a run as a new version of a name; the version that is there stays.

    Args:
        client: an MlflowClient.
        run_id: of a run that has logged a model, whole.
        name: of the registered model; made where there is none.

    Returns:
        The version, as ``models:/NAME/VERSION`` has it.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    run = client.get_run(run_id)
    model = [m for m in find_logged_models(client, run) if m.status == LoggedModelStatus.READY][-1]
    there = client.search_model_versions(f"run_id = '{run_id}'")
    versions = [str(version.version) for version in there if version.name == name]
    if versions:
        return versions[0]
    with suppress(MlflowException):  # it is there; any other reason shows below
        client.create_registered_model(name, description=NOTICE)
    made = client.create_model_version(
        name, source=f"models:/{model.model_id}", run_id=run_id, model_id=model.model_id
    )
    return str(made.version)
