"""The weights of the published packages do what they do elsewhere: they know photographs."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from melanoma_lab.config.schema.architecture import EfficientNetLite
from melanoma_lab.config.schema.regularisation import L2, Dropout, NoRegularisation, StochasticDepth
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.efficientnet_lite import (
    SCALES,
    _match_layers,
    build_lite_backbone,
    set_torch_weights,
)
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.models.torch_file import read_torch_file
from melanoma_lab.models.weight_files import PACKAGES, find_weights
from tests.support import torch_files

pytestmark = pytest.mark.component

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
PALACE, DAISY = 698, 985
#: name -> side, parameters with ImageNet's 1,000 classes (TensorFlow's figures), photographs
PUBLISHED = {
    "efficientnet_lite0": (224, 4_652_008, {"china.jpg": PALACE, "flower.jpg": DAISY}),
    "efficientnet_lite1": (240, 5_416_680, {"china.jpg": PALACE, "flower.jpg": DAISY}),
    "efficientnet_lite2": (260, 6_092_072, {"china.jpg": PALACE}),
}


def plain(regularisation=None):
    return Regulariser(regularisation or NoRegularisation("none"), seed=0)


def build(size=32, regularisation=None, name="efficientnet_lite0", weights="none"):
    return build_network(
        EfficientNetLite(name, weights),
        image_size=size,
        n_classes=3,
        regulariser=plain(regularisation),
    )


def torch_like(backbone, rng):
    """The tensors that PyTorch would keep of a backbone, with random numbers."""
    tensors = {"_fc.weight": rng.normal(size=(10, 1280)).astype("f4")}
    for layer, prefix in _match_layers(backbone):
        names = ["weight", "bias", "running_mean", "running_var"][: len(layer.weights)]
        for name, weight in zip(names, layer.weights, strict=True):
            shape = tuple(weight.shape)
            if len(shape) == 4:
                depthwise = "depthwise" in layer.name
                shape = tuple(shape[i] for i in ((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
            tensors[f"{prefix}.{name}"] = rng.uniform(0.1, 1, shape).astype("f4")
        if len(names) > 1:
            tensors[f"{prefix}.num_batches_tracked"] = np.array(3)
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_photographs_are_recognised(name):
    package, _ = PACKAGES[name]
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed")
    size, parameters, expected = PUBLISHED[name]
    path = find_weights(EfficientNetLite(name)).path
    tensors = read_torch_file(path)
    backbone = build_lite_backbone(size, *SCALES[name], plain())
    set_torch_weights(backbone, tensors, path)
    learned = sum(np.prod(weight.shape) for weight in backbone.trainable_weights)
    assert learned + 1280 * 1000 + 1000 == parameters
    for file, label in expected.items():
        with Image.open(PHOTOGRAPHS / file) as image:
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
            side = min(image.size)
            left, top = ((length - side) / 2 for length in image.size)
            box = (left, top, left + side, top + side)
            middle = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
        features = np.asarray(backbone(np.stack([pixels, middle]).astype("f4"), training=False))
        scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
        assert scores.argmax(1)[1] == label


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_size_has_the_published_number_of_parameters(name):
    _, parameters, _ = PUBLISHED[name]
    backbone = build_lite_backbone(32, *SCALES[name], plain())
    learned = sum(np.prod(weight.shape) for weight in backbone.trainable_weights)
    assert learned + 1280 * 1000 + 1000 == parameters


def test_every_tensor_finds_its_layer(tmp_path):
    """A file of random numbers, read by the builder, gives what the numbers say."""
    tensors = torch_like(build_lite_backbone(32, 1.0, 1.0, plain()), np.random.default_rng(0))
    path = tmp_path / "mine.pth"
    path.write_bytes(torch_files.saved(tensors, archive=True))
    backbone = build(weights=str(path)).get_layer("backbone")
    kernel = backbone.get_layer("block3a_expand").get_weights()[0]
    np.testing.assert_array_equal(
        kernel, tensors["_blocks.3._expand_conv.weight"].transpose(2, 3, 1, 0)
    )
    kernel = backbone.get_layer("block2b_depthwise").get_weights()[0]
    np.testing.assert_array_equal(
        kernel, tensors["_blocks.2._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    )
    gamma, beta, mean, variance = backbone.get_layer("top_bn").get_weights()
    np.testing.assert_array_equal(gamma, tensors["_bn1.weight"])
    np.testing.assert_array_equal(beta, tensors["_bn1.bias"])
    np.testing.assert_array_equal(mean, tensors["_bn1.running_mean"])
    np.testing.assert_array_equal(variance, tensors["_bn1.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("_blocks.3._bn1.bias"), r"there is no _blocks\.3\._bn1\.bias"),
        (lambda t: t.update({"_conv_head.weight": t["_conv_stem.weight"]}), r"has shape \(32, 3"),
        (lambda t: t.update({"_blocks.16.x": t["_bn0.bias"]}), r"_blocks\.16\.x has no place"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    backbone = build_lite_backbone(32, 1.0, 1.0, plain())
    tensors = torch_like(backbone, np.random.default_rng(0))
    change(tensors)
    with pytest.raises(UserError, match=message):
        set_torch_weights(backbone, tensors, Path("mine.pth"))


def test_it_takes_raw_pixels_and_gives_probabilities():
    network = build()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    probabilities = np.asarray(network(pixels, training=False))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    scale = network.get_layer("backbone").get_layer("scale")
    np.testing.assert_allclose(scale(np.float32([-1, 127, 255])), [-1, 0, 1])


@pytest.mark.slow
def test_regularisation_finds_its_places():
    network = build(regularisation=Dropout("dropout", rates=[0.4]))
    assert network.get_layer("dropout1").rate == 0.4
    backbone = build(regularisation=StochasticDepth("stochastic_depth", 0.2)).get_layer("backbone")
    rates = {layer.name: layer.rate for layer in backbone.layers if "skip" in layer.name}
    assert len(rates) == 9  # of 16 blocks, those that can be skipped
    assert rates["skip3"] == pytest.approx(0.2 * 3 / 16)
    penalised = [
        layer.name
        for layer in build(regularisation=L2("l2")).get_layer("backbone").layers
        if getattr(layer, "kernel_regularizer", None)
    ]
    assert {"stem", "block2a_expand", "top"} <= set(penalised)


def test_images_too_small_are_refused():
    with pytest.raises(UserError, match=r"dataset.image_size=31: .* expected at least 32"):
        build(31)
