"""What a sweep is: what it refuses, which trials use a key, which trial is the best."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.tuning.search_space import HyperParameter, label_value
from melanoma_lab.tuning.sweep import N_BLUE, select_best_trials, track_best
from tests.support.tuning_cases import RATE, realistic, sweep_of, trials_of

pytestmark = pytest.mark.unit

NAN = math.nan

OPTIMIZER = HyperParameter("optimizer", "choice", choices=("adam", "sgd"))
MOMENTUM = HyperParameter("momentum", "float", 0, 1, when={"optimizer": ("sgd",)})
NESTEROV = HyperParameter(
    "nesterov", "bool", choices=("false", "true"), when={"momentum": ("0.5",)}
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "true"),
        (np.bool_(False), "false"),
        (1.0, "1"),
        (np.int64(64), "64"),
        (0.1 + 0.2, "0.3"),
        (1e-05, "1e-05"),
        ([0.1, None, "a"], "[0.1, null, a]"),
        ("größe", "größe"),
    ],
)
def test_values_have_the_names_of_a_configuration(value, name):
    assert label_value(value) == name


@pytest.mark.parametrize(
    ("entry", "value", "holds"),
    [
        (RATE, 1e-5, True),
        (RATE, 1e-1 * (1 + 1e-12), True),  # a step on a logarithmic scale
        (RATE, 0.2, False),
        (RATE, math.nan, False),
        (RATE, True, False),
        (RATE, "fast", False),
        (HyperParameter("a", "bool", choices=("false", "true")), np.bool_(True), True),
        (HyperParameter("a", "bool", choices=("false", "true")), None, False),
        (HyperParameter("a", "choice", choices=("null", "[1,2]")), [1, 2], True),
        (HyperParameter("a", "choice", choices=("null", "[1,2]")), None, True),
        (HyperParameter("a", "choice", choices=("null", "[1,2]")), math.nan, False),
    ],
)
def test_a_value_lies_in_a_space_or_not(entry, value, holds):
    assert entry.contains(value) == holds


def conditional():
    values = {
        "optimizer": ["adam", "sgd", "sgd"],
        "momentum": [math.nan, 0.5, 0.9],
        "nesterov": [None, True, None],
    }
    return sweep_of([OPTIMIZER, MOMENTUM, NESTEROV], trials_of([0.1, 0.2, 0.3], values))


def test_a_key_counts_where_its_condition_and_those_before_it_hold():
    sweep = conditional()
    counts = [sweep.find_active(entry, sweep.trials).tolist() for entry in sweep.searched]
    assert counts == [[True, True, True], [False, True, True], [False, True, False]]


def test_alternatives_are_a_tuple_and_a_list_is_one_value():
    parent = HyperParameter("a", "choice", choices=("null", "[1,2]", "x"))
    values = {"a": [None, [1, 2], "x"], "b": [1, 1, None], "c": [None, 1, None]}
    either = HyperParameter("b", "int", 0, 1, when={"a": ("null", "[1,2]")})
    one = HyperParameter("c", "int", 0, 1, when={"a": ("[1,2]",)})
    sweep = sweep_of([parent, either, one], trials_of([0, 0, 0], values))
    assert sweep.find_active(either, sweep.trials).tolist() == [True, True, False]
    assert sweep.find_active(one, sweep.trials).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": ["completed", "done", "failed"]}, "a status of"),
        ({"trial": ["a", "a", "b"]}, "trials that differ"),
        ({"number": [0, 1, 1]}, "numbers that differ"),
        ({"epochs": [1.5, 2, 3]}, "integers as epochs"),
        ({"score": ["a", "b", "c"]}, "numbers as score"),
        ({"scores": [0.1, 0.2, 0.3]}, "a list of scores"),
        ({"value/optimizer": ["adam", "sgd", "lion"]}, "optimizer of trial 2"),
        ({"value/momentum": [None, 0.5, None]}, "momentum of trial 2"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change, words):
    sweep = conditional()
    with pytest.raises(ValueError, match=f"Expected.*{words}"):
        sweep_of(sweep.searched, sweep.trials.assign(**change))


def test_a_table_without_a_column_is_refused():
    trials = trials_of([0.1], {})
    with pytest.raises(ValueError, match=r"without .*value/optimizer"):
        sweep_of([OPTIMIZER], trials)
    with pytest.raises(ValueError, match=r"without .*rung"):
        sweep_of([], trials.drop(columns="rung"))


@pytest.mark.parametrize(("higher", "best"), [(True, 1), (False, 3)])
def test_of_equal_scores_the_earliest_trial_is_the_best(higher, best):
    trials = trials_of([0.3, 0.5, 0.5, 0.1, 0.1, 0.9], {}, number=[5, 1, 2, 3, 4, 0])
    trials.loc[5, "status"] = "failed"  # a score of a trial that did not complete is none
    assert sweep_of([], trials, higher_is_better=higher).best["number"] == best


def test_what_has_no_finite_score_is_never_the_best():
    sweep = sweep_of([], trials_of([math.nan, math.inf], {}))
    assert sweep.best is None
    assert sweep.scored.empty
    assert sweep.unscored["number"].tolist() == [0, 1]
    assert sweep_of([], trials_of([], {})).best is None


def test_every_trial_is_scored_or_not():
    sweep = realistic()
    numbers = [*sweep.scored["number"], *sweep.unscored["number"]]
    assert sorted(numbers) == list(range(60))
    assert set(sweep.unscored["status"]) == {"failed", "killed"}


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
