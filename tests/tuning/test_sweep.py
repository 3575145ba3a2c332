"""What a sweep is: what it refuses, which trials use a key, which trial is the best."""

import math

import numpy as np
import pytest
from tuning_cases import RATE, realistic, sweep_of, trials_of

from melanoma_lab.tuning.search_space import HyperParameter, label_value

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
    counts = [sweep.find_active(entry).tolist() for entry in sweep.searched]
    assert counts == [[True, True, True], [False, True, True], [False, True, False]]


def test_alternatives_are_a_tuple_and_a_list_is_one_value():
    parent = HyperParameter("a", "choice", choices=("null", "[1,2]", "x"))
    values = {"a": [None, [1, 2], "x"], "b": [1, 1, None], "c": [None, 1, None]}
    either = HyperParameter("b", "int", 0, 1, when={"a": ("null", "[1,2]")})
    one = HyperParameter("c", "int", 0, 1, when={"a": ("[1,2]",)})
    sweep = sweep_of([parent, either, one], trials_of([0, 0, 0], values))
    assert sweep.find_active(either).tolist() == [True, True, False]
    assert sweep.find_active(one).tolist() == [False, True, False]


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
