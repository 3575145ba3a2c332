"""Balancing of the training images: accepts a training split and nothing else.

``balance`` looks a strategy up by name and returns a ``BalancedSet``, from which batches are
gathered. Originals are never changed; copies live in the cache folder.
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
