"""optimizer.ema: the mean of the weights is judged and kept; the weights themselves go on."""

import keras
import numpy as np
import pytest

from melanoma_lab.training.callbacks import use_averaged_weights
from tests.support.marks import slow
from tests.support.small_backbone import LAST, weights_of

pytestmark = pytest.mark.component

#: How a figure of an epoch is called that does not say how long it took.
FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_balanced_accuracy")
SGD = ("optimizer=sgd", "optimizer.learning_rate=0.05", "training.monitor=val_loss")
#: Nothing changes but the head: the backbone's batch normalisation rests.
HEAD = ("finetuning=frozen", *SGD)
NEVER = "optimizer.ema=0.99999999"


def of_figure(done, name):
    return [epoch[name] for epoch in done.fit.history]


def compiled(ema):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(
        keras.optimizers.SGD(0.1, use_ema=ema is not None, ema_momentum=ema or 0.9), "mse"
    )
    return model


def test_it_is_the_mean_that_keras_computes_and_the_weights_come_back():
    model = compiled(0.5)
    x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    after_steps = []
    for _ in range(3):
        model.train_on_batch(x, y)
        after_steps.append(model.get_weights()[0])
    with use_averaged_weights(model):
        mean = model.get_weights()[0]
    first, second, third = after_steps
    np.testing.assert_allclose(mean, first / 4 + second / 4 + third / 2, rtol=1e-6)
    np.testing.assert_array_equal(model.get_weights()[0], third)


def test_the_weights_come_back_from_an_error_too():
    model = compiled(0.9)
    model.train_on_batch(np.ones((4, 2)), np.zeros((4, 1)))
    model.train_on_batch(np.ones((4, 2)), np.zeros((4, 1)))
    before = model.get_weights()[0]

    def fail():
        with use_averaged_weights(model):
            assert (model.get_weights()[0] != before).any()
            raise OSError("a full disk")

    with pytest.raises(OSError, match="full"):
        fail()
    np.testing.assert_array_equal(model.get_weights()[0], before)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_where_there_is_no_mean_the_weights_stay(ema):
    """None is asked for, or no step has been taken."""
    model = compiled(ema)
    before = model.get_weights()[0]
    with use_averaged_weights(model):
        np.testing.assert_array_equal(model.get_weights()[0], before)


@pytest.mark.slow
def test_a_mean_that_forgets_at_once_is_the_weights(train_backbone):
    plain, _, _ = train_backbone(*SGD)
    forgetful, _, _ = train_backbone(*SGD, "optimizer.ema=1e-12")
    for name in FIGURES:
        assert of_figure(forgetful, name) == pytest.approx(of_figure(plain, name), rel=1e-5)
    np.testing.assert_allclose(forgetful.probabilities, plain.probabilities, rtol=1e-5)


def test_the_mean_is_judged_and_kept_and_training_takes_no_notice(train_backbone):
    """A mean that never forgets is that of the weights after the first step, in all epochs."""
    plain, _, _ = train_backbone(*HEAD)
    kept, _, _ = train_backbone(*HEAD, NEVER)
    assert of_figure(kept, "train_loss") == of_figure(plain, "train_loss")
    losses = of_figure(plain, "val_loss")
    assert losses[-1] < losses[0] - 1e-3
    assert of_figure(kept, "val_loss") == pytest.approx([of_figure(kept, "val_loss")[0]] * 4)
    head, moved = (weights_of(done.network)[LAST][0] for done in (kept, plain))
    assert np.abs(head - moved).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [slow(1), 2, slow(3)])
def test_a_fit_goes_on_with_the_same_bits(train_backbone, whole_backbone, epoch):
    """Also at the end of a stage, of which the next one takes the mean."""
    arm = ("finetuning=staged", "finetuning.head_epochs=2", "finetuning.learning_rate=0.003")
    arm = (*arm, "optimizer.ema=0.7", "schedule=cosine")
    whole, _, kept = whole_backbone(*arm)
    continued, _, again = train_backbone(*arm, start=kept[epoch])
    for number in again:
        for name, value in kept[number].arrays.items():
            np.testing.assert_array_equal(again[number].arrays[name], value, err_msg=name)
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)


@pytest.mark.slow
def test_a_divergence_in_the_first_stage_puts_no_zeros_in_the_weights(train_backbone):
    """The second stage takes no step, and there is no mean of its weights."""
    arm = ("finetuning=staged", "finetuning.head_epochs=2", "optimizer=sgd")
    done, _, _ = train_backbone(*arm, "optimizer.learning_rate=3e38", "optimizer.ema=0.9")
    assert done.fit.diverged
    assert all(np.any(weight != 0) for weight in weights_of(done.network)["block1_conv"])
    assert done.fit.best_epoch == 0
    assert done.probabilities is None
    assert "in epoch 1" in done.diverged


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        slow(("training.devices=2", "training.batch_size=8")),
        ("training.precision=mixed_float16",),
        slow(("training.devices=2", "training.batch_size=8", "training.precision=mixed_float16")),
    ],
)
def test_several_devices_and_loss_scaling_have_it_too(train_backbone, other):
    plain, _, _ = train_backbone(*HEAD, *other)
    kept, _, _ = train_backbone(*HEAD, *other, NEVER)
    assert of_figure(kept, "train_loss") == pytest.approx(of_figure(plain, "train_loss"), rel=1e-3)
    losses = of_figure(kept, "val_loss")
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-4)
    assert abs(of_figure(plain, "val_loss")[-1] - losses[-1]) > 1e-3
