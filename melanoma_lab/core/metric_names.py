"""The names of what is measured of every split, and which way each is better.

Apart from the functions that measure, because a name is checked before pandas, SciPy and
scikit-learn are worth loading.
"""

from __future__ import annotations

#: What is computed of every split: ``<split>/<name>``.
SPLIT_METRIC_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "macro_auroc",
    "macro_f1",
    "log_loss",
    "brier",
    "ece",
)
#: What is computed of val and test where the dataset names a melanoma class.
POSITIVE_CLASS_METRIC_NAMES = ("melanoma_sensitivity", "melanoma_specificity", "melanoma_auroc")
#: Of all others more is better.
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "generalisation_gap"})


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better.

    Args:
        metric: its name, with or without its split: ``"log_loss"``, ``"val/log_loss"``.
    """
    return metric.rpartition("/")[2] not in LOWER_IS_BETTER
