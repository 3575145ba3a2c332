"""Clinical evaluation of a run: calibration, an operating point, and subgroups.

It needs only the predictions and the manifest, so it can be repeated years later with another
target. Temperature and threshold are chosen on val. Subgroups are a table, not a ranking: of twenty
intervals one misses the true value by chance, and a subgroup of a few lesions has a wide interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.data.patient_metadata import AGE_COLUMN, is_missing
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.confidence_intervals import UNDEFINED
from melanoma_lab.evaluation.decision_rule import (
    DecisionRule,
    OperatingPoint,
    Temperature,
    choose_threshold,
    dump_strict_json,
    fit_temperature,
    measure_rates,
)
from melanoma_lab.evaluation.metric_intervals import INTERVALS
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions

#: Metrics that are measured before and after calibration.
CALIBRATION_METRICS = {"log_loss": metrics.log_loss, "brier": metrics.brier, "ece": metrics.ece}
#: Columns of the manifest whose values define subgroups.
SUBGROUP_COLUMNS: Final = (AGE_COLUMN, "sex", "site", "source")
#: Age in years at which each band begins. Melanoma is rare before 40 and most common from 60 on,
#: and narrower bands would have too few melanomas for useful intervals.
AGE_BANDS: Final = {"under 40": 0, "40 to 59": 40, "60 and over": 60}
NOT_KNOWN: Final = "not known"
#: The row of all images, to compare the others with.
ALL: Final = "all"
#: A subgroup with fewer lesions is marked.
FEW_LESIONS: Final = 30
#: A subgroup with fewer melanomas is marked too: even if ten of ten are found, the sensitivity may
#: be as low as 0.65.
FEW_POSITIVE: Final = 10
#: The metrics; each also has columns ``<metric>_low`` and ``<metric>_high``.
SUBGROUP_METRICS: Final = ("balanced_accuracy", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class ClinicalEvaluation:
    """Calibration, operating point and subgroup results of one run.

    Attributes:
        split: the split by which the run is evaluated: test, or val if test was not predicted.
        temperature: the temperature, fitted on val.
        calibrated: values of ``CALIBRATION_METRICS`` by split and name, of the calibrated
            probabilities.
        uncalibrated: the same of the probabilities that the network returned.
        point: the operating point; None if the dataset names no positive class.
        subgroups: the table of ``measure_subgroups`` for ``split``; without rows if there are no
            subgroups.
    """

    split: str
    temperature: Temperature
    calibrated: Mapping[str, Mapping[str, float]]
    uncalibrated: Mapping[str, Mapping[str, float]]
    point: OperatingPoint | None
    subgroups: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Return the metrics of calibration and the operating point by name; NaN if undefined."""
        result = {"temperature": self.temperature.value}
        for split, values in self.calibrated.items():
            result |= {f"{split}/calibrated_{name}": value for name, value in values.items()}
        if self.point is not None:
            result["operating_point_threshold"] = self.point.threshold
            for split, rates in self.point.rates.items():
                result[f"{split}/operating_point_sensitivity"] = rates.sensitivity.value
                result[f"{split}/operating_point_specificity"] = rates.specificity.value
        return result

    def advice(self) -> DecisionRule:
        """Return the rule for predictions of other images."""
        if self.point is None:
            return DecisionRule(self.temperature)
        point = self.point
        rates = point.rates[self.split]
        return DecisionRule(
            self.temperature,
            point.slug,
            point.threshold,
            point.target,
            measured_on=self.split,
            sensitivity=rates.sensitivity,
            specificity=rates.specificity,
        )

    def write(self, folder: Path) -> None:
        """Write calibration, operating point and subgroups to a folder, if the run has them."""
        content: dict[str, Any] = {
            "temperature": self.temperature.value,
            "fitted_on": "val",
            "n": self.temperature.n,
            "why_not": self.temperature.why_not or None,
            "calibrated": "softmax(log(probabilities of the model) / temperature)",
        }
        for split, values in self.calibrated.items():
            content[split] = {
                name: {"before": self.uncalibrated[split][name], "after": value}
                for name, value in values.items()
            }
        _write_json(folder / "calibration.json", content)
        if self.point is not None:
            point = {
                "class": self.point.slug,
                "target_sensitivity": self.point.target,
                "chosen_on": "val",
                "threshold": self.point.threshold,
                "threshold_on": "calibrated probability",
                "interval": "95 %, over draws of lesions",
            } | {split: asdict(rates) for split, rates in self.point.rates.items()}
            _write_json(folder / "operating_points.json", [point])
        if len(self.subgroups):
            path = folder / "subgroups.csv"
            self.subgroups.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def evaluate_clinically(
    predictions: Predictions,
    positive_class: str | None,
    *,
    sensitivity: float,
    manifest: pd.DataFrame | None = None,
) -> ClinicalEvaluation:
    """Calibrate, choose an operating point and measure subgroups.

    Args:
        predictions: predictions of val, and of test unless it was not predicted.
        positive_class: slug of the positive class; None if the dataset names none.
        sensitivity: the operating point's target on val, above 0 and below 1.
        manifest: the run's table of images, as in ``manifest.csv``; None: no subgroups.

    Raises:
        ValueError: the positive class is not one of the classes.
    """
    predictions.require_class(positive_class)
    val = predictions.split("val")
    rule = DecisionRule(fit_temperature(val.y_true, val.y_score))
    if positive_class is not None:
        labels_and_scores = val.calibrate(rule.temperature).one_vs_rest(positive_class)
        threshold = choose_threshold(*labels_and_scores, sensitivity)
        rule = replace(rule, slug=positive_class, threshold=threshold, target=sensitivity)
    splits = tuple(dict.fromkeys(("val", predictions.evaluated_split)))
    return apply_decision_rule(predictions, rule, splits=splits, manifest=manifest)


