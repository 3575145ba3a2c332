"""The predictions table: the seam between training and everything that judges it.

One row per image, columns ``image_id``, ``group``, ``split``, ``y_true`` (the slug of the true
class) and ``prob/<slug>`` for every class in class order. Probabilities are float32, what the
network emits, so that the CSV file beside a run says exactly what the metrics were computed from.
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
from melanoma_lab.data.untrusted_tables import MAX_MANIFEST_BYTES, check_table

if TYPE_CHECKING:  # its module loads SciPy, which readers of a table may not need
    from melanoma_lab.evaluation.temperature import Temperature

PROBABILITY_PREFIX = "prob/"
"""What the name of a probability column starts with; the class's slug follows."""

SUM_TOLERANCE = 1e-3
"""How far a row's probabilities may sum from one: room for a bfloat16 softmax, for no bug."""

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
        """Index of the predicted class of each image, intp, shape (n,)."""
        predicted: NDArray[np.intp] = self.y_score.argmax(axis=1)
        return predicted

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class of each image is the true one, bool, shape (n,)."""
        correct: NDArray[np.bool_] = self.predicted == self.y_true
        return correct

    @cached_property
    def absent_classes(self) -> tuple[str, ...]:
        """The slugs of the classes that no image of the split has, in class order."""
        counts = np.bincount(self.y_true, minlength=len(self.slugs))
        return tuple(slug for slug, n in zip(self.slugs, counts, strict=True) if n == 0)

    def one_vs_rest(self, slug: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return one class as a binary problem.

        Args:
            slug: of one of the classes.

        Returns:
            Whether each image is of the class, bool, shape (n,), and the probability of the
            class, float64, shape (n,).
        """
        k = self.slugs.index(slug)
        return self.y_true == k, self.y_score[:, k]

    def select(self, chosen: NDArray[np.bool_]) -> SplitPredictions:
        """Return the predictions of some of the images, such as a subgroup.

        Args:
            chosen: bool, shape (n,).
        """
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
    """A predictions table, checked once, and its splits as arrays, each made once.

    Attributes:
        table: columns as in the docstring of this module; not to be changed.

    Raises:
        ValueError: If columns are missing, unknown or out of order; an image_id occurs twice; a
            value is missing; a split or a y_true is unknown; or a row's probabilities are not
            finite, not in [0, 1], or sum further than ``SUM_TOLERANCE`` from one. The message
            names the first image that is wrong.
    """

    table: pd.DataFrame
    _splits: dict[str, SplitPredictions] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_table(self.table, self.slugs)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file that ``write`` wrote; every bit is as it was.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a predictions table, naming the file.
        """
        path = Path(path)
        path.stat()  # one that is not there is another mistake
        try:
            check_table(path, MAX_MANIFEST_BYTES)
            return cls(_read_table(path))
        except (UserError, ValueError) as error:
            raise ValueError(f"{path} is not a predictions table. {error}") from error

    def write(self, path: Path) -> None:
        """Write the table as UTF-8 CSV."""
        # Every float32 is written with the fewest digits that identify it; one line ending on
        # every system makes the same predictions the same file.
        self.table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")

    @cached_property
    def slugs(self) -> tuple[str, ...]:
        """The class slugs, in class order."""
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
        """Return the predictions of one split.

        Args:
            name: ``train``, ``val`` or ``test``; the split may be empty.

        Raises:
            ValueError: If there is no split of this name.
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
        """Check that a slug is None or one of the classes.

        Raises:
            ValueError: If it is neither.
        """
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
    """Put a run's predictions together in one table.

    Args:
        image_ids: n unique ids.
        groups: n group names or numbers; kept as strings.
        splits: n times one of ``SPLITS``.
        labels: int64, shape (n,); true class index, 0 <= label < K.
        probabilities: float, shape (n, K); kept as float32.
        slugs: K class slugs, in class order.

    Returns:
        The predictions, the rows of their table in the order given.

    Raises:
        ValueError: If the arguments do not fit each other, or ``Predictions`` refuses the table.
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


def _read_table(path: Path) -> pd.DataFrame:
    # A class may be called "none" or "nan": no word stands for a missing value.
    table = pd.read_csv(
        path, dtype=dict.fromkeys(_ID_COLUMNS, str), keep_default_na=False, encoding="utf-8"
    )
    return table.astype(dict.fromkeys(_score_columns(table), np.float32))


def _check_table(table: pd.DataFrame, slugs: Sequence[str]) -> None:
    """Refuse a table that no metric should be computed from; ``Predictions`` says which."""
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
    # A comparison with NaN is false, so this also refuses what is not finite.
    in_range = (probabilities >= 0) & (probabilities <= 1)
    _refuse(table, np.any(~in_range, axis=1), "finite probabilities between 0 and 1")
    sums_to_one = np.isclose(probabilities.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE)
    _refuse(table, ~sums_to_one, f"probabilities that sum to one within {SUM_TOLERANCE:g}")


def _refuse(table: pd.DataFrame, wrong: NDArray[np.bool_], expected: str) -> None:
    """Raise for the first row that is wrong, if any is."""
    if wrong.any():
        row = table.iloc[int(np.argmax(wrong))]
        raise ValueError(
            f"Expected {expected}. Received {row.to_dict()} "
            f"({int(wrong.sum())} of {len(table)} rows are wrong)."
        )


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a file that ``Predictions.write`` wrote as a table, checked as ``Predictions.read``."""
    return Predictions.read(path).table
