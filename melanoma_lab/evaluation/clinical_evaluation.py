"""What a run is worth to somebody who would use it: calibration, an operating point, for whom.

Computed from the predictions table and the manifest alone, so that it can be computed again, with
another target, years later. What is chosen (a temperature, a threshold) is chosen on val.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.evaluation import calibration, metrics
from melanoma_lab.evaluation.decision_rule import DecisionRule, dump_strict_json
from melanoma_lab.evaluation.operating_point import OperatingPoint, choose_threshold, measure_rates
from melanoma_lab.evaluation.predictions import judged_split, slugs_of, split_arrays
from melanoma_lab.evaluation.subgroups import measure_subgroups
from melanoma_lab.evaluation.temperature import Temperature, fit_temperature

CALIBRATION_METRICS = {"log_loss": metrics.log_loss, "brier": metrics.brier, "ece": calibration.ece}
"""What is measured before and after calibration."""


@dataclass(frozen=True)
class ClinicalEvaluation:
    """What calibration and thresholds come to.

    Attributes:
        temperature: fitted on val.
        calibrated: split -> each of ``CALIBRATION_METRICS`` of the calibrated probabilities.
        uncalibrated: the same of those that the network gives.
        point: None where the dataset names no melanoma class.
        subgroups: of ``measure_subgroups``, of test, or of val where test was left alone; no rows
            where nothing divides the images.
    """

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
        split = [*point.rates][-1]  # what a run is judged by: test, or val where that is all
        rates = point.rates[split]
        return DecisionRule(
            self.temperature,
            point.slug,
            point.threshold,
            point.target,
            measured_on=split,
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
    table: pd.DataFrame,
    melanoma: str | None,
    *,
    sensitivity: float,
    manifest: pd.DataFrame | None = None,
) -> ClinicalEvaluation:
    """Calibrate, choose an operating point and look at subgroups.

    Args:
        table: a checked predictions table, with val, and with test unless that was left alone.
        melanoma: slug of the melanoma class, None where the dataset names none.
        sensitivity: the operating point's target on val, above 0 and below 1.
        manifest: ``manifest.csv`` of the run; None: no subgroups.

    Raises:
        ValueError: melanoma is no class of the table.
    """
    slugs = slugs_of(table)
    if melanoma is not None and melanoma not in slugs:
        raise ValueError(f"Expected melanoma to be None or one of {slugs}. Received {melanoma!r}.")
    y_true, y_score = split_arrays(table, "val")
    advice = DecisionRule(fit_temperature(y_true, y_score))
    if melanoma is not None:
        k = slugs.index(melanoma)
        score = advice.temperature.apply(y_score)[:, k]
        threshold = choose_threshold(y_true == k, score, sensitivity)
        advice = replace(advice, slug=melanoma, threshold=threshold, target=sensitivity)
    splits = tuple(dict.fromkeys(("val", judged_split(table))))
    return apply_decision_rule(table, advice, splits=splits, manifest=manifest)


def apply_decision_rule(
    table: pd.DataFrame,
    advice: DecisionRule,
    *,
    splits: Sequence[str] = ("test",),
    manifest: pd.DataFrame | None = None,
) -> ClinicalEvaluation:
    """Measure what was chosen elsewhere; nothing is chosen here.

    Args:
        table: a checked predictions table.
        advice: temperature and threshold; no operating point where it names no class.
        splits: that are measured; subgroups are of the last.
        manifest: of their images; None: no subgroups.

    Raises:
        ValueError: the advice is of a class that the table does not have.
    """
    slugs, judged = slugs_of(table), splits[-1]
    if advice.slug and advice.slug not in slugs:
        raise ValueError(f"Expected advice of one of {slugs}. Received that of {advice.slug!r}.")
    temperature = advice.temperature
    arrays = {split: split_arrays(table, split) for split in splits}
    scores = {split: temperature.apply(y_score) for split, (_, y_score) in arrays.items()}
    point, score = None, None
    if advice.slug:
        k = slugs.index(advice.slug)
        score = scores[judged][:, k]
        found = {
            split: measure_rates(
                arrays[split][0] == k,
                scores[split][:, k],
                encode_groups(table, split),
                advice.threshold,
            )
            for split in splits
        }
        point = OperatingPoint(advice.slug, advice.target, advice.threshold, found)
    return ClinicalEvaluation(
        temperature=temperature,
        calibrated={split: _measured(arrays[split][0], scores[split]) for split in splits},
        uncalibrated={split: _measured(*arrays[split]) for split in splits},
        point=point,
        subgroups=(
            pd.DataFrame()
            if manifest is None
            else measure_subgroups(table, judged, manifest, score, point)
        ),
    )


def encode_groups(table: pd.DataFrame, split: str) -> NDArray[np.int64]:
    """The groups of a split's images as numbers; int64, shape (n,)."""
    return pd.factorize(table.loc[table["split"] == split, "group"])[0].astype(np.int64)


def _measured(y_true: NDArray[np.int64], y_score: NDArray[np.float64]) -> dict[str, float]:
    return {name: metric(y_true, y_score) for name, metric in CALIBRATION_METRICS.items()}


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
