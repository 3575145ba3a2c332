"""The formats: how a network is written in each, and what its own runtime answers to pixels.

What was written is always read back by the program that its users will have, never by Keras.
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

#: What a network takes, by name.
Inputs = Mapping[str, NDArray[Any]]
RuntimePredict = Callable[[Inputs], NDArray[np.float32]]

PROBABILITIES: Final = "probabilities"
SIGNATURE: Final = "serving_default"


@dataclass(frozen=True)
class ExportBackend:
    """A format.

    Attributes:
        file: what the file or folder is called.
        packages: module -> distribution that writing and checking it takes beside TensorFlow.
        write: a network as ``build_serving_network`` gives it to a path.
        read: from the path to a function that answers as the file's users will be answered.
    """

    file: str
    packages: Mapping[str, str]
    write: Callable[[Any, Path], None]
    read: Callable[[Path], RuntimePredict]


def refuse_missing_packages(formats: Sequence[Format]) -> None:
    """Refuse formats whose packages are not installed, before anything is loaded.

    Raises:
        UserError: it names the command that installs them.
    """
    for kind in formats:
        packages = EXPORT_BACKENDS[kind].packages
        missing = [dist for module, dist in packages.items() if not _installed(module)]
        if missing:
            raise UserError(
                f"formats={kind}: not installed: {', '.join(missing)}. "
                f"{format_extra_install('export')}"
            )


def write_format(kind: Format, network: Any, folder: Path) -> Path:
    """Write a network into a folder, in silence.

    Args:
        kind: of format.
        network: as ``build_serving_network`` gives it.
        folder: which is there.

    Returns:
        The file, or folder, that was written.

    Raises:
        RunError: the converter does not know something in the network.
    """
    path = folder / EXPORT_BACKENDS[kind].file
    try:
        with _silent():
            EXPORT_BACKENDS[kind].write(network, path)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a converter raises anything
        raise RunError(
            f"formats={kind}: this network cannot be converted ({type(error).__name__}: "
            f"{truncate(str(error).strip(), 300)})."
        ) from error
    return path


def open_runtime(kind: Format, path: Path) -> RuntimePredict:
    """What the written file answers, by its own runtime; float32, shape (n, n_classes)."""
    with quiet_stderr():
        return EXPORT_BACKENDS[kind].read(path)


def _signature(network: Any) -> list[Any]:
    """What a network takes; Keras finds it out by itself only of one that has been used."""
    import keras

    from melanoma_lab.models.inputs import get_named_inputs

    def said(tensor: Any) -> Any:
        return keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)

    named = get_named_inputs(network)
    if named is None:
        return [said(network.inputs[0])]
    return [{name: said(each) for name, each in named.items()}]


def _write_saved_model(network: Any, path: Path) -> None:
    network.export(
        str(path), format="tf_saved_model", verbose=False, input_signature=_signature(network)
    )


def _read_saved_model(path: Path) -> RuntimePredict:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # a function made by it lives as long as it does
    serving = loaded.signatures[SIGNATURE]

    def answer(inputs: Inputs) -> NDArray[np.float32]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        answers: NDArray[np.float32] = serving(**tensors)[PROBABILITIES].numpy()
        return answers

    answer.loaded = loaded  # type: ignore[attr-defined]
    return answer


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

    def answer(inputs: Inputs) -> NDArray[np.float32]:
        (answers,) = session.run([PROBABILITIES], dict(inputs))
        return np.asarray(answers)

    return answer


def _write_litert(network: Any, path: Path) -> None:
    import tensorflow as tf

    # With TensorFlow's own operations in it, a phone would need TensorFlow.
    plain = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    network.export(
        str(path),
        format="litert",
        verbose=False,
        input_signature=_signature(network),
        target_spec=plain,
    )


def _read_litert(path: Path) -> RuntimePredict:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner(SIGNATURE)

    def answer(inputs: Inputs) -> NDArray[np.float32]:
        with quiet_stderr():
            return np.array(runner(**inputs)[PROBABILITIES])

    return answer


#: By name; what the files are called is what their users expect.
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


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextmanager
def _silent() -> Iterator[None]:
    """Converters tell of every step, in Python's log, in warnings and in C++'s own lines."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
