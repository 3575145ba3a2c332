"""The tracked networks of several runs as one network that answers with their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras


def load_network(folder: Path) -> keras.Model:
    """A network as a run keeps it; Keras reads it in safe mode, so nothing in it is executed.

    Args:
        folder: MLflow's, of the model.

    Raises:
        OSError: it holds no network.
        ValueError: it is damaged, or would execute code.
    """
    (path,) = sorted(folder.glob("**/*.keras"))[:1] or [folder / "data" / "model.keras"]
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def mean_network(networks: Sequence[keras.Model]) -> keras.Model:
    """A network that answers with the mean of what others answer to the same image.

    Args:
        networks: from pixels, shape (n, s, s, 3), to probabilities, shape (n, n_classes).

    Returns:
        The same inputs and outputs, sharing their weights.
    """
    pixels = keras.Input(networks[0].input_shape[1:], name="pixels")
    answers = [_named(network, f"member_{i}")(pixels) for i, network in enumerate(networks)]
    mean = keras.layers.Average(name="ensemble", dtype="float32")(answers)
    return keras.Model(pixels, mean, name="ensemble")


def _named(network: keras.Model, name: str) -> Any:
    """A network under a name of its own; members are called alike, and layers may not be."""
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    return keras.Model(pixels, network(pixels), name=name)
