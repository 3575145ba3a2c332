"""Grad-CAM against networks of which it is known where they look, and against its closed form."""

import keras
import numpy as np
import pytest
from keras import layers

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.config.schema.regularisation import Regularisation
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.patient_metadata import AgeScaler, PatientEncoder
from melanoma_lab.inference.ensembles.average import build_mean_network
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.extended_networks import (
    add_metadata_branch,
    add_metadata_encoding,
    add_test_time_augmentation,
)
from melanoma_lab.models.grad_cam import GradCam, trace_feature_maps
from melanoma_lab.models.regularisation import Regulariser
from tests.support.marks import slow

pytestmark = pytest.mark.component

SIDE, CLASSES = 32, 4
QUADRANTS = [(slice(0, 16), slice(0, 16)), (slice(0, 16), slice(16, 32)),
             (slice(16, 32), slice(0, 16)), (slice(16, 32), slice(16, 32))]  # fmt: skip


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


def of_colours(last="softmax", sharpness=1.0):
    """Class k is how much of the image has colour k: red, green, blue; the fourth is none."""
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(pixels)
    conv = layers.Conv2D(3, 1, activation="relu", use_bias=False)
    x = layers.Dropout(0.5)(layers.MaxPooling2D()(conv(x)))
    x = layers.GlobalAveragePooling2D()(x)
    dense = layers.Dense(CLASSES, activation="softmax" if last == "softmax" else None, name="head")
    x = dense(x)
    conv.set_weights([np.eye(3, dtype=np.float32)[None, None]])
    dense.set_weights([sharpness * np.eye(3, CLASSES), np.zeros(CLASSES)])
    if last == "layer":
        x = layers.Softmax()(x)
    if last == "activation":
        x = layers.Activation("softmax", dtype="float32")(x)
    if last == "operation":
        x = keras.ops.softmax(x)
    return keras.Model(pixels, x, name="of_colours")


