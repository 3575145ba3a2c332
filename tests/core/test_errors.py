"""Sentences of messages: short whatever was typed."""

import pytest

from melanoma_lab.core.errors import MAX_CHOICES, get_first_line, suggest_choice, suggest_similar

pytestmark = pytest.mark.unit


def test_valid_words_are_listed_up_to_a_number():
    words = [f"class{i:04}" for i in range(500)]
    assert suggest_choice("zzz", words).endswith(f"and {500 - MAX_CHOICES} more.")
    assert suggest_choice("class0042x", words) == "Did you mean class0042?"


def test_a_similar_word_is_suggested_or_nothing():
    assert suggest_similar("trian", ["train", "val"]) == "Did you mean train?"
    assert suggest_similar("xyz", ["train", "val"]) == suggest_similar("xyz", []) == ""


def test_an_error_has_a_line_whatever_it_says():
    assert get_first_line(ValueError("\n one \ntwo")) == "one "
    assert get_first_line(ValueError()) == "ValueError"
