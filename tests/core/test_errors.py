"""Sentences of messages: short whatever was typed."""

import pytest

from melanoma_lab.core.errors import MAX_CHOICES, format_list, suggest_choice


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ([str(i) for i in range(2000)], "0, 1, 2 and 1,997 more"),
    ],
)
def test_a_few_names_and_a_count(names, text):
    assert format_list(names) == text


def test_very_long_names_are_cut():
    assert format_list(["x" * 500]) == "x" * 80 + "..."


def test_valid_words_are_listed_up_to_a_number():
    words = [f"class{i:04}" for i in range(500)]
    assert suggest_choice("zzz", words).endswith(f"and {500 - MAX_CHOICES} more.")
    assert suggest_choice("class0042x", words) == "Did you mean class0042?"
