import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.architecture import CompactCnn
from melanoma_lab.config.schema.regularisation import L2, Dropout, NoRegularisation, StochasticDepth
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.regularisation import Regulariser

pytestmark = pytest.mark.component


def build(size=64, classes=3, regularisation=None, **options):
    regulariser = Regulariser(regularisation or NoRegularisation("none"), seed=0)
    return build_network(
        CompactCnn("compact_cnn", **options),
        image_size=size,
        n_classes=classes,
        regulariser=regulariser,
    )


def pixels(n=4, size=64):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3)).astype("float32")


def test_it_takes_raw_pixels_and_gives_probabilities():
    probabilities = build().predict(pixels(), verbose=0)
    assert probabilities.shape == (4, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_it_has_a_fifteenth_of_the_seeds_parameters():
    assert build(180, 9).count_params() == 959_209


def test_scaling_is_inside():
    ends = build().get_layer("scale")(np.float32([[[[0, 127.5, 255]]]]))
    np.testing.assert_allclose(ends, [[[[-1, 0, 1]]]], atol=1e-6)


def test_every_block_starts_as_the_identity():
    network, plain = build(), build(blocks=[0, 0, 0, 0])
    for layer in plain.layers:
        layer.set_weights(network.get_layer(layer.name).get_weights())
    np.testing.assert_array_equal(network(pixels()), plain(pixels()))


@pytest.mark.slow
def test_blocks_learn():
    """A block that starts at zero must still receive a gradient, or it would stay there."""
    network = build()
    network.compile("sgd", "categorical_crossentropy")
    before = network.get_layer("stage2_block1_expand").get_weights()[0]
    network.fit(pixels(), np.eye(3)[[0, 1, 2, 0]], verbose=0)
    assert not before.any()
    assert network.get_layer("stage2_block1_expand").get_weights()[0].any()


def test_images_of_a_batch_do_not_influence_each_other():
    network = build()
    alone = network(pixels()[:2], training=True)
    np.testing.assert_allclose(network(pixels(), training=True)[:2], alone, atol=1e-6)


def test_stages_and_blocks_are_configured():
    network = build(filters=[4, 6], blocks=[0, 2], stem=2)
    names = [layer.name for layer in network.layers]
    assert network.get_layer("stage2_widen").filters == 6
    assert [name for name in names if name.endswith("_add")] == [
        "stage2_block1_add",
        "stage2_block2_add",
    ]


def test_images_too_small_for_the_stages_are_refused():
    with pytest.raises(UserError, match=r"dataset.image_size=31: .* expected at least 32"):
        build(31)
    build(32)


def test_as_many_blocks_as_filters_are_asked_for():
    with pytest.raises(UserError, match=r"architecture.blocks: expected .* each of the 2"):
        CompactCnn("compact_cnn", filters=[4, 6], blocks=[1])


def test_dropout_lies_after_the_last_stages():
    network = build(regularisation=Dropout("dropout"))
    rates = {layer.name: layer.rate for layer in network.layers if "dropout" in layer.name}
    assert rates == {"dropout2": 0.15, "dropout3": 0.25, "dropout4": 0.30}


def test_l2_reaches_every_kernel():
    network = build(regularisation=L2("l2", factor=0.5))
    kernels = [w for layer in network.layers for w in layer.weights if w.name == "kernel"]
    expected = 0.5 * sum(float(keras.ops.sum(k**2)) for k in kernels)
    np.testing.assert_allclose(float(sum(network.losses)), expected, rtol=1e-5)


def test_stochastic_depth_reaches_every_block():
    network = build(regularisation=StochasticDepth("stochastic_depth", rate=0.7))
    rates = [layer.rate for layer in network.layers if layer.name.startswith("skip")]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_a_network_without_blocks_has_no_place_for_it():
    with pytest.raises(UserError, match="has no residual blocks"):
        build(blocks=[0, 0, 0, 0], regularisation=StochasticDepth("stochastic_depth"))
