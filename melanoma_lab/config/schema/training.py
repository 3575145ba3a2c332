"""The groups ``loss``, ``optimizer``, ``schedule``, ``finetuning``; the section ``training``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from melanoma_lab.core.errors import require
from melanoma_lab.registry import Option, option


@dataclass
class Loss(Option):
    """Base class of all losses."""


@option("loss", "cross_entropy")
@dataclass
class CrossEntropy(Loss):
    """The negative logarithm of the probability of the true class."""


@option("loss", "focal")
@dataclass
class Focal(Loss):
    """Cross-entropy that gives less weight to images that the network classifies well."""

    #: How much less such images count; 0 is cross-entropy, Lin et al. (2017) recommend 2.
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(self.gamma >= 0, "loss.gamma", "0 or more", self.gamma)


@option("loss", "logit_adjusted")
@dataclass
class LogitAdjusted(Loss):
    """Cross-entropy of logits to which the log frequency of their class in training is added.

    The network need not learn these frequencies, so that its predictions are not biased towards
    frequent classes.
    """

    #: Factor of the log frequencies; 0 is cross-entropy, 1 aims at the balanced error (Menon et
    #: al., 2021).
    tau: float = 1.0

    def __post_init__(self) -> None:
        require(self.tau >= 0, "loss.tau", "0 or more", self.tau)


@dataclass
class Optimizer(Option):
    """Base class of all optimizers."""

    #: Size of the steps: the highest learning rate of the schedule.
    learning_rate: float = 1e-3
    #: Share of an exponential moving average of the weights that every step keeps. The averaged
    #: weights are validated and saved, and do not affect the gradients; null: no average.
    ema: float | None = None

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate
        )
        require(
            self.ema is None or 0 < self.ema < 1,
            "optimizer.ema",
            "between 0 and 1, or null",
            self.ema,
        )


@option("optimizer", "adam")
@dataclass
class Adam(Optimizer):
    """Kingma and Ba (2015), with Keras's defaults."""


@option("optimizer", "adamw")
@dataclass
class AdamW(Optimizer):
    """Adam with decoupled weight decay, Loshchilov and Hutter (2019).

    The same as ``optimizer=adam regularisation=weight_decay``.
    """

    #: Every step reduces the kernels by this share, times the learning rate; the default is that
    #: of ``regularisation=weight_decay``.
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.weight_decay >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)


@option("optimizer", "rmsprop")
@dataclass
class RmsProp(Optimizer):
    """Gradients divided by a running mean of their magnitude (Tieleman and Hinton, 2012)."""

    #: Share of the running mean that every step keeps.
    rho: float = 0.9
    #: Share of the previous step that is added to a step; 0: none.
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.rho < 1, "optimizer.rho", "0 to below 1", self.rho)
        require(0 <= self.momentum < 1, "optimizer.momentum", "0 to below 1", self.momentum)


@option("optimizer", "sgd")
@dataclass
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    learning_rate: float = 1e-2
    #: Share of the previous step that is added to a step; 0: none.
    momentum: float = 0.0
    #: Whether the momentum is Nesterov's.
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "optimizer.momentum", "0 to below 1", self.momentum)


@dataclass
class Schedule(Option):
    """Base class of all schedules."""

    #: Number of epochs, or a fraction of one, over which the learning rate rises linearly to
    #: ``optimizer.learning_rate``; 0: no warm-up.
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup_epochs", "0 or more", self.warmup_epochs)


@option("schedule", "constant")
@dataclass
class Constant(Schedule):
    """The same learning rate from the end of the warm-up to the last step."""


@option("schedule", "cosine")
@dataclass
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up down to a share of the learning rate."""

    #: Share of ``optimizer.learning_rate`` that is left after the last step.
    final_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.final_share < 1, "schedule.final_share", "0 to below 1", self.final_share)


@option("schedule", "plateau")
@dataclass
class Plateau(Schedule):
    """The learning rate is lowered each time that ``training.monitor`` stops improving."""

    #: The learning rate is multiplied by this factor.
    factor: float = 0.5
    #: Number of epochs without improvement before it is lowered.
    patience: int = 5
    #: Lowest learning rate.
    minimum: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.factor < 1, "schedule.factor", "between 0 and 1", self.factor)
        require(self.patience >= 1, "schedule.patience", "at least 1", self.patience)
        require(self.minimum >= 0, "schedule.minimum", "0 or more", self.minimum)


#: The value of ``unfreeze_from`` that unfreezes everything.
ALL_BLOCKS = "all"


@dataclass
class Finetuning(Option):
    """Base class of all options."""


@option("finetuning", "none")
@dataclass
class NoFinetuning(Finetuning):
    """Everything trains from the first step, including batch normalisation."""


@dataclass
class FrozenStart(Finetuning):
    """Base class of options that start with a frozen backbone, which runs in inference mode."""

    #: Compute the features of every image only once, if no augmentation changes the images.
    cache_features: bool = True


@option("finetuning", "frozen")
@dataclass
class Frozen(FrozenStart):
    """Only the head trains."""


@option("finetuning", "staged")
@dataclass
class Staged(FrozenStart):
    """The head trains first, then also the last blocks of the backbone, at another rate."""

    #: Number of epochs, of the ``training.epochs``, in which only the head trains.
    head_epochs: int = 5
    #: Name of the first block of the backbone that trains afterwards; all: the whole backbone.
    unfreeze_from: str = ALL_BLOCKS
    #: Highest learning rate afterwards, of head and backbone; ``optimizer.learning_rate`` is the
    #: one before. The default is that of Keras's guide to transfer learning.
    learning_rate: float = 1e-5
    #: Whether the backbone's batch normalisation trains afterwards and uses the statistics of
    #: batches; false: it never changes.
    batch_norm: bool = False

    def __post_init__(self) -> None:
        require(self.head_epochs >= 1, "finetuning.head_epochs", "at least 1", self.head_epochs)
        require(
            self.learning_rate > 0, "finetuning.learning_rate", "more than 0", self.learning_rate
        )


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

    #: Number of epochs.
    epochs: int = 30
    #: Stop after this many epochs, as if interrupted; schedules still span all ``epochs``.
    stop_after: int | None = None
    #: Number of images in each optimizer step.
    batch_size: int = 32
    #: ``originals``: an epoch passes over the training split before balancing, so that arms with
    #: and without balancing take equally many optimizer steps; ``balanced``: over the balanced set.
    epoch: EpochLength = EpochLength.originals
    #: Metric whose best epoch is kept: val_loss, val_accuracy or val_balanced_accuracy.
    monitor: str = "val_balanced_accuracy"
    #: Number of epochs without improvement after which training stops; null: never.
    patience: int | None = None
    #: Number format of the network's computations; ``auto``: the fastest that the CPU or GPU
    #: computes in hardware.
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
