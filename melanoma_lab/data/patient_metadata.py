"""Encode patient metadata as numbers for a network, fitted to the training split.

An encoder is fitted to training rows only and then applied to all rows. Photographs of one lesion,
and so of one patient, are always in one split. Several lesions of one patient may be in different
splits, unless a table names the patients (``dataset.columns.patient``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.schema.data import PATIENT_COLUMNS, Metadata, PatientMetadata
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import hash_text
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.split import TRAIN

Floats = NDArray[np.float32]
#: The column of numbers; the other columns hold words.
AGE_COLUMN = "age"


@dataclass(frozen=True)
class AgeScaler:
    """Encoder that standardises ages and replaces missing ones by the mean.

    Attributes:
        mean: mean age in years of the training images with an age.
        sd: standard deviation of these ages in years; 1 if all are equal.
        missing: whether a second number marks missing ages. Without missing ages in training, a
            network could not learn from that number, and it is left out.
    """

    mean: float
    sd: float
    missing: bool

    @property
    def width(self) -> int:
        """Number of encoded values for one image."""
        return 1 + self.missing

    def encode(self, ages: NDArray[np.float64]) -> Floats:
        """Encode ages in years, shape (n,), NaN if missing, as float32, shape (n, width)."""
        missing = np.isnan(ages)
        mean, sd = np.float32(self.mean), np.float32(self.sd)
        scaled = (np.where(missing, mean, ages.astype(np.float32)) - mean) / sd
        return np.stack([scaled, missing.astype(np.float32)][: self.width], axis=1)


@dataclass(frozen=True)
class CategoryEncoder:
    """One-hot encoder of the words that occur in the training split.

    Attributes:
        values: words of the training images, sorted; a word's index is its code.
        missing: whether a last number marks words that are missing or unknown in training; as in
            ``AgeScaler``.
    """

    values: tuple[str, ...]
    missing: bool

    @property
    def width(self) -> int:
        """Number of encoded values for one image."""
        return len(self.values) + self.missing

    def codes(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Return the code of each word, int64, shape (n,); -1 if it is missing or unknown."""
        code_of = {word: code for code, word in enumerate(self.values)}
        return np.array([code_of.get(word, -1) for word in words], np.int64)

    def encode(self, words: Sequence[str]) -> Floats:
        """One-hot encode n words as float32, shape (n, width)."""
        codes = self.codes(words)
        last = np.where(codes < 0, len(self.values), codes)
        return np.eye(len(self.values) + 1, dtype=np.float32)[last][:, : self.width]


