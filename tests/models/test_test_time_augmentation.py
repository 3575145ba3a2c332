"""Test-time augmentation: the mean over an image's views, in the model itself."""

import keras
import numpy as np
import pytest
from keras import layers

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.models.extended_networks import add_test_time_augmentation

pytestmark = pytest.mark.component

SIDE = 6


@pytest.fixture
def network():
    """Whatever is moved within the image changes what it answers."""
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(
        stddev=0.01, seed=3))(layers.Flatten()(pixels))  # fmt: skip
    return keras.Model(pixels, x, name="small")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.float32)


def by_hand(network, images, tta):
    views = [images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
    if tta is Tta.dihedral:
        views += [np.rot90(view, axes=(1, 2)) for view in views]
    return np.mean([network.predict(view, verbose=0) for view in views], axis=0)


def test_without_views_it_is_the_network(network):
    assert add_test_time_augmentation(network, Tta.none) is network


@pytest.mark.parametrize("tta", [Tta.flips, Tta.dihedral])
def test_it_is_the_mean_over_the_views(network, images, tta):
    model = add_test_time_augmentation(network, tta)
    answers = model.predict(images, verbose=0)
    np.testing.assert_allclose(answers, by_hand(network, images, tta), rtol=1e-5)
    assert np.abs(answers - network.predict(images, verbose=0)).max() > 0.01
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-6)
    assert model.count_params() == network.count_params()


@pytest.mark.parametrize(
    ("tta", "turn"),
    [
        (Tta.flips, lambda x: x[:, ::-1]),
        (Tta.flips, lambda x: x[:, :, ::-1]),
        (Tta.dihedral, lambda x: np.rot90(x, axes=(1, 2))),
        (Tta.dihedral, lambda x: x.transpose(0, 2, 1, 3)),
    ],
)
def test_how_the_camera_was_held_no_longer_matters(network, images, tta, turn):
    model = add_test_time_augmentation(network, tta)
    np.testing.assert_allclose(
        model.predict(turn(images), verbose=0), model.predict(images, verbose=0), rtol=1e-5
    )
    assert np.abs(network.predict(turn(images), verbose=0) - network.predict(images, verbose=0)
                  ).max() > 0.01  # fmt: skip


@pytest.mark.parametrize("tta", [Tta.flips, Tta.dihedral])
def test_the_saved_model_has_the_views(network, images, tta, tmp_path):
    model = add_test_time_augmentation(network, tta)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )
