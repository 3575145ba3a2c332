"""How, and to what, a trained network is applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from melanoma_lab.core.errors import UserError, require, require_share


class Tta(StrEnum):
    """Views of an image whose probabilities are averaged: test-time augmentation."""

    none = "none"
    #: The image and its mirror images: 4.
    flips = "flips"
    #: These, and all of them turned by a quarter: 8.
    dihedral = "dihedral"


class OnOverlap(StrEnum):
    """What becomes of images of another dataset that show what a network was trained on."""

    leave_out = "leave_out"
    keep = "keep"


#: Keys that ``evaluate`` alone asks for, and those that say nothing to a network that is kept.
EVALUATE_KEYS = ("classes", "trained_on", "overlap", "lesions")
TRAINING_RUN_KEYS = ("tta", "test", "sensitivity")


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
    #: ``evaluate``: class of the dataset -> class of the model, where they are called otherwise;
    #: null leaves a class out. The group ``mapping`` has some.
    classes: dict[str, str | None] = field(default_factory=dict)
    #: ``evaluate``: folder of the images that the model was trained on, to look for near-identical
    #: ones; null: where its run found them.
    trained_on: str | None = None
    #: ``evaluate``: images that show what the model was trained on: leave_out or keep.
    overlap: OnOverlap = OnOverlap.leave_out
    #: ``evaluate``: whether equal names of lesions, here and in training, mean the same lesion.
    lesions: bool = True

    def __post_init__(self) -> None:
        require_share("evaluation.sensitivity", self.sensitivity)
        require(self.trained_on != "", "evaluation.trained_on", "a folder", "nothing")

    def check_keys_of_task(self, *, evaluating: bool) -> None:
        """Refuse keys that the command would not ask for.

        Args:
            evaluating: whether it is ``evaluate``.

        Raises:
            UserError: naming one that is set.
        """
        usual = Evaluation()
        for key in TRAINING_RUN_KEYS if evaluating else EVALUATE_KEYS:
            if getattr(self, key) != getattr(usual, key):
                raise UserError(
                    f"evaluation.{key}: "
                    + (
                        "is settled when a model is trained, and is part of it; leave it out here."
                        if evaluating
                        else "a key of python -m melanoma_lab evaluate; other commands do not ask."
                    )
                )
