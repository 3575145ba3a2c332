"""Metadata in a network: joined to its features, mixed as images are, raw in what is kept."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.config.schema.regularisation import L2, Dropout, NoRegularisation
from melanoma_lab.core.errors import UserError
from melanoma_lab.data.patient_metadata import (
    AgeScaler,
    CategoryEncoder,
    PatientEncoder,
    fit_patient_encoder,
)
from melanoma_lab.models.augmentation import augment
from melanoma_lab.models.augmentation_layers import CutMixLayer, MixUpLayer
from melanoma_lab.models.extended_networks import (
    BRANCH,
    add_metadata_branch,
    add_metadata_encoding,
    add_test_time_augmentation,
)
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.training.finetuning import extract_head
from tests.support.small_backbone import LAST, on_a_backbone

pytestmark = pytest.mark.component

SIDE, K = 16, 3
WORDS = ["", "f", "m"]
TRAIN = pd.DataFrame({"age": [30.0, 60.0, np.nan], "sex": ["m", "f", "m"], "site": ["b", "", "a"]})
ENCODING = fit_patient_encoder(TRAIN, ["age", "sex", "site"])
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, SIDE, SIDE, 3)).astype("float32")
NUMBERS = RNG.normal(size=(4, ENCODING.width)).astype("float32")


def joined(regularisation=None, **changes):
    regulariser = Regulariser(regularisation or NoRegularisation("none"), seed=0)
    keras.utils.set_random_seed(0)
    network = on_a_backbone(None, SIDE, K, regulariser)
    return add_metadata_branch(
        network, ENCODING.width, **{"width": 5, "regulariser": regulariser} | changes
    )


def answers(network, *inputs):
    tensors = tuple(map(keras.ops.convert_to_tensor, inputs))
    return keras.ops.convert_to_numpy(network(tensors, training=False))


def test_both_the_image_and_the_patient_count():
    network = joined()
    here = answers(network, IMAGES, NUMBERS)
    np.testing.assert_allclose(here.sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(here, answers(network, IMAGES, NUMBERS[::-1]))
    assert not np.allclose(here, answers(network, IMAGES[::-1] * 0, NUMBERS))
    assert network.name == "on_a_backbone"


def test_the_penalty_is_on_its_kernels_too():
    network = joined(L2("l2", factor=0.5))
    assert network.get_layer(BRANCH).kernel_regularizer is not None


def test_a_network_that_ends_otherwise_is_refused():
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Softmax()(layers.Dense(K)(layers.GlobalAveragePooling2D()(pixels)))
    with pytest.raises(
        UserError, match=r"architecture=mine cannot use patient metadata.* is a Softmax"
    ):
        add_metadata_branch(
            keras.Model(pixels, x, name="mine"),
            2,
            width=4,
            regulariser=Regulariser(NoRegularisation("none"), 0),
        )


@pytest.mark.parametrize("regularisation", [None, Dropout("dropout", rates=[0.3])])
def test_a_head_takes_features_and_metadata(tmp_path, regularisation):
    network = joined(regularisation)
    expected = answers(network, IMAGES, NUMBERS)
    features = network.get_layer("backbone")(keras.ops.convert_to_tensor(IMAGES))
    for _ in range(2):  # a run takes it more than once
        head = extract_head(network)
        np.testing.assert_allclose(answers(head, features, NUMBERS), expected, rtol=1e-5)
    paths = {variable.path for variable in head.trainable_variables}
    assert paths == {f"{name}/{part}" for name in (BRANCH, LAST) for part in ("kernel", "bias")}
    network.save(tmp_path / "network.keras")  # its place in the network is not lost


@pytest.mark.parametrize("tta", [Tta.none, Tta.flips])
def test_what_is_kept_takes_raw_values_and_is_read_in_safe_mode(tmp_path, tta):
    network = add_test_time_augmentation(joined(), tta)
    raw = pd.DataFrame(
        {
            "age": [30.0, np.nan, 45.0, -1.0],
            "sex": ["m", "", "f", "new"],
            "site": ["a", "b", "", "c"],
        }
    )
    encoded = ENCODING.encode(raw.assign(age=raw["age"].where(raw["age"] >= 0)))
    expected = answers(network, IMAGES, encoded)
    add_metadata_encoding(network, ENCODING).save(tmp_path / "kept.keras")
    kept = keras.models.load_model(tmp_path / "kept.keras", safe_mode=True)
    taken = {"pixels": IMAGES.astype("uint8"), "age": raw[["age"]].to_numpy("float32")}
    for name in ("sex", "site"):
        codes = ENCODING.columns[name].codes(list(raw[name]))
        taken[name] = codes.astype("int32")[:, None]
    np.testing.assert_allclose(kept.predict(taken, verbose=0), expected, rtol=1e-4, atol=1e-6)


def test_one_fact_alone_is_taken_too():
    one = PatientEncoder({"sex": CategoryEncoder(("f", "m"), missing=False)})
    other = PatientEncoder({"age": AgeScaler(50, 10, missing=False)})
    for encoding, code in (
        (one, np.array([[1], [0], [-1], [7]], "int32")),
        (other, np.ones((4, 1))),
    ):
        regulariser = Regulariser(NoRegularisation("none"), seed=0)
        network = on_a_backbone(None, SIDE, K, regulariser)
        network = add_metadata_branch(network, encoding.width, width=2, regulariser=regulariser)
        kept = add_metadata_encoding(network, encoding)
        taken = {"pixels": IMAGES, next(iter(encoding.columns)): code.astype(code.dtype)}
        assert np.isfinite(kept.predict(taken, verbose=0)).all()


@pytest.mark.parametrize("kind", [MixUpLayer, CutMixLayer])
def test_metadata_are_mixed_in_the_shares_of_the_labels(kind):
    labels = np.eye(4, dtype="float32")
    ones = np.ones(4, "float32")
    layer = kind(alpha=1.0, seed=1)
    batch = ((IMAGES, 10 * labels), labels, ones)
    (pixels, metadata), mixed, _ = augment([layer], batch)
    np.testing.assert_allclose(metadata, 10 * keras.ops.convert_to_numpy(mixed), rtol=1e-4)
    assert not np.allclose(mixed, labels)
    layer = kind(alpha=1.0, seed=1)
    alone, alike, _ = augment([layer], (IMAGES, labels, ones))
    np.testing.assert_array_equal(alone, pixels)  # with or without, the images are the same
    np.testing.assert_array_equal(alike, mixed)


def test_other_augmentation_lets_them_be():
    flip = layers.RandomFlip("horizontal", seed=0)
    (pixels, metadata), _, _ = augment([flip], ((IMAGES, NUMBERS), np.eye(4), np.ones(4)))
    np.testing.assert_array_equal(metadata, NUMBERS)
    assert not np.array_equal(pixels, IMAGES)
