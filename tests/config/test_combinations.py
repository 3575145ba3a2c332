"""Choices that exclude each other are refused; doubtful ones are pointed out."""

import pytest

from melanoma_lab.config.combinations import doubts
from melanoma_lab.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optimizer=adamw", "regularisation=weight_decay"],
            "optimizer=adamw regularisation=weight_decay: both decay the weights",
        ),
        (
            ["optimizer=adamw", "regularisation=combined", "regularisation.weight_decay=0.1"],
            "optimizer=adamw regularisation=combined: both decay the weights",
        ),
        (
            ["schedule.warmup_epochs=5", "training.epochs=5"],
            "schedule.warmup_epochs=5: expected less than training.epochs=5",
        ),
        (
            ["schedule=plateau", "schedule.patience=3", "training.patience=3"],
            "training.patience=3: .* expected more than schedule.patience=3",
        ),
    ],
)
def test_choices_that_exclude_each_other_are_refused(composed, overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw", "optimizer.weight_decay=0", "regularisation=weight_decay"],
        ["optimizer=adamw", "regularisation=combined", "regularisation.l2=0.1"],
        ["schedule.warmup_epochs=4.9", "training.epochs=5"],
        ["schedule=plateau", "schedule.patience=3", "training.patience=4"],
        ["schedule=plateau"],
    ],
)
def test_near_misses_are_not(composed, overrides):
    composed(*overrides)


def test_correcting_twice_for_class_frequencies_is_pointed_out(composed):
    (doubt,) = doubts(composed("loss=logit_adjusted", "balancing=class_weight"))
    assert "loss=logit_adjusted and balancing=class_weight both make up for class" in doubt
    assert doubts(composed("loss=logit_adjusted")) == []
    assert doubts(composed("loss=logit_adjusted", "loss.tau=0", "balancing=oversample")) == []
    assert doubts(composed("loss=focal", "balancing=class_weight")) == []
