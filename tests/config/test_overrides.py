"""Lines that messages give to type are understood as they are meant."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.overrides import format_override

pytestmark = pytest.mark.unit

NAMES = [
    *("mel", "basal cell carcinoma", "a,b", "x (1)", "[y]", "{z}", "it's", 'say "hi"', "a=b"),
    *("#1", "a;b", "a&b", "!a", "~a", "<b>", "na\xefve", "1_0", "1e3", "1.10", "true", "null"),
    *(" lead", "back\\slash", "end\\", "a: b", "$HOME", "a*b", "5", "-x", "a@b%c", "\u30cd\u30d0"),
]


def understood(line):
    (word,) = shlex.split(line)
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(name):
    assert understood(format_override("dataset.classes", [name, "other"])) == [name, "other"]
    assert understood(format_override("dataset.table", name)) == name


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_any_names(names):
    assert understood(format_override("dataset.classes", names)) == names


def test_usual_names_need_no_quotes():
    assert format_override("dataset.classes", ["bcc", "mel"]) == "'dataset.classes=[bcc,mel]'"
    assert format_override("dataset.table", "train.csv") == "dataset.table=train.csv"
    assert format_override("dataset.columns.lesion", "none") == "dataset.columns.lesion=none"
