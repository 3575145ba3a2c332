"""What trains when: the head, the backbone from a block on, at rates of their own."""

import keras
import numpy as np
import pytest
from keras import layers

from melanoma_lab.core.errors import UserError
from melanoma_lab.registry import builder
from melanoma_lab.training import trainer
from melanoma_lab.training.fit import read_history
from melanoma_lab.training.trainer import choose_steps_per_execution
from tests.support.small_backbone import LAST, on_a_backbone, weights_of

pytestmark = pytest.mark.component

STAGED = ("finetuning=staged", "finetuning.head_epochs=2", "finetuning.learning_rate=0.003")
TURNED = "augmentation=flip_rotate_zoom"


def changed(before, after):
    """The layers whose weights are no longer what they were."""
    return {
        name
        for name, weights in before.items()
        if name != "backbone"
        and any((a != b).any() for a, b in zip(weights, after[name], strict=True))
    }


def without_times(history):
    return [{k: v for k, v in e.items() if "second" not in k} for e in history]


def test_only_the_head_of_a_frozen_network_trains(train_backbone):
    done, first, _ = train_backbone("finetuning=frozen", "training.monitor=val_loss")
    assert changed(first, weights_of(done.network)) == {LAST}
    assert done.fit.trainable == 4 * 3 + 3
    assert done.parameters == done.fit.trainable + (27 + 36) * 4 + 2 * 16
    assert np.isfinite([epoch["train_loss"] for epoch in done.fit.history]).all()


def test_everything_trains_where_nothing_is_frozen(train_backbone):
    done, first, _ = train_backbone("finetuning=none", "training.monitor=val_loss")
    layers_with_weights = {name for name, weights in first.items() if weights}
    assert changed(first, weights_of(done.network)) == layers_with_weights - {"backbone"}
    assert done.fit.trainable == done.parameters - 2 * 8  # but for the statistics


def test_a_frozen_backbone_draws_nothing(train_backbone):
    """Its dropout is off: a step of the head on one batch lowers that batch's loss by descent."""
    done, _, kept = train_backbone("finetuning=frozen", "optimizer.learning_rate=1e-30")
    losses = {epoch["train_loss"] for epoch in done.fit.history}
    states = [
        [value for value in kept[epoch].arrays.values() if value.dtype.kind in "iu"]
        for epoch in (1, 4)
    ]
    # Orders differ from epoch to epoch and with them the last bits; noise would do far more.
    assert max(losses) - min(losses) < 0.05
    for before, after in zip(*states, strict=True):
        if before.shape == (2,):  # a random generator's
            np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_the_backbone_joins_in_at_a_rate_of_its_own(train_backbone, whole_backbone):
    done, first, kept = whole_backbone(*STAGED)
    rates = [epoch["learning_rate"] for epoch in done.fit.history]
    assert rates == pytest.approx([0.01, 0.01, 0.003, 0.003])
    assert done.fit.trainable == (27 + 36) * 4 + 15
    assert done.fit.optimizer_steps == 4 * 3
    assert sorted(kept) == [1, 2, 3, 4]
    head_only, _, _ = train_backbone("finetuning=frozen", "training.epochs=2")
    assert without_times(head_only.fit.history) == without_times(done.fit.history[:2])
    assert changed(first, weights_of(done.network)) <= {"block1_conv", "block2_conv", LAST}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "trains"),
    [
        ((), {"block1_conv", "block2_conv", LAST}),
        (
            ("finetuning.unfreeze_from=block2", "finetuning.batch_norm=true"),
            {"block2_conv", "block2_bn", LAST},
        ),
    ],
)
def test_it_trains_from_a_named_block_on(train_backbone, whole_backbone, overrides, trains):
    """The last epoch's weights are looked at, whichever was the best."""
    _, first, kept = whole_backbone(*STAGED, *overrides)
    _, again, _ = train_backbone(*STAGED, *overrides, start=kept[4])
    assert all((a == b).all() for a, b in zip(first[LAST], again[LAST], strict=True))
    done, _, _ = train_backbone(
        *STAGED, *overrides, "training.monitor=val_loss", "training.epochs=6"
    )
    assert changed(first, weights_of(done.network)) == trains


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "overrides"),
    [
        (1, (TURNED, "regularisation=dropout", "regularisation.rates=[0.3]")),
        (2, ("finetuning.batch_norm=true", "schedule=cosine", "optimizer=adamw")),
        (3, ("schedule=plateau", "schedule.patience=1", "training.patience=2")),
    ],
)
def test_a_fit_goes_on_from_any_epoch_with_the_same_bits(
    train_backbone, whole_backbone, overrides, epoch
):
    whole, _, kept = whole_backbone(*STAGED, *overrides)
    continued, _, again = train_backbone(*STAGED, *overrides, start=kept[epoch])
    assert sorted(again) == [e for e in kept if e > epoch]
    for number in again:
        for name, value in kept[number].arrays.items():
            np.testing.assert_array_equal(again[number].arrays[name], value, err_msg=name)
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)
    assert without_times(continued.fit.history) == without_times(whole.fit.history)
    assert continued.fit.history[:epoch] == read_history(kept[epoch])
    assert continued.fit.optimizer_steps == whole.fit.optimizer_steps


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 3])
def test_a_fit_that_stops_early_has_the_bits_of_a_longer_one(train_backbone, whole_backbone, stop):
    """Whatever stage it stops in, and going on from there too, as a promoted trial does."""
    arm = (*STAGED, "schedule=cosine", "training.patience=2")
    whole, _, _ = whole_backbone(*arm)
    short, _, kept = train_backbone(*arm, f"training.stop_after={stop}")
    assert sorted(kept) == list(range(1, stop + 1))
    assert without_times(short.fit.history) == without_times(whole.fit.history[:stop])
    assert short.fit.trainable == (15 if stop <= 2 else whole.fit.trainable)
    longer, _, _ = train_backbone(*arm, start=kept[stop])
    np.testing.assert_array_equal(longer.probabilities, whole.probabilities)
    assert without_times(longer.fit.history) == without_times(whole.fit.history)


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "last"), [("null", 4), ("2", 2), ("3", 3)])
def test_only_the_last_epoch_of_all_is_the_last(train_backbone, stop, last):
    offered = []

    class Noting:
        def save_if_affordable(self, take, *, last):
            offered.append(last)

    train_backbone(*STAGED, f"training.stop_after={stop}", checkpoints=Noting())
    assert offered == [False] * (last - 1) + [True]


