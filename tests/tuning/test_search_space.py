"""Declaring a search space: what is read from it, and what is refused."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.overrides import format_override_value, parse_override_value
from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.search_space import HyperParameter, parse_space

pytestmark = pytest.mark.unit

RATE = "optimizer.learning_rate"


def only(given):
    (entry,) = parse_space({RATE: given})
    return entry


def test_a_range_is_read_with_its_ends_step_and_scale():
    entry = only({"min": 1e-5, "max": 1e-2, "log": True, "step": 10})
    assert (entry.kind, entry.low, entry.high, entry.log) == ("float", 1e-5, 1e-2, True)
    assert entry.grid() == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert entry.count_values() == 4


@pytest.mark.parametrize(
    ("given", "grid"),
    [
        ({"min": 1, "max": 4}, [1, 2, 3, 4]),
        ({"min": 16, "max": 64, "step": 16}, [16, 32, 48, 64]),
        ({"min": 8, "max": 64, "log": True, "step": 2}, [8, 16, 32, 64]),
        ({"min": 0.0, "max": 0.5, "step": 0.2}, [0, 0.2, 0.4]),
    ],
)
def test_the_values_of_a_range(given, grid):
    assert only(given).grid() == pytest.approx(grid)


def test_a_range_of_fractions_without_a_step_is_cut_into_ten():
    grid = only({"min": 1e-4, "max": 1e-1, "log": True}).grid()
    assert len(grid) == 10
    assert [b / a for a, b in itertools.pairwise(grid)] == pytest.approx([10 ** (1 / 3)] * 9)
    assert math.isinf(only({"min": 0.0, "max": 1.0}).count_values())


def test_lists_are_choices_and_of_true_and_false_switches():
    assert only([1, 2]).choices == ("1", "2")
    assert only([[0.1, 0.2], [0.0, 0.0]]).choices == ("[0.1,0.2]", "[0.0,0.0]")
    assert (only([True, False]).kind, only(["a", "b"]).kind) == ("bool", "choice")


def test_what_decides_comes_before_what_it_decides_about():
    entries = parse_space(
        {
            "c": {"choices": [1, 2], "when": {"b": "x"}},
            "b": {"choices": ["x", "y"], "when": {"a": ["m", "n"]}},
            "a": ["m", "n", "o"],
        }
    )
    assert [entry.key for entry in entries] == ["a", "b", "c"]
    c = entries[2]
    assert c.is_active({"a": "m", "b": "x"})
    assert not c.is_active({"a": "m", "b": "y"})
    assert not c.is_active({"a": "o"})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one key to search, or null"),
        ({RATE: 3}, "expected a list of choices, or"),
        ({RATE: []}, "expected a list of choices"),
        ({RATE: {"min": 1}}, "expected min and max"),
        ({RATE: {"min": 1, "maxi": 2}}, "maxi: no such key. Did you mean max?"),
        ({RATE: {"min": 2, "max": 1}}, "expected a min below max; received min 2, max 1"),
        ({RATE: {"min": 1, "max": 1}}, "expected a min below max"),
        ({RATE: {"min": 0, "max": 1, "log": True}}, "more than 0 where log is true"),
        ({RATE: {"min": 0, "max": 1, "step": 2}}, "step: expected more than 1 where log"),
        ({RATE: {"min": 1, "max": 9, "log": True, "step": 1}}, "step: expected more than 1"),
        ({RATE: {"min": "a", "max": 1}}, "min: expected a number; received 'a'"),
        ({RATE: {"min": float("nan"), "max": 1}}, "expected a number"),
        ({RATE: {"min": 0, "max": 1, "log": "yes"}}, "log: expected true or false"),
        ({RATE: {"choices": [1], "min": 0}}, "min: expected no other key beside choices"),
        ({RATE: [1, 1]}, "expected different choices"),
        ({RATE: [1, 1.0]}, "expected different choices, also without quotes"),
        ({RATE: ["1", 1]}, "expected different choices"),
        ({RATE: [0.1, 0.10000000000001]}, "numbers to ten digits"),
        ({RATE: [[1, "a"], [1.0, "a"]]}, "expected different choices"),
        ({"balancing": {"min": 0, "max": 1}}, "balancing: a group; expected a list"),
        ({"optimizer.name": ["adam", "sgd"]}, "expected the group, optimizer"),
        ({"seed": [0, 1]}, "seed: it cannot be searched: all trials share it"),
        ({"split.k": [3, 5]}, "split.k: it cannot be searched: all trials share it"),
        ({"dataset.conflicts": ["keep", "drop"]}, "trials share it"),
        (
            {RATE: {"choices": [1, 2], "when": {"optimiser": "sgd"}}},
            "optimiser: this key is not searched",
        ),
        (
            {"optimizer": ["adam", "sgd"], RATE: {"choices": [1, 2], "when": {"optimizer": "sdg"}}},
            "no such choice sdg. Did you mean sgd?",
        ),
        (
            {"a": {"choices": [1, 2], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}},
            "circular conditions",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(space, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_space(space)


def test_the_size_of_images_may_be_searched():
    assert parse_space({"dataset.image_size": [64, 96]})[0].choices == ("64", "96")


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
scalars = st.one_of(
    st.integers(-(2**40), 2**40), st.booleans(), st.none(), texts,
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip


@given(st.one_of(scalars, st.lists(scalars, min_size=1, max_size=3)))
def test_a_choice_survives_being_written_as_an_override(value):
    again = parse_override_value(format_override_value(value))
    assert again == value
    assert type(again) is type(value)


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e3), st.booleans(), st.none() | st.floats(1.1, 4.0))
def test_the_values_of_any_range_lie_in_it(low, ratio, log, step):
    high = low * ratio
    if step is not None and not log:
        step = (high - low) / step
    entry = HyperParameter("x", "float", low=low, high=high, log=log, step=step)
    slack = 1e-9 * high
    assert all(low - slack <= value <= high + slack for value in entry.grid())
    assert entry.grid()[0] == pytest.approx(low)
