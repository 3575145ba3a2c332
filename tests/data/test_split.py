"""A split never separates a group, is stratified, and depends on ids and its seed only."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from melanoma_lab.config.schema.data import (
    CrossVal,
    Holdout,
    KFold,
    OnLeakingTest,
    Predefined,
    Undivided,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.split import TooFewGroupsError, allocate_groups, split_images

pytestmark = pytest.mark.unit


def manifest_of(groups_of_class, published=None):
    """A manifest from {class: [sizes of its groups]}."""
    rows = [
        (f"{label}/{g}-{i}", label, f"{label}/{g}-0", published or "")
        for label, sizes in groups_of_class.items()
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    return pd.DataFrame(rows, columns=["image_id", "label", "group", "published"])


datasets = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.integers(1, 5), min_size=6, max_size=30),
    min_size=2,
)
splits = st.one_of(
    st.builds(Holdout, name=st.just("holdout"), seed=st.integers(0, 9)),
    st.builds(
        KFold, name=st.just("kfold"), seed=st.integers(0, 9), k=st.just(5), fold=st.integers(0, 4)
    ),
    st.builds(
        CrossVal,
        name=st.just("cross_val"),
        seed=st.integers(0, 9),
        k=st.just(4),
        fold=st.integers(0, 3),
    ),
)


@given(datasets, splits)
# The last groups of b are held back for test, and one too late if there are as many as parts.
@example({"a": [1] * 6, "b": [1, 1, 1, 1, 3, 1]}, Holdout("holdout", seed=1))
def test_no_group_is_separated_and_every_class_is_everywhere(dataset, split):
    manifest, _ = split_images(manifest_of(dataset), split)
    assert not manifest.drop_duplicates(["group", "split"])["group"].duplicated().any()
    for label in dataset:
        assert set(manifest.loc[manifest["label"] == label, "split"]) == {"train", "val", "test"}


@given(datasets, splits, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(dataset, split, random):
    table = manifest_of(dataset)
    order = list(table.index)
    random.shuffle(order)
    first, _ = split_images(table, split)
    second, _ = split_images(table.loc[order].reset_index(drop=True), split)
    of = lambda m: dict(zip(m["image_id"], m["split"], strict=True))  # noqa: E731
    assert of(first) == of(second)


@given(datasets)
def test_every_image_is_tested_in_exactly_one_fold(dataset):
    table = manifest_of(dataset)
    tested = [
        set(m.loc[m["split"] == "test", "image_id"])
        for m, _ in (split_images(table, KFold("kfold", 0, 5, fold)) for fold in range(5))
    ]
    assert sum(map(len, tested)) == len(table)
    assert set().union(*tested) == set(table["image_id"])


@given(datasets, st.integers(0, 9))
def test_val_rotates_over_what_a_holdout_does_not_test(dataset, seed):
    table = manifest_of(dataset)
    holdout, _ = split_images(table, Holdout("holdout", seed))
    folds = [split_images(table, CrossVal("cross_val", seed, 4, f))[0] for f in range(4)]
    for fold in folds:
        assert ((fold["split"] == "test") == (holdout["split"] == "test")).all()
    times_val = sum((fold["split"] == "val").astype(int) for fold in folds)
    assert (times_val == (holdout["split"] != "test")).all()


@given(
    st.lists(st.integers(1, 6), min_size=20, max_size=200),
    st.integers(0, 20),
)
def test_shares_are_off_by_less_than_the_largest_group(sizes, seed):
    table = manifest_of({"a": sizes})
    fractions = (0.7, 0.15, 0.15)
    part = allocate_groups(
        table["group"].to_numpy(object), table["label"].to_numpy(object), fractions, str(seed)
    )
    for index, fraction in enumerate(fractions):
        assert abs((part == index).sum() - fraction * sum(sizes)) < max(sizes) + 1e-9


def test_the_seed_makes_another_split_and_the_same_one_again():
    table = manifest_of({"a": [1] * 50, "b": [1] * 50})
    splits = [tuple(split_images(table, Holdout("holdout", s))[0]["split"]) for s in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_fractions_are_met_where_groups_are_single_images():
    table = manifest_of({"a": [1] * 100, "b": [1] * 20})
    manifest, _ = split_images(table, Holdout("holdout", 0, 0.6, 0.3, 0.1))
    counts = pd.crosstab(manifest["label"], manifest["split"])
    assert counts.loc["a"].to_dict() == {"train": 60, "val": 30, "test": 10}
    assert counts.loc["b"].to_dict() == {"train": 12, "val": 6, "test": 2}


def test_folds_are_of_equal_size():
    table = manifest_of({name: [1] * 13 for name in "abcdefghi"})
    sizes = [
        (split_images(table, KFold("kfold", 0, 5, fold))[0]["split"] == "test").sum()
        for fold in range(5)
    ]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("split", "remedy"),
    [
        (Holdout("holdout"), "Add images of other lesions"),
        (KFold("kfold", k=9), "Set split.k=3"),
        (CrossVal("cross_val", test=0.1), "Add images of other lesions"),
    ],
)
def test_a_class_too_small_to_split_is_named(split, remedy):
    n = 3 if isinstance(split, KFold) else 2
    with pytest.raises(UserError) as caught:
        split_images(manifest_of({"a": [1] * 30, "b": [2] * 9, "rare": [4] * n}), split)
    assert f"in 1 of 3 classes: rare ({n})." in str(caught.value)
    assert "leave them out: 'dataset.classes=[a,b]'" in str(caught.value)
    assert remedy in str(caught.value)


def test_a_group_of_two_classes_stays_whole():
    table = manifest_of({"a": [1] * 10, "b": [1] * 10})
    table.loc[table["image_id"] == "b/0-0", "group"] = "a/0-0"
    manifest, _ = split_images(table, Holdout("holdout"))
    both = manifest.loc[manifest["group"] == "a/0-0"]
    assert len(both) == 2
    assert len(set(both["split"])) == 1


def test_a_group_of_as_many_images_of_two_classes_counts_for_the_rarer():
    # j has an image of each: with it b has two groups, and one goes to each part.
    groups, labels = np.array(list("ghijjk"), object), np.array(list("aaaabb"), object)
    part = allocate_groups(groups, labels, (0.5, 0.5), "0")
    assert part[3] == part[4] != part[5]


def test_allocate_says_what_it_expected():
    with pytest.raises(TooFewGroupsError, match=r"at least 2 groups .*'a': 1, 'c': 1}\."):
        allocate_groups(np.array(list("ghij"), object), np.array(list("abbc"), object), (1, 0), "0")


def published(leaking=False):
    train = manifest_of({"a": [2] * 10, "b": [1] * 10}, "train")
    test = manifest_of({"a": [1] * 3, "b": [1] * 2}, "test").assign(
        image_id=lambda t: "t" + t["image_id"], group=lambda t: "t" + t["group"]
    )
    if leaking:
        test.loc[0, "group"] = "a/0-0"
    return pd.concat([train, test], ignore_index=True)


def test_predefined_keeps_the_published_test_images():
    manifest, notes = split_images(published(), Predefined("predefined"))
    assert notes == ()
    assert (manifest["split"] == "test").equals(manifest["published"] == "test")
    assert 3 <= (manifest["split"] == "val").sum() <= 6  # 15 % of 30, whole groups
    assert not manifest.drop_duplicates(["group", "split"])["group"].duplicated().any()


def test_predefined_refuses_a_leak_with_the_count_and_the_choices():
    with pytest.raises(UserError) as caught:
        split_images(published(leaking=True), Predefined("predefined"))
    text = str(caught.value)
    assert "1 of 5 published test images" in text
    for choice in ("split=holdout", "split.leaking_test=drop", "dataset.groups=none"):
        assert choice in text


def test_predefined_drops_leaking_test_images_when_told():
    split = Predefined("predefined", leaking_test=OnLeakingTest.drop)
    manifest, notes = split_images(published(leaking=True), split)
    assert (manifest["split"] == "test").sum() == 4
    assert "1 of 5" in notes[0]


@pytest.mark.parametrize("part", ["", "train", "test"])
def test_predefined_needs_both_published_parts(part):
    table = manifest_of({"a": [1] * 9, "b": [1] * 9}, part)
    with pytest.raises(UserError, match="published without a division into Train and Test"):
        split_images(table, Predefined("predefined"))


def test_a_published_validation_split_is_used():
    table = published()
    table.loc[:3, "published"] = "val"
    manifest, _ = split_images(table, Predefined("predefined"))
    assert (manifest["split"] == manifest["published"]).all()


def test_an_undivided_dataset_is_for_testing_alone():
    table = published(leaking=True)
    manifest, notes = split_images(table, Undivided())
    assert (list(manifest["image_id"]), notes) == (list(table["image_id"]), ())
    assert set(manifest["split"]) == {"test"}
    tested, _ = split_images(table, Undivided(published=True))
    assert set(tested["published"]) == set(tested["split"]) == {"test"}
    with pytest.raises(UserError, match="published without a test split"):
        split_images(table.assign(published=""), Undivided(published=True))
