"""The schema of the configuration: every key with its type and its default.

Defaults stand only here; the YAML files in ``conf/`` contain what differs from them. Each group
is in a module here, and each option of a group has its own class. A key that another option would
ignore (``balancing=none balancing.per_class=200``) is therefore refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from melanoma_lab.config.schema.architecture import (
    Architecture,
    TrivialArchitecture,
    check_network_options,
)
from melanoma_lab.config.schema.data import Dataset, Metadata, Split
from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.config.schema.regularisation import Regularisation
from melanoma_lab.config.schema.tracking import URI_INTERPOLATION, Tracking, check_tracking_uri
from melanoma_lab.config.schema.training import Finetuning, Loss, Optimizer, Schedule, Training
from melanoma_lab.config.schema.training_images import Augmentation, Balancing
from melanoma_lab.config.schema.tuner import Tuner
from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.core.formatting import (
    SPLIT_METRIC_NAMES,
    name_positive_class_metrics,
    slugify,
    split_positive_class_metric,
)


@dataclass
class Demo:
    """Settings of the ``demo`` page."""

    #: Address to listen on. Any address but this machine's own gives others access, without a
    #: password.
    host: str = "127.0.0.1"
    #: Port to listen on; 0: any free one.
    port: int = 8910
    #: Size of the largest file that is accepted, in megabytes.
    max_megabytes: int = 50
    #: Number of similar training images shown with a picture; 0: none, and nothing is prepared.
    neighbours: int = 6

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, "demo.port", "0 to 65535", self.port)
        require(
            1 <= self.max_megabytes <= 1000, "demo.max_megabytes", "1 to 1000", self.max_megabytes
        )
        require(0 <= self.neighbours <= 50, "demo.neighbours", "0 to 50", self.neighbours)


#: Metrics that can decide an arm's verdict, besides the sensitivity to a class.
COMPARED_METRICS = (*SPLIT_METRIC_NAMES, "generalisation_gap")
#: Longest name of a study in bytes; file systems allow 255, including endings.
MAX_STUDY_BYTES = 120


class Task(StrEnum):
    """Commands of the program."""

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


#: Tasks that always use the tracking store, whatever their other keys are.
TRACKING_TASKS = frozenset(
    {Task.train, Task.compare, Task.ensemble, Task.tune, Task.evaluate, Task.sync}
)


class Format(StrEnum):
    """File formats that a network can be exported to."""

    saved_model = "saved_model"
    onnx = "onnx"
    litert = "litert"


@dataclass
class Audit:
    """Settings of ``audit``."""

    #: Exit with status 1 if images that belong together lie on both sides of the split.
    strict: bool = False


@dataclass
class Config:
    """The whole configuration of one command."""

    #: The command; the first word of a command line stands for it.
    task: Task = Task.train
    #: One research question: names the MLflow experiment and the folder ``experiments/<study>``.
    study: str = "ablation"
    #: The arm or preset that this arm is compared with; every preset names its own.
    reference: str | None = None
    #: Metric that decides an arm's verdict when a study is compared.
    metric: str = "balanced_accuracy"
    #: Seed of initial weights, order of images, dropout, augmentation and balancing.
    seed: int = 0
    #: Folder for decoded images and balanced copies; null: the user's cache folder.
    cache: str | None = None
    #: Where a command writes its output; null: the command's default place.
    output: str | None = None
    #: ``audit``: a folder of other images, to find those that the dataset has too.
    against: str | None = None
    #: ``ensemble``: the arm whose runs are combined, as ``compare`` shows its name; null: the
    #: study's only arm.
    arm: str | None = None
    #: ``ensemble``: number of seeds in each ensemble; null: one ensemble of all seeds of the arm.
    members: int | None = None
    #: ``predict``, ``evaluate``, ``demo``, ``export``, ``card``: a run's id, a model's folder or
    #: ``.keras`` file, or ``models:/name/version``.
    model: str | None = None
    #: A folder, an image file, or a pattern such as ``DIR/*.jpg``. ``predict``: the images to
    #: predict; ``export``: the images on which exported files are compared with the network,
    #: null: the network's test images.
    images: str | None = None
    #: ``predict``: a folder for a Grad-CAM heat map of each image; null: no heat maps.
    grad_cam: str | None = None
    #: ``export``: one or several of saved_model, onnx, litert.
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
        if self.task in TRACKING_TASKS:  # other tasks can work without tracking
            check_tracking_uri(self.tracking.uri)
        self._check_metrics()
        require(self.formats, "formats", "one of saved_model, onnx, litert at least", [])
        require(self.members is None or self.members >= 1, "members", "at least 1", self.members)
        if isinstance(self.architecture, TrivialArchitecture):
            check_network_options(self, self.architecture)

    def _check_metrics(self) -> None:
        """Check that the metric of the study can be computed."""
        of_class = split_positive_class_metric(self.metric)
        if (
            self.metric not in COMPARED_METRICS
            and not self.metric.startswith("sensitivity/")
            and of_class is None
        ):
            raise UserError(
                f"metric={self.metric}: not a compared metric. "
                f"{suggest_choice(self.metric, [*COMPARED_METRICS, 'sensitivity/CLASS'])}"
            )
        if self.task is Task.train:  # of other tasks, this dataset is not that of the runs
            check_positive_class_metric("metric", self.metric, self.dataset)


def check_positive_class_metric(key: str, metric: str, dataset: Dataset) -> None:
    """Check that a metric of the positive class is one of the dataset's.

    Args:
        key: the key that names the metric.
        metric: any metric, with or without its split.

    Raises:
        UserError: the metric belongs to a class that is not the dataset's positive class.
    """
    name = metric.removeprefix("val/")
    names = name_positive_class_metrics(slugify(dataset.positive_class or ""))
    if split_positive_class_metric(name) is None or name in names:
        return
    advice = (
        f"its positive class is {dataset.positive_class}. {suggest_choice(name, names)}"
        if names
        else "it has no positive class; add dataset.positive_class=NAME."
    )
    raise UserError(f"{key}={metric}: dataset={dataset.name}: {advice}")


def check_study_name(study: object) -> str:
    """Return the name of a study if it can also name a folder.

    Raises:
        UserError: the name would lead to another folder, or is too long for a file system.
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


# For hydra.run.dir, a folder that Hydra makes before anything else is checked.
OmegaConf.register_new_resolver("study", check_study_name, replace=True)
SCHEMA = OmegaConf.structured(Config)
# Its keys are a dataset's classes, so that Hydra cannot know them.
OmegaConf.set_struct(SCHEMA.evaluation.classes, False)
ConfigStore.instance().store(name="schema", node=SCHEMA)
