import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.augmentation import FlipRotateZoom, NoAugmentation
from melanoma_lab.model.augmentation import augmentation_layers
from melanoma_lab.registry import BUILDERS, OPTIONS

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3)).astype("float32")


def augment(layers, training=True):
    x = PIXELS
    for layer in layers:
        x = layer(x, training=training)
    return keras.ops.convert_to_numpy(x)


def test_none_is_none():
    assert augmentation_layers(NoAugmentation("none"), seed=0) == []


def test_it_changes_training_batches_and_nothing_else():
    layers = augmentation_layers(FlipRotateZoom("flip_rotate_zoom"), seed=0)
    changed = augment(layers)
    assert changed.shape == PIXELS.shape
    assert not np.allclose(changed, PIXELS)
    assert changed.min() >= 0
    assert changed.max() <= 255
    np.testing.assert_array_equal(augment(layers, training=False), PIXELS)


def test_every_batch_is_changed_otherwise_and_the_seed_repeats_it():
    first = augmentation_layers(FlipRotateZoom("flip_rotate_zoom"), seed=3)
    again = augmentation_layers(FlipRotateZoom("flip_rotate_zoom"), seed=3)
    other = augmentation_layers(FlipRotateZoom("flip_rotate_zoom"), seed=4)
    a, b = augment(first), augment(first)
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(a, augment(again))
    assert not np.allclose(a, augment(other))


@pytest.mark.parametrize(("key", "name"), [("rotation", "rotate"), ("zoom", "zoom")])
def test_strengths_are_the_configured_ones(key, name):
    strong = FlipRotateZoom("flip_rotate_zoom", **{key: 0.5})
    layer = next(x for x in augmentation_layers(strong, seed=0) if x.name == name)
    factor = layer.factor if name == "rotate" else layer.height_factor
    np.testing.assert_allclose(np.abs(factor), 0.5)


def test_layers_compute_in_float32_whatever_the_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = augmentation_layers(FlipRotateZoom("flip_rotate_zoom"), seed=0)
        assert {layer.compute_dtype for layer in layers} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")


def test_every_augmentation_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "augmentation"}
    assert options <= set(BUILDERS)
