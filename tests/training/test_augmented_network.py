"""Augmentation in a fit: in the training step, and nowhere else."""

import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.training_images import (
    CutMix,
    Dermoscopy,
    FlipRotateZoom,
    MixUp,
    RandAugment,
)
from melanoma_lab.models.augmentation import build_augmentation_layers
from melanoma_lab.models.augmentation_layers import MixingLayer
from melanoma_lab.training.fit import BalancedAccuracy
from melanoma_lab.training.train_steps import AugmentedNetwork
from tests.support.marks import slow

pytestmark = pytest.mark.component

B, K = 8, 3
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (B, 16, 16, 3)).astype("uint8")
LABELS = np.eye(K, dtype="float32")[np.arange(B) % K]
WEIGHTS = np.linspace(0.5, 2, B, dtype="float32")
OPTIONS = {
    "flip_rotate_zoom": FlipRotateZoom("flip_rotate_zoom"),
    "dermoscopy": Dermoscopy("dermoscopy"),
    "randaugment": RandAugment("randaugment"),
    "mixup": MixUp("mixup", before=Dermoscopy("dermoscopy")),
    "cutmix": CutMix("cutmix", before=FlipRotateZoom("flip_rotate_zoom")),
}
#: What the fast tests continue; the slow ones take all.
CONTINUED = {"dermoscopy", "cutmix"}
every = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


class Half(MixingLayer):
    """Half of each image and half of the next."""

    NAME = "half"

    def __init__(self):
        super().__init__(alpha=1.0, seed=0)

    def change(self, batch):
        pixels, labels, weights = batch
        return tuple((x + keras.ops.roll(x, 1, axis=0)) / 2 for x in (pixels, labels, weights))


def network():
    keras.utils.set_random_seed(1)
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(pixels)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(pixels, keras.layers.Dense(K, activation="softmax", dtype="float32")(x))


def compiled(model, layers):
    trained = AugmentedNetwork(model, layers)
    trained.compile(
        keras.optimizers.SGD(0.01),
        "categorical_crossentropy",
        metrics=["accuracy", BalancedAccuracy(K)],
        jit_compile=False,
    )
    return trained


@every
def test_a_step_learns_and_only_that_is_augmented(option):
    model = network()
    plain = compiled(model, []).evaluate(PIXELS, LABELS, batch_size=B, verbose=0)
    trained = compiled(model, build_augmentation_layers(option, seed=0))
    assert trained.evaluate(PIXELS, LABELS, batch_size=B, verbose=0) == plain
    np.testing.assert_array_equal(
        trained.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0)
    )
    before = model.get_weights()
    loss, *_ = trained.train_on_batch(PIXELS, LABELS, WEIGHTS)
    assert np.isfinite(loss)
    assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not model.compiled
    assert model.variables == model.weights  # no random state


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [option if name in CONTINUED else slow(option) for name, option in OPTIONS.items()],
    ids=OPTIONS,
)
def test_saved_variables_continue_the_fit_bit_for_bit(option):
    def three_steps(restart):
        model = network()
        trained = compiled(model, build_augmentation_layers(option, seed=0))
        trained.train_on_batch(PIXELS, LABELS, WEIGHTS)
        if restart:
            saved = [np.array(v.value) for v in trained.variables]
            trained = compiled(network(), build_augmentation_layers(option, seed=99))
            trained.build((None, 16, 16, 3))
            for variable, value in zip(trained.variables, saved, strict=False):
                if value.shape == tuple(variable.shape):
                    variable.assign(value)
            assert all(
                np.array_equal(v.value, s) for v, s in zip(trained.variables, saved, strict=False)
            )
        return [trained.train_on_batch(PIXELS, LABELS, WEIGHTS)[0] for _ in range(2)]

    # The metrics of a fit are running means; these are reset for each batch.
    np.testing.assert_array_equal(three_steps(restart=True), three_steps(restart=False))


def test_the_loss_is_that_of_mixed_pixels_labels_and_weights():
    model = network()
    trained = compiled(model, [Half()])
    pixels = (PIXELS + np.roll(PIXELS.astype(float), 1, axis=0)) / 2
    labels = (LABELS + np.roll(LABELS, 1, axis=0)) / 2
    weights = (WEIGHTS + np.roll(WEIGHTS, 1)) / 2
    score = model.predict(pixels.astype("float32"), verbose=0)
    expected = (-weights * (labels * np.log(score)).sum(1)).mean()
    loss, *_ = trained.train_on_batch(PIXELS, LABELS, WEIGHTS)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_accuracies_take_the_class_with_the_largest_share_for_the_true_one():
    mixed = np.array([[0.6, 0.4, 0], [0.3, 0.7, 0], [0.2, 0.7, 0.1], [0.9, 0.1, 0]], "float32")
    score = np.array([[0.5, 0.3, 0.2], [0.2, 0.8, 0], [0.9, 0.1, 0], [0.1, 0.9, 0]], "float32")
    balanced = BalancedAccuracy(K)
    balanced.update_state(mixed, score)
    assert float(balanced.result()) == 0.5  # one of two of either class; the third does not occur
    plain = keras.metrics.CategoricalAccuracy()
    plain.update_state(mixed, score)
    assert float(plain.result()) == 0.5


def test_pixels_reach_the_network_unrounded_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        pixels = keras.Input((4, 4, 3))
        probe = keras.Model(pixels, keras.layers.Identity(dtype="float32")(pixels))
        trained = AugmentedNetwork(probe, [])
        exact = np.full((1, 4, 4, 3), 200.3, "float32")  # 200 in bfloat16
        np.testing.assert_array_equal(trained(exact, training=True), exact)
    finally:
        keras.config.set_dtype_policy("float32")
