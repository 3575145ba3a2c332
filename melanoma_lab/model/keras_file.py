"""A network's ``.keras`` file, of which nothing is run.

TensorFlow is imported where a file is loaded, not before.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from melanoma_lab.errors import UserError, clipped

if TYPE_CHECKING:
    import keras

#: What the archive of a network holds; others would be unpacked, which no network here needs.
MEMBERS: Final = {"config.json", "metadata.json", "model.weights.h5"}


def checked_file(path: Path) -> Path:
    """A file that Keras will take for a ``.keras`` archive, which holds no code.

    Raises:
        UserError: it is something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            others = set(archive.namelist()) - MEMBERS
    except (OSError, zipfile.BadZipFile):
        others = {"no archive"}
    if path.suffix != ".keras" or others:
        found = f" Received {clipped(', '.join(sorted(others)))}." if others else ""
        raise UserError(f"{path}: expected a .keras file, as Keras 3 saves a network.{found}")
    return path


def load_safely(path: Path) -> keras.Model:
    """Load a network by Keras's safe mode, which runs no code from a file.

    Args:
        path: a ``.keras`` file, as ``checked_file`` gives it.

    Raises:
        UserError: it cannot be loaded so, or is no network.
    """
    import keras

    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file makes Keras and HDF5 raise anything
        why = clipped(next(iter(str(error).strip().splitlines()), "") or type(error).__name__, 300)
        raise UserError(f"{path}: Keras does not load this in its safe mode: {why}") from error
    if not isinstance(network, keras.Model) or not hasattr(network, "inputs"):
        raise UserError(f"{path}: expected a network from images to classes.")
    return network
