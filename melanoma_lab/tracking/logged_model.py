"""The trained network as an MLflow model, with a description: enough to use it years later.

The network is saved to disk first and logged from there. These are two steps, so that a model that
could not be sent can be logged later, without TensorFlow. Importing this module loads neither
TensorFlow nor MLflow.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.version import __version__
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.tracking.client import iterate_pages

#: Key of the description in the metadata of ``MLmodel``.
METADATA_KEY: Final = "melanoma_lab"
NOTICE: Final = "Research use only: not a medical device; no diagnosis."


@dataclass(frozen=True)
class ModelInfo:
    """Meaning of a network's inputs and outputs.

    Attributes:
        slugs: K class slugs in the order of the outputs.
        classes: the class names in the dataset.
        positive_class: slug of the positive class; None if the dataset names none.
        image_size: side of the input images in pixels.
        decoding: version of the conversion of files to pixels.
        encoding: the columns of patient metadata among the inputs, as described in
            ``melanoma_lab.data.patient_metadata``; None if pixels are the only input.
        notice: what the network must not be used for.
    """

    slugs: tuple[str, ...]
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    dataset: str = ""
    image_size: int | None = None
    resize: Resize = Resize.squash
    decoding: int = DECODING_VERSION
    encoding: dict[str, Any] | None = None
    version: str = __version__
    notice: str = NOTICE

    @property
    def names(self) -> tuple[str, ...]:
        """The class names in the dataset, or the slugs if those are unknown."""
        return self.classes or self.slugs

    def metadata(self) -> dict[str, Any]:
        """Return the metadata for ``MLmodel``: lists, strings and numbers under one key."""
        return {METADATA_KEY: {k: _to_plain_value(v) for k, v in asdict(self).items()}}

    @classmethod
    def read(cls, metadata: object) -> Self | None:
        """Read any metadata of an ``MLmodel`` file; None if it has no description by the lab.

        Raises:
            ValueError: the lab did not write this metadata.
        """
        if not isinstance(metadata, Mapping) or METADATA_KEY not in metadata:
            return None
        content = metadata[METADATA_KEY]
        content = content if isinstance(content, Mapping) else {}
        slugs, positive_class = _read_names(content.get("slugs")), content.get("positive_class")
        classes = _read_names(content.get("classes"))
        if not slugs or len(set(slugs)) < len(slugs):
            raise ValueError(f"metadata.{METADATA_KEY}.slugs: expected a list of different names")
        kinds: tuple[tuple[str, type], ...] = (
            ("image_size", int),
            ("decoding", int),
            ("encoding", dict),
        )
        wrong = [name for name, kind in kinds if not isinstance(content.get(name), kind | None)]
        if wrong:
            raise ValueError(
                f"metadata.{METADATA_KEY}.{wrong[0]}: is of another kind than the lab writes"
            )
        return cls(
            slugs=slugs,
            classes=classes if len(classes) == len(slugs) else (),
            positive_class=positive_class if positive_class in slugs else None,
            dataset=str(content.get("dataset", "")),
            image_size=content.get("image_size"),
            resize=Resize(content.get("resize", Resize.squash)),
            decoding=content.get("decoding") or DECODING_VERSION,
            encoding=content.get("encoding"),
            version=str(content.get("version", "")),
        )


def _read_names(value: object) -> tuple[str, ...]:
    """Return a list of non-empty names as a tuple; an empty tuple for any other value."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return ()
    return tuple(value)


def _to_plain_value(value: Any) -> Any:
    if isinstance(value, Resize):
        return value.value
    return list(value) if isinstance(value, tuple) else value


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
    """Log a saved model to a run, unless the run has a complete model."""
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
    """Return the models that a run has logged completely."""
    from mlflow.entities import LoggedModelStatus

    found = find_logged_models(client, run)
    return [model for model in found if model.status == LoggedModelStatus.READY]


def download_model(uri: str, folder: Path) -> Path:
    """Download a model from MLflow, and return the folder that holds it.

    Args:
        uri: a URI of MLflow, such as ``runs:/<run id>/model`` or ``models:/<name>/<version>``.
    """
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def find_logged_models(client: Any, run: Any) -> list[Any]:
    """Return the models that a run has logged, completely or not."""
    models = iterate_pages(
        client.search_logged_models,
        [run.info.experiment_id],
        filter_string=f"name = '{MODEL_NAME}'",
    )
    return [model for model in models if model.source_run_id == run.info.run_id]


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
    """Register a run's model as a new version of a registered model; return the version's number.

    If a version of this run exists already, nothing is registered.
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
