"""What a sweep is: what it refuses, which trials count in a dimension, which trial is the best."""

import math

import numpy as np
import pytest
from tuning_cases import RATE, realistic, sweep_of, trials_of

from melanoma_lab.tuning.search_space import label_value
from melanoma_lab.tuning.sweep import Dimension

OPTIMIZER = Dimension("optimizer", "choice", choices=("adam", "sgd"))
MOMENTUM = Dimension("momentum", "float", 0, 1, when={"optimizer": "sgd"})
NESTEROV = Dimension("nesterov", "bool", when={"momentum": 0.5})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key": "", "kind": "bool"}, "dotted key"),
        ({"key": "a", "kind": "real"}, "a kind of float, int, choice, bool"),
        ({"key": "a", "kind": "float"}, "low <= high"),
        ({"key": "a", "kind": "int", "low": 2, "high": 1}, "low <= high"),
        ({"key": "a", "kind": "float", "low": 0, "high": 1, "log": True}, "low > 0"),
        ({"key": "a", "kind": "bool", "low": 0, "high": 1}, "no low or high"),
        ({"key": "a", "kind": "choice"}, "choices of a choice alone"),
        ({"key": "a", "kind": "bool", "choices": (True,)}, "choices of a choice alone"),
        ({"key": "a", "kind": "choice", "choices": ([1], [1.0])}, "choices that differ"),
    ],
)
def test_a_dimension_that_is_none_is_refused(fields, words):
    with pytest.raises(ValueError, match=f"Expected.*{words}.*Received"):
        Dimension(**fields)


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
    ("dimension", "value", "holds"),
    [
        (RATE, 1e-5, True),
        (RATE, 1e-1 * (1 + 1e-12), True),  # a step on a logarithmic scale
        (RATE, 0.2, False),
        (RATE, math.nan, False),
        (RATE, True, False),
        (RATE, "fast", False),
        (Dimension("a", "bool"), np.bool_(True), True),
        (Dimension("a", "bool"), None, False),
        (Dimension("a", "choice", choices=(None, [1, 2])), [1, 2], True),
        (Dimension("a", "choice", choices=(None, [1, 2])), None, True),
        (Dimension("a", "choice", choices=(None, [1, 2])), math.nan, False),
    ],
)
def test_a_value_lies_in_a_dimension_or_not(dimension, value, holds):
    assert dimension.holds(value) == holds


def conditional():
    values = {
        "optimizer": ["adam", "sgd", "sgd"],
        "momentum": [math.nan, 0.5, 0.9],
        "nesterov": [None, True, None],
    }
    return sweep_of([OPTIMIZER, MOMENTUM, NESTEROV], trials_of([0.1, 0.2, 0.3], values))


def test_a_dimension_counts_where_its_condition_and_those_before_it_hold():
    sweep = conditional()
    counts = [sweep.applies(dimension).tolist() for dimension in sweep.dimensions]
    assert counts == [[True, True, True], [False, True, True], [False, True, False]]


def test_alternatives_are_a_tuple_and_a_list_is_one_value():
    parent = Dimension("a", "choice", choices=(None, [1, 2], "x"))
    values = {"a": [None, [1, 2], "x"], "b": [1, 1, None], "c": [None, 1, None]}
    either = Dimension("b", "int", 0, 1, when={"a": (None, [1, 2])})
    one = Dimension("c", "int", 0, 1, when={"a": [1, 2]})
    sweep = sweep_of([parent, either, one], trials_of([0, 0, 0], values))
    assert sweep.applies(either).tolist() == [True, True, False]
    assert sweep.applies(one).tolist() == [False, True, False]


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
        sweep_of(sweep.dimensions, sweep.trials.assign(**change))


def test_a_table_without_a_column_is_refused():
    trials = trials_of([0.1], {})
    with pytest.raises(ValueError, match=r"without .*value/optimizer"):
        sweep_of([OPTIMIZER], trials)
    with pytest.raises(ValueError, match=r"without .*rung"):
        sweep_of([], trials.drop(columns="rung"))


def test_a_condition_on_what_does_not_come_earlier_is_refused():
    sweep = conditional()
    with pytest.raises(ValueError, match="conditions of momentum on earlier dimensions"):
        sweep_of([MOMENTUM, OPTIMIZER], sweep.trials)
    with pytest.raises(ValueError, match="a dimension a key"):
        sweep_of([OPTIMIZER, OPTIMIZER], sweep.trials)


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
