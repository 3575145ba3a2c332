"""Every key of the configuration, its type and its default: the one place where a default stands.

The YAML files in ``conf/`` say what differs. A group has a module here, and each of its options a
class of its own, so that a key which another option would ignore (``balancing=none
balancing.per_class=200``) is refused instead of silently doing nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from melanoma_lab.config.schema import backbone  # noqa: F401 (declares its options)
from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.config.schema.augmentation import Augmentation
from melanoma_lab.config.schema.balancing import Balancing
from melanoma_lab.config.schema.dataset import Dataset
from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.config.schema.finetuning import Finetuning
from melanoma_lab.config.schema.loss import Loss
from melanoma_lab.config.schema.metadata import Metadata
from melanoma_lab.config.schema.optimizer import Optimizer
from melanoma_lab.config.schema.regularisation import Regularisation
from melanoma_lab.config.schema.schedule import Schedule
from melanoma_lab.config.schema.split import Split
from melanoma_lab.config.schema.tracking import URI_INTERPOLATION, Tracking, check_tracking_uri
from melanoma_lab.config.schema.training import Training
from melanoma_lab.config.schema.trivial_classifiers import (
    TrivialArchitecture,
    check_network_options,
)
from melanoma_lab.config.schema.tuner import Tuner
from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.core.metric_names import POSITIVE_CLASS_METRIC_NAMES, SPLIT_METRIC_NAMES


@dataclass
class Demo:
    """The page of ``demo``."""

    #: Address to listen at. Any other than this machine's own lets others in, without a password.
    host: str = "127.0.0.1"
    #: Its port; 0: any that is free.
    port: int = 8910
    #: Megabytes of the largest file that is taken.
    max_megabytes: int = 50
    #: Training images that are shown beside a picture; 0: none, and nothing is prepared for them.
    neighbours: int = 6

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, "demo.port", "0 to 65535", self.port)
        require(
            1 <= self.max_megabytes <= 1000, "demo.max_megabytes", "1 to 1000", self.max_megabytes
        )
        require(0 <= self.neighbours <= 50, "demo.neighbours", "0 to 50", self.neighbours)


#: What can give an arm its verdict, beside the sensitivity to a class.
COMPARED_METRICS = (*SPLIT_METRIC_NAMES, *POSITIVE_CLASS_METRIC_NAMES, "generalisation_gap")
#: Bytes that the name of a study may take; file systems take 255, with endings.
MAX_STUDY_BYTES = 120


class Task(StrEnum):
    """What the command does."""

    train = "train"
    audit = "audit"
    download = "download"
    leaky_protocol = "leaky_protocol"
    compare = "compare"
    demo = "demo"
    ensemble = "ensemble"
    tune = "tune"
    predict = "predict"
    evaluate = "evaluate"
    export = "export"
    card = "card"
    sync = "sync"


#: Tasks that use what has been tracked, whatever they are told.
TRACKING_TASKS = frozenset(
    {Task.train, Task.compare, Task.ensemble, Task.tune, Task.evaluate, Task.sync}
)


class Format(StrEnum):
    """Kinds of file that a network is exported as."""

    saved_model = "saved_model"
    onnx = "onnx"
    litert = "litert"


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
    #: ``ensemble``: the arm whose runs answer together, as ``compare`` shows it; null: the study's
    #: only one.
    arm: str | None = None
    #: ``ensemble``: seeds of each; null: one ensemble of all that the arm has.
    members: int | None = None
    #: ``predict``, ``evaluate``, ``demo``, ``export``, ``card``: a run's id, a model's folder or
    #: ``.keras`` file, or ``models:/name/version``.
    model: str | None = None
    #: ``predict``: a folder, an image file, or a pattern such as ``DIR/*.jpg``; ``export``: on
    #: which the exported files are held against the network, null: those that it was tested on.
    images: str | None = None
    #: ``predict``: a folder for a map over each image of where the network looked (Grad-CAM).
    grad_cam: str | None = None
    #: ``export``: as what; one or several of saved_model, onnx, litert.
    formats: list[Format] = field(default_factory=lambda: [Format.saved_model])
    dataset: Dataset = MISSING
    split: Split = MISSING
    architecture: Architecture = MISSING
    regularisation: Regularisation = MISSING
    balancing: Balancing = MISSING
    augmentation: Augmentation = MISSING
    loss: Loss = MISSING
    optimizer: Optimizer = MISSING
    schedule: Schedule = MISSING
    finetuning: Finetuning = MISSING
    metadata: Metadata = MISSING
    tuner: Tuner = MISSING
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=lambda: Tracking(uri=URI_INTERPOLATION))
    audit: Audit = field(default_factory=Audit)
    demo: Demo = field(default_factory=Demo)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1", self.seed)
        check_study_name(self.study)
        if self.task in TRACKING_TASKS:  # the others may do without, or do
            check_tracking_uri(self.tracking.uri)
        if self.metric not in COMPARED_METRICS and not self.metric.startswith("sensitivity/"):
            raise UserError(
                f"metric={self.metric}: not among what is compared. "
                f"{suggest_choice(self.metric, [*COMPARED_METRICS, 'sensitivity/CLASS'])}"
            )
        require(self.formats, "formats", "one of saved_model, onnx, litert at least", [])
        require(self.members is None or self.members >= 1, "members", "at least 1", self.members)
        if isinstance(self.architecture, TrivialArchitecture):
            check_network_options(self, self.architecture)


def check_study_name(study: object) -> str:
    """The name of a study, which is also a folder's.

    Raises:
        UserError: it would lead elsewhere, or is too long for a file system.
    """
    name = str(study)
    require(
        re.fullmatch(r"[\w.-]+", name)
        and name.strip(".")
        and len(name.encode(errors="replace")) <= MAX_STUDY_BYTES,
        "study",
        f"letters, digits, dots, hyphens and underscores, {MAX_STUDY_BYTES} bytes at most (it "
        "names a folder)",
        name,
    )
    return name


#: For hydra.run.dir, which Hydra makes before anything else is checked.
OmegaConf.register_new_resolver("study", check_study_name, replace=True)
SCHEMA = OmegaConf.structured(Config)
# Its keys are a dataset's classes: no override of one is a mistyped key.
OmegaConf.set_struct(SCHEMA.evaluation.classes, False)
ConfigStore.instance().store(name="schema", node=SCHEMA)
