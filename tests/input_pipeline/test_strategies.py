"""The strategies that make no copies; and what balance accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from melanoma_lab.config.schema.training_images import (
    ClassWeight,
    EffectiveNumber,
    NoBalancing,
    Oversample,
    Undersample,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit
from melanoma_lab.input_pipeline.balancing import (
    STRATEGIES,
    BalancingContext,
    balance,
    compute_balanced_weights,
    compute_effective_number_weights,
    oversample,
    undersample,
)
from melanoma_lab.registry import OPTIONS

pytestmark = pytest.mark.unit

MakeSplit = Callable[..., TrainingSplit]

UNUSED = Path("unused")


def test_every_option_has_a_strategy() -> None:
    assert {name for group, name in OPTIONS if group == "balancing"} == set(STRATEGIES)


def test_none_is_the_split(make_split: MakeSplit) -> None:
    split = make_split([5, 2])
    result = balance(NoBalancing(name="none"), split, seed=0, cache_dir=UNUSED)
    np.testing.assert_array_equal(result.rows, split.rows)
    np.testing.assert_array_equal(result.labels, split.labels)
    assert result.sources[0] is split.pixels
    assert result.class_weight is None
    images, labels = result.gather(np.array([6, 0]))
    np.testing.assert_array_equal(images, split.pixels[split.rows[[6, 0]]])
    np.testing.assert_array_equal(labels, split.labels[[6, 0]])


def test_class_weight_weighs_and_repeats_nothing(make_split: MakeSplit) -> None:
    split = make_split([6, 3, 1])
    result = balance(ClassWeight(name="class_weight"), split, seed=0, cache_dir=UNUSED)
    np.testing.assert_array_equal(result.rows, split.rows)
    assert result.class_weight is not None
    assert result.class_weight.dtype == np.float32
    # 10 images, 3 classes: 10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)
    np.testing.assert_allclose(result.class_weight, [5 / 9, 10 / 9, 10 / 3], rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any))
def test_class_weight_agrees_with_scikit_learn(counts: list[int]) -> None:
    weights = compute_balanced_weights(np.array(counts))
    y = np.repeat(np.arange(len(counts)), counts)
    present = np.unique(y)
    expected = compute_class_weight("balanced", classes=present, y=y)
    np.testing.assert_allclose(weights[present], expected, rtol=1e-6)
    absent = np.setdiff1d(np.arange(len(counts)), present)
    assert (weights[absent] == 0).all()
    assert weights[y].mean(dtype=np.float64) == pytest.approx(1, rel=1e-6)


def test_effective_number_by_hand(make_split: MakeSplit) -> None:
    split = make_split([3, 1])
    options = EffectiveNumber(name="effective_number", beta=0.5)
    result = balance(options, split, seed=0, cache_dir=UNUSED)
    np.testing.assert_array_equal(result.rows, split.rows)
    assert result.class_weight is not None
    assert result.class_weight.dtype == np.float32
    # Effective numbers (1 - 0.5**3) / 0.5 = 1.75 and 1; inverse 4/7 and 1; their mean over the
    # four images (3 * 4/7 + 1) / 4 = 19/28.
    np.testing.assert_allclose(result.class_weight, [16 / 19, 28 / 19], rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=9).filter(any), st.floats(0, 0.99999))
def test_effective_number_lies_between_none_and_class_weight(
    counts: list[int], beta: float
) -> None:
    n = np.array(counts)
    present = n > 0
    weights = compute_effective_number_weights(n, beta)
    assert (weights[~present] == 0).all()
    assert np.average(weights, weights=n) == pytest.approx(1, rel=1e-4)
    # Weights relative to the largest class: at least 1, at most the inverse of the frequency.
    relative = (weights / weights[n.argmax()])[present]
    assert (relative >= 1 - 1e-5).all()
    assert (relative <= n.max() / n[present] + 1e-3).all()
    np.testing.assert_allclose(compute_effective_number_weights(n, 0)[present], 1)
    np.testing.assert_allclose(
        compute_effective_number_weights(n, 1 - 1e-12), compute_balanced_weights(n), rtol=1e-3
    )


def split_of(labels: np.ndarray, n_classes: int) -> TrainingSplit:
    n = len(labels)
    return TrainingSplit(
        pixels=np.zeros((n, 1, 1, 3), np.uint8),
        rows=np.arange(n),
        labels=labels,
        image_ids=tuple(map(str, range(n))),
        digests=tuple(map(str, range(n))),
        class_names=tuple(map(str, range(n_classes))),
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_oversample_repeats_as_evenly_as_possible(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    setting = BalancingContext(seed=seed, cache_dir=UNUSED)
    result = oversample(Oversample(name="oversample"), split_of(labels, len(counts)), setting)
    largest = max(counts)
    assert result.class_counts().tolist() == [largest] * len(counts)
    np.testing.assert_array_equal(labels[result.rows], result.labels)
    times = np.bincount(result.rows, minlength=len(labels))
    for label, count in enumerate(counts):
        expected = {largest // count: count - largest % count}
        if largest % count:
            expected[largest // count + 1] = largest % count
        assert Counter(times[labels == label].tolist()) == expected


def test_the_seed_decides_which_originals_occur_once_more(make_split: MakeSplit) -> None:
    split = make_split([30, 20])
    options = Oversample(name="oversample")
    first, again, other = (
        balance(options, split, seed=seed, cache_dir=UNUSED).rows for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first[: len(split)], split.rows)


def test_oversample_names_an_empty_class(make_split: MakeSplit) -> None:
    with pytest.raises(UserError, match=r"balancing=oversample.*no image of class 1,"):
        balance(Oversample(name="oversample"), make_split([3, 0, 2]), seed=0, cache_dir=UNUSED)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(lambda c: len(set(c)) > 1),
    st.integers(0, 2**32 - 1),
    st.one_of(st.none(), st.integers(1, 29)),
)
def test_undersample_leaves_out_no_more_than_it_must(
    counts: list[int], seed: int, per_class: int | None
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if per_class is not None and per_class >= max(counts):
        per_class = None
    size = per_class or min(filter(None, counts))
    options = Undersample(name="undersample", per_class=per_class)
    result = undersample(
        options, split_of(labels, len(counts)), BalancingContext(seed=seed, cache_dir=UNUSED)
    )
    assert result.class_counts().tolist() == [min(size, count) for count in counts]
    assert len(set(result.rows.tolist())) == len(result)
    np.testing.assert_array_equal(labels[result.rows], result.labels)


def test_the_seed_decides_which_images_are_left_out(make_split: MakeSplit) -> None:
    split = make_split([30, 20])
    options = Undersample(name="undersample")
    first, again, other = (
        balance(options, split, seed=seed, cache_dir=UNUSED).rows for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_undersample_that_leaves_nothing_out_is_refused(make_split: MakeSplit) -> None:
    options = Undersample(name="undersample", per_class=5)
    with pytest.raises(UserError, match=r"per_class=5: no class .* has more than 5 images"):
        balance(options, make_split([5, 3]), seed=0, cache_dir=UNUSED)


def test_nothing_but_a_training_split_is_balanced(make_split: MakeSplit) -> None:
    split = make_split([3, 2])
    for other in (split.pixels, (split.pixels, split.labels), vars(split), None):
        with pytest.raises(TypeError, match="Expected a TrainingSplit"):
            balance(NoBalancing(name="none"), other, seed=0, cache_dir=UNUSED)  # type: ignore[arg-type]


def test_an_unknown_strategy_is_a_breach(make_split: MakeSplit) -> None:
    with pytest.raises(ValueError, match=r"Expected one of .*'oversample'.* Received 'smote'"):
        balance(NoBalancing(name="smote"), make_split([3, 2]), seed=0, cache_dir=UNUSED)
