import numpy as np
import pytest

from melanoma_lab.inference.demo.training_images import find_nearest, normalise_length

pytestmark = pytest.mark.unit

FEATURES = normalise_length(np.array([[1, 0], [4, 3], [0, 2], [2, 0], [-1, 0]], np.float32))


def test_features_get_the_length_one_and_none_stay_none():
    unit = normalise_length(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert unit.dtype == np.float32


def test_the_nearest_come_first_by_cosine():
    found = find_nearest(FEATURES, FEATURES[0], ["a", "b", "c", "d", "e"], 4)
    assert [row for row, _ in found] == [0, 3, 1, 2]  # of equals, the one that comes first
    assert [cosine for _, cosine in found] == pytest.approx([1, 1, 0.8, 0])


def test_a_lesion_is_shown_once():
    found = find_nearest(FEATURES, FEATURES[0], ["a", "b", "c", "a", "b"], 6)
    assert [row for row, _ in found] == [0, 1, 2]


def test_none_are_wanted_or_there():
    assert find_nearest(FEATURES, FEATURES[0], list("abcde"), 0) == []
    assert find_nearest(np.empty((0, 2), np.float32), FEATURES[0], [], 3) == []
