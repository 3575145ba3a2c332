"""The trained network as an MLflow model, which is saved to disk first and logged from there.

Two steps, so that a model that could not be sent can be logged later, without TensorFlow.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.tracking.model_info import NOTICE, ModelInfo

#: Distributions that are needed to serve the saved network.
SERVING_REQUIREMENTS = ("keras", "tensorflow", "numpy")
#: Name of the model in its run.
MODEL_NAME = "model"
#: Fields of ``MLmodel`` that are copied from the saved model to the logged one.
_COPIED_FIELDS = (
    "flavors",
    "signature",
    "metadata",
    "saved_input_example_info",
    "model_size_bytes",
)


def save_network(
    network: Any, card: ModelInfo, folder: Path, beside: Mapping[str, str] | None = None
) -> None:
    """Save a Keras model, ready for ``mlflow models serve``.

    The model takes raw uint8 pixels, shape (n, height, width, 3), and scales them itself. With
    patient metadata it takes a dictionary of the pixels, named ``pixels``, and one column, shape
    (n, 1), for each column of the encoding: years as float32, or codes as int32. ``card`` says
    what the codes mean.

    Args:
        network: the model to save.
        card: meaning of the inputs and outputs; it is saved with the model.
        folder: the folder to create.
        beside: texts of further files to write into the folder, by file name.
    """
    import mlflow.tensorflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    named = get_named_inputs(network)
    several, inputs = named is not None, named or {PIXELS: network.inputs[0]}
    example = {name: _make_example(tensor) for name, tensor in inputs.items()}
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
        # Given here, because MLflow needs some twenty seconds to find them.
        pip_requirements=[f"{name}=={version(name)}" for name in SERVING_REQUIREMENTS],
    )
    for name, text in (beside or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def _make_example(tensor: Any) -> Any:
    """Return one grey image, or one value of a column of patient metadata."""
    import numpy as np

    if len(tensor.shape) == len(("n", "height", "width", "channels")):
        return np.full((1, *tensor.shape[1:]), 127, np.uint8)
    return np.array([[50]], np.float32) if tensor.dtype == "float32" else np.array([[0]], np.int32)


def log_saved_model(client: Any, run_id: str, folder: Path) -> None:
    """Log a saved model to a run, unless the run has a complete model.

    Args:
        client: an MlflowClient.
        run_id: the run's id.
        folder: a folder that ``save_network`` wrote.
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
        flavor=_SavedModelFlavor(folder),
        run_id=run_id,
        model_id=started.model_id,
        validate_serving_input=False,  # it would load TensorFlow
    )


def find_ready_models(client: Any, run: Any) -> list[Any]:
    """Return the models that a run has logged completely.

    Args:
        client: an MlflowClient.
        run: MLflow's run.
    """
    from mlflow.entities import LoggedModelStatus

    found = find_logged_models(client, run)
    return [model for model in found if model.status == LoggedModelStatus.READY]


def download_model(uri: str, folder: Path) -> Path:
    """Download a model from MLflow, and return the folder that holds it.

    Args:
        uri: a URI of MLflow, such as ``runs:/<run id>/model`` or ``models:/<name>/<version>``.
        folder: the folder to download into.
    """
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def find_logged_models(client: Any, run: Any) -> list[Any]:
    """Return the models that a run has logged, completely or not.

    Args:
        client: an MlflowClient.
        run: MLflow's run.
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


class _SavedModelFlavor:
    """Flavor for MLflow's ``Model.log`` that copies a model that is saved already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save_model(self, path: str, mlflow_model: Any, **_: Any) -> None:
        from mlflow.models import Model
        from mlflow.models.model import MLMODEL_FILE_NAME

        shutil.copytree(self._folder, path)
        saved = Model.load(str(self._folder))
        for name in _COPIED_FIELDS:
            setattr(mlflow_model, name, getattr(saved, name))
        mlflow_model.save(str(Path(path) / MLMODEL_FILE_NAME))


def register_model(client: Any, run_id: str, name: str) -> str:
    """Register the model of a run as a new version of a registered model.

    If a version of this run exists already, nothing is registered.

    Args:
        client: an MlflowClient.
        run_id: id of a run that has a completely logged model.
        name: name of the registered model; created if it does not exist.

    Returns:
        The version, as in ``models:/NAME/VERSION``.
    """
    from mlflow.exceptions import MlflowException

    model = find_ready_models(client, client.get_run(run_id))[-1]
    registered = client.search_model_versions(f"run_id = '{run_id}'")
    versions = [str(version.version) for version in registered if version.name == name]
    if versions:
        return versions[0]
    with suppress(MlflowException):  # it exists; after any other error the next request fails too
        client.create_registered_model(name, description=NOTICE)
    created = client.create_model_version(
        name, source=f"models:/{model.model_id}", run_id=run_id, model_id=model.model_id
    )
    return str(created.version)
