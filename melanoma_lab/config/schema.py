"""Every key of the configuration, its type and its default: the one place where a default stands.

The YAML files in ``conf/`` say what differs. Each option of a group has a class of its own, so
that a key which another option would ignore (``balancing=none balancing.per_class=200``) is
refused instead of silently doing nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from melanoma_lab.errors import UserError
from melanoma_lab.registry import option

#: What ``training.monitor`` may name, and whether more is better.
MONITORS = {"val_loss": "min", "val_accuracy": "max", "val_balanced_accuracy": "max"}


def _require(condition: object, key: str, expected: str, received: object) -> None:
    """Refuse a value that its type allows and its meaning does not."""
    if not condition:
        raise UserError(f"{key}: expected {expected}; received {received}.")


def _require_fraction(key: str, value: float) -> None:
    _require(0 < value < 1, key, "a share between 0 and 1", value)


class Task(StrEnum):
    """What the command does."""

    train = "train"
    audit = "audit"
    seed_protocol = "seed_protocol"
    compare = "compare"


class Conflicts(StrEnum):
    """What happens to identical images under different labels."""

    error = "error"
    keep = "keep"
    drop = "drop"
    relabel = "relabel"


class Groups(StrEnum):
    """Which images a split must never separate."""

    all = "all"
    lesion = "lesion"
    duplicates = "duplicates"
    none = "none"


class Labels(StrEnum):
    """Whose word is the label: the folder's or the archive's diagnosis where there is one."""

    folder = "folder"
    diagnosis = "diagnosis"


class OnUnreadable(StrEnum):
    """What happens to files that cannot be read as an image."""

    error = "error"
    skip = "skip"


class LeakingTest(StrEnum):
    """What happens to published test images whose group has training images."""

    error = "error"
    drop = "drop"


class EpochOf(StrEnum):
    """What one epoch is a pass over, and so how many optimizer steps it takes."""

    originals = "originals"
    balanced = "balanced"


class Precision(StrEnum):
    """Keras dtype policy."""

    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


# ---------------------------------------------------------------------------------- dataset


@dataclass
class Dataset:
    """What every dataset has."""

    name: str = MISSING
    #: Folder that holds the images; relative to where the command is typed.
    root: str | None = None
    #: Images are resized to image_size x image_size pixels.
    image_size: int = 180
    #: Class names in the order of the network's outputs; null: the folder's, sorted.
    classes: list[str] | None = None
    #: The class whose sensitivity, specificity and AUROC are reported on their own.
    melanoma: str | None = None
    conflicts: Conflicts = Conflicts.error
    groups: Groups = Groups.all
    on_unreadable: OnUnreadable = OnUnreadable.error

    def __post_init__(self) -> None:
        _require(self.image_size >= 1, "dataset.image_size", "at least 1 pixel", self.image_size)
        if self.classes is not None:
            _require(
                len(self.classes) >= 2, "dataset.classes", "at least two classes", self.classes
            )
            if self.melanoma is not None:
                _require(
                    self.melanoma in self.classes,
                    "dataset.melanoma",
                    f"one of dataset.classes ({', '.join(self.classes)})",
                    self.melanoma,
                )


@option("dataset", "folder")
@dataclass
class FolderDataset(Dataset):
    """Any tree of ``<class>/<image>``."""


@option("dataset", "isic9")
@option("dataset", "isic9_verified")
@dataclass
class Isic9Dataset(Dataset):
    """``Train/<class>/*``, ``Test/<class>/*`` and an optional table of what the archive says."""

    #: Table in the root; may be absent.
    metadata: str = "metadata.csv"
    labels: Labels = Labels.folder
    #: Columns of the table that hold a diagnosis, most trusted first.
    diagnosis_columns: list[str] = field(default_factory=list)
    #: Diagnosis code -> the classes that agree with it; the first is the one it stands for.
    diagnoses: dict[str, list[str]] = field(default_factory=dict)


@option("dataset", "csv")
@option("dataset", "seed_protocol")
@dataclass
class CsvDataset(Dataset):
    """A table with a row an image: image_id (path relative to ``root``), label, and more."""

    #: Table in the root; what else it may say: lesion, source, diagnosis, split.
    table: str = "manifest.csv"


@option("dataset", "ham10000")
@dataclass
class Ham10000Dataset(Dataset):
    """A flat folder of images and a table with diagnosis and lesion of each."""

    metadata: str = "HAM10000_metadata.csv"
    images: str = "images"
    #: Diagnosis code of the table (column ``dx``) -> class name.
    diagnoses: dict[str, str] = field(default_factory=dict)


@option("dataset", "synthetic")
@dataclass
class SyntheticDataset(Dataset):
    """Lesions drawn by the program; ``root`` is where it keeps them (null: in the cache)."""

    lesions: int = 450
    #: Other seeds draw other lesions.
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.classes, "dataset.classes", "the names of the classes to draw", self.classes)
        _require(self.lesions >= 1, "dataset.lesions", "at least 1", self.lesions)
        _require(self.seed >= 0, "dataset.seed", "0 or more", self.seed)


# ------------------------------------------------------------------------------------ split


@dataclass
class Split:
    """What every split has."""

    name: str = MISSING
    #: Which image goes where; independent of the training's ``seed``.
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "split.seed", "0 or more", self.seed)


@option("split", "holdout")
@dataclass
class Holdout(Split):
    """One division into three parts, stratified by class, whole groups at a time."""

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("train", "val", "test"):
            _require_fraction(f"split.{key}", getattr(self, key))
        total = self.train + self.val + self.test
        _require(
            abs(total - 1) < 1e-6,
            "split.train + split.val + split.test",
            "a sum of 1",
            f"{total:g}",
        )


@option("split", "kfold")
@dataclass
class KFold(Split):
    """Fold number ``fold`` of ``k`` is the test split; ``val`` is a share of the rest."""

    k: int = 5
    fold: int = 0
    val: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.k >= 2, "split.k", "at least 2 folds", self.k)
        _require(
            0 <= self.fold < self.k, "split.fold", f"0 to split.k - 1 = {self.k - 1}", self.fold
        )
        _require_fraction("split.val", self.val)


@option("split", "predefined")
@dataclass
class Predefined(Split):
    """The published Train/Test; ``val`` is a share of Train."""

    val: float = 0.15
    leaking_test: LeakingTest = LeakingTest.error

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("split.val", self.val)


# ----------------------------------------------------------------------- the arms' own parts


@dataclass
class Architecture:
    """What every architecture has."""

    name: str = MISSING


@option("architecture", "vgg5")
@dataclass
class Vgg5(Architecture):
    """The seed project's network: 3x3 convolution and max-pooling five times, one dense layer."""

    filters: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    dense_units: int = 1024

    def __post_init__(self) -> None:
        _require(
            self.filters and min(self.filters) >= 1,
            "architecture.filters",
            "a list of positive numbers",
            self.filters,
        )
        _require(self.dense_units >= 1, "architecture.dense_units", "at least 1", self.dense_units)


@dataclass
class Regularisation:
    """What every regularisation has."""

    name: str = MISSING


@option("regularisation", "none")
@dataclass
class NoRegularisation(Regularisation):
    """Nothing."""


@option("regularisation", "dropout")
@dataclass
class Dropout(Regularisation):
    """Dropout after the last ``len(rates)`` blocks of the network."""

    rates: list[float] = field(default_factory=lambda: [0.15, 0.25, 0.30])

    def __post_init__(self) -> None:
        for rate in self.rates:
            _require(0 <= rate < 1, "regularisation.rates", "rates from 0 to below 1", rate)


@option("regularisation", "l2")
@dataclass
class L2(Regularisation):
    """``factor`` times the sum of squared kernel weights is added to the loss."""

    factor: float = 1e-4

    def __post_init__(self) -> None:
        _require(self.factor >= 0, "regularisation.factor", "0 or more", self.factor)


@dataclass
class Balancing:
    """What every balancing has."""

    name: str = MISSING


@option("balancing", "none")
@dataclass
class NoBalancing(Balancing):
    """The training images as they are."""


@option("balancing", "class_weight")
@dataclass
class ClassWeight(Balancing):
    """Every class weighs the same in the loss."""


@option("balancing", "oversample")
@dataclass
class Oversample(Balancing):
    """Images of smaller classes are repeated up to the size of the largest."""


@option("balancing", "augmentor")
@dataclass
class AugmentorBalancing(Balancing):
    """Every class to exactly ``per_class`` images; Augmentor's operations make the copies."""

    per_class: int = 500
    #: Method of ``Augmentor.Pipeline`` -> its arguments, one mapping an operation.
    operations: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        _require(self.per_class >= 1, "balancing.per_class", "at least 1", self.per_class)


@dataclass
class Augmentation:
    """What every augmentation has."""

    name: str = MISSING


@option("augmentation", "none")
@dataclass
class NoAugmentation(Augmentation):
    """Training batches as they are."""


@option("augmentation", "flip_rotate_zoom")
@dataclass
class FlipRotateZoom(Augmentation):
    """The seed project's: flips both ways, rotation and zoom."""

    #: Share of a full turn, both ways: 0.2 is up to 72 degrees.
    rotation: float = 0.2
    #: Share of the height and width, in and out.
    zoom: float = 0.2

    def __post_init__(self) -> None:
        for key in ("rotation", "zoom"):
            value = getattr(self, key)
            _require(0 <= value < 1, f"augmentation.{key}", "0 to below 1", value)


@dataclass
class Optimizer:
    """What every optimizer has."""

    name: str = MISSING
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        _require(
            self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate
        )


@option("optimizer", "adam")
@dataclass
class Adam(Optimizer):
    """Kingma and Ba (2015), with Keras's defaults."""


@option("optimizer", "sgd")
@dataclass
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    learning_rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.momentum < 1, "optimizer.momentum", "0 to below 1", self.momentum)


# ------------------------------------------------------------------------- what is not an arm


@dataclass
class Training:
    """How long, how fast, and which epoch is kept."""

    epochs: int = 30
    batch_size: int = 32
    #: An epoch is a pass over the training split before balancing, so that arms which balance
    #: take as many optimizer steps as arms that do not; ``balanced``: over what balancing made.
    epoch: EpochOf = EpochOf.originals
    #: Which epoch's weights are kept: the best of val_loss, val_accuracy, val_balanced_accuracy.
    monitor: str = "val_balanced_accuracy"
    #: Epochs without improvement after which training stops; null: never.
    patience: int | None = None
    precision: Precision = Precision.float32
    #: TensorFlow's threads; null: as many as this process may use.
    threads: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            value = getattr(self, key)
            _require(value >= 1, f"training.{key}", "at least 1", value)
        for key in ("patience", "threads"):
            value = getattr(self, key)
            _require(value is None or value >= 1, f"training.{key}", "at least 1, or null", value)
        _require(
            self.monitor in MONITORS,
            "training.monitor",
            f"one of {', '.join(MONITORS)}",
            self.monitor,
        )


@dataclass
class Tracking:
    """Where runs are recorded."""

    #: MLflow tracking URI; the default is where a bare ``mlflow ui`` looks.
    uri: str = "sqlite:///mlflow.db"
    #: Folder or URI for artifacts when the URI names a database; null: ``mlruns`` beside it.
    artifacts: str | None = None
    #: Keep the trained network with the run.
    model: bool = True


@dataclass
class Audit:
    """What ``audit`` makes of its findings."""

    #: Exit with status 1 where images that belong together lie on both sides of the split.
    strict: bool = False


@dataclass
class Config:
    """The whole configuration of one command."""

    task: Task = Task.train
    #: One question; the MLflow experiment and the folder ``experiments/<study>``.
    study: str = "ablation"
    #: The arm that this one is compared with; every preset names its own.
    reference: str | None = None
    #: What gives an arm its verdict when a study is compared.
    metric: str = "balanced_accuracy"
    #: Weights, order, dropout, augmentation and balancing.
    seed: int = 0
    #: Decoded images and balanced copies; null: the user's cache folder.
    cache: str | None = None
    #: Where a command writes what it was asked for; null: a place of its own choosing.
    output: str | None = None
    #: ``audit``: a folder of other images; which of the dataset's does it have too?
    against: str | None = None
    dataset: Dataset = MISSING
    split: Split = MISSING
    architecture: Architecture = MISSING
    regularisation: Regularisation = MISSING
    balancing: Balancing = MISSING
    augmentation: Augmentation = MISSING
    optimizer: Optimizer = MISSING
    training: Training = field(default_factory=Training)
    tracking: Tracking = field(default_factory=Tracking)
    audit: Audit = field(default_factory=Audit)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1", self.seed)
        _require(
            re.fullmatch(r"[\w.-]+", self.study) and self.study.strip("."),
            "study",
            "letters, digits, dots, hyphens and underscores (it names a folder)",
            self.study,
        )


ConfigStore.instance().store(name="schema", node=Config)
