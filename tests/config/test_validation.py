"""Misspelt and impossible configurations are refused with a message that helps."""

import dataclasses

import pytest
from hydra import compose
from hydra.errors import HydraException

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.fingerprint import compute_fingerprint
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.training_images import CutMix, Dermoscopy, MixUp, NoAugmentation
from melanoma_lab.config.validation import explain_hydra_error
from melanoma_lab.core.errors import UserError
from melanoma_lab.registry import OPTIONS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+regularisation.droput=0.1",
            "regularisation.droput: no such key. Did you mean regularisation.rate?",
        ),
        ("+trainin.epochs=1", "trainin: no such key. Did you mean training?"),
        (
            "+training.epoch_count=1",
            "training.epoch_count: no such key. Did you mean training.epoch",
        ),
        ("+experimnt=baseline", "experimnt: no such key. Did you mean experiment?"),
        ("+balancing.per_class=9", "It is a key of balancing=undersample and balancing=augmentor."),
        ("training.epochs=0", "training.epochs: expected at least 1; received 0"),
        ("training.batch_size=0", "training.batch_size: expected at least 1; received 0"),
        ("dataset.image_size=0", "dataset.image_size: expected 1 to 4,096 pixels; received 0"),
        ("dataset.image_size=100000", "dataset.image_size: expected 1 to 4,096 pixels; received 1"),
        ("training.patience=0", "training.patience: expected at least 1, or null"),
        ("training.monitor=val_acc", "training.monitor: expected one of val_loss"),
        ("split.train=0.9", r"a sum of 1; received 1.2"),
        ("split.test=0", "split.test: expected a share between 0 and 1; received 0"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate: expected more than 0"),
        ("seed=-1", "seed: expected 0 to"),
        (
            "metric=acuracy",
            "metric=acuracy: not a compared metric. Did you mean accuracy?",
        ),
        (
            "metric=nevus_auroc",
            "metric=nevus_auroc: dataset=synthetic: its positive class is melanoma. Valid: mel",
        ),
        ("split.seed=-1", "split.seed: expected 0 or more"),
        ("dataset.classes=[a]", "dataset.classes: expected at least two classes"),
        (
            "dataset.positive_class=melanomma",
            "dataset.positive_class: expected one of dataset.classes",
        ),
        ("study=a/b", "study: expected letters"),
        ("study=..", "study: expected letters"),
        ("cache={a:1}", "cache"),
        ("evaluation.sensitivity=1", "evaluation.sensitivity: expected a share between 0 and 1"),
        (
            "+evaluation.sensitivty=0.9",
            "evaluation.sensitivty: no such key. Did you mean evaluation.sensitivity?",
        ),
    ],
)
def test_a_wrong_value_or_added_key_is_refused(composed, override, message):
    with pytest.raises((UserError, HydraException)) as caught:
        composed(override)
    text = (
        str(caught.value)
        if isinstance(caught.value, UserError)
        else explain_hydra_error(caught.value)
    )
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularisation=dropout", "regularisation.rates=[1.0]"], "rates from 0 to below 1"),
        (["task=demo", "demo.port=65536"], "demo.port: expected 0 to 65535; received 65536"),
        (["demo.max_megabytes=0"], "demo.max_megabytes: expected 1 to 1000; received 0"),
        (["demo.neighbours=-1"], "demo.neighbours: expected 0 to 50; received -1"),
        (["+demo.prt=1"], "demo.prt: no such key. Did you mean demo.port?"),
        (["members=0"], "members: expected at least 1; received 0"),
        (["regularisation=l2", "regularisation.factor=-1"], "regularisation.factor: expected 0"),
        (["regularisation=label_smoothing", "regularisation.factor=1"], "expected 0 to below 1"),
        (["regularisation=weight_decay", "regularisation.factor=-1"], "expected 0 or more"),
        (["regularisation=stochastic_depth", "regularisation.rate=1"], "expected 0 to below 1"),
        (
            ["regularisation=combined"],
            "regularisation=combined: expected some of regularisation.rates, l2, label_smoothing",
        ),
        (["regularisation=combined", "regularisation.rates=[0]"], "expected some of"),
        (["regularisation=combined", "regularisation.rates=[1]"], "regularisation.rates: expected"),
        (["regularisation=combined", "regularisation.l2=-1"], "regularisation.l2: expected 0"),
        (
            ["regularisation=combined", "regularisation.label_smoothing=1"],
            "regularisation.label_smoothing: expected 0 to below 1",
        ),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma: expected 0 or more"),
        (["loss=logit_adjusted", "loss.tau=-1"], "loss.tau: expected 0 or more"),
        (["schedule.warmup_epochs=-1"], "schedule.warmup_epochs: expected 0 or more"),
        (["schedule=cosine", "schedule.final_share=1"], "schedule.final_share: expected 0 to"),
        (["schedule=plateau", "schedule.factor=1"], "schedule.factor: expected between 0 and 1"),
        (["schedule=plateau", "schedule.patience=0"], "schedule.patience: expected at least 1"),
        (["schedule=plateau", "schedule.minimum=-1"], "schedule.minimum: expected 0 or more"),
        (["optimizer=adamw", "optimizer.weight_decay=-1"], "optimizer.weight_decay: expected 0"),
        (["optimizer=rmsprop", "optimizer.rho=1"], "optimizer.rho: expected 0 to below 1"),
        (["balancing=effective_number", "balancing.beta=1"], "balancing.beta: expected 0 to below"),
        (["balancing=undersample", "balancing.per_class=0"], "at least 1, or null; received 0"),
        (
            ["balancing=augmentor", "balancing.per_class=0"],
            "balancing.per_class: expected at least",
        ),
        (["optimizer=sgd", "optimizer.momentum=1"], "optimizer.momentum: expected 0 to below 1"),
        (["augmentation=flip_rotate_zoom", "augmentation.zoom=2"], "augmentation.zoom: expected 0"),
        (["split=kfold", "split.fold=5"], "split.fold: expected 0 to split.k - 1 = 4; received 5"),
        (["split=kfold", "split.k=1"], "split.k: expected at least 2 folds"),
        (
            ["training.devices=3"],
            "training.batch_size: expected a multiple of training.devices=3, so that each gets",
        ),
        (["training.devices=0"], "training.devices: expected at least 1, or null; received 0"),
        (["architecture.filters=[]"], "architecture.filters: expected a list of positive"),
        (
            ["dataset=csv", "+dataset.columns.imge=x"],
            "dataset.columns.imge: no such key. Did you mean image?",
        ),
        (["~architecture"], "architecture is not set"),
        (
            ["~architecture", "~optimizer"],
            "architecture is not set; add architecture=... to the command.\noptimizer is not set",
        ),
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
            "regularisation.droput: no such key. Did you mean regularisation.rate?",
        ),
        (["optimizer.nesterov=true"], "It is a key of optimizer=sgd."),
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
    text = explain_hydra_error(caught.value)
    assert message in text
    assert "\n" not in text
    assert "object_type" not in text


