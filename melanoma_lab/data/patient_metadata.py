"""What is known of a patient as numbers that a network can add up, fitted to the training split.

No number of another split reaches an encoding: it is fitted to training rows and then applied to
all. Photographs of one lesion, which share a patient, are never divided. Several lesions of one
patient may be, unless a table names the patients (``dataset.columns.patient``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.metadata import PATIENT_COLUMNS, Metadata, PatientMetadata
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.split import TRAIN

Floats = NDArray[np.float32]
#: The column that numbers stand in; the others hold words.
AGE_COLUMN = "age"


@dataclass(frozen=True)
class AgeScaler:
    """How an age becomes a number: standardised, the mean where it is missing.

    Attributes:
        mean: years, over the training images that have an age.
        sd: years, of the same; 1 where all are of one age.
        missing: whether a second number says that it is missing. Where no training image lacks
            its age, nothing could be learned from that number, and there is none.
    """

    mean: float
    sd: float
    missing: bool

    @property
    def width(self) -> int:
        """How many numbers it takes."""
        return 1 + self.missing

    def encode(self, ages: NDArray[np.float64]) -> Floats:
        """Ages in years, shape (n,), NaN where missing, as float32, shape (n, width)."""
        missing = np.isnan(ages)
        mean, sd = np.float32(self.mean), np.float32(self.sd)
        scaled = (np.where(missing, mean, ages.astype(np.float32)) - mean) / sd
        return np.stack([scaled, missing.astype(np.float32)][: self.width], axis=1)


@dataclass(frozen=True)
class CategoryEncoder:
    """How a word becomes numbers: one for each that a training image has, and one for none.

    Attributes:
        values: words of the training images, sorted; a word's place is its code.
        missing: whether a last number says that it is missing, or no training image has it; as in
            ``AgeScaler``.
    """

    values: tuple[str, ...]
    missing: bool

    @property
    def width(self) -> int:
        """How many numbers it takes."""
        return len(self.values) + self.missing

    def codes(self, words: Sequence[str]) -> NDArray[np.int64]:
        """The place of each word, int64, shape (n,); -1 where it is missing or not known."""
        place = {word: code for code, word in enumerate(self.values)}
        return np.array([place.get(word, -1) for word in words], np.int64)

    def encode(self, words: Sequence[str]) -> Floats:
        """Words, n of them, as float32, shape (n, width): a one where it is that word."""
        codes = self.codes(words)
        last = np.where(codes < 0, len(self.values), codes)
        return np.eye(len(self.values) + 1, dtype=np.float32)[last][:, : self.width]


@dataclass(frozen=True)
class PatientEncoder:
    """How a row of the manifest becomes a row of numbers.

    Attributes:
        columns: column of the manifest -> how it is encoded, in the order of the numbers.
    """

    columns: Mapping[str, AgeScaler | CategoryEncoder]

    @property
    def width(self) -> int:
        """How many numbers a row becomes."""
        return sum(column.width for column in self.columns.values())

    def encode(self, manifest: pd.DataFrame) -> Floats:
        """Rows of a manifest as numbers, float32, shape (n, width); none of them is NaN."""
        parts = [
            column.encode(manifest[name].to_numpy(np.float64))
            if isinstance(column, AgeScaler)
            else column.encode(list(manifest[name]))
            for name, column in self.columns.items()
        ]
        return np.concatenate(parts, axis=1)

    def to_model_inputs(self, manifest: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Rows of a manifest as a kept model takes them: for each column shape (n, 1).

        Years, float32, NaN where missing; of words their codes, int32, -1 where missing.
        """
        return {
            name: manifest[[name]].to_numpy(np.float32)
            if isinstance(column, AgeScaler)
            else column.codes(list(manifest[name])).astype(np.int32)[:, None]
            for name, column in self.columns.items()
        }

    @classmethod
    def read(cls, described: object) -> Self:
        """What ``to_dict`` gave, as a file may have it.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(described, Mapping) or not set(described) <= set(PATIENT_COLUMNS):
            raise ValueError(f"Expected an encoding of patients. Received {described!r}.")
        columns: dict[str, AgeScaler | CategoryEncoder] = {}
        try:
            for name, said in described.items():
                if name == AGE_COLUMN:
                    scale = AgeScaler(float(said["mean"]), float(said["sd"]), bool(said["missing"]))
                    columns[name] = scale
                else:
                    words = tuple(map(str, said["values"]))
                    columns[name] = CategoryEncoder(words, bool(said["missing"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected an encoding of patients. Received {error!r}.") from error
        return cls(columns)

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON: the mean and sd of ages, the words of others by their codes."""
        return {name: asdict(column) for name, column in self.columns.items()}


