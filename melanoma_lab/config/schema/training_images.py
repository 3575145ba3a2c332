"""The groups ``balancing`` and ``augmentation``, which change the training images only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from melanoma_lab.core.errors import UserError, require, suggest_choice
from melanoma_lab.registry import Option, option


@dataclass
class Balancing(Option):
    """Base class of all balancing strategies."""


@option("balancing", "none")
@dataclass
class NoBalancing(Balancing):
    """No balancing: the training images as they are."""


@option("balancing", "class_weight")
@dataclass
class ClassWeight(Balancing):
    """Weights in the loss that give every class the same total weight."""


@option("balancing", "effective_number")
@dataclass
class EffectiveNumber(Balancing):
    """Weights in the loss between ``none`` and ``class_weight``, Cui et al. (2019).

    The more images a class has, the less information an additional one gives.
    """

    #: How strongly rare classes gain: 0 equals ``none``; values towards 1 approach
    #: ``class_weight``. A class's images beyond about 1 / (1 - beta) hardly count: beyond 1,000
    #: for 0.999.
    beta: float = 0.999

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "balancing.beta", "0 to below 1", self.beta)


@option("balancing", "oversample")
@dataclass
class Oversample(Balancing):
    """Images of smaller classes are repeated up to the size of the largest class."""


@option("balancing", "undersample")
@dataclass
class Undersample(Balancing):
    """Random images of larger classes are left out down to the size of the smallest class."""

    #: Largest number of images that a class keeps; null: the size of the smallest class.
    per_class: int | None = None

    def __post_init__(self) -> None:
        require(
            self.per_class is None or self.per_class >= 1,
            "balancing.per_class",
            "at least 1, or null",
            self.per_class,
        )


@option("balancing", "augmentor")
@dataclass
class AugmentorBalancing(Balancing):
    """Exactly ``per_class`` images of every class; Augmentor's operations make the copies."""

    #: Number of images of every class, originals and copies.
    per_class: int = 500
    #: A mapping for each operation: method of ``Augmentor.Pipeline`` -> its arguments.
    operations: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.per_class >= 1, "balancing.per_class", "at least 1", self.per_class)


#: Operations that ``augmentation=randaugment`` may draw.
RAND_AUGMENT_OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)


@dataclass
class Augmentation(Option):
    """Base class of all augmentations."""


@option("augmentation", "none")
@dataclass
class NoAugmentation(Augmentation):
    """No augmentation: training images are not changed."""


@option("augmentation", "flip_rotate_zoom")
@dataclass
class FlipRotateZoom(Augmentation):
    """The course project's augmentation: flips both ways, rotation and zoom."""

    #: Largest rotation as a share of a full turn, both ways: 0.2 is up to 72 degrees.
    rotation: float = 0.2
    #: Largest zoom as a share of the height and width, in and out.
    zoom: float = 0.2

    def __post_init__(self) -> None:
        for key in ("rotation", "zoom"):
            value = getattr(self, key)
            require(0 <= value < 1, f"augmentation.{key}", "0 to below 1", value)


@option("augmentation", "dermoscopy")
@dataclass
class Dermoscopy(Augmentation):
    """Changes that occur between photographs of one lesion and do not affect its diagnosis.

    Crop and saturation are those of Perez et al. 2018 (arXiv:1809.01442), the best of thirteen
    augmentations on ISIC 2017; brightness, contrast and the size of erased rectangles are those of
    the winners of ISIC 2020 (arXiv:2010.05351). The hue changes of both, up to 0.1 and 0.06, make
    skin green and purple; the smaller change here does not. Rotation covers the whole circle,
    because a lesion has no upper side.
    """

    #: Mirror left to right and top to bottom, each with probability 0.5.
    flip: bool = True
    #: Largest rotation in degrees, both ways; 180 is the whole circle.
    rotation: float = 180.0
    #: Smallest share of the area that a crop at a random place keeps; 1: no crop.
    crop: float = 0.4
    #: Largest change of brightness: 0.2 is a factor of 0.8 to 1.2.
    brightness: float = 0.2
    #: Largest change of contrast, as of brightness.
    contrast: float = 0.2
    #: Largest change of saturation, as of brightness.
    saturation: float = 0.3
    #: Largest change of hue, as a share of the circle of hues, both ways.
    hue: float = 0.02
    #: Share of images in which a rectangle is painted over; 0: none.
    erase: float = 0.5
    #: Smallest and largest share of the area that is painted over.
    erase_area: list[float] = field(default_factory=lambda: [0.02, 0.15])

    def __post_init__(self) -> None:
        require(0 <= self.rotation <= 180, "augmentation.rotation", "0 to 180", self.rotation)
        require(0 < self.crop <= 1, "augmentation.crop", "above 0, at most 1", self.crop)
        for key in ("brightness", "contrast", "saturation", "erase"):
            value = getattr(self, key)
            require(0 <= value <= 1, f"augmentation.{key}", "0 to 1", value)
        require(0 <= self.hue <= 0.5, "augmentation.hue", "0 to 0.5", self.hue)
        area = self.erase_area
        require(
            len(area) == 2 and 0 < area[0] <= area[1] < 1,
            "augmentation.erase_area",
            "two shares between 0 and 1, the smaller first",
            area,
        )


@option("augmentation", "randaugment")
@dataclass
class RandAugment(Augmentation):
    """RandAugment: a few operations, drawn at random for each image, all of one strength."""

    #: Number of operations applied to an image, one after the other.
    per_image: int = 2
    #: Strength of all operations, 0 to 30.
    magnitude: float = 9.0
    #: Operations to draw from; the default is all operations of the publication.
    operations: list[str] = field(default_factory=lambda: list(RAND_AUGMENT_OPERATIONS))

    def __post_init__(self) -> None:
        require(self.per_image >= 1, "augmentation.per_image", "at least 1", self.per_image)
        require(0 <= self.magnitude <= 30, "augmentation.magnitude", "0 to 30", self.magnitude)
        require(self.operations, "augmentation.operations", "at least one", self.operations)
        for name in self.operations:
            if name not in RAND_AUGMENT_OPERATIONS:
                raise UserError(
                    f"augmentation.operations: no operation {name!r}. "
                    f"{suggest_choice(name, RAND_AUGMENT_OPERATIONS)}"
                )


@dataclass
class Mixing(Augmentation):
    """Base class of augmentations that mix two images."""

    #: The share of an image in a mixed one is drawn from Beta(alpha, alpha): for alpha below 1
    #: mostly near 0 or 1, for 1 uniform, above 1 mostly near 0.5.
    alpha: float = 1.0
    #: Augmentation of every image before mixing: ``augmentation/before=NAME``.
    before: Augmentation = MISSING

    def __post_init__(self) -> None:
        require(self.alpha > 0, "augmentation.alpha", "above 0", self.alpha)
        require(
            not isinstance(self.before, Mixing),
            "augmentation.before",
            "an augmentation that does not mix images itself",
            getattr(self.before, "name", self.before),
        )


@option("augmentation", "mixup")
@dataclass
class MixUp(Mixing):
    """Mixup: the weighted mean of two images and of their labels."""

    #: How evenly two images are mixed, from Beta(alpha, alpha): below 1 mostly one of them. Zhang
    #: et al. 2018 found 0.1 to 0.4 best on ImageNet.
    alpha: float = 0.2


@option("augmentation", "cutmix")
@dataclass
class CutMix(Mixing):
    """CutMix: a rectangle of one image inside another; labels are mixed by area.

    The default of alpha is that of Yun et al. 2019.
    """
