"""BalancedSet: gathering through several stores, counts, contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lab.input_pipeline.balanced_set import BalancedSet

pytestmark = pytest.mark.unit


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 3, 3), np.uint8)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_gather_indexes_the_concatenation(sizes: list[int], data: st.DataObject) -> None:
    sources = tuple(noise(n, seed) for seed, n in enumerate(sizes))
    rows = data.draw(st.lists(st.integers(0, sum(sizes) - 1), min_size=1, max_size=9))
    labels = np.arange(len(rows)) % 4
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), np.int64)
    balanced = BalancedSet(sources, np.array(rows), labels, n_classes=4)
    images, batch_labels = balanced.gather(indices)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.concatenate(sources)[np.array(rows)[indices]])
    np.testing.assert_array_equal(batch_labels, labels[indices])


def test_features_are_gathered_as_pixels_are() -> None:
    features = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    balanced = BalancedSet((features,), np.array([2, 0, 2]), np.arange(3), n_classes=3)
    gathered, labels = balanced.gather(np.array([1, 2]))
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, features[[0, 2]])
    np.testing.assert_array_equal(labels, [1, 2])


def test_class_counts_has_an_entry_for_absent_classes() -> None:
    balanced = BalancedSet((noise(3),), np.arange(3), np.array([0, 2, 2]), n_classes=4)
    assert balanced.class_counts().tolist() == [1, 0, 2, 0]
    assert len(balanced) == 3


@pytest.mark.parametrize(
    ("sources", "rows", "labels"),
    [
        ((noise(3),), [3], [0]),
        ((noise(3),), [-1], [0]),
        ((noise(3),), [0, 1], [0]),
        ((noise(3), np.zeros((1, 9, 9, 3), np.uint8)), [0], [0]),
        ((noise(3).astype(np.float32),), [0], [0]),
    ],
    ids=["row too large", "row negative", "labels missing", "sizes mixed", "not uint8"],
)
def test_breaches_of_contract_are_named(
    sources: tuple[np.ndarray, ...], rows: list[int], labels: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"Expected .* Received"):
        BalancedSet(sources, np.array(rows), np.array(labels), n_classes=1)