def fit_patient_encoder(train: pd.DataFrame, columns: Sequence[str]) -> PatientEncoder:
    """Fit an encoding to training images, each of which counts once.

    Args:
        train: rows of the manifest that are for training.
        columns: which of its columns count.

    Raises:
        UserError: no training image has a value in one of them.
    """
    fitted: dict[str, AgeScaler | CategoryEncoder] = {}
    for name in columns:
        missing = is_missing(train[name])
        if missing.all():
            raise UserError(f"metadata.columns: no training image has its {name}; leave it out.")
        known = train.loc[~missing, name]
        some = bool(missing.any())
        if name == AGE_COLUMN:
            ages = known.to_numpy(np.float64)
            fitted[name] = AgeScaler(float(ages.mean()), float(ages.std()) or 1.0, some)
        else:
            fitted[name] = CategoryEncoder(tuple(sorted(set(known))), some)
    return PatientEncoder(fitted)


def is_missing(column: pd.Series) -> pd.Series:
    """Where a column of the manifest says nothing: NaN among numbers, an empty word."""
    return column.isna() | (column == "")


@dataclass(frozen=True)
class PatientData:
    """What is known of the patients of a dataset, ready for a network.

    Attributes:
        numbers: float32, shape (n, d), finite; a row for every row of the manifest.
        encoding: how they came about.
        digest: of what the manifest says of patients, whatever of it is used.
        notes: what training images do not show of others, a sentence each.
    """

    numbers: Floats
    encoding: PatientEncoder
    digest: str
    notes: tuple[str, ...]


def encode_patients(manifest: pd.DataFrame, metadata: Metadata) -> PatientData | None:
    """Encode what is known of the patients, as configured.

    Args:
        manifest: split, with the columns age, sex and site.
        metadata: the option's configuration.

    Returns:
        None where the image is all that counts.

    Raises:
        UserError: the dataset, or its training split, does not know what is asked for.
    """
    if not isinstance(metadata, PatientMetadata):
        return None
    known = [name for name in PATIENT_COLUMNS if not is_missing(manifest[name]).all()]
    for name in metadata.columns:
        if name not in known:
            has = f"it knows {' and '.join(known)}" if known else "it knows nothing of them"
            raise UserError(
                f"metadata={metadata.name}: this dataset does not say what {name} the patients "
                f"are of; {has}. Expected metadata.columns that it knows, or metadata=none. "
                "dataset=ham10000 knows all, dataset=csv what dataset.columns names."
            )
    is_train = (manifest["split"] == TRAIN).to_numpy()
    encoding = fit_patient_encoder(manifest.loc[is_train], metadata.columns)
    return PatientData(
        numbers=encoding.encode(manifest),
        encoding=encoding,
        digest=_digest(manifest),
        notes=tuple(
            describe_unseen_categories(manifest.loc[~is_train], encoding, "Of val and test ")
        ),
    )


def describe_unseen_categories(
    others: pd.DataFrame, encoding: PatientEncoder, of: str = ""
) -> list[str]:
    """Words that no training image has, for notes.

    Args:
        others: rows of a manifest that the encoding was not fitted to.
        encoding: fitted to training images.
        of: what a note begins with.
    """
    notes = []
    for name, column in encoding.columns.items():
        if isinstance(column, CategoryEncoder):
            unseen = ~is_missing(others[name]) & ~others[name].isin(column.values)
            if unseen.any():
                words = format_list(sorted(set(others.loc[unseen, name])))
                images = "1 image has" if unseen.sum() == 1 else f"{unseen.sum()} images have"
                notes.append(
                    f"{of}{images} a {name} that no training image has ({words}): it counts as "
                    "missing."
                )
    return notes


def _digest(manifest: pd.DataFrame) -> str:
    """A short SHA-256 of what is known of every image's patient."""
    text = json.dumps([manifest[name].tolist() for name in ("image_id", *PATIENT_COLUMNS)])
    return hash_text(text, 16)
