"""The predictions table, from which everything after training is computed.

It has one row for each image and the columns ``image_id``, ``group``, ``split``, ``y_true`` (the
slug of the true class) and ``prob/<slug>`` for every class in class order. Probabilities are
float32, as the network returns them, so that the CSV file of a run holds exactly the values from
which the metrics were computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError
from melanoma_lab.data.split import SPLITS, TEST, VAL
from melanoma_lab.data.tables import MAX_MANIFEST_BYTES, check_table

if TYPE_CHECKING:  # this import would load SciPy, which reading a table does not need
    from melanoma_lab.evaluation.decision_rule import Temperature

#: Prefix of the names of probability columns; the class's slug follows.
PROBABILITY_PREFIX = "prob/"
#: The largest deviation of a row's sum of probabilities from one; allows for a bfloat16 softmax.
SUM_TOLERANCE = 1e-3

_ID_COLUMNS = ("image_id", "group", "split", "y_true")


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """The predictions of one split as read-only arrays, in the order of the table's rows.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        slugs: K class slugs, in class order.
        image_ids: str, dtype object, shape (n,); n may be 0.
        y_true: int64, shape (n,); index of the true class.
        y_score: float64, shape (n, K); probabilities.
        group_names: str, shape (n,); name of the group of each image.
        groups: int64, shape (n,); the same groups as numbers from 0, in the order in which they
            first appear in this split. Intervals draw random numbers and add up by these numbers,
            so another order would change their last bits. A selection keeps its split's numbers.
    """

    name: str
    slugs: tuple[str, ...]
    image_ids: NDArray[np.object_]
    y_true: NDArray[np.int64]
    y_score: NDArray[np.float64]
    group_names: NDArray[np.str_]
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        for array in (self.image_ids, self.y_true, self.y_score, self.group_names, self.groups):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.y_true)

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """Index of the predicted class of each image; intp, shape (n,)."""
        predicted: NDArray[np.intp] = self.y_score.argmax(axis=1)
        return predicted

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class of each image is the true one; bool, shape (n,)."""
        correct: NDArray[np.bool_] = self.predicted == self.y_true
        return correct

    @cached_property
    def absent_classes(self) -> tuple[str, ...]:
        """Slugs of the classes without images in the split, in class order."""
        counts = np.bincount(self.y_true, minlength=len(self.slugs))
        return tuple(slug for slug, n in zip(self.slugs, counts, strict=True) if n == 0)

    def one_vs_rest(self, slug: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return one class as a binary problem.

        The result is whether each image is of the class (bool, shape (n,)), and the probability of
        the class (float64, shape (n,)).
        """
        k = self.slugs.index(slug)
        return self.y_true == k, self.y_score[:, k]

    def select(self, chosen: NDArray[np.bool_]) -> SplitPredictions:
        """Return the predictions of the images that are chosen (bool, shape (n,))."""
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            y_true=self.y_true[chosen],
            y_score=self.y_score[chosen],
            group_names=self.group_names[chosen],
            groups=self.groups[chosen],
        )

    def calibrate(self, temperature: Temperature) -> SplitPredictions:
        """Return the same images with calibrated probabilities."""
        return replace(self, y_score=temperature.apply(self.y_score))


@dataclass(frozen=True, eq=False)
class Predictions:
    """A checked predictions table, with its splits as arrays that are made once.

    Attributes:
        table: the table, whose columns the docstring of this module describes; do not change it.

    Raises:
        ValueError: columns are missing, unknown or out of order; an image_id occurs twice; a value
            is missing; a split or a y_true is unknown; or the probabilities of a row are not
            finite, not in [0, 1], or their sum differs from one by more than ``SUM_TOLERANCE``.
            The message names the first wrong image.
    """

    table: pd.DataFrame
    _splits: dict[str, SplitPredictions] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_table(self.table, self.slugs)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file that ``write`` wrote; the values are restored to the last bit.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a predictions table; the message names it.
        """
        path = Path(path)
        path.stat()  # raises FileNotFoundError, which is not to become a ValueError below
        try:
            check_table(path, MAX_MANIFEST_BYTES)
            # A class may be named "none" or "nan", so no word is read as a missing value.
            table = pd.read_csv(
                path, dtype=dict.fromkeys(_ID_COLUMNS, str), keep_default_na=False, encoding="utf-8"
            )
            return cls(table.astype(dict.fromkeys(_score_columns(table), np.float32)))
        except (UserError, ValueError) as error:
            raise ValueError(f"{path} is not a predictions table. {error}") from error

    def write(self, path: Path) -> None:
        """Write the table as UTF-8 CSV."""
        # Each float32 is written with the fewest digits that identify it. With the same line ending
        # on every system, equal predictions give equal files.
        self.table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")

    @cached_property
    def slugs(self) -> tuple[str, ...]:
        """Slugs of the classes, in class order."""
        return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in _score_columns(self.table))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images, in the order train, val, test."""
        present = set(self.table["split"])
        return tuple(split for split in SPLITS if split in present)

    @property
    def evaluated_split(self) -> str:
        """The split by which the run is evaluated: test, or val if no test image was predicted."""
        return TEST if TEST in self.splits else VAL

    @property
    def evaluated(self) -> SplitPredictions:
        """The predictions of ``evaluated_split``."""
        return self.split(self.evaluated_split)

    def split(self, name: str) -> SplitPredictions:
        """Return the predictions of ``train``, ``val`` or ``test``, which may be empty.

        Raises:
            ValueError: there is no split of this name.
        """
        if name not in SPLITS:
            raise ValueError(f"Expected split to be one of {SPLITS}. Received {name!r}.")
        if name not in self._splits:
            rows = self.table[self.table["split"] == name]
            self._splits[name] = SplitPredictions(
                name=name,
                slugs=self.slugs,
                image_ids=rows["image_id"].to_numpy(object, copy=True),
                y_true=pd.Index(self.slugs).get_indexer(pd.Index(rows["y_true"])).astype(np.int64),
                y_score=rows[_score_columns(rows)].to_numpy(np.float64),
                group_names=rows["group"].to_numpy(str),
                groups=pd.factorize(rows["group"])[0].astype(np.int64),
            )
        return self._splits[name]

    def require_class(self, slug: str | None) -> None:
        """Raise ValueError unless a slug is None or one of the classes."""
        if slug is not None and slug not in self.slugs:
            raise ValueError(
                f"Expected melanoma to be None or one of {self.slugs}. Received {slug!r}."
            )


def build_predictions(
    *,
    image_ids: Sequence[str],
    groups: Sequence[object],
    splits: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    slugs: Sequence[str],
) -> Predictions:
    """Build a predictions table from the columns of a run.

    Args:
        image_ids: n unique ids.
        groups: n group names or numbers; stored as strings.
        splits: n names of splits, each one of ``SPLITS``.
        labels: int64, shape (n,); index of the true class, 0 <= label < K.
        probabilities: float, shape (n, K); stored as float32.
        slugs: K class slugs, in class order.

    Returns:
        The predictions; the rows of their table are in the given order.

    Raises:
        ValueError: the lengths or shapes of the arguments differ, a label is out of range, or
            ``Predictions`` refuses the table.
    """
    n = len(image_ids)
    lengths = (n, len(groups), len(splits), *labels.shape)
    if lengths != (n, n, n, n) or probabilities.shape != (n, len(slugs)):
        raise ValueError(
            f"Expected {n} groups, splits and labels and probabilities of shape "
            f"({n}, {len(slugs)}). Received {len(groups)} groups, {len(splits)} splits, labels of "
            f"shape {labels.shape} and probabilities of shape {probabilities.shape}."
        )
    unknown = labels[(labels < 0) | (labels >= len(slugs))]
    if unknown.size:
        raise ValueError(
            f"Expected labels from 0 to {len(slugs) - 1}. Received {unknown[0]} "
            f"({unknown.size} of {n} labels are out of range)."
        )
    strings = {
        "image_id": list(image_ids),
        "group": [str(group) for group in groups],
        "split": list(splits),
        "y_true": [slugs[label] for label in labels],
    }
    columns = {name: pd.Series(values, dtype=str) for name, values in strings.items()}
    scores = probabilities.astype(np.float32)
    table = pd.DataFrame(
        columns | {f"{PROBABILITY_PREFIX}{slug}": scores[:, k] for k, slug in enumerate(slugs)}
    )
    return Predictions(table)


def _score_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold probabilities, in class order."""
    return [name for name in table.columns if name.startswith(PROBABILITY_PREFIX)]


