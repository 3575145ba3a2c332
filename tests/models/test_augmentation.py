"""What every augmentation must do, whatever it does."""

import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.training_images import (
    CutMix,
    Dermoscopy,
    FlipRotateZoom,
    MixUp,
    NoAugmentation,
    RandAugment,
)
from melanoma_lab.models.augmentation import augment, build_augmentation_layers
from melanoma_lab.models.augmentation_layers import MixingLayer
from melanoma_lab.registry import BUILDERS, OPTIONS

pytestmark = pytest.mark.component

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 24, 24, 3)).astype("uint8")
LABELS = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
WEIGHTS = np.array([1, 2, 3, 1, 2, 3], "float32")

NONE = NoAugmentation("none")
EVERY = {
    "flip_rotate_zoom": FlipRotateZoom("flip_rotate_zoom"),
    "dermoscopy": Dermoscopy("dermoscopy"),
    "randaugment": RandAugment("randaugment", magnitude=20),
    "mixup": MixUp("mixup", alpha=1.0, before=NONE),
    "cutmix": CutMix("cutmix", before=NONE),
}
every = pytest.mark.parametrize("option", EVERY.values(), ids=EVERY)


def augmented(layers, pixels=PIXELS, labels=LABELS, weights=WEIGHTS):
    return [keras.ops.convert_to_numpy(x) for x in augment(layers, (pixels, labels, weights))]


def test_none_is_none():
    assert build_augmentation_layers(NONE, seed=0) == []
    pixels, labels, weights = augmented([])
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(weights, WEIGHTS)


@every
def test_it_changes_training_batches_and_nothing_else(option):
    layers = build_augmentation_layers(option, seed=1)
    pixels, labels, weights = augmented(layers)
    assert pixels.shape == PIXELS.shape
    assert pixels.dtype == np.float32
    assert np.abs(pixels - PIXELS).mean() > 1
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    mixes = isinstance(layers[-1], MixingLayer)
    assert np.allclose(labels, LABELS) != mixes
    assert np.allclose(weights, WEIGHTS) != mixes
    for layer in layers:
        batch = (PIXELS, LABELS, WEIGHTS) if isinstance(layer, MixingLayer) else PIXELS
        untouched = layer(batch, training=False)
        np.testing.assert_array_equal(untouched[0] if mixes else untouched, PIXELS)


@every
def test_every_batch_is_changed_otherwise_and_the_seed_repeats_it(option):
    first, again, other = (build_augmentation_layers(option, seed=seed) for seed in (3, 3, 4))
    a, b = augmented(first), augmented(first)
    assert not np.allclose(a[0], b[0])
    for expected, found in zip(a, augmented(again), strict=True):
        np.testing.assert_array_equal(expected, found)
    assert not np.allclose(a[0], augmented(other)[0])


@every
def test_two_equal_images_of_a_batch_come_out_different(option):
    layers = build_augmentation_layers(option, seed=2)
    equal = np.stack([PIXELS[0]] * 3 + [PIXELS[1]] * 3)
    pixels = augmented(layers, pixels=equal)[0]
    assert not np.allclose(pixels[0], pixels[1]) or not np.allclose(pixels[1], pixels[2])


@every
def test_random_state_is_in_variables_that_continue_it(option):
    first, other = (
        build_augmentation_layers(option, seed=5),
        build_augmentation_layers(option, seed=6),
    )
    augmented(first), augmented(other)
    for saved, restored in zip(first, other, strict=True):
        assert saved.variables
        for source, target in zip(saved.variables, restored.variables, strict=True):
            target.assign(source.value)
    for expected, found in zip(augmented(first), augmented(other), strict=True):
        np.testing.assert_array_equal(expected, found)


@every
def test_half_precision_does_not_round_what_it_computes(option):
    exact = augmented(build_augmentation_layers(option, seed=0))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = build_augmentation_layers(option, seed=0)
        assert {layer.compute_dtype for layer in layers} == {"float32"}
        for expected, found in zip(exact, augmented(layers), strict=True):
            np.testing.assert_array_equal(expected, found)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("key", "name"), [("rotation", "rotate"), ("zoom", "zoom")])
def test_strengths_are_the_configured_ones(key, name):
    strong = FlipRotateZoom("flip_rotate_zoom", **{key: 0.5})
    layer = next(x for x in build_augmentation_layers(strong, seed=0) if x.name == name)
    factor = layer.factor if name == "rotate" else layer.height_factor
    np.testing.assert_allclose(np.abs(factor), 0.5)


def test_every_key_of_dermoscopy_reaches_its_layer():
    still = {"flip": False, "rotation": 0, "crop": 1, "brightness": 0, "contrast": 0}
    still |= {"saturation": 0, "hue": 0, "erase": 0, "erase_area": [0.1, 0.2]}
    layers = build_augmentation_layers(Dermoscopy("dermoscopy", **still), seed=0)
    np.testing.assert_allclose(augmented(layers)[0], PIXELS, atol=1e-3)
    strong = {"flip": True, "rotation": 90, "crop": 0.5, "brightness": 0.5, "contrast": 0.5}
    strong |= {"saturation": 0.5, "hue": 0.2, "erase": 1}
    for key, value in strong.items():
        layers = build_augmentation_layers(Dermoscopy("dermoscopy", **still | {key: value}), seed=0)
        assert np.abs(augmented(layers)[0] - PIXELS).max() > 5, key


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_what_comes_before_a_mixing_is_done_first(kind):
    option = kind(kind.__name__.lower(), before=Dermoscopy("dermoscopy"))
    layers = build_augmentation_layers(option, seed=0)
    assert [layer.name for layer in layers] == ["affine", "colour", "erase", option.name]
    assert len({int(layer.draws.state[0]) for layer in layers}) == 4


def test_every_augmentation_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "augmentation"}
    assert options <= set(BUILDERS)
    assert {name for _, name in options} == {"none", *EVERY}
