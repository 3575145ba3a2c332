"""How, and to what, a trained network is applied."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from melanoma_lab.config.schema.checks import require_share


class Tta(StrEnum):
    """Views of an image whose probabilities are averaged: test-time augmentation."""

    none = "none"
    #: The image and its mirror images: 4.
    flips = "flips"
    #: These, and all of them turned by a quarter: 8.
    dihedral = "dihedral"


@dataclass
class Evaluation:
    """How, and to what, a trained network is applied."""

    #: Which views of an image are averaged, in every split alike and in the model that is kept:
    #: none (the image as it is), flips (4), dihedral (8). Epochs are judged without.
    tta: Tta = Tta.none
    #: Whether the network meets the test split at all. false, while choosing between arms: their
    #: comparison is then that of val, and test stays unseen for what has been chosen.
    test: bool = True
    #: Share of val's melanomas that the operating point is to find; its threshold is then measured
    #: on test. Nothing where the dataset names no melanoma class.
    sensitivity: float = 0.9

    def __post_init__(self) -> None:
        require_share("evaluation.sensitivity", self.sensitivity)
