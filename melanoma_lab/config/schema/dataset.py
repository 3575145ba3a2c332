"""The group ``dataset``: where the images are, and what is made of their labels and groups."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum

from omegaconf import MISSING

from melanoma_lab.core.errors import UserError, require
from melanoma_lab.core.formatting import format_list
from melanoma_lab.registry import option

#: Of a side; a batch of 32 larger ones takes 6 GB before the network begins.
MAX_IMAGE_SIZE = 4096


def _is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        "text".encode(name)
    except (LookupError, ValueError):  # unknown, or a codec that is none of text
        return False
    return True


class OnConflict(StrEnum):
    """What happens to identical images under different labels."""

    error = "error"
    keep = "keep"
    drop = "drop"
    relabel = "relabel"


class GroupingRule(StrEnum):
    """Which images a split must never separate."""

    all = "all"
    lesion = "lesion"
    duplicates = "duplicates"
    none = "none"


class LabelSource(StrEnum):
    """Whose word is the label: the folder's or the archive's diagnosis where there is one."""

    folder = "folder"
    diagnosis = "diagnosis"


class OnUnreadable(StrEnum):
    """What happens to files that cannot be read as an image."""

    error = "error"
    skip = "skip"


class Resize(StrEnum):
    """How a photograph becomes a square."""

    #: Its proportions change; all of it is seen.
    squash = "squash"
    #: The middle of the longer side is kept.
    crop = "crop"
    #: Black is laid on both sides of the shorter one.
    pad = "pad"


@dataclass
class Dataset:
    """What every dataset has."""

    name: str = MISSING
    #: Folder that holds the images; relative to where the command is typed.
    root: str | None = None
    #: Images are resized to image_size x image_size pixels.
    image_size: int = 180
    #: How those that are not square become so.
    resize: Resize = Resize.squash
    #: Class names in the order of the network's outputs; null: the folder's, sorted.
    classes: list[str] | None = None
    #: The class whose sensitivity, specificity and AUROC are reported on their own.
    positive_class: str | None = None
    conflicts: OnConflict = OnConflict.error
    groups: GroupingRule = GroupingRule.all
    on_unreadable: OnUnreadable = OnUnreadable.error
    #: Files to leave out besides masks: patterns of a path, a file or a folder; !pattern keeps.
    exclude: list[str] = field(default_factory=list)
    #: Follow links, and take paths of a table, that lead out of root.
    outside_root: bool = False

    def __post_init__(self) -> None:
        require(
            1 <= self.image_size <= MAX_IMAGE_SIZE,
            "dataset.image_size",
            f"1 to {MAX_IMAGE_SIZE:,} pixels",
            self.image_size,
        )
        if self.classes is not None:
            require(len(self.classes) >= 2, "dataset.classes", "at least two classes", self.classes)
            if self.positive_class is not None:
                require(
                    self.positive_class in self.classes,
                    "dataset.positive_class",
                    f"one of dataset.classes ({format_list(self.classes, 10)})",
                    self.positive_class,
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
    labels: LabelSource = LabelSource.folder
    #: Columns of the table that hold a diagnosis, most trusted first.
    diagnosis_columns: list[str] = field(default_factory=list)
    #: Diagnosis code -> the classes that agree with it; the first is the one it stands for.
    diagnoses: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class CsvColumns:
    """What the columns of a table are called.

    null: recognised by its name, such as ``lesion_id``, ``Patient-No``, ``age_approx``, ``gender``;
    ``none``: done without.
    """

    #: Path of the image relative to ``images``; its ending may be missing.
    image: str = "image_id"
    label: str = "label"
    #: What photographs of one lesion share; none: no lesions, and no patients that are not named.
    lesion: str | None = None
    #: What photographs of one patient share; a split keeps them together as it does lesions.
    patient: str | None = None
    #: Where the photograph comes from.
    source: str | None = None
    #: A class that somebody else found.
    diagnosis: str | None = None
    #: train, val or test, for split=predefined.
    split: str | None = None
    #: The patient's age in years, for metadata=patient.
    age: str | None = None
    sex: str | None = None
    #: Where on the body.
    site: str | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            name = getattr(self, entry.name)
            require(name != "", f"dataset.columns.{entry.name}", "a column's name", "nothing")


@option("dataset", "csv")
@option("dataset", "leaky_protocol")
@dataclass
class CsvDataset(Dataset):
    """A table with a row an image: where it lies, its label, and more."""

    #: Table in the root; comma, semicolon or tab.
    table: str = "manifest.csv"
    #: Folder in the root that the table's paths are relative to.
    images: str = "."
    columns: CsvColumns = field(default_factory=CsvColumns)
    #: Of the table, where it has no byte order mark; latin-1 and cp1252 are others.
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            _is_encoding(self.encoding),
            "dataset.encoding",
            "an encoding of text, such as utf-8, latin-1, cp1252",
            self.encoding,
        )


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
    """Lesions drawn by the program, which keeps them in the cache."""

    lesions: int = 450
    #: Other seeds draw other lesions.
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is not None:
            raise UserError(
                f"dataset.root={self.root}: dataset=synthetic is drawn by the program and has no "
                "folder. For images of your own say which kind of dataset they are: "
                "dataset=folder, csv, isic9, isic9_verified or ham10000."
            )
        require(self.classes, "dataset.classes", "the names of the classes to draw", self.classes)
        require(self.lesions >= 1, "dataset.lesions", "at least 1", self.lesions)
        require(self.seed >= 0, "dataset.seed", "0 or more", self.seed)
