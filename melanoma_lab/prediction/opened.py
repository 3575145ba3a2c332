"""A network that has been found, loaded and ready to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.errors import UserError
from melanoma_lab.prediction.source import Source
from melanoma_lab.tracking.card import ModelCard
from melanoma_lab.training.backend import start_backend


@dataclass(frozen=True)
class Opened:
    """A network that answers.

    Attributes:
        card: what its outputs mean; numbered where nothing says it.
        image_size: side in pixels of the images that it takes.
        answer: from uint8 pixels, shape (n, s, s, 3), or from a dictionary of these and of what
            is known of patients, to probabilities, float32, shape (n, K).
    """

    card: ModelCard
    image_size: int
    answer: Callable[[Any], NDArray[np.float32]]


def open_network(source: Source, *, threads: int, seed: int, patients: bool = False) -> Opened:
    """Start TensorFlow and load a network.

    Args:
        source: where it lies.
        threads: TensorFlow's.
        seed: of its generators, which inference does not ask.
        patients: whether what its card's encoding takes of patients is known.

    Raises:
        UserError: it cannot be loaded without running code, or is no network of images.
    """
    start_backend(threads=threads, seed=seed, precision=Precision.float32)
    from melanoma_lab.prediction.network import answering, image_size, load_network, n_classes

    encoding = source.card.encoding if source.card and patients else None
    network = load_network(source.network, tuple(encoding or ()))
    card = _card(source, n_classes(network))
    return Opened(card, image_size(network), answering(network))


def _card(source: Source, n_outputs: int) -> ModelCard:
    """What a network's outputs mean; numbered where nothing says it.

    Raises:
        UserError: it says so of another number of them.
    """
    if source.card is None:
        return ModelCard(tuple(f"class_{k}" for k in range(n_outputs)), decoding=DECODING_VERSION)
    if len(source.card.slugs) != n_outputs:
        raise UserError(
            f"model={source.typed}: names {len(source.card.slugs)} classes, but its network has "
            f"{n_outputs} outputs."
        )
    return source.card
