"""A fit that goes on from a checkpoint has the bits of one that never stopped."""

import keras
import numpy as np
import pytest

from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import RunError
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.training.checkpoint import read_checkpoint, write_checkpoint
from melanoma_lab.training.fit import read_history
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.trainer import build_training_setup, train_network
from tests.support.marks import slow

pytestmark = pytest.mark.component

SMALL = (
    "dataset=folder",
    "dataset.image_size=16",
    "architecture.filters=[4,8]",
    "architecture.dense_units=8",
    "training.batch_size=4",
)
DROPOUT = ("regularisation=dropout", "regularisation.rates=[0.3,0.3]")
TURNED = "augmentation=flip_rotate_zoom"
PLATEAU = ("schedule=plateau", "schedule.patience=1", "training.monitor=val_loss")
HALF = "training.precision=mixed_float16"


class Kept:
    """Every epoch's checkpoint, by way of the disk."""

    def __init__(self, folder):
        self.folder, self.of_epoch = folder, {}

    def save_if_affordable(self, take, *, last):
        checkpoint = read_checkpoint(write_checkpoint(take(), self.folder))
        self.of_epoch[checkpoint.epoch] = checkpoint


@pytest.fixture
def trained(composed, tree, tmp_path, session_cache):
    """Train with overrides, in fresh objects, from a checkpoint or from the start."""

    def run(*overrides, start=None):
        config = composed(f"dataset.root={tree}", *SMALL, *overrides)
        data = prepare_data(config, cache=session_cache, threads=2)
        images = balance(config.balancing, data.training_split(), seed=0, cache_dir=session_cache)
        start_backend(
            threads=count_available_threads(),
            seed=config.seed,
            precision=config.training.precision,
            devices=config.training.devices,
        )
        keras.utils.set_random_seed(0 if start is None else 99)  # nothing global may be needed
        kept, told = Kept(tmp_path), []
        done = train_network(
            config,
            data,
            images,
            build_training_setup(config, data, images),
            on_step=lambda step, figures: None,
            on_epoch=lambda epoch, figures: told.append(epoch),
            start=start,
            checkpoints=kept,
        )
        return done, kept.of_epoch, told

    yield run
    start_backend(threads=count_available_threads(), seed=0, precision=Precision.float32)


def without_times(history):
    return [{k: v for k, v in e.items() if "second" not in k} for e in history]


@pytest.mark.parametrize(
    ("overrides", "epoch"),
    [
        slow(["balancing=augmentor", "balancing.per_class=9", "training.patience=2"], 2),
        slow(["balancing=oversample", "optimizer=sgd", "optimizer.momentum=0.9", HALF], 1),
        (["augmentation=mixup", "augmentation/before=dermoscopy", "loss=focal", *PLATEAU], 2),
        slow(["augmentation=cutmix", "schedule=cosine", "schedule.warmup_epochs=1"], 1),
        slow(["optimizer=adamw", "training.devices=2"], 2),
    ],
)
def test_no_bit_shows_that_a_fit_was_interrupted(trained, overrides, epoch):
    overrides = ["training.epochs=4", *DROPOUT, TURNED, *overrides]  # the later of two counts
    whole, kept, _ = trained(*overrides)
    continued, kept_again, told = trained(*overrides, start=kept[epoch])
    assert told == list(range(epoch + 1, len(whole.fit.history) + 1))
    for name, value in kept[max(kept)].arrays.items():  # weights, moments, generators, best
        np.testing.assert_array_equal(kept_again[max(kept)].arrays[name], value, err_msg=name)
    for ours, theirs in zip(
        continued.network.get_weights(), whole.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)
    np.testing.assert_array_equal(continued.sample_images, whole.sample_images)
    assert without_times(continued.fit.history) == without_times(whole.fit.history)
    assert continued.fit.history[:epoch] == read_history(kept[epoch])
    assert continued.fit.best_epoch == whole.fit.best_epoch
    assert continued.fit.optimizer_steps == whole.fit.optimizer_steps
    assert continued.fit.seconds > sum(e["seconds"] for e in continued.fit.history)


@pytest.mark.slow
def test_a_checkpoint_holds_the_states_of_the_random_generators(trained):
    """Or the test above would pass for a network that draws nothing."""
    _, kept, _ = trained("training.epochs=2", *DROPOUT, TURNED)
    states = [
        name
        for name, value in kept[1].arrays.items()
        if name.startswith("variable/") and value.shape == (2,) and value.dtype.kind in "iu"
    ]
    assert len(states) == 5  # two of dropout, three of augmentation
    for name in states:
        assert (kept[1].arrays[name] != kept[2].arrays[name]).any()


@pytest.mark.slow
def test_patience_goes_on_where_it_was(trained):
    """Nothing is learned, so the first epoch stays the best and the fourth is the last."""
    stuck = ("training.epochs=9", "training.patience=3", "optimizer.learning_rate=1e-30")
    whole, kept, _ = trained(*stuck)
    assert len(whole.fit.history) == 4
    continued, _, told = trained(*stuck, start=kept[3])
    assert told == [4]
    assert continued.fit.best_epoch == 1


@pytest.mark.slow
def test_a_fit_that_was_through_is_not_gone_on_with(trained):
    whole, kept, _ = trained("training.epochs=2")
    continued, _, told = trained("training.epochs=2", start=kept[2])
    assert told == []
    assert continued.fit.history == whole.fit.history
    assert continued.fit.seconds == kept[2].facts["recorder"]["seconds"]
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)
    stuck = ("training.epochs=9", "training.patience=1", "optimizer.learning_rate=1e-30")
    _, kept, _ = trained(*stuck)
    assert max(kept) == 2
    assert trained(*stuck, start=kept[2])[2] == []


def test_a_diverged_epoch_is_not_kept(trained):
    wild = ("optimizer=sgd", "optimizer.learning_rate=1e30", "architecture.filters=[4,8,8]")
    done, kept, _ = trained("training.epochs=4", *wild)
    assert done.fit.diverged
    assert len(kept) == len(done.fit.history) - 1


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(trained):
    _, kept, _ = trained("training.epochs=1")
    with pytest.raises(RunError, match=r"from another network.*training\.resume=false starts over"):
        trained("training.epochs=2", "architecture.dense_units=9", start=kept[1])
    with pytest.raises(RunError, match="from another network"):
        trained("training.epochs=2", *DROPOUT, start=kept[1])
