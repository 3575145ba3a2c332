import os
import signal
from contextlib import suppress

import keras
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from melanoma_lab.config.schema.training import Plateau, Training
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches, make_training_batches
from melanoma_lab.launching import InterruptHandler, JobStatusStore
from melanoma_lab.models.losses import FocalLoss, LogitAdjustedLoss
from melanoma_lab.models.optimizers import ScheduleContext, build_schedule
from melanoma_lab.training.fit import BalancedAccuracy, fit_network
from melanoma_lab.training.train_steps import AugmentedNetwork, Stage

pytestmark = pytest.mark.component

N, K = 40, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, K, N)
PIXELS = np.clip(
    RNG.normal(40, 20, (N, 8, 8, 3)) + 140 * np.eye(3)[LABELS][:, None, None, :], 0, 255
).astype(np.uint8)


def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(K, activation="softmax")(x))


CROSS_ENTROPY = keras.losses.CategoricalCrossentropy()


def fit(
    model,
    *,
    learning_rate=0.05,
    augmentation=(),
    told=None,
    val_labels=LABELS,
    weight=None,
    loss=CROSS_ENTROPY,
    schedule=None,
    optimizer=None,
    on_step=lambda step, figures: None,
    **options,
):
    options = Training(**{"epochs": 4, "batch_size": 8} | options)
    images = BalancedSet((PIXELS,), np.arange(N), LABELS, K, weight)
    steps = N // options.batch_size
    train = make_training_batches(
        images,
        batch_size=options.batch_size,
        seed=0,
        first_step=0,
        last_step=options.epochs * steps,
    )
    val = make_evaluation_batches(PIXELS, np.arange(N), val_labels, n_classes=K, batch_size=8)
    return fit_network(
        model,
        [
            Stage(
                range(options.epochs),
                lambda: AugmentedNetwork(model, augmentation),
                lambda first: train,
                val,
                optimizer or keras.optimizers.SGD(learning_rate),
                schedule,
            )
        ],
        options=options,
        steps_per_epoch=steps,
        loss=loss,
        on_step=on_step,
        on_epoch=lambda number, figures: told.append((number, figures)) if told is not None else 0,
    )


def test_every_epoch_is_told_with_its_figures():
    told = []
    done = fit(network(), told=told)
    assert [number for number, _ in told] == [1, 2, 3, 4]
    assert [figures for _, figures in told] == done.history
    assert set(done.history[0]) == {
        "train_loss",
        "train_accuracy",
        "train_balanced_accuracy",
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "learning_rate",
        "seconds",
        "images_per_second",
    }
    assert done.optimizer_steps == 20
    assert done.diverged is None
    assert 0 < done.history[0]["seconds"] <= done.seconds


def test_the_weights_of_the_best_epoch_are_kept():
    model = network()
    wrong = (LABELS + 1) % K  # the better the fit, the worse the validation
    done = fit(model, val_labels=wrong, epochs=5, monitor="val_loss")
    losses = [epoch["val_loss"] for epoch in done.history]
    assert done.best_epoch == int(np.argmin(losses)) + 1 == 1
    model.compile(loss="categorical_crossentropy")
    kept = model.evaluate(PIXELS, np.eye(K)[wrong], verbose=0)
    assert kept == pytest.approx(losses[0], rel=1e-4)


def test_train_and_val_loss_are_the_given_one_and_val_weighs_every_image_alike():
    weight = np.float32([3, 1, 0.5])
    focal = FocalLoss(2)
    model = network()
    done = fit(model, learning_rate=1e-9, epochs=1, weight=weight, loss=focal)
    y_pred, y_true = model.predict(PIXELS, verbose=0), np.eye(K, dtype=np.float32)[LABELS]
    (figures,) = done.history
    expected = float(focal(y_true, y_pred, sample_weight=weight[LABELS]))
    assert figures["train_loss"] == pytest.approx(expected, rel=1e-4)
    assert figures["val_loss"] == pytest.approx(float(focal(y_true, y_pred)), rel=1e-4)
    assert figures["val_loss"] != pytest.approx(float(CROSS_ENTROPY(y_true, y_pred)), rel=0.01)


@pytest.mark.parametrize(
    "loss",
    [CROSS_ENTROPY, FocalLoss(2), LogitAdjustedLoss(np.ones(K) / K, tau=1)],
    ids=["cross_entropy", "focal", "logit_adjusted"],
)
def test_a_loss_is_whole_however_wrong_the_network(loss):
    """Of probabilities alone Keras would cut it at 16; it finds the logits in what is fitted."""
    model = network()
    kernel, _ = model.get_weights()
    model.set_weights([0 * kernel, np.eye(K)[0] * 60])
    done = fit(model, learning_rate=1e-9, epochs=1, loss=loss)
    (figures,) = done.history
    for split in ("train", "val"):
        expected = 60 * (LABELS != 0).mean()
        assert figures[f"{split}_loss"] == pytest.approx(expected, rel=1e-3)


