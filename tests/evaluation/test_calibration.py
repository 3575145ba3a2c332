import numpy as np
import pytest
from hypothesis import given

from melanoma_lab.evaluation.metrics import N_BINS, ece, reliability_bins
from tests.support.evaluation_cases import cases

pytestmark = pytest.mark.unit


def binary(confidence: list[float], correct: list[bool]):
    """Two-class images decided for class 1 with these confidences (above one half)."""
    top = np.array(confidence)
    return np.array(correct).astype(np.int64), np.c_[1 - top, top]


def test_fifteen_equal_bins():
    bins = reliability_bins(*binary([0.7], [True]))
    assert N_BINS == 15
    np.testing.assert_allclose(np.diff(bins.edges), 1 / 15)
    assert bins.edges[0] == 0
    assert bins.edges[-1] == 1


def test_bins_and_ece_by_hand():
    # Of ten bins: (0.6, 0.7] holds 0.65 and 0.69, one right; (0.9, 1] holds 0.91, 0.95, 1, all.
    case = binary([0.65, 0.69, 0.91, 0.95, 1.0], [True, False, True, True, True])
    bins = reliability_bins(*case, n_bins=10)
    assert bins.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 3]
    assert bins.correct.tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 3]
    np.testing.assert_allclose(bins.confidence[[6, 9]], [0.67, 2.86 / 3])
    np.testing.assert_allclose(bins.accuracy[[6, 9]], [0.5, 1.0])
    assert np.isnan(bins.accuracy[[0, 5, 7, 8]]).all()
    assert ece(*case, n_bins=10) == pytest.approx((2 * 0.17 + 3 * 0.14 / 3) / 5)


def test_an_edge_belongs_to_the_bin_below_it():
    assert reliability_bins(*binary([0.75], [True]), n_bins=4).counts.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("top", [1.0, float(np.float32(1) + np.finfo(np.float32).eps)])
def test_certainty_falls_into_the_last_bin(top):
    assert reliability_bins(np.array([0]), np.array([[top, 0.0]])).counts[-1] == 1


def test_certain_and_wrong_is_the_worst():
    assert ece(np.array([1, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])) == 1


def test_calibrated_is_zero():
    assert ece(*binary([0.75] * 4, [True, True, True, False])) == pytest.approx(0)


@given(cases())
def test_ece_follows_from_the_definition(case):
    """Guo et al. 2017, equation 3, written out image by image."""
    y_true, y_score = case
    members: dict[int, list[tuple[float, bool]]] = {}
    for label, row in zip(y_true, y_score, strict=True):
        top = int(row.argmax())
        index = next(m for m in range(1, 16) if row[top] <= np.linspace(0, 1, 16)[m] or m == 15)
        members.setdefault(index, []).append((row[top], top == label))
    expected = sum(
        len(rows)
        / len(y_true)
        * abs(np.mean([hit for _, hit in rows]) - np.mean([c for c, _ in rows]))
        for rows in members.values()
    )
    assert ece(*case) == pytest.approx(expected, abs=1e-12)


@given(cases())
def test_bins_hold_every_image_once(case):
    bins = reliability_bins(*case)
    decided = case[1].argmax(axis=1)
    assert bins.counts.sum() == len(case[0])
    assert bins.correct.sum() == (decided == case[0]).sum()
    filled = bins.counts > 0
    assert (bins.confidence[filled] <= bins.edges[1:][filled] + 1e-12).all()
    assert (bins.confidence[filled] >= bins.edges[:-1][filled] - 1e-12).all()
