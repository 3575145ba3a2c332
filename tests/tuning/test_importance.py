"""Which hyperparameters mattered: planted effects are found, noise is not, little is admitted."""

import math

import numpy as np
import pytest

from melanoma_lab.tuning.importance import (
    encode_values,
    rank_hyperparameters,
    select_comparable_trials,
)
from melanoma_lab.tuning.search_space import HyperParameter
from tests.support.tuning_cases import RATE, sweep_of, trials_of

pytestmark = pytest.mark.unit

KEYS = ("a", "b", "c")
UNIT = [HyperParameter(key, "float", 0, 1) for key in KEYS]


def uniform(n, seed, score):
    rng = np.random.default_rng(seed)
    values = {key: rng.random(n) for key in KEYS}
    return sweep_of(UNIT, trials_of(score(values, rng), values))


@pytest.fixture(scope="module")
def planted():
    """A has an optimum inside its range, which no correlation shows; c does nothing."""
    return uniform(
        48, 2, lambda x, rng: -4 * abs(x["a"] - 0.5) + x["b"] + 0.1 * rng.normal(size=48)
    )


@pytest.fixture(scope="module")
def found(planted):
    return rank_hyperparameters(planted)


def test_a_planted_effect_is_found_and_its_neighbour_not(found):
    assert [effect.key for effect in found.effects] == ["a", "b", "c"]
    assert [effect.matters for effect in found.effects] == [True, True, False]
    assert found.explained > 0.6
    # Variances of 4 |u - 1/2|, of u and of the noise: 1/3, 1/12 and 0.01. A forest that has not
    # learned all of it gives less, to both.
    shares = [effect.share for effect in found.effects]
    assert 0.3 < shares[0] < 0.78
    assert 0.05 < shares[1] < 0.2
    assert 2 < shares[0] / shares[1] < 8
    assert shares[2] < found.chance
    assert (found.trials, found.rung, found.constant) == (48, -1, ())


@pytest.mark.slow
def test_a_monotone_change_of_the_score_changes_nothing(planted, found):
    changed = planted.trials.assign(score=-np.exp(-planted.trials["score"]))
    assert rank_hyperparameters(sweep_of(UNIT, changed)) == found


@pytest.mark.slow
def test_of_noise_nothing_is_said_to_matter():
    result = rank_hyperparameters(uniform(30, 0, lambda x, rng: rng.normal(size=30)))
    assert result.effects == ()
    assert "no better than the mean score" in result.reason
    assert result.explained <= 0


@pytest.mark.slow
def test_a_choice_without_order_and_a_condition_matter_where_they_do():
    rng = np.random.default_rng(0)
    n = 90
    names = rng.choice(["x", "y", "z"], n)
    depth = np.where(names == "y", rng.random(n), math.nan)
    score = (names == "y") * (1 + 3 * np.nan_to_num(depth)) + 0.2 * rng.normal(size=n)
    searched = [
        HyperParameter("kind", "choice", choices=("x", "y", "z")),
        HyperParameter("depth", "float", 0, 1, when={"kind": ("y",)}),
        HyperParameter("flag", "bool", choices=("false", "true")),
    ]
    values = {"kind": names, "depth": depth, "flag": rng.random(n) < 0.5}
    result = rank_hyperparameters(sweep_of(searched, trials_of(score, values)))
    matters = {effect.key: effect.matters for effect in result.effects}
    assert matters == {"kind": True, "depth": True, "flag": False}
    assert result.effects[0].key == "kind"


@pytest.mark.slow
def test_that_a_key_does_not_count_tells_nothing_of_its_parent():
    """Where only the parent matters, the gaps that it makes are not taken for an effect."""
    rng = np.random.default_rng(0)
    n = 60
    names = rng.choice(["adam", "sgd"], n)
    momentum = np.where(names == "sgd", rng.random(n), math.nan)
    searched = [
        HyperParameter("optimizer", "choice", choices=("adam", "sgd")),
        HyperParameter("momentum", "float", 0, 1, when={"optimizer": ("sgd",)}),
    ]
    values = {"optimizer": names, "momentum": momentum}
    score = (names == "sgd") + 0.3 * rng.normal(size=n)
    result = rank_hyperparameters(sweep_of(searched, trials_of(score, values)))
    assert {effect.key: effect.matters for effect in result.effects} == {
        "optimizer": True,
        "momentum": False,
    }


@pytest.mark.parametrize(
    ("scores", "a", "words"),
    [
        ([0.5], [0.1], "1 trial with a score is too few"),
        (np.arange(19.0), np.linspace(0, 1, 19), "19 trials with a score are too few"),
        ([], [], "0 trials with a score are too few"),
        (np.arange(20.0), np.full(20, 0.5), "No hyperparameter varied"),
        (np.full(20, 0.5), np.linspace(0, 1, 20), "All trials have the same score"),
    ],
)
def test_what_the_trials_cannot_tell_is_not_told(scores, a, words):
    result = rank_hyperparameters(sweep_of(UNIT[:1], trials_of(scores, {"a": a})))
    assert result.effects == ()
    assert words in result.reason
    assert math.isnan(result.explained)


def test_keys_that_do_not_vary_are_named():
    result = rank_hyperparameters(
        sweep_of(UNIT[:2], trials_of([0.1, 0.2], {"a": [0.5, 0.5], "b": [0, 1]}))
    )
    assert result.constant == ("a",)


@pytest.mark.slow
def test_only_trials_of_one_budget_are_compared():
    """The budget made all the difference, and b went with it: nothing is to be credited to b."""
    rng = np.random.default_rng(0)
    rung = np.repeat([0, 1], [30, 20])
    a = rng.random(50)
    values = {"a": a, "b": np.where(rung == 1, 0.9, 0.1) + 0.1 * rng.random(50)}
    sweep = sweep_of(UNIT[:2], trials_of(a + 5 * rung, values, rung=rung))
    trials, chosen = select_comparable_trials(sweep)
    assert (len(trials), chosen) == (30, 0)
    matters = {effect.key: effect.matters for effect in rank_hyperparameters(sweep).effects}
    assert matters == {"a": True, "b": False}


@pytest.mark.parametrize(("rung", "expected"), [([0, 0, 1, 1, 2], 1), ([-1] * 5, -1)])
def test_of_budgets_with_equally_many_trials_the_highest_counts(rung, expected):
    assert (
        select_comparable_trials(sweep_of([], trials_of(np.arange(5), {}, rung=rung)))[1]
        == expected
    )


def test_values_as_numbers():
    lists = HyperParameter("l", "choice", choices=("null", "[1,2]"))
    flag = HyperParameter("f", "bool", choices=("false", "true"), when={"l": ("[1,2]",)})
    values = {RATE.key: [1e-3, 0.1], "l": [[1, 2], None], "f": [True, None]}
    sweep = sweep_of([RATE, lists, flag], trials_of([0, 1], values))
    codes = [encode_values(sweep, entry, sweep.trials.iloc[::-1]) for entry in sweep.searched]
    np.testing.assert_allclose(codes, [[-1, -3], [0, 1], [math.nan, 1]])
