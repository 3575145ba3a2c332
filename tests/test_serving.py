"""``mlflow models serve`` of a run's model, asked over HTTP: right answers, or a reason why not."""

import json

import keras
import numpy as np
import pytest

from melanoma_lab.tracking.logged_model import ModelInfo, save_network
from tests.support.serving_server import Serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SIZE = 8


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(7)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))


@pytest.fixture(scope="module")
def server(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("served")
    card = ModelInfo(("a", "melanoma", "nevus"), positive_class="melanoma", image_size=SIZE)
    save_network(network, card, folder / "model")
    serving = Serving(folder / "model", folder / "log.txt")
    try:
        serving.wait()
        yield serving
    finally:
        serving.stop()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.uint8)


def answers(response):
    assert response.status_code == 200, response.text
    return np.array(response.json()["predictions"])


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_one_image_and_several_get_the_networks_answers(server, network, images, n, key):
    expected = network.predict(images[:n], verbose=0)
    found = answers(server.post({key: images[:n].tolist()}))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_input_example_is_answered(server, network):
    example = server.log.parent / "model" / "serving_input_example.json"
    found = answers(server.post(example.read_text()))
    grey = np.full((1, SIZE, SIZE, 3), 127, np.uint8)
    np.testing.assert_allclose(found, network.predict(grey, verbose=0), atol=1e-5)


def deep(value):
    """An image of one value."""
    return [[[[value] * 3] * SIZE] * SIZE]


@pytest.mark.parametrize(("value", "taken"), [("12", 12), (200.9, 200), (True, 1)])
def test_mlflow_makes_bytes_of_numbers(server, network, value, taken):
    """As the pages say of fractions: pixels that were scaled already would all be black."""
    found = answers(server.post({"inputs": deep(value)}))
    expected = network.predict(np.array(deep(taken), np.uint8), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def wrong():
    image = np.zeros((1, SIZE, SIZE, 3), int).tolist()
    return {
        "another size": {"inputs": np.zeros((1, 4, 4, 3), int).tolist()},
        "grey": {"inputs": np.zeros((1, SIZE, SIZE, 1), int).tolist()},
        "no batch": {"inputs": image[0]},
        "numbers in a row": {"inputs": [1, 2, 3]},
        "ragged": {"inputs": [[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]]},
        "words for numbers": {"inputs": deep("dark")},
        "below zero": {"inputs": deep(-1)},
        "above 255": {"inputs": deep(256)},
        "nothing for numbers": {"inputs": deep(None)},
        "another name": {"inputs": {"picture": image}},
        "empty": {"inputs": []},
        "null": {"inputs": None},
        "no JSON of MLflow": {"hello": "world"},
        "a list": [1, 2, 3],
        "a table": {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
    }


@pytest.mark.parametrize("name", wrong())
def test_what_is_no_image_is_refused_in_words(server, network, images, name):
    response = server.post(wrong()[name])
    assert 400 <= response.status_code < 500, (
        f"{name}: {response.status_code} {response.text[:300]}"
    )
    message = response.json()["message"]
    assert message
    assert "Traceback" not in message
    expected = network.predict(images, verbose=0)
    np.testing.assert_allclose(
        answers(server.post({"inputs": images.tolist()})), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{not json", "application/json", 400),
        (b"\xff\xd8\xff\xe0 a photograph", "application/json", 400),
        (b"\xff\xd8\xff\xe0 a photograph", "image/jpeg", 415),
        ("", "application/json", 400),
        ("a,b\n1,2\n", "text/csv", 400),
        (json.dumps({"inputs": "x" * 1000}), "application/json", 400),
    ],
)
def test_what_is_no_json_is_refused(server, images, body, content_type, status):
    response = server.post(body, content_type)
    assert response.status_code == status, response.text[:300]
    assert answers(server.post({"inputs": images.tolist()})).shape == (5, 3)
