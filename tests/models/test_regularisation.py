"""What the regulariser adds to a residual network; dropout and L2 are in test_architectures."""

import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.regularisation import (
    L2,
    CombinedRegularisation,
    Dropout,
    LabelSmoothing,
    NoRegularisation,
    RegularisationStrengths,
    StochasticDepth,
    WeightDecay,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.regularisation import Regulariser, compute_frozen_penalty

pytestmark = pytest.mark.component

DEPTH = StochasticDepth("stochastic_depth", rate=0.6)
BLOCKS = 3


def residual_network(options, seed=0, shape=(2, 2, 1)):
    """Three blocks, each of which adds its constant input, 1, to what came so far."""
    regulariser = Regulariser(options, seed=seed)
    inputs = keras.Input(shape)
    x = inputs
    for block in range(BLOCKS):
        branch = keras.layers.Identity()(inputs)
        x = keras.layers.Add()([x, regulariser.residual(branch, block, BLOCKS)])
    regulariser.require_taken("residual")
    return keras.Model(inputs, x)


def test_rates_grow_evenly_from_block_to_block():
    network = residual_network(DEPTH)
    rates = {layer.name: layer.rate for layer in network.layers if layer.name.startswith("skip")}
    assert rates == pytest.approx({"skip1": 0.2, "skip2": 0.4, "skip3": 0.6})


@pytest.mark.parametrize("shape", [(2, 2, 1), (5,)])
def test_a_branch_is_skipped_whole_for_some_images_and_its_mean_stays(shape):
    regulariser = Regulariser(DEPTH, seed=0)
    inputs = keras.Input(shape)
    network = keras.Model(inputs, regulariser.residual(inputs, BLOCKS - 1, BLOCKS))
    ones = np.ones((4000, *shape), np.float32)
    found = np.asarray(network(ones, training=True)).reshape(len(ones), -1)
    assert np.all(found == found[:, :1])  # an image's branch is skipped whole or not at all
    np.testing.assert_allclose(np.unique(found), [0, 2.5], rtol=1e-6)
    assert (found[:, 0] == 0).mean() == pytest.approx(0.6, abs=0.03)
    assert found.mean() == pytest.approx(1, abs=0.08)


def test_blocks_are_skipped_independently_and_anew_at_every_step():
    network = residual_network(DEPTH)
    ones = np.ones((2000, 2, 2, 1), np.float32)
    first, second = (np.asarray(network(ones, training=True))[:, 0, 0, 0] for _ in "ab")
    assert (first != second).any()
    # All of three chances 0.8 * 0.6 * 0.4 to stay.
    whole = 1 + 1 / 0.8 + 1 / 0.6 + 1 / 0.4
    assert np.isclose(first, whole).mean() == pytest.approx(0.192, abs=0.03)


@pytest.mark.parametrize("frozen", [(), ("first",), ("first", "last")])
def test_a_loss_and_the_frozen_penalty_are_of_all_kernels(frozen):
    penalty = Regulariser(L2("l2", factor=0.5), seed=0).kernel_penalty()
    dense = [keras.layers.Dense(3, kernel_regularizer=penalty, name=n) for n in ("first", "last")]
    network = keras.Sequential([keras.Input((2,)), *dense, keras.layers.Dense(1)])
    network.set_weights([np.full_like(weight, 2) for weight in network.get_weights()])
    for name in frozen:
        network.get_layer(name).trainable = False
    squares = {"first": 2 * 3 * 4, "last": 3 * 3 * 4}
    assert compute_frozen_penalty(network) == 0.5 * sum(squares[name] for name in frozen)
    assert float(sum(network.losses)) + compute_frozen_penalty(network) == 0.5 * sum(
        squares.values()
    )


def test_nothing_is_skipped_outside_training():
    network, plain = residual_network(DEPTH), residual_network(NoRegularisation("none"))
    ones = np.ones((50, 2, 2, 1), np.float32)
    np.testing.assert_array_equal(network(ones, training=False), plain(ones, training=True))


def test_the_seed_and_the_saved_state_repeat_what_is_skipped():
    ones = np.ones((50, 2, 2, 1), np.float32)
    first, again, other = (residual_network(DEPTH, seed=seed) for seed in (1, 1, 2))
    drawn = [np.asarray(first(ones, training=True)) for _ in range(3)]
    np.testing.assert_array_equal(again(ones, training=True), drawn[0])
    assert (np.asarray(other(ones, training=True)) != drawn[0]).any()
    # The generators' states are variables of the model: what a checkpoint keeps.
    kept = {v.path: np.array(v) for v in again.non_trainable_variables}
    assert len(kept) == BLOCKS
    resumed = residual_network(DEPTH, seed=9)
    for variable, value in zip(resumed.non_trainable_variables, kept.values(), strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(resumed(ones, training=True), drawn[1])


def test_half_precision_skips_too():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = residual_network(DEPTH)
        found = np.asarray(network(np.ones((200, 2, 2, 1)), training=True), np.float32)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(np.unique(found)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DEPTH, "regularisation=stochastic_depth: architecture=plain has no residual blocks"),
        (
            CombinedRegularisation("combined", stochastic_depth=0.1),
            "regularisation=combined: .* no residual",
        ),
        (Dropout("dropout"), "has no blocks after which dropout could be added"),
        (L2("l2"), "adds no penalty to its kernels"),
    ],
)
def test_a_network_without_a_place_for_it_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Regulariser(options, seed=0).require_taken("plain")


@pytest.mark.parametrize(
    "options",
    [
        NoRegularisation("none"),
        LabelSmoothing("label_smoothing"),
        WeightDecay("weight_decay"),
        StochasticDepth("stochastic_depth", rate=0.0),
    ],
)
def test_what_asks_nothing_of_the_network_is_fine_with_any(options):
    Regulariser(options, seed=0).require_taken("plain")


@pytest.mark.parametrize(
    ("alone", "key"),
    [
        (Dropout("dropout"), "rates"),
        (L2("l2"), "l2"),
        (LabelSmoothing("label_smoothing"), "label_smoothing"),
        (WeightDecay("weight_decay"), "weight_decay"),
        (DEPTH, "stochastic_depth"),
    ],
)
def test_combined_is_each_of_them(alone, key):
    value = getattr(alone, "rates", None) or getattr(alone, "factor", None) or alone.rate
    assert (
        CombinedRegularisation("combined", **{key: value}).strengths()
        == alone.strengths()
        != RegularisationStrengths()
    )


def test_combined_acts_in_the_network_as_each_alone():
    regulariser = Regulariser(
        CombinedRegularisation("combined", rates=[0.5], l2=0.1, stochastic_depth=0.5), 0
    )
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(2, 1, kernel_regularizer=regulariser.kernel_penalty())(inputs)
    x = regulariser.residual(x, 0, 1)
    network = keras.Model(inputs, regulariser.after_block(x, 0, 1))
    assert [layer.rate for layer in network.layers[-2:]] == [0.5, 0.5]
    assert len(network.losses) == 1
