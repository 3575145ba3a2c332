"""The group ``metadata``: patient metadata as an additional input of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from omegaconf import MISSING

from melanoma_lab.core.errors import require
from melanoma_lab.registry import option

#: Kinds of patient metadata, named as the columns of the manifest.
PATIENT_COLUMNS: Final = ("age", "sex", "site")


@dataclass
class Metadata:
    """Base class of all options."""

    name: str = MISSING


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
