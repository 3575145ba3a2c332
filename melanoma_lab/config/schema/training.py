"""How long, how fast, and which epoch is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from melanoma_lab.core.errors import require

#: What ``training.monitor`` may name, and whether more is better.
MONITORS = {"val_loss": "min", "val_accuracy": "max", "val_balanced_accuracy": "max"}


class EpochLength(StrEnum):
    """What one epoch is a pass over, and so how many optimizer steps it takes."""

    originals = "originals"
    balanced = "balanced"


class Precision(StrEnum):
    """Keras dtype policy; ``auto``: the fastest that the processor or GPU computes in hardware."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


@dataclass
class Training:
    """How long, how fast, and which epoch is kept."""

    epochs: int = 30
    #: Stop after so many of them, as if interrupted: schedules stay those of all epochs; null: no.
    stop_after: int | None = None
    batch_size: int = 32
    #: An epoch is a pass over the training split before balancing, so that arms which balance
    #: take as many optimizer steps as arms that do not; ``balanced``: over what balancing made.
    epoch: EpochLength = EpochLength.originals
    #: Which epoch's weights are kept: the best of val_loss, val_accuracy, val_balanced_accuracy.
    monitor: str = "val_balanced_accuracy"
    #: Epochs without improvement after which training stops; null: never.
    patience: int | None = None
    precision: Precision = Precision.float32
    #: GPUs that share every batch; null: all there are. Where there is none, that many parts of
    #: the processor, which is no faster.
    devices: int | None = 1
    #: TensorFlow's threads; null: as many as this process may use, or has taken before.
    threads: int | None = None
    #: Keep the state after every epoch until the run is complete, and go on from there where an
    #: earlier process was interrupted; false: start over.
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
        """The epoch after which training ends, unless it runs out of patience before."""
        return min(self.epochs, self.stop_after or self.epochs)
