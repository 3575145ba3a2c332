"""Features of a frozen backbone: computed once, kept whole, and as good as computed anew."""

import pickle

import keras
import numpy as np
import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.training.feature_cache import (
    is_cacheable,
    load_or_compute_features,
    why_not_cacheable,
)
from tests.support.marks import slow

pytestmark = pytest.mark.component

DROPOUT = ("regularisation=dropout", "regularisation.rates=[0.3]")
FROZEN = ("finetuning=frozen", "training.epochs=2")
ANEW = "finetuning.cache_features=false"


@pytest.fixture
def cache(tmp_path):
    """A cache of its own for one test."""
    return tmp_path / "features-cache"


@pytest.fixture
def train(train_backbone, cache):
    return lambda *overrides, **more: train_backbone(f"cache={cache}", *overrides, **more)[0]


@pytest.fixture
def assemble(assemble_backbone, cache):
    """All but the fit: features are computed when the parts are put together."""
    return lambda *overrides: assemble_backbone(f"cache={cache}", *overrides)


@pytest.fixture
def small_config(composed, tree):
    return lambda *overrides: composed(
        f"dataset.root={tree}", "dataset=folder", "dataset.image_size=16", *overrides
    )


def kept_files(cache):
    return sorted((cache / "features").glob("*.npy"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm",
    [
        (*FROZEN, "balancing=class_weight"),
        slow(
            (
                *FROZEN,
                "balancing=oversample",
                "regularisation=dropout",
                "regularisation.rates=[0.3]",
            )
        ),
        slow(("finetuning=staged", "finetuning.head_epochs=3")),
    ],
)
def test_kept_features_give_what_computing_them_gives(train, cache, arm):
    anew = train(*arm, ANEW)
    assert not kept_files(cache)
    kept = train(*arm)
    assert len(kept_files(cache)) == 1
    for ours, theirs in zip(kept.fit.history, anew.fit.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
    np.testing.assert_allclose(kept.probabilities, anew.probabilities, rtol=1e-4)
    assert kept.fit.best_epoch == anew.fit.best_epoch


@pytest.mark.slow
def test_the_network_that_is_left_is_whole(train, small_config, cache):
    done = train(*FROZEN)
    data = prepare_data(small_config(), cache=cache, threads=1)
    probabilities = done.network.predict(data.pixels[data.rows], verbose=0)
    np.testing.assert_allclose(probabilities, done.probabilities, rtol=1e-4)


def test_they_are_computed_once_and_give_the_same_bits(train, assemble, cache):
    first = train(*FROZEN)
    (file,) = kept_files(cache)
    status = file.stat()
    again = train(*FROZEN)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assemble(*FROZEN, "optimizer.learning_rate=0.1", "balancing=class_weight")  # a sweep's next
    assert kept_files(cache) == [file]


@pytest.mark.slow
def test_those_of_other_proportions_are_others(assemble, cache):
    assemble(*FROZEN)
    for name in ("crop", "pad"):  # images that are square already: the same, and not taken for it
        assemble(*FROZEN, f"dataset.resize={name}")
    assert len(kept_files(cache)) == 3


@pytest.mark.slow
def test_the_backbone_meets_no_image_of_a_split_that_is_not_measured(
    train, small_config, cache, monkeypatch
):
    met = []
    predict = keras.Model.predict_on_batch

    def noting(model, pixels):
        met.extend(np.asarray(pixels).sum(axis=(1, 2, 3)))
        return predict(model, pixels)

    monkeypatch.setattr(keras.Model, "predict_on_batch", noting)
    some = train(*FROZEN, splits=("train", "val"))
    data = prepare_data(small_config(), cache=cache, threads=1)
    sums = data.pixels[data.rows].sum(axis=(1, 2, 3))
    assert sorted(met) == sorted(sums[data.select_splits(("train", "val"))])
    met.clear()
    whole = train(*FROZEN)
    assert sorted(met) == sorted(sums)
    measured = data.select_splits(("train", "val"))
    np.testing.assert_allclose(some.probabilities, whole.probabilities[measured], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", ["dataset.image_size=20", "training.precision=mixed_bfloat16", "seed=0"]
)
def test_others_are_kept_apart(assemble, cache, other, monkeypatch):
    assemble(*FROZEN)
    if other == "seed=0":  # the same, but for how TensorFlow is told to compute
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assemble(*FROZEN, other)
    assert len(kept_files(cache)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", [slow("cut"), "changed", slow("pickled")])
def test_a_damaged_file_is_made_again(train, assemble, whole_backbone, cache, damage):
    first, *_ = whole_backbone(*FROZEN)
    assemble(*FROZEN)
    (file,) = kept_files(cache)
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(
        {"cut": content[:-30], "changed": content, "pickled": pickle.dumps({"features": 1})}[damage]
    )
    again = train(*FROZEN)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("augmentation=flip_rotate_zoom",), "augmentation=flip_rotate_zoom changes images"),
        slow(
            ("balancing=augmentor", "balancing.per_class=14"),
            "balancing=augmentor creates new images",
        ),
        slow(("training.devices=2", "training.batch_size=8"), "training.devices=2 share"),
    ],
)
def test_what_changes_images_is_said_and_computed(train, small_config, cache, overrides, reason):
    done = train(*FROZEN, *overrides)
    assert not kept_files(cache)
    assert np.isfinite(done.probabilities).all()
    config = small_config(*FROZEN, *overrides)
    data = prepare_data(config, cache=cache, threads=2)
    images = balance(config.balancing, data.training_split(), seed=0, cache_dir=cache)
    assert reason in why_not_cacheable(config, images)
    assert not is_cacheable(config, images)
    for unconcerned in (("finetuning=none",), (FROZEN[0], ANEW)):
        other = small_config(*overrides, *unconcerned)
        assert why_not_cacheable(other, images) is None
        assert not is_cacheable(other, images)


def features_of(backbone, small_config, cache):
    data = prepare_data(small_config(), cache=cache, threads=1)
    return load_or_compute_features(backbone, data, cache=cache, environment={})


def backbone_of(*, activation="relu", pool=True):
    """The same weights whatever is asked for."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2, activation=activation, name="conv")(pixels)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x) if pool else x
    return keras.Model(pixels, x, name="backbone")


def test_a_backbone_with_other_options_and_the_same_weights_has_features_of_its_own(
    small_config, cache
):
    rectified, signed = (
        features_of(backbone_of(activation=activation), small_config, cache).values
        for activation in ("relu", "tanh")
    )
    assert len(kept_files(cache)) == 2
    assert np.min(rectified) >= 0 > np.min(signed)


def test_a_backbone_that_gives_maps_is_refused(small_config, cache):
    with pytest.raises(UserError, match=r"features of shape \(7, 7, 4\).* GlobalAveragePooling2D"):
        features_of(backbone_of(pool=False), small_config, cache)
