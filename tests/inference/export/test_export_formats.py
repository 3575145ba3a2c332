"""Every format answers what the network answers, whatever the network is made of."""

import functools

import keras
import numpy as np
import pytest

from melanoma_lab.config.schema import Format
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.config.schema.evaluation import Tta
from melanoma_lab.config.schema.regularisation import NoRegularisation
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.data.patient_metadata import AgeScaler, CategoryEncoder, PatientEncoder
from melanoma_lab.inference.ensembles.average import build_mean_network
from melanoma_lab.inference.export import formats
from melanoma_lab.inference.export.serving_signature import (
    build_serving_network,
    convert_to_float32,
)
from melanoma_lab.inference.export.verification import (
    VerificationSample,
    build_verification_inputs,
    choose_sample,
    compare_outputs,
)
from melanoma_lab.models.extended_networks import (
    add_metadata_branch,
    add_metadata_encoding,
    add_test_time_augmentation,
)
from melanoma_lab.models.regularisation import Regulariser
from tests.support.marks import slow
from tests.support.small_backbone import on_a_backbone

pytestmark = pytest.mark.component

ENCODING = PatientEncoder(
    {
        "age": AgeScaler(50.0, 15.0, missing=True),
        "sex": CategoryEncoder(("female", "male"), missing=True),
        "site": CategoryEncoder(("back", "face", "foot"), missing=False),
    }
)

PLAIN = Regulariser(NoRegularisation("none"), 0)


def backbone(policy="float32"):
    """A network with a backbone whose batch normalisation has statistics of its own."""
    keras.config.set_dtype_policy(policy)
    try:
        network = on_a_backbone(None, 16, 3, PLAIN)
    finally:
        keras.config.set_dtype_policy("float32")
    draw = np.random.default_rng(0)
    weights = network.get_weights()
    network.set_weights(
        [draw.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else 2 * w for w in weights]
    )
    return network


def views_in_half_precision():
    return add_test_time_augmentation(backbone("mixed_bfloat16"), Tta.dihedral)


def members_with_metadata():
    members = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        joined = add_metadata_branch(
            backbone(),
            ENCODING.width,
            width=4,
            regulariser=Regulariser(NoRegularisation("none"), 0),
        )
        members.append(
            add_metadata_encoding(add_test_time_augmentation(joined, Tta.flips), ENCODING)
        )
    return build_mean_network(members)


@pytest.fixture(scope="module")
def built():
    """The networks that tests share, by the function that builds them."""
    return functools.cache(lambda build: build())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (views_in_half_precision, Format.litert),
        slow(views_in_half_precision, Format.onnx),
        slow(views_in_half_precision, Format.saved_model),
        slow(members_with_metadata, Format.litert),
        (members_with_metadata, Format.onnx),
        slow(members_with_metadata, Format.saved_model),
    ],
)
def test_answers_are_the_networks(built, build, kind, tmp_path):
    network = built(build)
    plain = convert_to_float32(network)
    pixels = choose_sample(None, None, size=16, resize=Resize.squash, threads=1).pixels
    inputs = build_verification_inputs(pixels, ENCODING.to_dict(), plain)
    several = isinstance(network.input, dict)
    expected = np.asarray(plain.predict_on_batch(inputs if several else pixels))
    assert np.ptp(expected, axis=0).max() > 1e-2, "the network must tell these images apart"
    path = formats.write_format(kind, build_serving_network(plain, tmp_path), tmp_path)
    assert path == tmp_path / formats.EXPORT_BACKENDS[kind].file
    parity = compare_outputs(formats.open_runtime(kind, path), inputs, expected)
    assert parity.greatest < 1e-5
    assert parity.other_class == 0
    with pytest.raises(RunError, match=r"expected finite outputs of shape \(32, 2\)"):
        compare_outputs(formats.open_runtime(kind, path), inputs, expected[:, :2])


def test_half_precision_becomes_float32_with_the_same_weights():
    mixed = views_in_half_precision()
    plain = convert_to_float32(mixed)
    policies = {layer.dtype_policy.name for layer in plain.get_layer("on_a_backbone").layers}
    assert policies == {"float32"}
    for ours, theirs in zip(plain.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert convert_to_float32(plain) is plain


def test_all_that_may_be_unknown_is_asked():
    network = members_with_metadata()
    inputs = build_verification_inputs(
        np.zeros((100, 16, 16, 3), np.uint8), ENCODING.to_dict(), network
    )
    assert set(inputs["sex"].ravel()) == {-1, 0, 1}
    assert set(inputs["site"].ravel()) == {-1, 0, 1, 2}
    assert inputs["age"].min() == -1
    assert inputs["age"].max() > 80
    assert {inputs[name].dtype.name for name in ("sex", "age")} == {"int32", "float32"}


def test_inputs_without_names_are_refused(tmp_path):
    two = [keras.Input((4, 4, 3)), keras.Input((1,))]
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(two[0]), two[1]])
    with pytest.raises(UserError, match="several inputs without names"):
        build_serving_network(keras.Model(two, keras.layers.Dense(2)(joined)), tmp_path)


def test_what_cannot_be_converted_is_said_in_a_line(tmp_path, monkeypatch):
    def fail(network, path):
        raise ValueError("op X is not known\n" * 500)

    kind = formats.EXPORT_BACKENDS[Format.onnx]
    broken = formats.ExportBackend(kind.file, {}, fail, kind.read)
    monkeypatch.setitem(formats.EXPORT_BACKENDS, Format.onnx, broken)
    with pytest.raises(RunError, match=r"formats=onnx: .*ValueError: op X is not known") as caught:
        formats.write_format(Format.onnx, None, tmp_path)
    assert len(str(caught.value)) < 600


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(formats, "_is_installed", lambda module: module != "onnx")
    formats.refuse_missing_packages([Format.saved_model, Format.litert])
    with pytest.raises(UserError, match=r"not installed: onnx\. .*pip install .*\[export\]'"):
        formats.refuse_missing_packages([Format.saved_model, Format.onnx])


def test_without_images_some_are_drawn():
    sample = choose_sample(None, None, size=8, resize=Resize.squash, threads=1)
    assert isinstance(sample, VerificationSample)
    assert "drawn" in sample.told
    assert sample.pixels.shape == (32, 8, 8, 3)
    assert (sample.pixels[0] == 127).all()  # the input example
    assert len(np.unique(sample.pixels)) > 200
