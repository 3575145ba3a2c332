"""The export formats: write a network, and predict with each format's own runtime.

A written file is always verified with the runtime that its users will have, never with Keras.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Format
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.heavy_imports import quiet_stderr
from melanoma_lab.core.shell_commands import format_extra_install
from melanoma_lab.input_pipeline.batches import get_named_inputs

#: A network's inputs by name, with the images in the first axis.
Inputs = Mapping[str, NDArray[Any]]
#: A function from inputs to probabilities; float32, shape (n, n_classes).
RuntimePredict = Callable[[Inputs], NDArray[np.float32]]

#: The name of the output.
PROBABILITIES: Final = "probabilities"
#: The name of the signature in a SavedModel and in LiteRT.
SIGNATURE: Final = "serving_default"


@dataclass(frozen=True)
class ExportBackend:
    """The functions and packages of an export format.

    Attributes:
        file: the name of the file or folder.
        packages: module -> distribution of the packages, besides TensorFlow, that writing and
            verifying need.
        write: writes a network from ``build_serving_network`` to a path.
        read: opens a path with the format's runtime, and returns the function that predicts.
    """

    file: str
    packages: Mapping[str, str]
    write: Callable[[Any, Path], None]
    read: Callable[[Path], RuntimePredict]


def refuse_missing_packages(formats: Sequence[Format]) -> None:
    """Refuse formats whose packages are not installed, before anything is loaded.

    Raises:
        UserError: a package is missing; the message has the command that installs it.
    """
    for kind in formats:
        packages = EXPORT_BACKENDS[kind].packages
        missing = [dist for module, dist in packages.items() if not _is_installed(module)]
        if missing:
            raise UserError(
                f"formats={kind}: not installed: {', '.join(missing)}. "
                f"{format_extra_install('export')}"
            )


def write_format(kind: Format, network: Any, folder: Path) -> Path:
    """Write a network from ``build_serving_network`` into a folder; return the new path in it.

    The converter's messages are not shown.

    Raises:
        RunError: the converter does not support something in the network.
    """
    path = folder / EXPORT_BACKENDS[kind].file
    try:
        with _silence_converters():
            EXPORT_BACKENDS[kind].write(network, path)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # converters raise exceptions of any type
        raise RunError(
            f"formats={kind}: this network cannot be converted ({type(error).__name__}: "
            f"{truncate(str(error).strip(), 300)})."
        ) from error
    return path


def open_runtime(kind: Format, path: Path) -> RuntimePredict:
    """Open a written file with the format's own runtime, and return a function that predicts."""
    with quiet_stderr():
        return EXPORT_BACKENDS[kind].read(path)


def _signature(network: Any) -> list[Any]:
    """Return a network's input signature; Keras derives it only for networks that were called."""
    import keras

    def describe(tensor: Any) -> Any:
        return keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)

    named = get_named_inputs(network)
    if named is None:
        return [describe(network.inputs[0])]
    return [{name: describe(tensor) for name, tensor in named.items()}]


def _write_saved_model(network: Any, path: Path) -> None:
    network.export(
        str(path), format="tf_saved_model", verbose=False, input_signature=_signature(network)
    )


def _read_saved_model(path: Path) -> RuntimePredict:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serving = loaded.signatures[SIGNATURE]

    def predict(inputs: Inputs) -> NDArray[np.float32]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        probabilities: NDArray[np.float32] = serving(**tensors)[PROBABILITIES].numpy()
        return probabilities

    # The signature's function works only as long as the loaded object is referenced.
    predict.loaded = loaded  # type: ignore[attr-defined]
    return predict


def _write_onnx(network: Any, path: Path) -> None:
    import onnx

    network.export(str(path), format="onnx", verbose=False, input_signature=_signature(network))
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _read_onnx(path: Path) -> RuntimePredict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(inputs: Inputs) -> NDArray[np.float32]:
        (probabilities,) = session.run([PROBABILITIES], dict(inputs))
        return np.asarray(probabilities)

    return predict


def _write_litert(network: Any, path: Path) -> None:
    import tensorflow as tf

    # LiteRT's own operations only: with those of TensorFlow, a phone would need TensorFlow.
    builtins_only = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    network.export(
        str(path),
        format="litert",
        verbose=False,
        input_signature=_signature(network),
        target_spec=builtins_only,
    )


def _read_litert(path: Path) -> RuntimePredict:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner(SIGNATURE)

    def predict(inputs: Inputs) -> NDArray[np.float32]:
        with quiet_stderr():
            return np.array(runner(**inputs)[PROBABILITIES])

    return predict


#: The formats by name; files have the names that are usual for the format.
EXPORT_BACKENDS: Final[Mapping[Format, ExportBackend]] = {
    Format.saved_model: ExportBackend("saved_model", {}, _write_saved_model, _read_saved_model),
    Format.onnx: ExportBackend(
        "model.onnx",
        {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
        _write_onnx,
        _read_onnx,
    ),
    Format.litert: ExportBackend(
        "model.tflite", {"ai_edge_litert": "ai-edge-litert"}, _write_litert, _read_litert
    ),
}


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextmanager
def _silence_converters() -> Iterator[None]:
    """Suppress the messages of converters: Python's log, warnings and C++'s stderr."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