def test_the_learning_rate_is_told_as_it_is_at_the_epochs_end():
    halving = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
    rates = [e["learning_rate"] for e in fit(network(), learning_rate=halving, epochs=3).history]
    assert rates == pytest.approx([0.05, 0.025, 0.0125])


def test_a_plateau_lowers_the_rate_of_the_epochs_after_it():
    options = Plateau("plateau", factor=0.1, patience=2, minimum=0)
    schedule = build_schedule(options, ScheduleContext(0.05, 5, 6, "val_accuracy"))
    one_class = np.zeros(N, int)  # of which the accuracy is 1 from the first epoch on
    done = fit(
        network(),
        val_labels=one_class,
        epochs=6,
        monitor="val_accuracy",
        schedule=schedule,
        learning_rate=1e-9,
    )
    rates = np.array([epoch["learning_rate"] for epoch in done.history])
    assert len({epoch["val_accuracy"] for epoch in done.history}) == 1
    assert rates == pytest.approx([1e-9, 1e-9, 1e-9, 1e-10, 1e-10, 1e-11])


def test_training_stops_when_patience_is_out():
    done = fit(network(), epochs=30, learning_rate=1e-9, monitor="val_accuracy", patience=2)
    assert len(done.history) == 3
    assert done.best_epoch == 1
    assert fit(network(), learning_rate=1e-9, monitor="val_accuracy").optimizer_steps == 20


def test_an_interruption_that_a_library_drops_ends_the_fit_with_the_epoch(tmp_path):
    told = []

    def drop(step, figures):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, InterruptHandler(JobStatusStore(tmp_path, os.getpid())))
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(network(), told=told, on_step=drop)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [number for number, _ in told] == [1]


def test_a_loss_that_is_no_number_stops_the_fit_and_says_where():
    class Explode(keras.layers.Layer):
        def call(self, x):
            return x * float("nan")

    model = network()
    done = fit(keras.Model(model.input, Explode()(model.output)), epochs=9)
    assert "the loss became nan in epoch 1" in done.diverged
    assert len(done.history) == 1


class BreakingAt(keras.optimizers.schedules.LearningRateSchedule):
    """The weights become no numbers in one step, which no loss of training sees any more."""

    def __init__(self, step):
        self.step = step

    def __call__(self, step):
        return keras.ops.where(step == self.step, float("nan"), 0.05)


@pytest.mark.parametrize("monitor", ["val_loss", "val_balanced_accuracy"])
def test_an_epoch_that_ends_with_broken_weights_is_never_the_best(monitor):
    model = network()
    # What is no number is taken for the first class: nothing could be more accurate.
    done = fit(
        model,
        epochs=2,
        monitor=monitor,
        val_labels=np.zeros(N, int),
        learning_rate=BreakingAt(9),
    )
    assert done.diverged is None
    assert np.isnan(done.history[1]["val_loss"])
    assert done.best_epoch == 1
    assert np.isfinite(model.get_weights()[0]).all()


def test_where_no_epoch_was_any_good_none_is_said_to_be_kept():
    model = network()
    done = fit(model, epochs=1, learning_rate=BreakingAt(4))
    assert np.isfinite(done.history[0]["train_loss"])
    assert done.best_epoch == 0
    assert np.isnan(model.get_weights()[0]).any()


def test_a_fit_whose_steps_are_all_skipped_leaves_the_weights_and_not_the_zeros_of_no_mean():
    class Nowhere(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.sum(y_pred, -1) * float("nan")

    model = network()
    before = model.get_weights()
    averaging = keras.optimizers.SGD(0.05, use_ema=True)
    done = fit(model, loss=Nowhere(), optimizer=keras.optimizers.LossScaleOptimizer(averaging))
    assert done.diverged
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)


def test_augmentation_is_in_training_only_and_not_in_the_kept_network():
    class Black(keras.layers.Layer):
        def call(self, x, training=False):
            return x * 0 if training else x

    model = network()
    before = model.get_weights()[0].copy()
    done = fit(model, augmentation=[Black()])
    # Nothing can be learned of black pictures but the classes' shares.
    np.testing.assert_array_equal(model.get_weights()[0], before)
    assert len(model.layers) == len(network().layers)
    assert done.history[0]["val_loss"] != done.history[0]["train_loss"]


def test_the_kept_network_is_not_compiled():
    """Or it would carry the optimizer's state and a metric that only this package knows."""
    model = network()
    fit(model)
    assert not model.compiled


def test_the_same_seed_gives_the_same_bits():
    first, second = network(), network()
    assert [{k: v for k, v in e.items() if "second" not in k} for e in fit(first).history] == [
        {k: v for k, v in e.items() if "second" not in k} for e in fit(second).history
    ]
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_balanced_accuracy_is_scikit_learns():
    metric = BalancedAccuracy(4)
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 50), rng.random((50, 4))  # class 3 does not occur
    for part in np.array_split(np.arange(50), 4):
        metric.update_state(
            np.eye(4)[labels[part]], scores[part], sample_weight=np.zeros(len(part))
        )
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(labels, scores.argmax(1))
    assert float(metric.result()) == pytest.approx(expected)
    metric.reset_state()
    assert float(metric.result()) == 0
