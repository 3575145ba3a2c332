"""The interval of the calibration error: its coverage in a simulation, and what must hold."""

import numpy as np
import pytest

from melanoma_lab.evaluation import metric_intervals as module
from melanoma_lab.evaluation.metric_intervals import ece_interval
from melanoma_lab.evaluation.metrics import ece
from tests.support.evaluation_cases import random_case

pytestmark = pytest.mark.unit

N_STUDIES = 80


def draw(rng, n_lesions, sharpness):
    """Lesions with one to three images, half of them decided alike; two classes.

    Decided with probability p, and said to be so with p sharpened: 1 is calibrated.
    """
    groups = np.repeat(np.arange(n_lesions), rng.integers(1, 4, n_lesions))
    n = len(groups)
    logit = rng.normal(1.0, 1.0, n_lesions)[groups] + rng.normal(0, 0.5, n)
    true = 0.5 + 0.5 / (1 + np.exp(-logit))
    said = 1 / (1 + np.exp(-sharpness * np.log(true / (1 - true))))
    luck = np.where(rng.random(n) < 0.5, rng.random(n_lesions)[groups], rng.random(n))
    y_true = (luck >= true).astype(np.int64)  # class 0 is decided for
    return y_true, np.stack([said, 1 - said], axis=1), groups


@pytest.mark.slow
def test_it_covers_the_truth(monkeypatch):
    """Calibrated, too sure and not sure enough; few lesions and some hundreds."""
    monkeypatch.setattr(module, "MOST_DRAWS", 300)
    covered = []
    for sharpness in (0.7, 1.0, 1.5):
        rng = np.random.default_rng(17)
        truth = ece(*draw(rng, 200_000, sharpness)[:2])
        for n_lesions in (60, 300):
            found = [ece_interval(*draw(rng, n_lesions, sharpness)) for _ in range(N_STUDIES)]
            covered.append(np.mean([each.low <= truth <= each.high for each in found]))
    assert min(covered) >= 0.84, covered  # three standard errors of 80 studies below 0.93
    assert np.mean(covered) >= 0.90, covered


def test_a_plain_bootstrap_would_not():
    """What the module says of others: a calibrated network's percentile interval misses."""
    rng = np.random.default_rng(0)
    truth = ece(*draw(rng, 200_000, 1.0)[:2])
    y_true, y_score, groups = draw(rng, 60, 1.0)
    lows = []
    for _ in range(200):
        chosen = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 60, 60)])
        lows.append(ece(y_true[chosen], y_score[chosen]))
    assert np.quantile(lows, 0.025) > truth
    assert ece_interval(y_true, y_score, groups).low <= truth


def test_its_value_is_the_calibration_error():
    y_true, y_score = random_case(200, 4, seed=3)
    found = ece_interval(y_true, y_score, np.arange(200) // 2)
    assert found.value == pytest.approx(ece(y_true, y_score))
    assert 0 <= found.low < found.high <= 1


def test_images_of_one_lesion_say_less_than_as_many_lesions():
    y_true, y_score = random_case(60, 3, seed=1, signal=0.0)  # far too sure: away from zero
    many = [np.tile(y_true, 5), np.tile(y_score, (5, 1))]
    lesions = ece_interval(*many, np.arange(300))
    copies = ece_interval(*many, np.tile(np.arange(60), 5))
    assert copies.high - copies.low > 1.5 * (lesions.high - lesions.low)


def test_the_same_table_gives_the_same_interval_and_none_gives_none():
    case = (*random_case(50, 3, seed=2), np.arange(50))
    assert ece_interval(*case) == ece_interval(*case)
    empty = ece_interval(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0, np.int64))
    assert np.isnan([empty.value, empty.low, empty.high]).all()
    one = ece_interval(np.zeros(3, np.int64), np.tile([0.9, 0.1], (3, 1)), np.zeros(3, np.int64))
    assert one.value == pytest.approx(0.1)
    assert np.isnan([one.low, one.high]).all()
    sure = np.tile([1.0, 0.0], (8, 1))  # always right, always sure
    assert ece_interval(np.zeros(8, np.int64), sure, np.arange(8)).high == 0