def apply_decision_rule(
    predictions: Predictions,
    rule: DecisionRule,
    *,
    splits: Sequence[str] = ("test",),
    manifest: pd.DataFrame | None = None,
) -> ClinicalEvaluation:
    """Measure a given temperature and threshold on predictions; nothing is chosen here.

    Args:
        rule: temperature and threshold; if it names no class, there is no operating point.
        splits: the splits to measure; subgroups are measured on the last one.
        manifest: the table of images, as in ``manifest.csv``; None: no subgroups.

    Raises:
        ValueError: the rule's class is not one of the classes of the predictions.
    """
    slugs = predictions.slugs
    if rule.slug and rule.slug not in slugs:
        raise ValueError(f"Expected advice of one of {slugs}. Received that of {rule.slug!r}.")
    uncalibrated = {name: predictions.split(name) for name in splits}
    calibrated = {name: split.calibrate(rule.temperature) for name, split in uncalibrated.items()}
    evaluated = calibrated[splits[-1]]
    point, score = None, None
    if rule.slug:
        _, score = evaluated.one_vs_rest(rule.slug)
        rates = {
            name: measure_rates(*split.one_vs_rest(rule.slug), split.groups, rule.threshold)
            for name, split in calibrated.items()
        }
        point = OperatingPoint(rule.slug, rule.target, rule.threshold, rates)
    return ClinicalEvaluation(
        split=evaluated.name,
        temperature=rule.temperature,
        calibrated={name: _measure_calibration(split) for name, split in calibrated.items()},
        uncalibrated={name: _measure_calibration(split) for name, split in uncalibrated.items()},
        point=point,
        subgroups=(
            pd.DataFrame()
            if manifest is None
            else measure_subgroups(uncalibrated[evaluated.name], manifest, score, point)
        ),
    )


def _measure_calibration(split: SplitPredictions) -> dict[str, float]:
    return {
        name: metric(split.y_true, split.y_score) for name, metric in CALIBRATION_METRICS.items()
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(dump_strict_json(content), encoding="utf-8")


def measure_subgroups(
    split: SplitPredictions,
    manifest: pd.DataFrame,
    score: NDArray[np.float64] | None,
    point: OperatingPoint | None,
) -> pd.DataFrame:
    """Measure one split's images by subgroup.

    Args:
        manifest: the table of all images of the split, with ``image_id`` and any of
            ``SUBGROUP_COLUMNS``.
        score: float64, shape (n,); the score of each image, in the split's order, that the
            operating point's threshold is compared with; None without an operating point.

    Returns:
        A row for all images and one for each value of each column with two or more values:
        ``column``, ``value``, ``split``, ``n_images``, ``n_lesions``, ``n_melanoma_lesions``,
        ``n_classes`` (the number of classes present; balanced accuracies over different classes are
        not comparable), ``few``, and ``SUBGROUP_METRICS`` with 95 % intervals, the last two at the
        operating point. No rows if no column has two values.
    """
    known = manifest.set_index("image_id").reindex(split.image_ids)

    def measure(column: str, value: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        part = split.select(chosen)
        row: dict[str, Any] = {
            "column": column,
            "value": value,
            "split": split.name,
            "n_images": len(part),
            "n_lesions": len(np.unique(part.groups)),
            "n_melanoma_lesions": pd.NA,
            "n_classes": len(np.unique(part.y_true)),
            "few": False,
        }
        row["few"] = row["n_lesions"] < FEW_LESIONS
        estimates = {
            "balanced_accuracy": INTERVALS["balanced_accuracy"](part),
            "accuracy": INTERVALS["accuracy"](part),
            "sensitivity": UNDEFINED,
            "specificity": UNDEFINED,
        }
        if point is not None and score is not None:
            positive, _ = part.one_vs_rest(point.slug)
            rates = measure_rates(positive, score[chosen], part.groups, point.threshold)
            row["n_melanoma_lesions"] = rates.positive_lesions
            row["few"] |= rates.positive_lesions < FEW_POSITIVE
            estimates |= {"sensitivity": rates.sensitivity, "specificity": rates.specificity}
        for name, share in estimates.items():
            row |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        return row

    rows = [
        measure(column, value, chosen)
        for column in SUBGROUP_COLUMNS
        if column in known
        for value, chosen in split_into_subgroups(known[column])
    ]
    if rows:
        rows.insert(0, measure(ALL, ALL, np.ones(len(split), dtype=bool)))
    return pd.DataFrame(rows).astype({"n_melanoma_lesions": "Int64"}) if rows else pd.DataFrame()


def split_into_subgroups(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the values of a column, and which images have each; nothing if all have the same.

    Ages are divided into bands; words are in alphabetical order; missing values come last.
    """
    missing = is_missing(column).to_numpy()
    if column.name == AGE_COLUMN:
        years = column.astype(np.float64).to_numpy()
        band = np.searchsorted(list(AGE_BANDS.values()), years, side="right") - 1
        parts = [(name, (band == i) & ~missing) for i, name in enumerate(AGE_BANDS)]
    else:
        words = column.astype(str).to_numpy()
        parts = [(str(word), words == word) for word in np.unique(words[~missing])]
    parts = [(value, chosen) for value, chosen in parts if chosen.any()]
    if len(parts) < 2:
        return
    yield from parts
    if missing.any():
        yield NOT_KNOWN, missing
