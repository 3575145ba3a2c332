"""The best value over time, by hand and as it must be whatever the scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_cases import sweep_of, trials_of

from melanoma_lab.tuning.search_history import N_BLUE, select_best_trials, track_best

NAN = math.nan


@pytest.mark.parametrize(
    ("higher", "best"),
    [
        (True, [NAN, 0.2, 0.2, 0.4, 0.4, 0.4]),
        (False, [NAN, 0.2, 0.2, 0.2, 0.1, 0.1]),
    ],
)
def test_the_best_so_far_by_hand(higher, best):
    # In the table's order 5, 4, ...; trials 0 and 2 failed.
    trials = trials_of(
        [0.4, 0.1, 0.4, 9.0, 0.2, NAN],
        {},
        number=[5, 4, 3, 2, 1, 0],
        status=["completed"] * 3 + ["failed", "completed", "failed"],
    )
    table = track_best(sweep_of([], trials, higher_is_better=higher))
    assert table["number"].tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(table["score"], [NAN, 0.2, NAN, 0.4, 0.1, 0.4])
    np.testing.assert_array_equal(table["best"], best)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_the_best_so_far_never_gets_worse_and_ends_at_the_best(scores):
    sweep = sweep_of([], trials_of(scores, {}))
    best = track_best(sweep)["best"]
    assert (best.diff().dropna() >= 0).all()
    assert best.iloc[-1] == sweep.best["score"] == max(scores)


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (4, 3), (29, 3), (41, 5), (1000, N_BLUE)])
def test_as_many_trials_stand_out(n, expected):
    sweep = sweep_of([], trials_of(np.arange(n), {}, number=np.arange(n)[::-1]))
    good = select_best_trials(sweep, sweep.scored)
    assert good["score"].tolist() == list(range(n))[::-1][:expected]


def test_the_lowest_stand_out_where_lower_is_better_and_of_equals_the_earlier():
    sweep = sweep_of([], trials_of([2, 1, 1, 0, 1], {}), higher_is_better=False)
    assert select_best_trials(sweep, sweep.scored)["number"].tolist() == [3, 1, 2]
