"""Misspelt and impossible configurations are refused with a message that helps."""

import dataclasses

import pytest
from hydra import compose
from hydra.errors import HydraException

from melanoma_lab.config.schema import Config
from melanoma_lab.config.validation import explain
from melanoma_lab.errors import UserError
from melanoma_lab.registry import OPTIONS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+regularisation.droput=0.1",
            "regularisation.droput: no such key. Did you mean regularisation.rates?",
        ),
        ("+trainin.epochs=1", "trainin: no such key. Did you mean training?"),
        (
            "+training.epoch_count=1",
            "training.epoch_count: no such key. Did you mean training.epoch",
        ),
        ("+experimnt=baseline", "experimnt: no such key. Did you mean experiment?"),
        ("+balancing.per_class=9", "It is a key of balancing=augmentor"),
        ("training.epochs=0", "training.epochs: expected at least 1; received 0"),
        ("training.batch_size=0", "training.batch_size: expected at least 1; received 0"),
        ("dataset.image_size=0", "dataset.image_size: expected at least 1 pixel; received 0"),
        ("training.patience=0", "training.patience: expected at least 1, or null"),
        ("training.monitor=val_acc", "training.monitor: expected one of val_loss"),
        ("split.train=0.9", r"a sum of 1; received 1.2"),
        ("split.test=0", "split.test: expected a share between 0 and 1; received 0"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate: expected more than 0"),
        ("seed=-1", "seed: expected 0 to"),
        ("split.seed=-1", "split.seed: expected 0 or more"),
        ("dataset.classes=[a]", "dataset.classes: expected at least two classes"),
        ("dataset.melanoma=melanomma", "dataset.melanoma: expected one of dataset.classes"),
        ("study=a/b", "study: expected letters"),
        ("study=..", "study: expected letters"),
        ("cache={a:1}", "cache"),
    ],
)
def test_a_wrong_value_or_added_key_is_refused(composed, override, message):
    with pytest.raises((UserError, HydraException)) as caught:
        composed(override)
    text = str(caught.value) if isinstance(caught.value, UserError) else explain(caught.value)
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularisation=dropout", "regularisation.rates=[1.0]"], "rates from 0 to below 1"),
        (["regularisation=l2", "regularisation.factor=-1"], "regularisation.factor: expected 0"),
        (
            ["balancing=augmentor", "balancing.per_class=0"],
            "balancing.per_class: expected at least",
        ),
        (["optimizer=sgd", "optimizer.momentum=1"], "optimizer.momentum: expected 0 to below 1"),
        (["augmentation=flip_rotate_zoom", "augmentation.zoom=2"], "augmentation.zoom: expected 0"),
        (["split=kfold", "split.fold=5"], "split.fold: expected 0 to split.k - 1 = 4; received 5"),
        (["split=kfold", "split.k=1"], "split.k: expected at least 2 folds"),
        (["architecture.filters=[]"], "architecture.filters: expected a list of positive"),
        (
            ["dataset=csv", "+dataset.columns.imge=x"],
            "dataset.columns.imge: no such key. Did you mean image?",
        ),
        (["~architecture"], "architecture is not set"),
        (["cache=${nothing}"], "cache: Interpolation key 'nothing' not found"),
    ],
)
def test_an_option_checks_its_own_values(composed, overrides, message):
    with pytest.raises(UserError) as caught:
        composed(*overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["regularisation.droput=1"],
            "regularisation.droput: no such key. Did you mean regularisation.rates?",
        ),
        (["balancing.per_class=9"], "It is a key of balancing=augmentor."),
        (["datset=isic9"], "datset: no such key. Did you mean dataset?"),
        (["trainin.epochs=1"], "trainin.epochs: no such key. Did you mean training?"),
        (["dataset=isic"], "dataset=isic: no such option. Did you mean isic9?"),
        (["+experiment=augmentd"], "experiment=augmentd: no such option. Did you mean augmented?"),
        (["experiment=baseline"], "A preset is chosen with a plus sign: +experiment=NAME."),
        (["training.epochs=many"], "Value 'many' of type 'str' could not be converted to Integer"),
        (["+optimizer=sgd"], "optimizer"),
    ],
)
def test_what_hydra_refuses_is_explained(composed, overrides, message):
    with pytest.raises(HydraException) as caught:
        compose("config", overrides)
    text = explain(caught.value)
    assert message in text
    assert "\n" not in text
    assert "object_type" not in text


def test_every_option_of_the_schema_can_be_chosen(composed):
    for group, name in OPTIONS:
        config = composed(f"{group}={name}")
        assert type(getattr(config, group)) is OPTIONS[group, name]
        assert getattr(config, group).name == name


def test_the_result_is_typed(composed):
    config = composed("+experiment=augmented")
    assert isinstance(config, Config)
    assert all(
        dataclasses.is_dataclass(getattr(config, group)) for group in {g for g, _ in OPTIONS}
    )
