"""A space held against the configuration before the first trial."""

import pytest

from melanoma_lab.config.arm import parse_arm
from melanoma_lab.config.compose import compose_config
from melanoma_lab.core.errors import UserError
from melanoma_lab.tuning.plan import build_default_space, plan_search
from melanoma_lab.tuning.search_space import parse_space
from melanoma_lab.tuning.space_validation import TuneCommand, validate_space

pytestmark = pytest.mark.unit

DROPOUT = TuneCommand.from_overrides(
    ["task=tune", "+experiment=dropout", "tuner=grid", "tuner.max_trials=3"]
)


def check(space, command=DROPOUT):
    return {entry.key: entry for entry in validate_space(parse_space(space), command)}


def test_a_command_is_what_was_typed_without_the_task_and_the_tuner():
    assert DROPOUT.overrides == ("+experiment=dropout",)


def test_a_trial_has_the_proposed_value_in_place_of_the_typed_one():
    command = TuneCommand(("+experiment=dropout", "optimizer=sgd", "optimizer.momentum=0.5"))
    config = command.configure({"optimizer.momentum": "0.9", "balancing": "class_weight"})
    assert (config.optimizer.momentum, config.balancing.name) == (0.9, "class_weight")
    assert parse_arm(command.overrides).name == "dropout,optimizer.momentum=0.5,optimizer=sgd"


@pytest.mark.slow
def test_a_key_of_some_options_is_searched_under_those():
    space = check(
        {
            "regularisation.rates.0": {"min": 0, "max": 0.5},
            "regularisation": ["none", "dropout", "l2"],
            "optimizer": ["adam", "sgd", "rmsprop"],
            "optimizer.momentum": {"min": 0, "max": 0.9},
            "optimizer.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        }
    )
    assert space["regularisation.rates.0"].when == {"regularisation": ("dropout",)}
    assert space["optimizer.momentum"].when == {"optimizer": ("sgd", "rmsprop")}
    assert space["optimizer.learning_rate"].when == {}
    assert list(space).index("regularisation") < list(space).index("regularisation.rates.0")


def test_a_group_within_an_option_is_searched_under_it():
    space = check(
        {
            "augmentation": ["none", "mixup"],
            "augmentation/before": ["none", "dermoscopy"],
            "augmentation.before.rotation": {"min": 0, "max": 90},
        }
    )
    assert space["augmentation/before"].when == {"augmentation": ("mixup",)}
    assert space["augmentation.before.rotation"].when == {"augmentation/before": ("dermoscopy",)}


def test_a_range_of_a_key_that_takes_fractions_is_one_of_fractions():
    entries = check({"regularisation.rates.0": {"min": 0, "max": 0.5}, "training.batch_size": {
        "min": 16, "max": 64, "step": 16,
    }})  # fmt: skip
    assert entries["regularisation.rates.0"].kind == "float"
    assert entries["training.batch_size"].kind == "int"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optimizer.learning_rat": [1, 2]}, "Did you mean optimizer.learning_rate"),
        ({"optimiser": ["adam", "sgd"]}, "optimiser: no such key. Did you mean optimizer"),
        ({"optimizer": ["adam", "sgdd"]}, "optimizer=sgdd: no such option. Did you mean sgd"),
        ({"regularisation.factor": [0.1, 0.2]}, "It is a key of regularisation=l2"),
        ({"regularisation.rates.3": [0.1, 0.2]}, "regularisation.rates.3"),
        ({"regularisation.rates.0": {"min": 0, "max": 1}}, "rates from 0 to below 1; received 1"),
        ({"training.batch_size": {"min": 8.5, "max": 16}}, "expected whole numbers"),
        ({"training.batch_size": {"min": 0, "max": 16}}, "batch_size: expected at least 1"),
        ({"schedule.warmup_epochs": {"min": 0, "max": 30}}, "less than training.epochs=30"),
        ({"architecture": ["vgg5", "majority"]}, "architecture=majority is a trivial classifier"),
        (
            {"optimizer": ["adam", "adamw"], "regularisation": ["none", "weight_decay"]},
            "both decay the weights",
        ),
        ({"optimizer": ["adam"], "balancing": ["none"]}, "only one combination, optimizer=adam"),
        ({"optimizer.learning_rate": ["fast", "slow"]}, "fast"),
    ],
)  # fmt: skip
def test_what_the_configuration_refuses_is_refused_before_the_first_trial(space, message):
    with pytest.raises(UserError, match="tuner.space: .*" + message):
        check(space)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ((), {"optimizer.learning_rate"}),
        (("regularisation=l2",), {"optimizer.learning_rate", "regularisation.factor"}),
        (
            ("regularisation=combined", "regularisation.rates=[0.1]", "regularisation.l2=1e-4"),
            {"optimizer.learning_rate", "regularisation.rates.0", "regularisation.l2"},
        ),
        (
            ("+experiment=dropout",),
            {"optimizer.learning_rate", *(f"regularisation.rates.{i}" for i in range(3))},
        ),
        (("regularisation=label_smoothing",), {"optimizer.learning_rate", "regularisation.factor"}),
        (
            ("architecture=compact_cnn", "regularisation=stochastic_depth"),
            {"optimizer.learning_rate", "regularisation.rate"},
        ),
    ],
)
def test_the_default_space_is_the_learning_rate_and_what_regularises(overrides, keys):
    command = TuneCommand(overrides)
    config = command.configure({})
    space = build_default_space(config)
    assert space.keys() == keys
    assert check(space, command).keys() == keys
    assert space["optimizer.learning_rate"]["min"] < config.optimizer.learning_rate


def test_an_arm_that_is_not_trained_needs_a_space_of_its_own():
    words = ["task=tune", "+experiment=majority"]
    config, arm = compose_config(words)
    with pytest.raises(
        UserError, match=r"architecture=majority is not trained by epochs, .* tuner\.space="
    ):
        plan_search(config, arm, TuneCommand.from_overrides(words))
    words.append("tuner.space={balancing:[none,class_weight]}")
    config, arm = compose_config(words)
    assert [
        entry.key for entry in plan_search(config, arm, TuneCommand.from_overrides(words)).searched
    ] == ["balancing"]
