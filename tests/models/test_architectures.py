import numpy as np
import pytest

from melanoma_lab.config.schema.architecture import Vgg5
from melanoma_lab.config.schema.regularisation import L2, Dropout, NoRegularisation
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.models.trivial_classifiers import build_trivial_classifier
from melanoma_lab.registry import BUILDERS, OPTIONS

pytestmark = pytest.mark.component


def build(size=32, classes=3, regularisation=None, **options):
    regulariser = Regulariser(regularisation or NoRegularisation("none"), seed=0)
    return build_network(
        Vgg5("vgg5", **options), image_size=size, n_classes=classes, regulariser=regulariser
    )


def test_the_seeds_network_has_its_parameters():
    assert build(180, 9).count_params() == 14_686_025


def test_it_takes_raw_pixels_and_gives_probabilities():
    network = build()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    probabilities = network.predict(pixels, verbose=0)
    assert probabilities.shape == (4, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_scaling_is_inside():
    """Brighter pixels must not saturate the network: the first layer divides by 255."""
    network = build()
    scaled = network.get_layer("scale")(np.full((1, 32, 32, 3), 255, np.uint8))
    np.testing.assert_allclose(scaled, 1, rtol=1e-6)


def test_images_too_small_for_the_blocks_are_refused():
    with pytest.raises(UserError, match=r"dataset.image_size=31: .* expected at least 32"):
        build(31)


def test_filters_and_units_are_configured():
    network = build(8, filters=[4, 6], dense_units=5)
    assert network.get_layer("conv2").filters == 6
    assert network.get_layer("dense").units == 5


def test_dropout_lies_after_the_last_blocks_at_the_seeds_rates():
    network = build(regularisation=Dropout("dropout"))
    rates = {layer.name: layer.rate for layer in network.layers if "dropout" in layer.name}
    assert rates == {"dropout3": 0.15, "dropout4": 0.25, "dropout5": 0.30}
    names = [layer.name for layer in network.layers]
    assert names[names.index("pool3") + 1] == "dropout3"


def test_dropout_changes_training_and_nothing_else():
    network = build(regularisation=Dropout("dropout"))
    plain = build()
    plain.set_weights(network.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    training = [network(pixels, training=True).numpy() for _ in range(2)]
    assert not np.allclose(training[0], training[1])
    np.testing.assert_array_equal(network(pixels, training=False), plain(pixels))


def test_more_rates_than_blocks_are_refused():
    with pytest.raises(UserError, match="3 rates for a network of 2 blocks"):
        build(filters=[4, 4], regularisation=Dropout("dropout"))


def test_l2_adds_the_squared_kernels_to_the_loss():
    network = build(regularisation=L2("l2", factor=0.5))
    kernels = [w for layer in network.layers for w in layer.weights if w.name == "kernel"]
    expected = 0.5 * sum(float((k.numpy() ** 2).sum()) for k in kernels)
    np.testing.assert_allclose(float(sum(network.losses)), expected, rtol=1e-5)
    assert build().losses == []


def test_every_architecture_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "architecture"}
    assert build_trivial_classifier  # its module declares those that are no networks
    assert options <= set(BUILDERS)
