"""Check whether classes are large enough to be measured, and whether sources predict classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.data.split import SPLITS, TEST

#: Share of a class in the test split if no split was published (``split=holdout``).
DEFAULT_TEST_SHARE: Final = 0.15
#: Largest uncertainty of a class's sensitivity, both ways, at which the class can be measured.
MAX_MARGIN: Final = 0.2


@dataclass(frozen=True)
class ClassSize:
    """The size of a class, and whether it can be split and measured.

    Attributes:
        images: number of readable images.
        groups: number of groups; images that belong together count once.
        test_groups: number of groups in the published test split, or in that of a default holdout.
        margin: half the width of the 95 % Wilson interval of a sensitivity of about 80 % measured
            on ``test_groups`` lesions; 0.2 is twenty percentage points both ways.
        splittable: whether there is at least one group for each of train, val and test.
        measurable: whether the margin is at most ``MAX_MARGIN``.
    """

    images: int
    groups: int
    test_groups: int
    margin: float
    splittable: bool
    measurable: bool


def measure_class_sizes(readable: pd.DataFrame, *, published: bool) -> dict[str, ClassSize]:
    """Check whether each class has enough images to be split and measured.

    Args:
        readable: table of readable images with the columns label, group and judged.
        published: whether ``judged`` is a published split.

    Returns:
        Class -> its size.
    """
    sizes = {}
    for label, rows in readable.groupby("label"):
        groups = rows["group"].nunique()
        test = rows.loc[rows["judged"] == TEST, "group"].nunique()
        if not (published and test):
            test = round(DEFAULT_TEST_SHARE * groups)
        margin = _margin(test)
        sizes[str(label)] = ClassSize(
            images=len(rows),
            groups=groups,
            test_groups=test,
            margin=round(margin, 3),
            splittable=groups >= len(SPLITS),
            measurable=margin <= MAX_MARGIN,
        )
    return sizes


def _margin(n: int) -> float:
    """Return half the width of Wilson's 95 % interval (JASA 22, 1927) for a share of 0.8 of n."""
    if n == 0:
        return 0.5
    z, share = 1.959964, 0.8
    spread = math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return z * spread / (1 + z**2 / n)


#: Balanced accuracy of distinguishing two classes by source alone from which on it is a problem.
CONFOUNDING_THRESHOLD: Final = 0.6


@dataclass(frozen=True)
class SourceFindings:
    """How well the source of an image predicts its class.

    Attributes:
        n_known: number of images whose source is known; the other values are for these images.
        n_sources: number of different sources.
        balanced_accuracy: balanced accuracy of the rule that predicts, for every source, the class
            with the largest share of its images in that source. No rule from source alone is
            better on these images. It cannot predict more classes than there are sources. None
            with fewer than two sources or two classes, as are the next three.
        chance: balanced accuracy of guessing, 1 / number of classes.
        pairwise_accuracy: balanced accuracy of distinguishing two classes by source alone, the
            mean over all pairs of classes; chance is 0.5.
        cramers_v: Cramér's V between class and source, 0 (independent) to 1.
        told_apart: class -> balanced accuracy of distinguishing it from another class by source
            alone, the mean over the other classes.
        single_source_classes: class -> its only source, for classes with a single source.
    """

    n_known: int
    n_sources: int
    balanced_accuracy: float | None
    chance: float | None
    pairwise_accuracy: float | None
    cramers_v: float | None
    told_apart: dict[str, float]
    single_source_classes: dict[str, str]


def measure_source_confounding(labels: pd.Series, sources: pd.Series) -> SourceFindings:
    """Measure how well the source of an image predicts its class.

    Args:
        labels: class of each image, str, shape (n,).
        sources: source of each image, str, shape (n,); empty if unknown.
    """
    known = sources != ""
    table = pd.crosstab(labels[known], sources[known])
    if min(table.shape) < 2:
        return SourceFindings(int(known.sum()), table.shape[1], None, None, None, None, {}, {})
    share = table.div(table.sum(axis=1), axis=0)
    # The best rule for two classes has accuracy (1 + total variation distance) / 2.
    rows = share.to_numpy()
    distance = np.abs(rows[:, None] - rows[None]).sum(axis=2) / 2
    told_apart = (1 + distance.sum(axis=1) / (len(rows) - 1)) / 2
    only = table[(table > 0).sum(axis=1) == 1]
    return SourceFindings(
        n_known=int(known.sum()),
        n_sources=table.shape[1],
        # Balanced accuracy is the mean over classes of the share predicted correctly, so each
        # source contributes the largest share that any class has in it.
        balanced_accuracy=round(float(share.max(axis=0).sum() / len(share)), 4),
        chance=round(1 / len(share), 4),
        pairwise_accuracy=round(float(told_apart.mean()), 4),
        cramers_v=round(_cramers_v(table.to_numpy()), 4),
        told_apart={
            str(label): round(float(value), 4)
            for label, value in zip(share.index, told_apart, strict=True)
        },
        single_source_classes={str(label): str(row.idxmax()) for label, row in only.iterrows()},
    )


def _cramers_v(table: NDArray[np.int64]) -> float:
    """Compute Cramér's V, Cramér (1946), section 21.9.

    SciPy has it, but importing scipy.stats takes a second.
    """
    n = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    chi_squared = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi_squared / n / (min(table.shape) - 1)))
