"""Networks as one that answers with their mean."""

import keras
import numpy as np
import pytest

from melanoma_lab.inference.ensembles.average import build_mean_network
from melanoma_lab.models.safe_loading import load_safely

pytestmark = pytest.mark.component


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
    mean = build_mean_network(members)
    expected = np.mean([member.predict(images, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(mean.predict(images, verbose=0), expected, atol=1e-6)
    assert mean.count_params() == sum(member.count_params() for member in members)
    mean.save(tmp_path / "model.keras")
    again = load_safely(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)
    # An ensemble of such networks has members within members.
    assert build_mean_network([again, network(4)]).output_shape == (None, 3)


def test_members_that_are_told_of_the_patient_take_it_together(images):
    def told(seed):
        inputs = {
            "pixels": keras.Input((8, 8, 3), name="pixels"),
            "age": keras.Input((1,), dtype="float32", name="age"),
        }
        features = keras.layers.GlobalAveragePooling2D()(inputs["pixels"])
        x = keras.layers.Concatenate()([features, inputs["age"]])
        normal = keras.initializers.GlorotNormal(seed)
        x = keras.layers.Dense(3, "softmax", kernel_initializer=normal)(x / 255)
        return keras.Model(inputs, x, name="same")

    members = [told(1), told(2)]
    batch = {"pixels": images.astype("float32"), "age": np.arange(5, dtype="float32")[:, None]}
    mean = build_mean_network(members)
    expected = np.mean([member.predict(batch, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(mean.predict(batch, verbose=0), expected, atol=1e-6)
