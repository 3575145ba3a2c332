import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from melanoma_lab.config.schema.architecture import EfficientNetLite, KerasApplication
from melanoma_lab.config.schema.regularisation import L2, NoRegularisation
from melanoma_lab.core.errors import UserError
from melanoma_lab.models import backbones
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.regularisation import Regulariser
from tests.support.marks import slow

pytestmark = pytest.mark.component

#: The smallest is built by the fast tests, the others by the slow ones.
APPLICATIONS = [
    name if name == "mobilenetv3_small" else slow(name) for name in backbones.APPLICATIONS
]


def build(name="mobilenetv3_small", weights="none", classes=3, regularisation=None, size=32):
    option = EfficientNetLite if "lite" in name else KerasApplication
    return build_network(
        option(name, weights),
        image_size=size,
        n_classes=classes,
        regulariser=Regulariser(regularisation or NoRegularisation("none"), seed=0),
    )


def answers(network, pixels):
    """Computed once, without a graph: its compilation takes longer than a few images."""
    return np.asarray(network(pixels, training=False))


def backbone_weights(network):
    return network.get_layer("backbone").get_weights()


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_takes_raw_pixels(tmp_path, name):
    network = build(name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    probabilities = answers(network, pixels)
    assert probabilities.shape == (2, 3)
    assert probabilities.dtype == np.float32
    scaled = [layer for layer in network.get_layer("backbone").layers[:4] if not layer.weights]
    assert any(type(layer).__name__ in {"Rescaling", "Normalization"} for layer in scaled)
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_array_equal(answers(again, pixels), probabilities)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_has_no_regularisation_of_its_own(name):
    network = build(name)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    for layer in network.get_layer("backbone").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    np.testing.assert_allclose(network(pixels, training=True), network(pixels, training=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("network.keras", "mobilenetv3_small"),
        slow("backbone.keras", "efficientnet_lite0"),
        slow("backbone.weights.h5", "mobilenetv3_small"),
        ("backbone.weights.h5", "efficientnet_lite0"),
    ],
)
def test_weights_of_a_saved_network_are_taken(tmp_path, name, kind):
    other = build(name, classes=5)
    path = tmp_path / kind
    saved = other if kind == "network.keras" else other.get_layer("backbone")
    (saved.save_weights if kind.endswith("h5") else saved.save)(path)
    network = build(name, str(path))
    assert network.output_shape == (None, 3)
    for ours, theirs in zip(backbone_weights(network), backbone_weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    fresh = backbone_weights(build(name))
    assert any((a != b).any() for a, b in zip(fresh, backbone_weights(other), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_what_keras_downloads_gives_keras_features(tmp_path, monkeypatch, name):
    """A file as Keras publishes them, of a network as Keras builds it."""
    application = backbones.APPLICATIONS[name]
    theirs = application(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    rng = np.random.default_rng(0)
    theirs.set_weights([rng.uniform(0.5, 1, w.shape) * 0.1 for w in theirs.get_weights()])
    with h5py.File(tmp_path / "published.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: str(tmp_path / "published.h5"))
    ours = build(name, "imagenet").get_layer("backbone")
    pixels = rng.integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expected = answers(theirs, pixels)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(answers(ours, pixels), expected)


@pytest.mark.parametrize("name", ["mobilenetv3_small", "efficientnet_lite0"])
@pytest.mark.parametrize("kind", ["w.keras", "w.weights.h5", "w.h5"])
def test_what_holds_no_weights_of_this_network_is_refused(tmp_path, name, kind):
    path = tmp_path / kind
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(UserError, match=rf"{kind}: no weights of architecture={name} can be read"):
        build(name, str(path))


@pytest.mark.slow
def test_the_weights_of_another_network_are_refused(tmp_path):
    build("efficientnet_lite0").save(tmp_path / "lite.keras")
    with pytest.raises(UserError, match="no weights of architecture=mobilenetv3_small"):
        build("mobilenetv3_small", str(tmp_path / "lite.keras"))


def test_other_kinds_of_files_are_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"takes weights from files of Keras, .keras and .h5\."):
        build("mobilenetv3_small", str(tmp_path / "weights.bin"))
    with pytest.raises(UserError, match=r"\.keras and \.h5, and PyTorch's \.pth\."):
        build("efficientnet_lite0", str(tmp_path / "weights.bin"))


def test_code_in_a_saved_network_is_not_run(tmp_path):
    inputs = keras.Input((32, 32, 3))
    hostile = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1, name="trap")(inputs))
    hostile.save(tmp_path / "trap.keras")
    with pytest.raises(UserError, match="no weights of architecture"):
        build("mobilenetv3_small", str(tmp_path / "trap.keras"))


@pytest.mark.parametrize("member", ["assets/x", "config.json", "model.weights.h5"])
def test_an_archive_that_was_tampered_with_is_refused(tmp_path, member):
    """One file too many, or damaged bytes in one, at which zipfile and HDF5 raise their own."""
    path = tmp_path / "mobile.keras"
    build().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        if member not in archive.namelist():
            archive.writestr(member, b"x")
        else:
            at = archive.getinfo(member).header_offset + 10_000
            damaged = bytearray(path.read_bytes())
            damaged[at] ^= 255
    if not member.startswith("assets"):
        path.write_bytes(damaged)
    with pytest.raises(
        UserError, match=r"mobile\.keras: no weights of architecture=mobilenetv3_small"
    ):
        build(weights=str(path))
    assert {p.name for p in tmp_path.rglob("*")} == {"mobile.keras"}


def test_the_h5_of_another_network_is_refused(tmp_path):
    build("efficientnet_lite0").get_layer("backbone").save_weights(tmp_path / "lite.weights.h5")
    with pytest.raises(UserError, match="no weights of architecture=mobilenetv3_small"):
        build(weights=str(tmp_path / "lite.weights.h5"))


def test_penalties_are_on_the_head_alone():
    network = build(regularisation=L2("l2", 0.5))
    kernel = network.get_layer("probabilities").kernel
    assert float(sum(network.losses)) == pytest.approx(0.5 * float((np.array(kernel) ** 2).sum()))
