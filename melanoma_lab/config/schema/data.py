"""The groups ``dataset``, ``split`` and ``metadata``: images, labels, parts, patient metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final

from melanoma_lab.core.errors import UserError, require, require_share
from melanoma_lab.core.formatting import format_list
from melanoma_lab.registry import Option, option

#: Largest side in pixels; a batch of 32 such images takes 6 GB before the network starts.
MAX_IMAGE_SIZE = 4096


def _is_encoding(name: str) -> bool:
    """Return whether Python has a text encoding of this name."""
    try:
        "text".encode(name)
    except (LookupError, ValueError):  # unknown, or a codec for something else than text
        return False
    return True


class OnConflict(StrEnum):
    """Treatment of identical images with different labels."""

    error = "error"
    keep = "keep"
    drop = "drop"
    relabel = "relabel"


class GroupingRule(StrEnum):
    """Rules for the images that a split must never separate."""

    all = "all"
    lesion = "lesion"
    duplicates = "duplicates"
    none = "none"


class LabelSource(StrEnum):
    """Source of the label: the folder's name, or the archive's diagnosis if there is one."""

    folder = "folder"
    diagnosis = "diagnosis"


class OnUnreadable(StrEnum):
    """Treatment of files that cannot be read as an image."""

    error = "error"
    skip = "skip"


class Resize(StrEnum):
    """Ways to turn a photograph into a square."""

    #: Keep the whole image and change its proportions.
    squash = "squash"
    #: Keep only the middle of the longer side.
    crop = "crop"
    #: Add black on both ends of the shorter side.
    pad = "pad"


@dataclass
class Dataset(Option):
    """Base class of all datasets."""

    #: Folder of the images, relative to the current folder.
    root: str | None = None
    #: Images are resized to image_size x image_size pixels.
    image_size: int = 180
    #: How images that are not square become square.
    resize: Resize = Resize.squash
    #: Class names in the order of the network's outputs; null: the classes found, sorted.
    classes: list[str] | None = None
    #: The class whose sensitivity, specificity and AUROC are reported on their own.
    positive_class: str | None = None
    #: What to do with identical images that have different labels: refuse the dataset, keep them,
    #: drop them, or take the label from the metadata's diagnosis.
    conflicts: OnConflict = OnConflict.error
    #: Which images a split keeps together: those of a lesion or patient and copies of each other
    #: (``all``), of a lesion or patient only, copies only, or none.
    groups: GroupingRule = GroupingRule.all
    #: What to do with a file that cannot be read as an image: refuse the dataset, or skip the file.
    on_unreadable: OnUnreadable = OnUnreadable.error
    #: Files to leave out besides masks: patterns of a path, file or folder; !pattern keeps them.
    exclude: list[str] = field(default_factory=list)
    #: Allow links and paths in a table that lead out of root.
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
    """Any folder tree of ``<class>/<image>``."""


@option("dataset", "isic9")
@option("dataset", "isic9_verified")
@dataclass
class Isic9Dataset(Dataset):
    """``Train/<class>/*``, ``Test/<class>/*`` and an optional table of the archive's metadata."""

    #: Table in the root; it may be missing.
    metadata: str = "metadata.csv"
    #: Where the label comes from: the name of the folder, or the archive's diagnosis if there is
    #: one.
    labels: LabelSource = LabelSource.folder
    #: Columns of the table that hold a diagnosis, the most trusted first.
    diagnosis_columns: list[str] = field(default_factory=list)
    #: Diagnosis code -> the classes that agree with it; the first is the class that it stands for.
    diagnoses: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class CsvColumns:
    """Names of a table's columns.

    null: recognise the column by its name, such as ``lesion_id``, ``Patient-No``, ``age_approx``,
    ``gender``; ``none``: use no such column.
    """

    #: Path of the image relative to ``images``; the file's ending may be missing.
    image: str = "image_id"
    #: The class of the image.
    label: str = "label"
    #: An id that all photographs of one lesion share; none: use no lesions, and patients only if
    #: their column is named.
    lesion: str | None = None
    #: An id that all photographs of one patient share; a split keeps them together, like lesions.
    patient: str | None = None
    #: Where the photograph comes from.
    source: str | None = None
    #: The class according to somebody else.
    diagnosis: str | None = None
    #: train, val or test, for split=predefined.
    split: str | None = None
    #: The patient's age in years, for metadata=patient.
    age: str | None = None
    #: The patient's sex, for metadata=patient.
    sex: str | None = None
    #: Body site of the lesion.
    site: str | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            name = getattr(self, entry.name)
            require(name != "", f"dataset.columns.{entry.name}", "a column's name", "nothing")


@option("dataset", "csv")
@option("dataset", "leaky_protocol")
@dataclass
class CsvDataset(Dataset):
    """A table with one row for each image: its path, its label, and more."""

    #: Table in the root, separated by commas, semicolons or tabs.
    table: str = "manifest.csv"
    #: Folder in the root that the table's paths are relative to.
    images: str = "."
    columns: CsvColumns = field(default_factory=CsvColumns)
    #: Encoding of a table without a byte order mark; others are latin-1 and cp1252.
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
    """A flat folder of images and a table with the diagnosis and lesion of each."""

    #: Table in the root, with the columns image_id, dx and lesion_id.
    metadata: str = "HAM10000_metadata.csv"
    #: Folder of the images in the root.
    images: str = "images"
    #: Diagnosis code of the table (column ``dx``) -> class name.
    diagnoses: dict[str, str] = field(default_factory=dict)


@option("dataset", "synthetic")
@dataclass
class SyntheticDataset(Dataset):
    """Lesions drawn by the program and stored in the cache."""

    #: Number of lesions to draw, each in one or several images.
    lesions: int = 450
    #: Seed of the drawing: another seed draws other lesions.
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is not None:
            raise UserError(
                f"dataset.root={self.root}: dataset=synthetic is generated by the program and "
                "has no folder. For your own images choose the kind of dataset: "
                "dataset=folder, csv, isic9, isic9_verified or ham10000."
            )
        require(self.classes, "dataset.classes", "the names of the classes to draw", self.classes)
        require(self.lesions >= 1, "dataset.lesions", "at least 1", self.lesions)
        require(self.seed >= 0, "dataset.seed", "0 or more", self.seed)


class OnLeakingTest(StrEnum):
    """Treatment of published test images whose group also has training images."""

    error = "error"
    drop = "drop"


@dataclass
class Split(Option):
    """Base class of all splits."""

    #: Seed of the division; independent of the ``seed`` of training.
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, "split.seed", "0 or more", self.seed)


@option("split", "holdout")
@dataclass
class Holdout(Split):
    """One division into three parts, stratified by class; groups are never divided."""

    #: Share of the images for training.
    train: float = 0.7
    #: Share of the images for validation.
    val: float = 0.15
    #: Share of the images for the test; the three shares add up to 1.
    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("train", "val", "test"):
            require_share(f"split.{key}", getattr(self, key))
        total = self.train + self.val + self.test
        require(
            abs(total - 1) < 1e-6,
            "split.train + split.val + split.test",
            "a sum of 1",
            f"{total:g}",
        )


@dataclass
class Undivided(Split):
    """All images are test images, as for external validation; not an option of the group."""

    name: str = "undivided"
    #: Use only the published Test.
    published: bool = False


@dataclass
class FoldSplit(Split):
    """Base class of splits with ``k`` folds, of which number ``fold`` is held out."""

    #: Number of folds.
    k: int = 5
    #: The fold that is held out, from 0 to k - 1.
    fold: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 2, "split.k", "at least 2 folds", self.k)
        require(
            0 <= self.fold < self.k, "split.fold", f"0 to split.k - 1 = {self.k - 1}", self.fold
        )


@option("split", "kfold")
@dataclass
class KFold(FoldSplit):
    """The held-out fold is the test split; ``val`` is a share of the rest."""

    #: Share of the other folds' images for validation.
    val: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)


@option("split", "cross_val")
@dataclass
class CrossVal(FoldSplit):
    """The held-out fold is the val split; all folds share the test split, that of a holdout."""

    #: Share of the images for the test.
    test: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.test", self.test)


@option("split", "predefined")
@dataclass
class Predefined(Split):
    """The published Train and Test; ``val`` is a share of Train."""

    #: Share of the published Train for validation, if no validation part was published.
    val: float = 0.15
    #: What to do with published test images whose group also has training images: refuse the
    #: dataset, or drop them from the test.
    leaking_test: OnLeakingTest = OnLeakingTest.error

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("split.val", self.val)


#: Kinds of patient metadata, named as the columns of the manifest.
PATIENT_COLUMNS: Final = ("age", "sex", "site")


@dataclass
class Metadata(Option):
    """Base class of all options."""


@option("metadata", "none")
@dataclass
class NoMetadata(Metadata):
    """The image alone."""


@option("metadata", "patient")
@dataclass
class PatientMetadata(Metadata):
    """Age, sex and body site: encoded, passed through a layer, and joined to the image features.

    Any value may be missing. The encoding, also of missing values, is fitted to the training split.
    """

    #: Some of age, sex and site.
    columns: list[str] = field(default_factory=lambda: list(PATIENT_COLUMNS))
    #: Units of the layer for the encoded metadata.
    width: int = 16

    def __post_init__(self) -> None:
        require(
            self.columns
            and set(self.columns) <= set(PATIENT_COLUMNS)
            and len(set(self.columns)) == len(self.columns),
            "metadata.columns",
            f"some of {', '.join(PATIENT_COLUMNS)}, each once",
            self.columns,
        )
        require(self.width >= 1, "metadata.width", "at least 1", self.width)
