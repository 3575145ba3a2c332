"""Balancing of the classes of a training split.

``balance`` finds a strategy by its name and returns a ``BalancedSet``, from which batches are
gathered. Original images are never changed; copies are in the cache folder.
"""

from melanoma_lab.input_pipeline.balancing.augmentor_operations import check_operations
from melanoma_lab.input_pipeline.balancing.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.balancing.strategies import (
    STRATEGIES,
    balance,
    compute_balanced_weights,
    compute_effective_number_weights,
)

__all__ = [
    "STRATEGIES",
    "BalancedSet",
    "balance",
    "check_operations",
    "compute_balanced_weights",
    "compute_effective_number_weights",
]
