"""How a trained network is applied, and to which images."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from melanoma_lab.core.errors import require, require_share


class Tta(StrEnum):
    """Test-time augmentation: views of an image whose predicted probabilities are averaged."""

    none = "none"
    #: 4 views: the image and its mirror images.
    flips = "flips"
    #: 8 views: those of ``flips``, and each of them turned by 90 degrees.
    dihedral = "dihedral"


class OnOverlap(StrEnum):
    """Treatment of another dataset's images that show the same as a network's training images."""

    leave_out = "leave_out"
    keep = "keep"


#: Keys that only ``evaluate`` uses, and keys that are fixed when a network is trained.
EVALUATE_KEYS = ("classes", "trained_on", "overlap", "lesions")
TRAINING_RUN_KEYS = ("tta", "test", "sensitivity")


@dataclass
class Evaluation:
    """How a trained network is applied, and to which images."""

    #: Views of an image that are averaged, in every split and in the saved model: none (the image
    #: as it is), flips (4), dihedral (8). The validation after each epoch uses none.
    tta: Tta = Tta.none
    #: Whether the network is applied to the test split. false while choosing between arms: they
    #: are then compared on val, and test stays unseen for the arm that is chosen.
    test: bool = True
    #: Share of val's melanomas (``dataset.positive_class``) that the operating point should find;
    #: its threshold is then measured on test. Unused if the dataset names no such class.
    sensitivity: float = 0.9
    #: ``evaluate``: class of the dataset -> class of the model, if their names differ; null leaves
    #: a class out. The group ``mapping`` contains some of these mappings.
    classes: dict[str, str | None] = field(default_factory=dict)
    #: ``evaluate``: folder of the model's training images, to search for near-identical ones;
    #: null: the folder that its run used.
    trained_on: str | None = None
    #: ``evaluate``: treatment of images that show the same as a training image: leave_out or keep.
    overlap: OnOverlap = OnOverlap.leave_out
    #: ``evaluate``: whether equal lesion names, here and in training, mean the same lesion.
    lesions: bool = True

    def __post_init__(self) -> None:
        require_share("evaluation.sensitivity", self.sensitivity)
        require(self.trained_on != "", "evaluation.trained_on", "a folder", "nothing")
