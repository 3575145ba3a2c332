"""Arms find their references and lose what tells none of them apart."""

import pytest

from melanoma_lab.config.arm import (
    find_references,
    format_run_name,
    shorten_arm_names,
    split_arm_name,
)
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("arm", "parts"),
    [
        ("baseline", ("baseline", ())),
        ("a,b=1,c=2", ("a", ("b=1", "c=2"))),
        ("a,b=[4,8],c={d:[1,2],e:3},~f", ("a", ("b=[4,8]", "c={d:[1,2],e:3}", "~f"))),
        ("a,b='x,y',c=1", ("a", ("b='x,y'", "c=1"))),
        ('a,b="it\'s [",c=1', ("a", ('b="it\'s ["', "c=1"))),
    ],
)
def test_commas_inside_a_value_do_not_separate(arm, parts):
    assert split_arm_name(arm) == parts


def test_what_all_arms_share_is_left_out_of_short_names():
    assert shorten_arm_names(["a,x=1,y=[1,2]", "b,x=1,y=3"]) == {
        "a,x=1,y=[1,2]": "a,y=[1,2]",
        "b,x=1,y=3": "b,y=3",
    }
    assert shorten_arm_names(["a,x=1"]) == {"a,x=1": "a"}


@pytest.mark.parametrize(
    ("named", "references"),
    [
        (
            {"baseline": "", "dropout": "baseline", "augmented": "dropout"},
            {"baseline": None, "dropout": "baseline", "augmented": "dropout"},
        ),
        # The same overrides first, the plain preset only where they are missing.
        (
            {"baseline": "", "baseline,e=1": "", "dropout,e=1": "baseline", "dropout": "baseline"},
            {
                "baseline": None,
                "baseline,e=1": "baseline",
                "dropout,e=1": "baseline,e=1",
                "dropout": "baseline",
            },
        ),
        (
            {"baseline": "", "dropout,e=1": "baseline"},
            {"baseline": None, "dropout,e=1": "baseline"},
        ),
        ({"dropout": "baseline"}, {"dropout": None}),
        (
            {"dropout,e=1": "baseline", "augmented,e=1,n=9": "dropout", "dropout,n=8": "baseline"},
            {"dropout,e=1": None, "augmented,e=1,n=9": "dropout,e=1", "dropout,n=8": None},
        ),
        # An arm named in full.
        ({"a,b=1": "", "a,b=2": "a,b=1"}, {"a,b=1": None, "a,b=2": "a,b=1"}),
        # No reference named: the preset alone, or the arm that has none of it.
        (
            {"a,b=none,e=1": "", "a,b=copies,e=1": "", "a,b=weights,e=1": ""},
            {
                "a,b=none,e=1": None,
                "a,b=copies,e=1": "a,b=none,e=1",
                "a,b=weights,e=1": "a,b=none,e=1",
            },
        ),
        ({"a,e=1": "", "a,b=copies,e=1": ""}, {"a,e=1": None, "a,b=copies,e=1": "a,e=1"}),
        ({"a": "a", "b": ""}, {"a": None, "b": None}),
    ],
)
def test_references(named, references):
    assert find_references(named) == references


def test_runs_are_told_apart_by_the_beginning_of_their_names():
    assert format_run_name("baseline,x=[1,2],y=3", 4, 0) == "baseline seed=4 x=[1,2] y=3"
    assert format_run_name("dropout", 0, 2) == "dropout seed=0 fold=2"


def test_one_reference_for_all_by_full_or_short_name():
    named = {"a,e=1": "", "b,e=1": "a", "c,e=1": "b"}
    expected = {"a,e=1": "b,e=1", "b,e=1": None, "c,e=1": "b,e=1"}
    assert find_references(named, "b") == find_references(named, "b,e=1") == expected


def test_an_unknown_reference_points_to_the_nearest():
    with pytest.raises(UserError, match=r"reference=baselin: .* Did you mean baseline\?"):
        find_references({"baseline": "", "dropout": "baseline"}, "baselin")
