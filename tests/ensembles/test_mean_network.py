"""Networks as one that answers with their mean."""

import keras
import numpy as np
import pytest

from melanoma_lab.ensembles.network import load_network, mean_network


def network(seed, *, views=False):
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotNormal(seed))(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.HeNormal(seed))(x)
    model = keras.Model(pixels, x, name="same")
    if views:
        pixels = keras.Input((8, 8, 3), name="pixels")
        model = keras.Model(pixels, model(keras.ops.flip(pixels, 1)), name="same")
    return model


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_it_answers_with_the_mean_and_is_saved(images, tmp_path):
    members = [network(1), network(2), network(3, views=True)]
    mean = mean_network(members)
    expected = np.mean([member.predict(images, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(mean.predict(images, verbose=0), expected, atol=1e-6)
    assert mean.count_params() == sum(member.count_params() for member in members)
    (tmp_path / "data").mkdir()
    mean.save(tmp_path / "data" / "model.keras")
    again = load_network(tmp_path)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)
    # An ensemble of such networks has members within members.
    assert mean_network([again, network(4)]).output_shape == (None, 3)


def test_nothing_in_a_network_is_executed(tmp_path):
    pixels = keras.Input((2,))
    model = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(pixels))
    model.save(tmp_path / "model.keras")
    with pytest.raises((ValueError, TypeError), match=r"(?i)safe|lambda"):
        load_network(tmp_path)


def test_a_folder_without_a_network_is_told(tmp_path):
    with pytest.raises((OSError, ValueError)):
        load_network(tmp_path)
