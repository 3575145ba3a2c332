"""The group ``metadata``: what is known of a patient and joined to what a network sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option

#: What may be known of a patient, as the manifest's columns are called.
PATIENT_COLUMNS: Final = ("age", "sex", "site")


@dataclass
class Metadata:
    """What every option has."""

    name: str = MISSING


@option("metadata", "none")
@dataclass
class NoMetadata(Metadata):
    """The image alone."""


@option("metadata", "patient")
@dataclass
class PatientMetadata(Metadata):
    """Age, sex and body site, encoded, through a layer of their own, beside a network's features.

    A missing value is allowed everywhere; what it and the others become is fitted to the training
    split.
    """

    #: Which of age, sex and site count.
    columns: list[str] = field(default_factory=lambda: list(PATIENT_COLUMNS))
    #: Units of the layer that they pass before they are joined to the features of the image.
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
