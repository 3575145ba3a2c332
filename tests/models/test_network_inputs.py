import keras
import pytest

from melanoma_lab.input_pipeline.batches import get_named_inputs

pytestmark = pytest.mark.component


def test_inputs_have_names_where_a_network_takes_a_dictionary():
    shapes = {"pixels": (4, 4, 3), "age": (1,)}
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    flat = keras.layers.Flatten()(inputs["pixels"])
    network = keras.Model(inputs, keras.layers.Concatenate()([flat, inputs["age"]]))
    assert set(get_named_inputs(network) or ()) == {"pixels", "age"}


def test_a_network_of_images_alone_takes_no_dictionary():
    pixels = keras.Input((4, 4, 3))
    assert get_named_inputs(keras.Model(pixels, keras.layers.Flatten()(pixels))) is None


def test_nor_does_a_sequential_one_that_was_never_called(tmp_path):
    """As one loaded from a user's file: Keras gives it ``inputs`` and no ``input``."""
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()]).save(tmp_path / "x.keras")
    assert get_named_inputs(keras.saving.load_model(tmp_path / "x.keras")) is None