@pytest.mark.slow
def test_patience_is_for_the_last_stage(train_backbone):
    stuck = ("optimizer.learning_rate=1e-30", "finetuning.learning_rate=1e-30")
    done, _, _ = train_backbone(
        *STAGED, *stuck, "finetuning.head_epochs=3", "training.epochs=9", "training.patience=2"
    )
    assert len(done.fit.history) == 3 + 2
    assert done.fit.best_epoch == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer.ema=0.3",),
        ("training.devices=2", "training.batch_size=8"),
    ],
    ids=["all", "mean", "two_devices"],
)
def test_a_penalty_on_what_joins_in_does_not_make_its_epochs_worse(train_backbone, overrides):
    arm = ("optimizer=sgd", "regularisation=l2", "regularisation.factor=0.1", *STAGED, *overrides)
    arm = (*arm, "optimizer.learning_rate=1e-30", "training.monitor=val_loss")
    done, _, kept = train_backbone(*arm, "training.patience=1")
    losses = [epoch["val_loss"] for epoch in done.fit.history]
    assert losses[2] > losses[1] + 0.1  # the penalty is in the figure from there on
    assert losses[3] < losses[2]
    assert done.fit.best_epoch == 4
    continued, _, _ = train_backbone(*arm, "training.patience=1", start=kept[2])
    assert continued.fit.best_epoch == 4
    np.testing.assert_array_equal(continued.probabilities, done.probabilities)


def test_a_minimum_above_the_later_rate_is_refused_by_that_rates_key(train_backbone):
    with pytest.raises(
        UserError, match=r"minimum=0\.005: expected less than finetuning\.learning_rate=0\.003"
    ):
        train_backbone(*STAGED, "schedule=plateau", "schedule.minimum=0.005")
    with pytest.raises(
        UserError, match=r"minimum=0\.02: expected less than optimizer\.learning_rate=0\.01"
    ):
        train_backbone(*STAGED, "schedule=plateau", "schedule.minimum=0.02")


def test_a_schedule_is_laid_over_every_stage(train_backbone):
    done, _, _ = train_backbone(*STAGED, "schedule=cosine")
    rates = [epoch["learning_rate"] for epoch in done.fit.history]
    assert rates == pytest.approx([0.005, 0, 0.0015, 0], abs=1e-9)
    warm = ("schedule=plateau", "schedule.warmup_epochs=1", "schedule.minimum=1e-6")
    done, _, _ = train_backbone(*STAGED, *warm)
    rates = [epoch["learning_rate"] for epoch in done.fit.history]
    assert rates == pytest.approx([0.0075, 0.01, 0.00225, 0.003])


