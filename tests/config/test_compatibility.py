"""Choices that exclude each other are refused; doubtful ones are pointed out."""

import pytest

from melanoma_lab.config.compatibility import find_doubtful_choices
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit


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
            ["finetuning=staged", "finetuning.head_epochs=5", "training.epochs=5"],
            r"finetuning.head_epochs=5: expected less than training.epochs=5",
        ),
        (
            ["finetuning=staged", "finetuning.head_epochs=5", "schedule.warmup_epochs=5"],
            "schedule.warmup_epochs=5: with finetuning=staged .* 5 epochs of the head",
        ),
        (
            ["finetuning=staged", "finetuning.head_epochs=28", "schedule.warmup_epochs=2"],
            "again over the 2 after them; expected less than both",
        ),
        (
            ["evaluation.overlap=keep"],
            r"evaluation\.overlap: a key of python -m melanoma_lab evalua",
        ),
        (["mapping=isic9_to_ham10000"], r"evaluation\.classes: a key of .* evaluate"),
        (["task=evaluate", "evaluation.test=false"], r"evaluation\.test: is fixed when a model"),
        (["model=x"], "model: train ignores it; it applies to predict, evaluate, demo, export"),
        (["task=tune", "images=x"], "images: tune ignores it; it applies to predict and expor"),
        (["task=audit", "output=x"], "output: audit ignores it; .* predict, export, card, le"),
        (["task=evaluate", "formats=[onnx]"], "formats: evaluate ignores .* to export"),
        (["demo.port=1"], "demo: train ignores it; it applies to demo"),
        (
            ["task=evaluate", "split=cross_val"],
            "split=cross_val: evaluate does not split a dataset",
        ),
        (
            ["finetuning=frozen", "regularisation=stochastic_depth"],
            "stochastic depth skips blocks of the backbone, which is not trained",
        ),
        (
            ["architecture=majority", "finetuning=frozen"],
            "finetuning=frozen: architecture=majority is a trivial classifier",
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
        ["task=demo", "demo.port=1", "model=x"],
        ["formats=[saved_model]", "members=null"],  # what they are anyway
    ],
)
def test_near_misses_are_not(composed, overrides):
    composed(*overrides)


def test_correcting_twice_for_class_frequencies_is_pointed_out(composed):
    (doubt,) = find_doubtful_choices(composed("loss=logit_adjusted", "balancing=class_weight"))
    assert "loss=logit_adjusted and balancing=class_weight both correct for class" in doubt
    assert find_doubtful_choices(composed("loss=logit_adjusted")) == []
    assert (
        find_doubtful_choices(composed("loss=logit_adjusted", "loss.tau=0", "balancing=oversample"))
        == []
    )
    assert find_doubtful_choices(composed("loss=focal", "balancing=class_weight")) == []


def test_a_frozen_backbone_with_fresh_weights_is_pointed_out(composed):
    fresh = ("architecture=efficientnet_lite0", "architecture.weights=none")
    (doubt,) = find_doubtful_choices(composed("finetuning=frozen", *fresh))
    assert "the frozen backbone computes random features" in doubt
    assert find_doubtful_choices(composed("finetuning=none", *fresh)) == []
    assert find_doubtful_choices(composed("finetuning=frozen", *fresh[:1])) == []
