"""What a run is worth to somebody who would use it: calibration, an operating point, for whom.

Computed from the predictions and the manifest alone, so that it can be computed again, with
another target, years later. What is chosen (a temperature, a threshold) is chosen on val.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.decision_rule import DecisionRule, dump_strict_json
from melanoma_lab.evaluation.operating_point import OperatingPoint, choose_threshold, measure_rates
from melanoma_lab.evaluation.predictions import Predictions, SplitPredictions
from melanoma_lab.evaluation.subgroups import measure_subgroups
from melanoma_lab.evaluation.temperature import Temperature, fit_temperature

CALIBRATION_METRICS = {"log_loss": metrics.log_loss, "brier": metrics.brier, "ece": calibration.ece}
"""What is measured before and after calibration."""


@dataclass(frozen=True)
class ClinicalEvaluation:
    """What calibration and thresholds come to.

    Attributes:
        split: the one that a run is evaluated by: test, or val if test was left alone.
        temperature: fitted on val.
        calibrated: split -> each of ``CALIBRATION_METRICS`` of the calibrated probabilities.
        uncalibrated: the same of those that the network gives.
        point: None where the dataset names no melanoma class.
        subgroups: of ``measure_subgroups``, of ``split``; no rows where nothing divides the images.
    """

    split: str
    temperature: Temperature
    calibrated: Mapping[str, Mapping[str, float]]
    uncalibrated: Mapping[str, Mapping[str, float]]
    point: OperatingPoint | None
    subgroups: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """What a finished run shows, by name; what is undefined is NaN."""
        shown = {"temperature": self.temperature.value}
        for split, values in self.calibrated.items():
            shown |= {f"{split}/calibrated_{name}": value for name, value in values.items()}
        if self.point is not None:
            shown["operating_point_threshold"] = self.point.threshold
            for split, found in self.point.rates.items():
                shown[f"{split}/operating_point_sensitivity"] = found.sensitivity.value
                shown[f"{split}/operating_point_specificity"] = found.specificity.value
        return shown

    def advice(self) -> DecisionRule:
        """How to read what the network says of other images."""
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
        """Write ``calibration.json`` and, where there are any, operating points and subgroups."""
        _write(folder / "calibration.json", self._calibration())
        if self.point is not None:
            _write(folder / "operating_points.json", [_described(self.point)])
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
    """Calibrate, choose an operating point and look at subgroups.

    Args:
        predictions: of val, and of test unless that was left alone.
        positive_class: slug of the positive class, None where the dataset names none.
        sensitivity: the operating point's target on val, above 0 and below 1.
        manifest: ``manifest.csv`` of the run; None: no subgroups.

    Raises:
        ValueError: melanoma is none of the classes.
    """
    predictions.require_class(positive_class)
    val = predictions.split("val")
    advice = DecisionRule(fit_temperature(val.y_true, val.y_score))
    if positive_class is not None:
        of_class = val.calibrate(advice.temperature).one_vs_rest(positive_class)
        threshold = choose_threshold(*of_class, sensitivity)
        advice = replace(advice, slug=positive_class, threshold=threshold, target=sensitivity)
    splits = tuple(dict.fromkeys(("val", predictions.evaluated_split)))
    return apply_decision_rule(predictions, advice, splits=splits, manifest=manifest)


def apply_decision_rule(
    predictions: Predictions,
    advice: DecisionRule,
    *,
    splits: Sequence[str] = ("test",),
    manifest: pd.DataFrame | None = None,
) -> ClinicalEvaluation:
    """Measure what was chosen elsewhere; nothing is chosen here.

    Args:
        predictions: of the splits that are measured.
        advice: temperature and threshold; no operating point where it names no class.
        splits: that are measured; subgroups are of the last.
        manifest: of their images; None: no subgroups.

    Raises:
        ValueError: the advice is of a class that the predictions do not have.
    """
    slugs = predictions.slugs
    if advice.slug and advice.slug not in slugs:
        raise ValueError(f"Expected advice of one of {slugs}. Received that of {advice.slug!r}.")
    uncalibrated = {name: predictions.split(name) for name in splits}
    calibrated = {name: split.calibrate(advice.temperature) for name, split in uncalibrated.items()}
    evaluated = calibrated[splits[-1]]
    point, score = None, None
    if advice.slug:
        _, score = evaluated.one_vs_rest(advice.slug)
        rates = {
            name: measure_rates(*split.one_vs_rest(advice.slug), split.groups, advice.threshold)
            for name, split in calibrated.items()
        }
        point = OperatingPoint(advice.slug, advice.target, advice.threshold, rates)
    return ClinicalEvaluation(
        split=evaluated.name,
        temperature=advice.temperature,
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


def _described(point: OperatingPoint) -> dict[str, Any]:
    """An operating point for JSON."""
    return {
        "class": point.slug,
        "target_sensitivity": point.target,
        "chosen_on": "val",
        "threshold": point.threshold,
        "threshold_on": "calibrated probability",
        "interval": "95 %, over draws of lesions",
    } | {split: asdict(found) for split, found in point.rates.items()}


def _write(path: Path, content: Any) -> None:
    path.write_text(dump_strict_json(content), encoding="utf-8")
