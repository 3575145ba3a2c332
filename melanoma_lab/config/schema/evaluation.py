"""How a trained network is applied to an image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tta(StrEnum):
    """Views of an image whose probabilities are averaged: test-time augmentation."""

    none = "none"
    #: The image and its mirror images: 4.
    flips = "flips"
    #: These, and all of them turned by a quarter: 8.
    dihedral = "dihedral"


@dataclass
class Evaluation:
    """How a trained network is applied to an image."""

    #: Which views of an image are averaged, in every split alike and in the model that is kept:
    #: none (the image as it is), flips (4), dihedral (8). Epochs are judged without.
    tta: Tta = Tta.none
