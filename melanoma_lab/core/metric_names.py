"""The names of the metrics, and whether higher or lower values are better.

They are separate from the functions that compute the metrics, so that a name can be checked
without loading pandas, SciPy and scikit-learn.
"""

from __future__ import annotations

#: Metrics of every split, tracked as ``<split>/<name>``.
SPLIT_METRIC_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "macro_auroc",
    "macro_f1",
    "log_loss",
    "brier",
    "ece",
)
#: Metrics of val and test, if ``dataset.positive_class`` is set.
POSITIVE_CLASS_METRIC_NAMES = ("melanoma_sensitivity", "melanoma_specificity", "melanoma_auroc")
#: Metrics of which lower values are better; of all others, higher values are.
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "generalisation_gap"})


def higher_is_better(metric: str) -> bool:
    """Return whether higher values of a metric are better.

    Args:
        metric: name of the metric, with or without a split: ``"log_loss"``, ``"val/log_loss"``.
    """
    return metric.rpartition("/")[2] not in LOWER_IS_BETTER
