"""Figures with their intervals, as a card shows them."""

from __future__ import annotations

import math

from melanoma_lab.core.formatting import format_metric
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate


def format_estimate(metric: str, found: IntervalEstimate) -> str:
    """A metric with its interval: ``41.3 % [38.0, 44.6]`` or ``0.033 [0.010, 0.046]``."""
    value = format_metric(metric, found.value)
    if not math.isfinite(found.low):
        return value
    low, high = (format_metric(metric, end).removesuffix(" %") for end in (found.low, found.high))
    return f"{value} [{low}, {high}]"


def format_share(found: IntervalEstimate) -> str:
    """A share in per cent with its interval; empty where there is nothing to take a share of."""
    return "" if math.isnan(found.value) else format_estimate("accuracy", found)
