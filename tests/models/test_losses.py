"""Losses: hand-worked values, identities, gradients, soft labels and weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from melanoma_lab.config.schema.training import CrossEntropy, Focal, LogitAdjusted
from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.balanced_set import TrainingSplit
from melanoma_lab.models.losses import (
    FocalLoss,
    LogitAdjustedLoss,
    build_loss,
    smooth_labels,
)
from melanoma_lab.registry import BUILDERS, OPTIONS

pytestmark = pytest.mark.component


def split_of(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return TrainingSplit(
        pixels=np.zeros((len(labels), 1, 1, 3), np.uint8),
        rows=np.arange(len(labels)),
        labels=labels,
        image_ids=tuple(map(str, labels)),
        digests=tuple(map(str, labels)),
        class_names=("melanoma", "nevus", "wart")[: len(counts)],
    )


SPLIT = split_of(5, 3, 2)
LOSSES = {
    "cross_entropy": CrossEntropy("cross_entropy"),
    "focal": Focal("focal"),
    "logit_adjusted": LogitAdjusted("logit_adjusted"),
}


def value(loss, y_true, y_pred, **more):
    return float(loss(np.float32(y_true), np.float32(y_pred), **more))


def batch(seed=0, n=6, soft=True):
    rng = np.random.default_rng(seed)
    y_true = rng.dirichlet(np.ones(3), n) if soft else np.eye(3)[rng.integers(0, 3, n)]
    return y_true.astype(np.float32), softmax(rng.normal(0, 2, (n, 3)), 1).astype(np.float32)


@pytest.mark.parametrize(
    ("gamma", "probability", "expected"),
    [
        (2, 0.5, 0.25 * np.log(2)),
        (2, 0.9, 0.01 * -np.log(0.9)),
        (1, 0.2, 0.8 * np.log(5)),
        (0.5, 0.75, 0.5 * -np.log(0.75)),
        (5, 0.1, 0.9**5 * np.log(10)),
    ],
)
def test_focal_by_hand(gamma, probability, expected):
    loss = FocalLoss(gamma)
    y_pred = [[probability, 1 - probability, 0]]
    assert value(loss, [[1, 0, 0]], y_pred) == pytest.approx(expected, rel=1e-5)


def test_focal_of_soft_labels_by_hand():
    # 0.75 * (1 - 0.5)**2 * ln 2 + 0.25 * (1 - 0.25)**2 * ln 4
    expected = 0.75 * 0.25 * np.log(2) + 0.25 * 0.5625 * np.log(4)
    found = value(FocalLoss(2), [[0.75, 0.25, 0]], [[0.5, 0.25, 0.25]])
    assert found == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 10**6), st.floats(0, 5), st.floats(0, 0.5))
def test_focal_is_kerass_where_no_probability_is_cut(seed, gamma, smoothing):
    y_true, y_pred = batch(seed)
    kerass = keras.losses.CategoricalFocalCrossentropy(
        alpha=1, gamma=gamma, label_smoothing=smoothing
    )
    expected = value(kerass, y_true, y_pred)
    assert value(FocalLoss(gamma, smoothing), y_true, y_pred) == pytest.approx(expected, rel=1e-4)


def test_logit_adjusted_by_hand():
    # Logits 0 and 0 of classes with shares 0.8 and 0.2: the softmax of their logarithms is the
    # shares themselves.
    loss = LogitAdjustedLoss(np.array([0.8, 0.2]), tau=1)
    assert value(loss, [[1, 0]], [[0.5, 0.5]]) == pytest.approx(-np.log(0.8), rel=1e-6)
    assert value(loss, [[0, 1]], [[0.5, 0.5]]) == pytest.approx(-np.log(0.2), rel=1e-6)
    # tau 2: 0.64 : 0.04; half of the label each.
    loss = LogitAdjustedLoss(np.array([0.8, 0.2]), tau=2)
    expected = -0.5 * np.log(0.64 / 0.68) - 0.5 * np.log(0.04 / 0.68)
    assert value(loss, [[0.5, 0.5]], [[0.5, 0.5]]) == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 10**6), st.floats(0, 3))
def test_logit_adjusted_of_probabilities_is_that_of_logits(seed, tau):
    rng = np.random.default_rng(seed)
    logits, prior = rng.normal(0, 8, (5, 4)), rng.dirichlet(np.ones(4) * 3) + 1e-3
    y_true = np.eye(4)[rng.integers(0, 4, 5)]
    expected = -(y_true * log_softmax(logits + tau * np.log(prior), 1)).sum(1).mean()
    found = value(LogitAdjustedLoss(prior, tau), y_true, softmax(logits, 1))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_prior_is_that_of_the_training_split():
    loss = build_loss(LogitAdjusted("logit_adjusted", tau=0.5), SPLIT, label_smoothing=0)
    np.testing.assert_allclose(loss.adjustment, 0.5 * np.log([0.5, 0.3, 0.2]), rtol=1e-6)


@pytest.mark.parametrize(
    "same",
    [
        FocalLoss(0),
        LogitAdjustedLoss(np.array([0.7, 0.2, 0.1]), tau=0),
        LogitAdjustedLoss(np.ones(3) / 3, tau=1),
    ],
    ids=["gamma 0", "tau 0", "equal classes"],
)
@pytest.mark.parametrize("soft", [False, True])
def test_each_is_cross_entropy_at_its_neutral_point(same, soft):
    y_true, y_pred = batch(soft=soft)
    weight = np.float32([1, 2, 0, 0.5, 3, 1])
    expected = value(keras.losses.CategoricalCrossentropy(), y_true, y_pred, sample_weight=weight)
    assert value(same, y_true, y_pred, sample_weight=weight) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_multiply_each_images_loss(name):
    loss = build_loss(LOSSES[name], SPLIT, label_smoothing=0.1)
    y_true, y_pred = batch()
    each = [value(loss, y_true[i : i + 1], y_pred[i : i + 1]) for i in range(6)]
    weight = np.float32([1, 2, 0, 0.5, 3, 1])
    found = value(loss, y_true, y_pred, sample_weight=weight)
    assert found == pytest.approx(np.mean(weight * each), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_label_smoothing_is_that_of_smoothed_labels(name):
    y_true, y_pred = batch(soft=False)
    smooth = build_loss(LOSSES[name], SPLIT, label_smoothing=0.3)
    plain = build_loss(LOSSES[name], SPLIT, label_smoothing=0.0)
    smoothed = 0.7 * y_true + 0.1
    np.testing.assert_allclose(smooth_labels(y_true, 0.3), smoothed, rtol=1e-6)
    expected = value(plain, smoothed, y_pred)
    assert value(smooth, y_true, y_pred) == pytest.approx(expected, rel=1e-5)
    assert value(smooth, y_true, y_pred) != pytest.approx(value(plain, y_true, y_pred), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_differ(name):
    y_true, y_pred = batch(soft=False)
    values = {
        n: value(build_loss(o, SPLIT, label_smoothing=0), y_true, y_pred) for n, o in LOSSES.items()
    }
    others = [v for n, v in values.items() if n != name]
    assert all(abs(values[name] - other) > 1e-3 for other in others)


@pytest.mark.parametrize(
    "loss", [FocalLoss(2), FocalLoss(0.5), LogitAdjustedLoss(np.ones(3) / 3, 1)]
)
@pytest.mark.parametrize("wrong_by", [0.0, 20.0, 60.0, 85.0])
def test_an_image_pulls_with_its_whole_gradient_however_wrong_it_is(loss, wrong_by):
    """Keras's focal loss has none from a probability of 1e-7 on; see the module's docstring."""
    logits = tf.Variable([[0.0, wrong_by, 0.0]])
    with tf.GradientTape() as tape:
        found = loss(np.float32([[1, 0, 0]]), tf.nn.softmax(logits))
    gradient = tape.gradient(found, logits).numpy()[0]
    assert np.isfinite(gradient).all()
    if wrong_by:
        assert float(found) == pytest.approx(wrong_by, rel=1e-3)
        np.testing.assert_allclose(gradient, [-1, 1, 0], atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [0, 1])
def test_certainty_gives_no_nan(name, label):
    loss = build_loss(LOSSES[name], SPLIT, label_smoothing=0.1)
    logits = tf.Variable([[500.0, -500.0, 0.0]])
    with tf.GradientTape() as tape:
        found = loss(np.eye(3, dtype=np.float32)[[label]], tf.nn.softmax(logits))
    assert np.isfinite(float(found))
    assert np.isfinite(tape.gradient(found, logits).numpy()).all()


def test_logit_adjusted_needs_every_class():
    with pytest.raises(UserError, match=r"loss=logit_adjusted: .* no image of nevus, whose"):
        build_loss(LogitAdjusted("logit_adjusted"), split_of(3, 0, 2), label_smoothing=0)


def test_every_loss_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "loss"}
    assert options <= set(BUILDERS)
    assert {name for _, name in options} == set(LOSSES)