#: Keys without which an option is refused.
NEEDS = {
    ("regularisation", "combined"): ["regularisation.l2=0.1"],
    ("architecture", "metadata_only"): ["metadata=patient"],
}


@pytest.mark.slow
def test_every_option_of_the_schema_can_be_chosen(composed):
    for group, name in OPTIONS:
        config = composed(f"{group}={name}", *NEEDS.get((group, name), []))
        assert type(getattr(config, group)) is OPTIONS[group, name]
        assert getattr(config, group).name == name


def test_the_result_is_typed(composed):
    config = composed("+experiment=augmented")
    assert isinstance(config, Config)
    assert all(
        dataclasses.is_dataclass(getattr(config, group)) for group in {g for g, _ in OPTIONS}
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augmentation=dermoscopy", "augmentation.rotation=200"], r"rotation: expected 0 to 180"),
        (["augmentation=dermoscopy", "augmentation.crop=0"], r"crop: expected above 0"),
        (["augmentation=dermoscopy", "augmentation.hue=0.6"], r"hue: expected 0 to 0\.5"),
        (["augmentation=dermoscopy", "augmentation.erase_area=[0.3,0.1]"], r"the smaller first"),
        (["augmentation=randaugment", "augmentation.magnitude=31"], r"expected 0 to 30"),
        (["augmentation=randaugment", "augmentation.operations=[]"], r"at least one"),
        (
            ["augmentation=randaugment", "augmentation.operations=[rotat]"],
            r"no operation 'rotat'. Did you mean rotate\?",
        ),
        (["augmentation=mixup", "augmentation.alpha=0"], r"alpha: expected above 0"),
        (
            ["augmentation=mixup", "+augmentation.before.zoom=1"],
            r"before\.zoom: no such key. It is a key of augmentation=flip_rotate_zoom",
        ),
        (
            ["augmentation=cutmix", "augmentation/before=dermoscopy", "+augmentation.before.hu=1"],
            r"Did you mean augmentation\.before\.hue\?",
        ),
        (
            ["augmentation=cutmix", "augmentation/before=dermoscopy", "augmentation.before.crop=2"],
            r"crop: expected above 0",
        ),
    ],
)
def test_augmentations_refuse_what_they_cannot_do(composed, overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides)


def test_images_are_not_mixed_twice():
    with pytest.raises(UserError, match="does not mix images itself; received mixup"):
        CutMix("cutmix", before=MixUp("mixup", before=NoAugmentation("none")))


def test_every_augmentation_that_does_not_mix_can_come_before_mixing(composed):
    groups = {path.stem for path in (CONF_DIR / "augmentation").glob("*.yaml")} - {
        "mixup",
        "cutmix",
    }
    for name in groups:
        before = composed("augmentation=mixup", f"augmentation/before={name}").augmentation.before
        assert before == composed(f"augmentation={name}").augmentation


def test_what_comes_before_mixing_has_keys_of_its_own(composed):
    mixing = ("augmentation=mixup", "augmentation/before=dermoscopy")
    config = composed(*mixing, "augmentation.before.rotation=90")
    assert config.augmentation.before == Dermoscopy("dermoscopy", rotation=90)
    assert composed("augmentation=mixup").augmentation.before == NoAugmentation("none")
    digests = {"dataset_digest": "d", "split_hash": "s"}
    assert len({compute_fingerprint(composed(*mixing[:n]), **digests) for n in range(3)}) == 3
    assert compute_fingerprint(config, **digests) != compute_fingerprint(
        composed(*mixing), **digests
    )