def of_a_quadrant(k):
    """Whatever the image shows, it sees one quadrant of it."""
    top, left = (16 * (k // 2), 16 * (k % 2))
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Cropping2D(((top, 16 - top), (left, 16 - left)))(pixels)
    x = layers.ZeroPadding2D(((top, 16 - top), (left, 16 - left)))(x)
    # Seeded, and positive: drawn by chance, filters may all be silent.
    positive, drawn = (keras.initializers.RandomUniform(low, 1, seed=k) for low in (0, -1))
    x = layers.Conv2D(4, 1, use_bias=False, activation="relu", kernel_initializer=positive)(x)
    dense = layers.Dense(CLASSES, activation="softmax", kernel_initializer=drawn)
    return keras.Model(pixels, dense(layers.Flatten()(x)))


def pooled(seed=0, n_maps=5, name="pooled"):
    """Convolutions, global average pooling, one dense layer: Zhou's network."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = layers.Conv2D(n_maps, 5, strides=4, padding="same", activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return keras.Model(pixels, x, name=name)


def patches():
    """An image that is red, green and blue in its first three quadrants."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for k in range(3):
        pixels[(*QUADRANTS[k], k)] = 200
    return pixels


def inside(heat, k):
    """The share of a map that lies in a quadrant."""
    return heat[QUADRANTS[k]].sum() / heat.sum()


# Where it is known by construction


@pytest.mark.parametrize("last", ["softmax", "layer", "activation", "operation"])
def test_each_class_lights_up_what_speaks_for_it(last):
    heat = GradCam(of_colours(last))(np.stack([patches()] * 4), np.arange(4))
    for k in range(3):
        assert inside(heat[k], k) > 0.95
        assert heat[k].max() == 1
    assert (heat[3] == 0).all()
    assert heat.min() >= 0
    assert heat.dtype == np.float32


@pytest.mark.parametrize("k", range(4))
def test_a_network_that_sees_one_quadrant_lights_up_that(images, k):
    heat = GradCam(of_a_quadrant(k))(images.repeat(4, axis=0), np.tile(np.arange(4), 3))
    spoken = heat.max(axis=(1, 2)) > 0
    assert spoken.any()
    assert [inside(one, k) for one in heat[spoken]] == pytest.approx([1] * spoken.sum())


def test_it_is_of_the_score_and_not_of_the_probability():
    """Where a probability is 1 its gradient is 0, and its map would be."""
    network = of_colours(sharpness=2e4)
    image = patches()[None]
    image[..., 0] //= 2
    assert network.predict(image, verbose=0).tolist() != [[0.25] * 4]
    assert set(network.predict(image, verbose=0)[0]) <= {0, 0.5}
    for k in range(3):
        assert inside(GradCam(network)(image, np.array([k]))[0], k) > 0.95


def test_it_is_the_class_activation_map_where_there_is_one(images):
    """Zhou et al.: the sum of the maps weighted by the class's row of the dense layer."""
    network = pooled()
    maps = keras.Model(network.input, network.get_layer("conv").output).predict(images, verbose=0)
    kernel, _ = network.get_layer("head").get_weights()
    for k in range(CLASSES):
        expected = np.maximum(maps @ kernel[:, k], 0)
        expected = keras.ops.convert_to_numpy(
            keras.ops.image.resize(expected[..., None], (SIDE, SIDE), "bilinear")
        )[..., 0]
        highest = expected.max(axis=(1, 2), keepdims=True)
        heat = GradCam(network)(images, np.full(3, k))
        np.testing.assert_allclose(heat, expected / np.maximum(highest, 1e-12), atol=1e-5)


def test_each_image_is_explained_by_itself(images):
    """Whatever it stands beside, and however many at once."""
    network = pooled()
    many = np.concatenate([images] * 7)
    classes = np.arange(len(many)) % CLASSES
    heat = GradCam(network)(many, classes)
    for i in (0, 5, 20):
        alone = GradCam(network)(many[i : i + 1], classes[i : i + 1])
        np.testing.assert_allclose(heat[i : i + 1], alone, atol=1e-5)
    assert GradCam(network)(many[:0], classes[:0]).shape == (0, SIDE, SIDE)


def test_random_weights_give_another_map(images):
    """Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: no edge detector."""
    trained, random = pooled(seed=0), pooled(seed=1)
    classes = np.zeros(3, int)
    before, after = (
        GradCam(trained)(images, classes),
        GradCam(random)(images, classes),
    )
    for one, other in zip(before, after, strict=True):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.7
    # The last layer alone is enough.
    head = trained.get_layer("head")
    head.set_weights([random.get_layer("head").get_weights()[0][::-1], head.get_weights()[1]])
    assert np.abs(GradCam(trained)(images, classes) - before).mean() > 0.02


# Whatever surrounds it


def test_a_backbone_within_is_looked_into(images):
    flat = pooled()
    pixels = keras.Input((SIDE, SIDE, 3))
    inner = keras.Model(flat.input, flat.layers[-2].output, name="backbone")
    x = layers.Dropout(0.5)(inner(pixels))
    head = layers.Dense(CLASSES, activation="softmax")
    network = keras.Model(pixels, head(x))
    head.set_weights(flat.get_layer("head").get_weights())
    classes = np.arange(3)
    np.testing.assert_allclose(
        GradCam(network)(images, classes),
        GradCam(flat)(images, classes),
        atol=1e-6,
    )


def test_of_several_views_it_is_the_image_as_it_is(images):
    network, classes = pooled(), np.arange(3)
    for tta in (Tta.flips, Tta.dihedral):
        np.testing.assert_allclose(
            GradCam(add_test_time_augmentation(network, tta))(images, classes),
            GradCam(network)(images, classes),
            atol=1e-6,
        )


def test_of_an_ensemble_it_is_the_mean_of_the_members(images):
    members = [pooled(0), add_test_time_augmentation(pooled(1), Tta.flips), of_colours()]
    classes = np.arange(3)
    alone = np.mean([GradCam(member)(images, classes) for member in members], axis=0)
    together = GradCam(build_mean_network(members))(images, classes)
    np.testing.assert_allclose(together, alone / alone.max(axis=(1, 2), keepdims=True), atol=1e-5)


def test_metadata_pass_through(images):
    scale = AgeScaler(mean=50.0, sd=10.0, missing=True)
    regulariser = Regulariser(Regularisation(), seed=0)
    joined = add_metadata_branch(pooled(), scale.width, width=3, regulariser=regulariser)
    ages = np.array([[30.0], [70.0], [np.nan]], np.float32)
    encoded = scale.encode(ages[:, 0].astype(np.float64))
    classes = np.arange(3)
    heat = GradCam(joined)(images, classes, [encoded])
    assert (heat.max(axis=(1, 2)) == 1).any()
    raw = add_metadata_encoding(
        add_test_time_augmentation(joined, Tta.flips), PatientEncoder({"age": scale})
    )
    np.testing.assert_allclose(GradCam(raw)(images, classes, [ages]), heat, atol=1e-5)
    with pytest.raises(ValueError, match="1 inputs beside pixels"):
        GradCam(joined)(images, classes)


def test_a_file_does_as_well_and_the_network_stays_as_it_was(images, tmp_path):
    network = build_mean_network([add_test_time_augmentation(pooled(0), Tta.flips), pooled(1)])
    network.save(tmp_path / "before.keras")
    answers, config = network.predict(images, verbose=0), network.to_json()
    heat = GradCam(network)(images, np.arange(3))
    assert network.to_json() == config
    np.testing.assert_array_equal(network.predict(images, verbose=0), answers)
    network.save(tmp_path / "after.keras")
    for name in ("before", "after"):
        again = keras.saving.load_model(tmp_path / f"{name}.keras", safe_mode=True)
        np.testing.assert_array_equal(again.predict(images, verbose=0), answers)
        np.testing.assert_allclose(GradCam(again)(images, np.arange(3)), heat, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_places", "n_maps"),
    [
        ("vgg5", 4, 512),  # before the last pooling
        ("compact_cnn", 2, 256),
        ("efficientnet_lite0", 2, 1280),
        ("mobilenetv3_small", 2, 576),
        slow("efficientnetv2_b0", 2, 1280),
        slow("convnext_tiny", 2, 768),
    ],
)
def test_every_architecture_has_maps(composed, name, n_places, n_maps):
    """The last that say where, and none of a single place, as squeezing ones are."""
    fresh = [] if name in {"vgg5", "compact_cnn"} else ["architecture.weights=none"]
    config = composed(f"architecture={name}", *fresh)
    network = build_network(
        config.architecture,
        image_size=64,
        n_classes=CLASSES,
        regulariser=Regulariser(config.regularisation, seed=0),
    )
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    (answer,) = trace_feature_maps(network, [images.astype(np.float32)])
    assert answer.maps.values.shape == (2, n_places, n_places, n_maps)
    np.testing.assert_allclose(
        keras.ops.softmax(answer.scores), network(images, training=False), atol=1e-5
    )
    heat = GradCam(network)(images, np.array([0, 3]))
    assert heat.shape == (2, 64, 64)
    assert np.isfinite(heat).all()


def test_it_is_what_comes_of_the_activation(composed):
    """The bare output of a convolution may have its signs turned by what normalises it."""
    config = composed("architecture=efficientnet_lite0", "architecture.weights=none")
    regulariser = Regulariser(config.regularisation, seed=0)
    network = build_network(
        config.architecture, image_size=32, n_classes=CLASSES, regulariser=regulariser
    )
    (answer,) = trace_feature_maps(network, [np.full((1, 32, 32, 3), 90, np.float32)])
    assert keras.ops.min(answer.maps.values) >= 0


def test_a_sequential_network_is_looked_into(images):
    network = keras.Sequential([
        keras.Input((SIDE, SIDE, 3)),
        keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu")]),
        layers.GlobalAveragePooling2D(),
        layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip
    explain = GradCam(network)
    assert explain(images, np.arange(3)).shape == (3, SIDE, SIDE)


# What it cannot be asked of


def test_a_network_without_a_convolution_is_refused(images):
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x))
    with pytest.raises(UserError, match="No Grad-CAM of flat: it has no feature maps of a convol"):
        GradCam(keras.Model(pixels, x, name="flat"))(images, np.arange(3))


def test_another_ending_is_refused(images):
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(pixels))
    x = layers.Dense(CLASSES, activation="sigmoid")(x)
    with pytest.raises(UserError, match=r"a Dense layer with sigmoid; expected a\s+softmax"):
        GradCam(keras.Model(pixels, x, name="odd"))(images, np.arange(3))
