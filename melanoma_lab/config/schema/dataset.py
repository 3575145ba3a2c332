"""The group ``dataset``: where the images are, and what is made of their labels and groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from melanoma_lab.config.schema.checks import require
from melanoma_lab.registry import option


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
        require(self.image_size >= 1, "dataset.image_size", "at least 1 pixel", self.image_size)
        if self.classes is not None:
            require(len(self.classes) >= 2, "dataset.classes", "at least two classes", self.classes)
            if self.melanoma is not None:
                require(
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
        require(self.classes, "dataset.classes", "the names of the classes to draw", self.classes)
        require(self.lesions >= 1, "dataset.lesions", "at least 1", self.lesions)
        require(self.seed >= 0, "dataset.seed", "0 or more", self.seed)
