"""The stages of a fit: a row of epochs in which the same part of a network trains.

Which stage an epoch belongs to is a function of its number, and a stage begins with an optimizer
of its own, so that a fit can be taken up from a checkpoint of any epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from melanoma_lab.input_pipeline.model_inputs import join_inputs, split_inputs
from melanoma_lab.models.augmentation import augment
from melanoma_lab.models.schedules import ScheduledLearningRate


@dataclass(frozen=True)
class Stage:
    """Epochs of a fit that go together.

    Attributes:
        epochs: their numbers, from 0.
        model: makes what is fitted, from the state that the stage before has left the network in;
            called in the scope of the devices.
        train: from the epoch to begin with to a tf.data of (inputs, one-hot labels, weights), one
            element a step, up to the stage's end.
        val: the same, for one pass.
        optimizer: fresh.
        schedule: of its learning rate, which it has been given; None: constant.
        at_once: how many steps TensorFlow takes before Python has its turn. A step of a head alone
            is done sooner than Python gets to the next one.
    """

    epochs: range
    model: Callable[[], keras.Model]
    train: Callable[[int], Any]
    val: Any
    optimizer: keras.Optimizer
    schedule: ScheduledLearningRate | None = None
    at_once: int = 1


class FrozenBackbone(keras.Model):
    """A head that is fitted to the features of a backbone, which computes in inference mode.

    The backbone is neither trained nor changed; a checkpoint keeps it nevertheless, because fresh
    weights cannot be read again from a file.

    Args:
        head: from features, perhaps with metadata, to probabilities; what trains.
        backbone: from pixels, shape (b, H, W, 3), to what the head takes; frozen.
        augmentation: layers that change a training batch of pixels.
        computed: whether batches hold features already.
    """

    def __init__(
        self,
        head: keras.Model,
        backbone: keras.Model,
        augmentation: Sequence[keras.Layer],
        *,
        computed: bool = False,
    ) -> None:
        super().__init__(name="training")
        self.head = head
        self.backbone = backbone
        self.augmentation = list(augmentation)
        self._computed = computed
        self.built = True  # as its parts are

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Probabilities, shape (b, n_classes), of pixels or of features, perhaps with metadata."""
        image, known = split_inputs(inputs)
        features = image if self._computed else self.backbone(image, training=False)
        return self.head(join_inputs(features, known), training=training)

    def train_step(self, data: tuple[Any, Any, Any]) -> Mapping[str, Any]:
        """One optimizer step of the head."""
        figures: Mapping[str, Any] = super().train_step(augment(self.augmentation, data))
        return figures
