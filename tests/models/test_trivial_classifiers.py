"""Trivial models: hand-worked tables, NumPy and scikit-learn as oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.models.trivial_classifiers import (
    SourceFrequencyClassifier,
    compute_colour_histograms,
)

pytestmark = pytest.mark.unit

SOURCES = np.array([["a"], ["a"], ["a"], ["b"]])
LABELS = np.array([0, 0, 2, 2])


def test_shares_by_source_by_hand():
    fitted = SourceFrequencyClassifier(smoothing=2.0).fit(SOURCES, LABELS, np.ones(4))
    assert list(fitted.classes_) == [0, 2]
    # Shares of all: 1/2 each. Of a: (2 + 2/2) / (3 + 2); of b: (0 + 2/2) / (1 + 2).
    expected = [[3 / 5, 2 / 5], [1 / 3, 2 / 3], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(fitted.predict_proba(np.array([["a"], ["b"], ["new"]])), expected)


def test_shares_by_source_count_weights():
    weights = np.array([1.0, 1.0, 4.0, 2.0])
    fitted = SourceFrequencyClassifier(smoothing=1e-9).fit(SOURCES, LABELS, weights)
    expected = [[1 / 3, 2 / 3]] * 3 + [[0, 1]]
    np.testing.assert_allclose(fitted.predict_proba(SOURCES), expected, atol=1e-8)
    np.testing.assert_allclose(fitted.prior, [1 / 4, 3 / 4])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_weight_counts_as_repetition(rows):
    sources = np.array([[source] for source, _ in rows])
    labels = np.array([label for _, label in rows])
    times = 1 + np.arange(len(rows)) % 3
    weighted = SourceFrequencyClassifier(1.0).fit(sources, labels, times.astype(float))
    repeated = SourceFrequencyClassifier(1.0).fit(
        np.repeat(sources, times, axis=0), np.repeat(labels, times), np.ones(times.sum())
    )
    asked = np.array([["a"], ["b"], ["c"], ["d"]])
    np.testing.assert_allclose(weighted.predict_proba(asked), repeated.predict_proba(asked))
    np.testing.assert_allclose(weighted.predict_proba(asked).sum(axis=1), 1)


@pytest.mark.parametrize("bins", [1, 3, 8, 256])
def test_colour_shares_are_numpys_histogram(bins):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    if bins == 256:
        pixels = pixels[:, :1]  # 16.8 million colours
    rows = np.array([2, 0]) if bins < 256 else np.array([2])
    shares = compute_colour_histograms(pixels, rows, bins)
    for share, row in zip(shares, rows, strict=True):
        levels = pixels[row].reshape(-1, 3).astype(int) * bins // 256
        expected = np.zeros((bins,) * 3)
        np.add.at(expected, tuple(levels.T), 1 / len(levels))
        np.testing.assert_allclose(share, expected.ravel())


def test_colour_shares_do_not_know_where_a_colour_is():
    pixels = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), np.uint8)
    mixed = np.random.default_rng(2).permutation(pixels.reshape(64, 3)).reshape(pixels.shape)
    rows = np.array([0])
    np.testing.assert_allclose(
        compute_colour_histograms(pixels, rows, 8), compute_colour_histograms(mixed, rows, 8)
    )
