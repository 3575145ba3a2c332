"""The stages of a fit, the models that they fit, and the memory of their graphs.

A stage is consecutive epochs in which the same part of a network trains. The number of an epoch
decides which stage it belongs to, and every stage begins with its own optimizer, so that a fit can
resume from a checkpoint of any epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from tensorflow.python.framework import ops

from melanoma_lab.input_pipeline.batches import build_inputs, join_inputs, split_inputs
from melanoma_lab.models.augmentation import augment
from melanoma_lab.models.optimizers import ScheduledLearningRate


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs of a fit in which the same part of a network trains.

    Attributes:
        epochs: numbers of the epochs, from 0.
        model: function that builds the model to fit. It is called inside ``distribution.scope``,
            when the previous stage has trained the network.
        train: function from the first epoch to a tf.data dataset of (inputs, one-hot labels,
            weights), with one element for each step up to the stage's end.
        val: tf.data dataset with the same elements, for one pass over the validation images.
        optimizer: new optimizer, which has not taken a step.
        schedule: schedule of the optimizer's learning rate; None if the rate is constant.
        at_once: Keras's ``steps_per_execution``. A step of a head alone takes less time than
            Python needs to start the next one.
    """

    epochs: range
    model: Callable[[], keras.Model]
    train: Callable[[int], Any]
    val: Any
    optimizer: keras.Optimizer
    schedule: ScheduledLearningRate | None = None
    at_once: int = 1


class FrozenBackbone(keras.Model):
    """A head that is fitted to the features of a frozen backbone, which runs in inference mode.

    The backbone does not change. A checkpoint contains it nevertheless, because random initial
    weights cannot be read again from a file.

    Args:
        head: model from features, perhaps with metadata, to probabilities; it is trained.
        backbone: model from pixels, shape (b, H, W, 3), to the head's features; frozen.
        precomputed: whether batches hold features instead of pixels.
    """

    def __init__(
        self,
        head: keras.Model,
        backbone: keras.Model,
        augmentation: Sequence[keras.Layer],
        *,
        precomputed: bool = False,
    ) -> None:
        super().__init__(name="training")
        self.head = head
        self.backbone = backbone
        self.augmentation = list(augmentation)
        self._precomputed = precomputed
        self.built = True  # head and backbone are built

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Compute probabilities, shape (b, n_classes), from pixels or features and metadata."""
        image, metadata = split_inputs(inputs)
        features = image if self._precomputed else self.backbone(image, training=False)
        return self.head(join_inputs(features, metadata), training=training)

    def train_step(self, data: tuple[Any, Any, Any]) -> Mapping[str, Any]:
        """Take one optimizer step of the head on an augmented batch; return running metrics."""
        figures: Mapping[str, Any] = super().train_step(augment(self.augmentation, data))
        return figures


class AugmentedNetwork(keras.Model):
    """A network whose training step augments the batch; evaluation and prediction do not change.

    The state of the augmentation's random numbers is among this model's ``variables``. Neither that
    nor an optimizer, loss or metric becomes part of the network.
    """

    def __init__(self, network: keras.Model, augmentation: Sequence[keras.Layer]) -> None:
        inputs = build_inputs(network)
        super().__init__(inputs, network(inputs), name="training")
        self.augmentation = list(augmentation)

    def train_step(self, data: tuple[Any, Any, Any]) -> dict[str, Any]:
        """Take one optimizer step on an augmented batch."""
        figures: dict[str, Any] = super().train_step(augment(self.augmentation, data))
        return figures


@contextmanager
def free_registered_gradients() -> Iterator[None]:
    """Remove the custom gradients that are registered in this context.

    Tracing a graph with a custom gradient registers that gradient permanently under a new name.
    Every graph of a training step has one, because Keras's optimizers sum gradients over replicas,
    on one device too. A registered gradient references its graph, and the graph the weights of the
    network and of its optimizer, so that every fit would leak three times the network's size. The
    names are looked up only when a graph is differentiated, which ends before the context does.
    TensorFlow has no public function to remove one.
    """
    registered = ops.gradient_registry._registry  # noqa: SLF001
    before = set(registered)
    try:
        yield
    finally:
        for name in registered.keys() - before:
            del registered[name]
