"""Clinical evaluation of a run: calibration, an operating point, and subgroups.

It needs only the predictions and the manifest, so it can be repeated years later with another
target. Temperature and threshold are chosen on val.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.calibration import Temperature, fit_temperature
from melanoma_lab.evaluation.decision_rule import (
    DecisionRule,
    OperatingPoint,
    choose_threshold,
    dump_strict_json,
    measure_rates,
)
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions
from melanoma_lab.evaluation.subgroups import measure_subgroups

CALIBRATION_METRICS = {"log_loss": metrics.log_loss, "brier": metrics.brier, "ece": calibration.ece}
"""Metrics that are measured before and after calibration."""


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
        _write(folder / "calibration.json", self._calibration())
        if self.point is not None:
            _write(folder / "operating_points.json", [_to_json(self.point)])
        if len(self.subgroups):
            path = folder / "subgroups.csv"
            self.subgroups.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")

    def _calibration(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature.value,
            "fitted_on": "val",
            "n": self.temperature.n,
            "why_not": self.temperature.why_not or None,
            "calibrated": "softmax(log(probabilities of the model) / temperature)",
        } | {
            split: {
                name: {"before": self.uncalibrated[split][name], "after": value}
                for name, value in values.items()
            }
            for split, values in self.calibrated.items()
        }


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
        predictions: predictions of the splits to measure.
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


def _to_json(point: OperatingPoint) -> dict[str, Any]:
    """Return an operating point as plain containers for JSON."""
    return {
        "class": point.slug,
        "target_sensitivity": point.target,
        "chosen_on": "val",
        "threshold": point.threshold,
        "threshold_on": "calibrated probability",
        "interval": "95 %, over draws of lesions",
    } | {split: asdict(rates) for split, rates in point.rates.items()}


def _write(path: Path, content: Any) -> None:
    path.write_text(dump_strict_json(content), encoding="utf-8")
