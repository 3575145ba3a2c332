import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.schema.training import EpochLength
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import (
    count_steps_per_epoch,
    make_evaluation_batches,
    make_training_batches,
    one_hot,
    select_batch,
)

pytestmark = pytest.mark.component


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5), st.integers(1, 4))
def test_every_pass_is_a_permutation(n, batch_size, seed, passes):
    steps = -(-n * passes // batch_size)
    row = np.concatenate(
        [select_batch(s, n=n, batch_size=batch_size, seed=seed) for s in range(steps)]
    )
    assert len(row) == steps * batch_size
    for number in range(passes):
        np.testing.assert_array_equal(np.sort(row[number * n : (number + 1) * n]), np.arange(n))


def test_order_changes_with_the_pass_and_the_seed():
    first = select_batch(0, n=50, batch_size=50, seed=0)
    assert list(first) != list(select_batch(1, n=50, batch_size=50, seed=0))
    assert list(first) != list(select_batch(0, n=50, batch_size=50, seed=1))
    assert list(first) == list(select_batch(0, n=50, batch_size=50, seed=0))


@pytest.mark.parametrize(
    ("epoch", "expected"), [(EpochLength.originals, 4), (EpochLength.balanced, 10)]
)
def test_an_epoch_is_a_pass_over_originals_unless_told_otherwise(epoch, expected):
    assert count_steps_per_epoch(epoch, n_split=100, n_balanced=300, batch_size=32) == expected


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    copies = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    rows = np.array([9, 0, 3, 11, 12, 5])
    labels = np.array([0, 1, 2, 2, 1, 0])
    weight = np.array([1.0, 2.0, 3.0], np.float32)
    return BalancedSet((pixels, copies), rows, labels, 3, weight)


def test_no_tuner_of_tensorflow_keeps_a_pass_from_ending(images):
    pixels, rows = images.sources[0], np.arange(10)
    passes = (
        make_training_batches(images, batch_size=2, seed=0, first_step=0, last_step=3),
        make_evaluation_batches(pixels, rows, rows % 3, n_classes=3, batch_size=4),
    )
    for dataset in passes:
        assert dataset.options().autotune.enabled is False


def test_training_batches_are_the_gathered_images_with_their_weights(images):
    batches = list(make_training_batches(images, batch_size=4, seed=5, first_step=0, last_step=3))
    assert len(batches) == 3
    for step, (pixels, labels, weights) in enumerate(batches):
        positions = select_batch(step, n=6, batch_size=4, seed=5)
        expected, classes = images.gather(positions)
        assert pixels.dtype == "uint8"
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(labels, np.eye(3)[classes])
        np.testing.assert_array_equal(weights, images.class_weight[classes])


def test_training_may_begin_at_any_step(images):
    whole = list(make_training_batches(images, batch_size=4, seed=5, first_step=0, last_step=5))
    rest = list(make_training_batches(images, batch_size=4, seed=5, first_step=3, last_step=5))
    for expected, found in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])


def test_evaluation_keeps_the_order_and_every_image_once(images):
    pixels, rows = images.sources[0], np.array([4, 4, 0, 9, 1])
    labels = np.array([0, 1, 2, 0, 1])
    batches = list(make_evaluation_batches(pixels, rows, labels, n_classes=3, batch_size=2))
    assert [len(batch[0]) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), pixels[rows])
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), one_hot(labels, 3))
    assert {float(w) for b in batches for w in b[2]} == {1.0}


def test_the_number_of_steps_is_known(images):
    dataset = make_training_batches(images, batch_size=4, seed=0, first_step=2, last_step=9)
    assert int(dataset.cardinality()) == 7