@dataclass(frozen=True)
class PatientEncoder:
    """Encoder of the patient metadata in the rows of a manifest.

    Attributes:
        columns: column of the manifest -> its encoder, in the order of the encoded values.
    """

    columns: Mapping[str, AgeScaler | CategoryEncoder]

    @property
    def width(self) -> int:
        """Number of encoded values for one row."""
        return sum(column.width for column in self.columns.values())

    def encode(self, manifest: pd.DataFrame) -> Floats:
        """Encode n rows of a manifest as float32, shape (n, width), without NaN."""
        parts = [
            column.encode(manifest[name].to_numpy(np.float64))
            if isinstance(column, AgeScaler)
            else column.encode(list(manifest[name]))
            for name, column in self.columns.items()
        ]
        return np.concatenate(parts, axis=1)

    def to_model_inputs(self, manifest: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Convert n rows of a manifest to the inputs of a saved model, each of shape (n, 1).

        Ages are float32 years, NaN if missing; words are int32 codes, -1 if missing.
        """
        return {
            name: manifest[[name]].to_numpy(np.float32)
            if isinstance(column, AgeScaler)
            else column.codes(list(manifest[name])).astype(np.int32)[:, None]
            for name, column in self.columns.items()
        }

    @classmethod
    def read(cls, described: object) -> Self:
        """Build an encoder from the result of ``to_dict``, which may come from a file.

        Raises:
            ValueError: ``described`` is something else.
        """
        if not isinstance(described, Mapping) or not set(described) <= set(PATIENT_COLUMNS):
            raise ValueError(f"Expected an encoding of patients. Received {described!r}.")
        columns: dict[str, AgeScaler | CategoryEncoder] = {}
        try:
            for name, entry in described.items():
                if name == AGE_COLUMN:
                    mean, sd = float(entry["mean"]), float(entry["sd"])
                    columns[name] = AgeScaler(mean, sd, bool(entry["missing"]))
                else:
                    words = tuple(map(str, entry["values"]))
                    columns[name] = CategoryEncoder(words, bool(entry["missing"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected an encoding of patients. Received {error!r}.") from error
        return cls(columns)

    def to_dict(self) -> dict[str, Any]:
        """Convert the encoder to values for JSON: mean and sd of ages, and lists of words."""
        return {name: asdict(column) for name, column in self.columns.items()}


def fit_patient_encoder(train: pd.DataFrame, columns: Sequence[str]) -> PatientEncoder:
    """Fit an encoder to the training images, with equal weight for each.

    Raises:
        UserError: no training image has a value in one of the columns.
    """
    fitted: dict[str, AgeScaler | CategoryEncoder] = {}
    for name in columns:
        missing = is_missing(train[name])
        if missing.all():
            raise UserError(
                f"metadata.columns: no training image has a value for {name}; leave it out."
            )
        known = train.loc[~missing, name]
        any_missing = bool(missing.any())
        if name == AGE_COLUMN:
            ages = known.to_numpy(np.float64)
            fitted[name] = AgeScaler(float(ages.mean()), float(ages.std()) or 1.0, any_missing)
        else:
            fitted[name] = CategoryEncoder(tuple(sorted(set(known))), any_missing)
    return PatientEncoder(fitted)


def is_missing(column: pd.Series) -> pd.Series:
    """Return a mask of the missing values of a manifest's column: NaN or an empty word."""
    return column.isna() | (column == "")


@dataclass(frozen=True)
class PatientData:
    """The encoded patient metadata of a dataset.

    Attributes:
        numbers: float32, shape (n, d), finite; one row for each row of the manifest.
        digest: digest of all patient metadata in the manifest, whether used or not.
        notes: values that occur outside the training split only, a sentence each.
    """

    numbers: Floats
    encoding: PatientEncoder
    digest: str
    notes: tuple[str, ...]


def encode_patients(manifest: pd.DataFrame, metadata: Metadata) -> PatientData | None:
    """Encode the patient metadata of a dataset as configured; return None if it uses none.

    The manifest has the columns split, age, sex and site.

    Raises:
        UserError: the dataset or its training split has no values in a configured column.
    """
    if not isinstance(metadata, PatientMetadata):
        return None
    known = [name for name in PATIENT_COLUMNS if not is_missing(manifest[name]).all()]
    for name in metadata.columns:
        if name not in known:
            has = f"it has {' and '.join(known)}" if known else "it has no patient metadata"
            raise UserError(
                f"metadata={metadata.name}: this dataset has no {name} of its patients; {has}. "
                "Expected metadata.columns that it has, or metadata=none. dataset=ham10000 has "
                "all, dataset=csv those that dataset.columns names."
            )
    is_train = (manifest["split"] == TRAIN).to_numpy()
    encoding = fit_patient_encoder(manifest.loc[is_train], metadata.columns)
    return PatientData(
        numbers=encoding.encode(manifest),
        encoding=encoding,
        digest=_digest(manifest),
        notes=tuple(
            describe_unseen_categories(manifest.loc[~is_train], encoding, "In val and test ")
        ),
    )


def describe_unseen_categories(
    others: pd.DataFrame, encoding: PatientEncoder, of: str = ""
) -> list[str]:
    """Describe values that do not occur in the training split, a sentence for each column.

    ``others`` are rows that the encoder was not fitted to; each sentence begins with ``of``.
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
    """Compute a short SHA-256 of every image's patient metadata."""
    text = json.dumps([manifest[name].tolist() for name in ("image_id", *PATIENT_COLUMNS)])
    return hash_text(text, 16)