@pytest.mark.slow
def test_two_devices_share_the_batches_of_both_stages(train_backbone):
    several = ("training.batch_size=8", "training.devices=2")
    done, first, _ = train_backbone(
        *STAGED, *several, "training.monitor=val_loss", "training.epochs=6"
    )
    assert {LAST} <= changed(first, weights_of(done.network))
    assert done.fit.optimizer_steps == 6 * 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_both_stages(train_backbone, precision):
    done, _, _ = train_backbone(*STAGED, f"training.precision={precision}")
    assert np.isfinite(done.probabilities).all()


def test_a_block_that_is_not_there_is_refused(train_backbone):
    with pytest.raises(
        UserError, match=r"unfreeze_from=blok2: .* from block1_conv to .* Did you mean block2\?"
    ):
        train_backbone(*STAGED, "finetuning.unfreeze_from=blok2")
    with pytest.raises(
        UserError, match="unfreeze_from=bloc: no layer"
    ):  # the beginning of two words
        train_backbone(*STAGED, "finetuning.unfreeze_from=bloc")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            "block2_bn",
            r"=block2_bn: the backbone has no trainable layer .*\(finetuning\.batch_norm=false",
        ),
        ("pool", r"=pool: the backbone has no .* an earlier layer, from block1_conv to block2_bn"),
        ("pool finetuning.batch_norm=true", "has no batch normalisation from pool on; leave it"),
    ],
)
def test_a_second_stage_in_which_nothing_joins_in_is_refused(train_backbone, overrides, told):
    with pytest.raises(UserError, match=told):
        train_backbone(*STAGED, *f"finetuning.unfreeze_from={overrides}".split())


@pytest.mark.parametrize(("steps", "at_once"), [(220, 22), (213, 3), (4, 4), (1, 1), (37, 1)])
def test_steps_on_kept_features_go_at_once_where_they_divide_an_epoch(steps, at_once):
    assert choose_steps_per_execution(steps) == at_once


@pytest.mark.slow
def test_several_steps_at_once_give_the_bits_of_one_after_the_other(train_backbone, monkeypatch):
    """All are counted, too."""
    arm = ("finetuning=frozen", "training.batch_size=3")
    together, _, _ = train_backbone(*arm)
    monkeypatch.setattr(trainer, "MOST_AT_ONCE", 1)
    alone, _, _ = train_backbone(*arm)
    np.testing.assert_array_equal(together.probabilities, alone.probabilities)
    assert without_times(together.fit.history) == without_times(alone.fit.history)
    assert together.fit.optimizer_steps == alone.fit.optimizer_steps == 4 * 6


@pytest.mark.parametrize("finetuning", ["frozen", "staged"])
def test_layers_before_a_backbone_are_refused(train_backbone, finetuning):
    """The head would be trained on features without them."""
    overrides = [f"finetuning={finetuning}", *STAGED[1:]] if finetuning == "staged" else []
    with pytest.raises(
        UserError, match=r"behind_scaling has layers before .* \(scaling\); expected"
    ):
        train_backbone("finetuning=frozen", *overrides, architecture="behind_scaling")


@pytest.mark.parametrize("finetuning", ["frozen", "staged"])
def test_a_network_without_a_backbone_is_refused(train_backbone, finetuning):
    with pytest.raises(
        UserError, match=rf"finetuning={finetuning}: architecture=.* has no backbone to freeze"
    ):
        train_backbone(
            f"finetuning={finetuning}",
            "finetuning.cache_features=false",
            *(("finetuning.head_epochs=1",) if finetuning == "staged" else ()),
            architecture="without_a_backbone",
        )


@builder("architecture", "without_a_backbone")
def without_a_backbone(options, image_size, n_classes, regulariser):
    pixels = keras.Input((image_size, image_size, 3))
    x = layers.Dense(n_classes, activation="softmax")(layers.Flatten()(pixels))
    return keras.Model(pixels, x, name="without_a_backbone")


@builder("architecture", "behind_scaling")
def behind_scaling(options, image_size, n_classes, regulariser):
    backbone = on_a_backbone(options, image_size, n_classes, regulariser).get_layer("backbone")
    pixels = keras.Input((image_size, image_size, 3))
    features = backbone(layers.Rescaling(2.0, name="scaling")(pixels))
    x = layers.Dense(n_classes, activation="softmax", name=LAST)(features)
    return keras.Model(pixels, x, name="behind_scaling")
