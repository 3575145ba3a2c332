import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.schema import Groups
from melanoma_lab.data.groups import group_images, join_groups


def manifest(*rows):
    return pd.DataFrame(rows, columns=["image_id", "lesion", "digest"])


CHAIN = manifest(
    ("a", "L1", "d1"), ("b", "L1", "d2"), ("c", "", "d2"), ("d", "", "d3"), ("e", "L2", "d4")
)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # a and b share a lesion, b and c their bytes: all three belong together.
        (Groups.all, ["a", "a", "a", "d", "e"]),
        (Groups.lesion, ["a", "a", "c", "d", "e"]),
        (Groups.duplicates, ["a", "b", "b", "d", "e"]),
        (Groups.none, ["a", "b", "c", "d", "e"]),
    ],
)
def test_groups_are_joined_transitively(groups, expected):
    assert list(group_images(CHAIN, groups)) == expected


def test_an_empty_manifest_has_no_groups():
    assert len(group_images(manifest(), Groups.all)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_groups_are_the_components_in_any_order(links, random):
    ids = [f"i{n:02}" for n in range(len(links))]
    first = ["" if a == 0 else f"x{a}" for a, _ in links]
    second = ["" if b == 0 else f"y{b}" for _, b in links]
    found = dict(zip(ids, _join(ids, first, second), strict=True))

    # An oracle that merges until nothing changes.
    expected = {name: name for name in ids}
    for _ in ids:
        for column in (first, second):
            for value in set(column) - {""}:
                members = [n for n, v in zip(ids, column, strict=True) if v == value]
                smallest = min(expected[n] for n in members)
                for n in members:
                    expected[n] = smallest
    assert found == expected

    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = _join(*([column[i] for i in order] for column in (ids, first, second)))
    assert dict(zip([ids[i] for i in order], shuffled, strict=True)) == expected


def _join(ids, *columns):
    return join_groups(
        np.array(ids, dtype=object), [np.array(column, dtype=object) for column in columns]
    )
