import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.schema.data import GroupingRule, Holdout, KFold
from melanoma_lab.data.split import assign_photographs, group_images, split_images

pytestmark = pytest.mark.unit


def manifest(*rows):
    return pd.DataFrame(rows, columns=["image_id", "lesion", "patient", "photograph"])


CHAIN = manifest(
    ("a", "L1", "", "d1"),
    ("b", "L1", "", "d2"),
    ("c", "", "P1", "d2"),
    ("d", "", "", "d3"),
    ("e", "L2", "P1", "d4"),
)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # a and b share a lesion, b and c are copies, c and e a patient: all belong together.
        (GroupingRule.all, ["a", "a", "a", "d", "a"]),
        (GroupingRule.lesion, ["a", "a", "c", "d", "c"]),
        (GroupingRule.duplicates, ["a", "b", "b", "d", "e"]),
        (GroupingRule.none, ["a", "b", "c", "d", "e"]),
    ],
)
def test_groups_are_joined_transitively(groups, expected):
    assert list(group_images(CHAIN, groups)) == expected


def test_an_empty_manifest_has_no_groups():
    assert len(group_images(manifest(), GroupingRule.all)) == 0


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


def _join(ids, lesions, patients):
    columns = {"image_id": ids, "lesion": lesions, "patient": patients}
    return group_images(pd.DataFrame(columns, dtype=object), GroupingRule.lesion)


def test_photographs_are_joined_transitively():
    pairs = pd.DataFrame([("d2", "d1"), ("d2", "d4"), ("d3", "gone")], columns=["first", "second"])
    assert list(assign_photographs(["d4", "d3", "d1", "d1", "d5", "d2"], pairs)) == [
        *("d1", "d3", "d1", "d1", "d5", "d1")
    ]


def test_no_pairs_and_no_images():
    none = pd.DataFrame(columns=["first", "second"])
    assert list(assign_photographs(["b", "a", "b"], none)) == ["b", "a", "b"]
    assert len(assign_photographs([], none)) == 0


@given(
    images=st.lists(
        st.tuples(st.integers(0, 25), st.integers(0, 30), st.sampled_from("xy")),
        min_size=5,
        max_size=30,
    ),
    pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
    seed=st.integers(0, 99),
    fold=st.integers(-1, 2),
)
def test_no_split_fold_or_seed_separates_a_known_pair(images, pairs, seed, fold):
    # Lone images of each class keep every split possible, whatever the rest is.
    alone = [(0, 1000 + i, "xy"[i % 2]) for i in range(16)]
    lesions, contents, labels = zip(*images, *alone, strict=True)
    digests = [f"d{content:04}" for content in contents]
    near = pd.DataFrame([(f"d{a:04}", f"d{b:04}") for a, b in pairs], columns=["first", "second"])
    table = pd.DataFrame(
        {
            "image_id": [f"i{n:03}" for n in range(len(labels))],
            "lesion": [f"L{lesion}" if lesion else "" for lesion in lesions],
            "patient": "",
            "digest": digests,
            "photograph": assign_photographs(digests, near),
            "label": labels,
            "published": "",
        }
    )
    table["group"] = group_images(table, GroupingRule.all)
    split = KFold("kfold", seed, 3, fold) if fold >= 0 else Holdout("holdout", seed)
    divided, _ = split_images(table, split)

    for column in ("lesion", "digest"):
        known = divided[divided[column] != ""]
        assert not known.drop_duplicates([column, "split"])[column].duplicated().any()
    side = divided.drop_duplicates("digest").set_index("digest")["split"]
    for a, b in near.itertuples(index=False):
        if a in side and b in side:
            assert side[a] == side[b]