def _check_table(table: pd.DataFrame, slugs: Sequence[str]) -> None:
    """Refuse a table that is not as ``Predictions`` describes it."""
    score_columns = _score_columns(table)
    if (
        list(table.columns) != [*_ID_COLUMNS, *score_columns]
        or len(slugs) < 2
        or len(set(slugs)) < len(slugs)
    ):
        raise ValueError(
            f"Expected the columns {', '.join(_ID_COLUMNS)} and then one "
            f"{PROBABILITY_PREFIX}<class> for each of two or more classes. "
            f"Received {', '.join(map(str, table.columns))}."
        )
    _refuse(
        table,
        table[list(_ID_COLUMNS)].isna().any(axis="columns").to_numpy(),
        "a value in each of " + ", ".join(_ID_COLUMNS),
    )
    _refuse(table, table["image_id"].duplicated().to_numpy(), "each image_id once")
    _refuse(table, ~table["split"].isin(SPLITS).to_numpy(), "split to be one of " + str(SPLITS))
    _refuse(table, ~table["y_true"].isin(slugs).to_numpy(), "y_true to be one of " + str(slugs))

    probabilities = table[score_columns].to_numpy(np.float64)
    # Comparisons with NaN are false, so this also refuses values that are not finite.
    in_range = (probabilities >= 0) & (probabilities <= 1)
    _refuse(table, np.any(~in_range, axis=1), "finite probabilities between 0 and 1")
    sums_to_one = np.isclose(probabilities.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE)
    _refuse(table, ~sums_to_one, f"probabilities that sum to one within {SUM_TOLERANCE:g}")


def _refuse(table: pd.DataFrame, wrong: NDArray[np.bool_], expected: str) -> None:
    """Raise a ValueError that shows the first wrong row, if there is one."""
    if wrong.any():
        row = table.iloc[int(np.argmax(wrong))]
        raise ValueError(
            f"Expected {expected}. Received {row.to_dict()} "
            f"({int(wrong.sum())} of {len(table)} rows are wrong)."
        )
