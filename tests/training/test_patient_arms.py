"""Training with metadata goes through all that training without them does."""

import dataclasses

import keras
import numpy as np
import pytest

from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.batches import (
    make_evaluation_batches,
    make_training_batches,
    select_batch,
)
from melanoma_lab.input_pipeline.prepare import prepare_data

pytestmark = pytest.mark.component

SMALL = (
    *("dataset=synthetic", "dataset.root=null", "dataset.lesions=30", "training.batch_size=8"),
    "dataset.classes=[melanoma,nevus,vascular lesion]",
)
PATIENT = (*SMALL, "metadata=patient", "training.epochs=2")
FROZEN = (*PATIENT, "finetuning=frozen")


@pytest.fixture
def train(whole_backbone):
    return lambda *overrides: whole_backbone(*overrides)[0]


@pytest.fixture
def prepared(composed, session_cache):
    """From overrides to the data and what balancing makes of their training split."""

    def prepare(*overrides):
        config = composed(
            *PATIENT, "dataset.image_size=16", "dataset.positive_class=null", *overrides
        )
        data = prepare_data(config, cache=session_cache, threads=1)
        split = data.training_split()
        return data, balance(config.balancing, split, seed=0, cache_dir=session_cache)

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize(
    "balancing",
    [
        ("balancing=none",),
        ("balancing=oversample",),
        ("balancing=undersample",),
        ("balancing=class_weight",),
        ("balancing=augmentor", "balancing.per_class=40"),
    ],
)
def test_an_image_has_its_patients_metadata_and_a_copy_its_originals(
    composed, prepared, session_cache, balancing
):
    data, _ = prepared()
    config = composed(*PATIENT, *balancing)
    split = data.training_split()
    numbered = np.arange(len(split), dtype=np.float32)[:, None]
    split = dataclasses.replace(split, metadata=numbered)
    images = balance(config.balancing, split, seed=0, cache_dir=session_cache)
    whose = images.metadata[:, 0].astype(int)
    np.testing.assert_array_equal(images.labels, split.labels[whose])
    original = images.rows < len(split.pixels)
    np.testing.assert_array_equal(images.rows[original], split.rows[whose[original]])
    assert original.all() == (balancing[0] != "balancing=augmentor")


def test_batches_hold_them_beside_the_pixels(prepared):
    data, images = prepared("balancing=oversample")
    (batch,) = make_training_batches(images, batch_size=9, seed=3, first_step=2, last_step=3)
    positions = select_batch(2, n=len(images), batch_size=9, seed=3)
    np.testing.assert_array_equal(batch[0][0], images.gather(positions)[0])
    np.testing.assert_array_equal(batch[0][1], images.metadata[positions])
    val = data.select_split("val")
    known = data.patients.numbers[val]
    batches = make_evaluation_batches(
        data.pixels, data.rows[val], data.labels[val], n_classes=3, batch_size=4, metadata=known
    )
    np.testing.assert_array_equal(np.concatenate([b[0][1] for b in batches]), known)


@pytest.mark.slow
def test_kept_features_give_what_computing_them_gives(train):
    arm = (*PATIENT, "finetuning=staged", "finetuning.head_epochs=1")
    anew = train(*arm, "finetuning.cache_features=false")
    kept = train(*arm)
    for ours, theirs in zip(kept.fit.history, anew.fit.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
    np.testing.assert_allclose(kept.probabilities, anew.probabilities, rtol=1e-4)


@pytest.mark.slow
def test_it_does_something_and_each_fact_does(train):
    arms = [
        train(*FROZEN, *more).probabilities
        for more in ((), ("metadata=none",), ("metadata.columns=[age]",), ("metadata.width=3",))
    ]
    for i, one in enumerate(arms):
        assert not any(np.allclose(one, other) for other in arms[i + 1 :])


def test_the_network_that_is_left_takes_raw_values(train, prepared):
    done = train(*FROZEN)
    data, _ = prepared()
    assert isinstance(done.network, keras.Model)
    columns = done.encoding.columns
    taken = {
        "pixels": data.pixels[data.rows],
        "age": data.manifest[["age"]].to_numpy("float32"),
        **{
            name: columns[name].codes(list(data.manifest[name])).astype("int32")[:, None]
            for name in ("sex", "site")
        },
    }
    np.testing.assert_allclose(
        done.network.predict(taken, verbose=0), done.probabilities, rtol=1e-3, atol=1e-6
    )
    permuted = taken | {"age": taken["age"][::-1]}
    assert not np.allclose(done.network.predict(permuted, verbose=0), done.probabilities, rtol=1e-3)


@pytest.mark.slow
def test_several_devices_views_and_half_precision_go_with_it(train):
    more = ("training.devices=2", "training.precision=mixed_bfloat16", "evaluation.tta=flips")
    done = train(*FROZEN, *more)
    assert done.probabilities.dtype == np.float32
    np.testing.assert_allclose(done.probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_a_continued_run_has_the_bits_of_a_whole_one(train_backbone):
    arm = (*PATIENT, "finetuning=staged", "finetuning.head_epochs=1")
    arm += ("augmentation=mixup", "regularisation=dropout")
    whole, _, checkpoints = train_backbone(*arm, "regularisation.rates=[0.3]")
    assert np.isfinite(whole.probabilities).all()
    continued, _, _ = train_backbone(*arm, "regularisation.rates=[0.3]", start=checkpoints[1])
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)
