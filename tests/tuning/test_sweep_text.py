"""A sweep as words: values, ranges, the answer and what must be known first."""

import math

import pytest

from melanoma_lab.core.formatting import format_number
from melanoma_lab.tuning import sweep_text
from melanoma_lab.tuning.search_space import HyperParameter
from tests.support.tuning_cases import RATE, realistic, sweep_of, trials_of

pytestmark = pytest.mark.unit

DEPTH = HyperParameter("depth", "int", 0, 10, when={RATE.key: ("0.001", "0.01")})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (128.0, "128"),
        (0.00031622776, "0.0003162"),
        (1e-05, "1e-5"),
        (2.5e-07, "2.5e-7"),
        (1e12, "1e12"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_read_and_can_be_typed(value, text):
    assert format_number(value) == text
    assert float(text) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (RATE, "1e-5 to 0.1, log scale"),
        (HyperParameter("a", "int", 3, 3), "3, whole numbers"),
        (HyperParameter("a", "choice", choices=("null", "[1,2]")), "null, [1, 2]"),
        (HyperParameter("a", "bool", choices=("false", "true")), "false, true"),
        (DEPTH, "0 to 10, whole numbers; if optimizer.learning_rate is 0.001 or 0.01"),
    ],
)
def test_what_was_searched(entry, text):
    assert sweep_text.describe_searched_values(entry) == text


@pytest.mark.parametrize("objective", ["val/balanced_accuracy", "val_balanced_accuracy"])
def test_a_score_is_named_and_read_as_in_a_comparison(objective):
    sweep = sweep_of([], trials_of([0.5], {}), objective=objective)
    assert sweep_text.label_score(sweep) == "val balanced accuracy"
    assert sweep_text.format_score(sweep, 0.4567) == "45.7 %"
    losses = sweep_of([], trials_of([0.5], {}), objective="val/log_loss")
    assert sweep_text.format_score(losses, 0.4567) == "0.457"


def test_the_answer_names_the_trial_and_each_of_its_runs():
    trials = trials_of([0.4, 0.5], {}, scores=[[0.3, 0.5], [0.48, 0.52]])
    sweep = sweep_of([], trials, repetitions=("seed 3", "seed 7"))
    assert sweep_text.summarize_search(sweep) == (
        "Trial 1, the best of 2 trials with a score: 50.0 % val balanced accuracy, the mean of "
        "2 runs (seed 3: 48.0 %, seed 7: 52.0 %)."
    )
    assert "(48.0 %, 52.0 %)" in sweep_text.summarize_search(sweep_of([], trials))
    assert "a single run" in sweep_text.summarize_search(sweep_of([], trials_of([0.4, 0.5], {})))
    nothing = sweep_of([], trials_of([math.nan], {}, status=["failed"]))
    assert sweep_text.summarize_search(nothing) == "None of 1 trials has a score."


def said(sweep):
    return " ".join(sweep_text.list_cautions(sweep))


def test_that_validation_was_searched_is_said_first():
    first = sweep_text.list_cautions(realistic())[0]
    assert "searched over 55 trials" in first
    assert "optimistic" in first
    assert "The test split was not used" in first


@pytest.mark.parametrize(
    ("scores", "higher", "words"),
    [
        ([[0.5, 0.7], [0.55, 0.55], [0.4, 0.4]], True, "1 other trial scored"),
        ([[0.5, 0.7], [0.55, 0.55], [0.52, 0.52]], True, "2 other trials scored"),
        ([[0.3, 0.1], [0.25, 0.25], [0.5, 0.5]], False, "1 other trial scored"),
    ],
)
def test_others_within_the_runs_of_the_best_are_counted(scores, higher, words):
    trials = trials_of([sum(s) / 2 for s in scores], {}, scores=scores)
    assert words in said(sweep_of([], trials, higher_is_better=higher))


def test_nothing_is_said_of_others_that_the_best_leaves_behind():
    trials = trials_of([0.6, 0.4], {}, scores=[[0.59, 0.61], [0.4, 0.4]])
    assert "other trial" not in said(sweep_of([], trials))


def test_ties_and_single_runs_are_said():
    text = said(sweep_of([], trials_of([0.5, 0.5, 0.4], {})))
    assert "2 trials share the best score" in text
    assert "single run" in text


@pytest.mark.parametrize(
    ("rate", "end"), [(1.2e-5, "lower"), (0.09, "upper"), (3e-5, None), (0.05, None)]
)
def test_a_best_value_at_the_end_of_its_range_is_said(rate, end):
    text = said(sweep_of([RATE], trials_of([0.5, 0.4], {RATE.key: [rate, 1e-3]})))
    assert (f"{end} end" in text) if end else ("at the end" not in text)


def test_unequal_budgets_are_said_and_where_the_best_had_not_the_full_one():
    trials = trials_of([0.5, 0.4], {}, rung=[0, 1], epochs=[2, 15])
    assert "trained 2 epochs, not the full budget" in said(sweep_of([], trials))
    text = said(sweep_of([], trials, higher_is_better=False))
    assert "unequal budgets" in text
    assert "not the full budget" not in text
    assert "budget" not in said(realistic())


def test_what_did_not_finish_is_counted():
    status = ["failed", "failed", "killed", "running", "completed"]
    text = said(sweep_of([], trials_of([math.nan] * 5, {}, status=status)))
    assert "Of 5 trials: 2 failed, 1 killed, 1 still running, 1 without a finite score." in text
    assert "optimistic" not in text


def test_what_the_best_trials_used():
    values = {
        RATE.key: [1e-4, 1e-3, 1e-3, 1e-2],
        "depth": [None, 4, 7, 2],
        "on": [True, True, False, False],
    }
    flag = HyperParameter("on", "bool", choices=("false", "true"))
    sweep = sweep_of([RATE, DEPTH, flag], trials_of([0.4, 0.5, 0.6, 0.1], values))
    found = [sweep_text.describe_best_values(sweep, d, sweep.scored) for d in sweep.searched]
    assert found == [
        "0.0001 to 0.001",
        "4 to 7",
        "true 2\N{MULTIPLICATION SIGN}, false 1\N{MULTIPLICATION SIGN}",
    ]
    assert sweep_text.format_used_values(sweep, DEPTH, sweep.trials) == ["not used", "4", "7", "2"]
