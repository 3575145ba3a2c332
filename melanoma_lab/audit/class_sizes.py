"""Whether a class is large enough to be divided, and to be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import pandas as pd

from melanoma_lab.data.split import SPLITS, TEST

#: Share of a class that is kept for testing where no split was published (``split=holdout``).
DEFAULT_TEST_SHARE: Final = 0.15
#: A class whose sensitivity would be uncertain by more than this, both ways, is hardly measured.
MAX_MARGIN: Final = 0.2


@dataclass(frozen=True)
class ClassSize:
    """What a class is good for.

    Attributes:
        images: readable ones.
        groups: images that belong together count once.
        test_groups: in the published test split, or in the usual share of a holdout.
        margin: half the width of the 95 % Wilson interval of a sensitivity of about 80 % measured
            on ``test_groups`` lesions; 0.2 is twenty percentage points both ways.
        splittable: whether there is a group for each of train, val and test.
        measurable: whether the margin is at most ``MAX_MARGIN``.
    """

    images: int
    groups: int
    test_groups: int
    margin: float
    splittable: bool
    measurable: bool


def measure_class_sizes(readable: pd.DataFrame, *, published: bool) -> dict[str, ClassSize]:
    """Judge every class.

    Args:
        readable: table with the columns label, group and judged.
        published: whether ``judged`` is a published split.
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
    """Half the width of Wilson's 95 % interval (JASA 22, 1927) around a share of 0.8 of n."""
    if n == 0:
        return 0.5
    z, share = 1.959964, 0.8
    spread = math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return z * spread / (1 + z**2 / n)
