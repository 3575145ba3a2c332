"""Length and hardware of training, and the choice of the best epoch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from melanoma_lab.core.errors import require

#: Metric that ``training.monitor`` may name -> whether to minimise or maximise it.
MONITORS = {"val_loss": "min", "val_accuracy": "max", "val_balanced_accuracy": "max"}


class EpochLength(StrEnum):
    """The images that one epoch passes over, which decide its number of optimizer steps."""

    originals = "originals"
    balanced = "balanced"


class Precision(StrEnum):
    """Keras dtype policy; ``auto``: the fastest that the CPU or GPU computes in hardware."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


@dataclass
class Training:
    """Length and hardware of training, and the choice of the best epoch."""

    epochs: int = 30
    #: Stop after this many epochs, as if interrupted; schedules still span all ``epochs``.
    stop_after: int | None = None
    batch_size: int = 32
    #: ``originals``: an epoch passes over the training split before balancing, so that arms with
    #: and without balancing take equally many optimizer steps; ``balanced``: over the balanced set.
    epoch: EpochLength = EpochLength.originals
    #: Metric whose best epoch is kept: val_loss, val_accuracy or val_balanced_accuracy.
    monitor: str = "val_balanced_accuracy"
    #: Number of epochs without improvement after which training stops; null: never.
    patience: int | None = None
    precision: Precision = Precision.float32
    #: Number of GPUs that share every batch; null: all. Without a GPU: that many virtual devices
    #: of the CPU, which is no faster.
    devices: int | None = 1
    #: Number of TensorFlow's threads; null: as many as this process may use, or uses already.
    threads: int | None = None
    #: Save the state after every epoch until the run is complete, and resume a run that was
    #: interrupted; false: start over.
    resume: bool = True

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            value = getattr(self, key)
            require(value >= 1, f"training.{key}", "at least 1", value)
        for key in ("patience", "threads", "devices", "stop_after"):
            value = getattr(self, key)
            require(value is None or value >= 1, f"training.{key}", "at least 1, or null", value)
        require(
            self.batch_size % (self.devices or 1) == 0,
            "training.batch_size",
            f"a multiple of training.devices={self.devices}, so that each gets equally many images",
            self.batch_size,
        )
        require(
            self.monitor in MONITORS,
            "training.monitor",
            f"one of {', '.join(MONITORS)}",
            self.monitor,
        )

    @property
    def last_epoch(self) -> int:
        """The last epoch, counted from 1, unless ``patience`` ends training earlier."""
        return min(self.epochs, self.stop_after or self.epochs)
