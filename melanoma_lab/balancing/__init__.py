"""Balancing of the training images: accepts a training split and nothing else.

``balance`` looks a strategy up by name and returns a ``BalancedSet``, from which batches are
gathered. Originals are never changed; copies live in the cache folder.
"""

from melanoma_lab.balancing.balanced import BalancedSet
from melanoma_lab.balancing.operations import check_operations
from melanoma_lab.balancing.strategies import (
    STRATEGIES,
    balance,
    balanced_class_weight,
    effective_number_weight,
)

__all__ = [
    "STRATEGIES",
    "BalancedSet",
    "balance",
    "balanced_class_weight",
    "check_operations",
    "effective_number_weight",
]
