"""Every option of every group of ``conf/`` trains, and changes what training computes."""

import dataclasses

import keras
import numpy as np
import pytest

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.schema.architecture import Architecture, TrivialArchitecture
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.registry import OPTIONS as DECLARED
from melanoma_lab.registry import builder
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.trainer import build_training_setup, train_network
from tests.support.marks import slow

pytestmark = pytest.mark.component

#: Groups whose options say what is read, or which values are tried, not how it is trained.
NOT_OF_TRAINING = {"dataset", "mapping", "split", "experiment", "tuner"}
#: Built by tests/models/test_backbones.py, all of them; tests/runs/test_every_preset.py trains one.
BUILT_ELSEWHERE = {
    *("efficientnet_lite0", "mobilenetv3_small"),
    *("efficientnet_lite1", "efficientnet_lite2", "efficientnetv2_b0", "mobilenetv3_large"),
    "convnext_tiny",
}
#: Trivial classifiers are left out: they train nothing.
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF_DIR.glob("*/*.yaml")
    if path.parent.name not in NOT_OF_TRAINING
    and not (
        path.parent.name == "architecture"
        and issubclass(DECLARED["architecture", path.stem], TrivialArchitecture)
    )
    and path.stem not in BUILT_ELSEWHERE
)
SMALL_VGG5 = ("architecture.filters=[4,4]", "architecture.dense_units=4")
#: Keys that an option must have, or that keep it small.
NEEDS = {
    "architecture=vgg5": SMALL_VGG5,
    "architecture=compact_cnn": ["architecture.filters=[4,4]", "architecture.blocks=[1,1]"],
    "finetuning=staged": ["finetuning.head_epochs=1"],
    "regularisation=combined": ["regularisation.label_smoothing=0.2"],
    "regularisation=dropout": ["regularisation.rates=[0.3]"],
    "balancing=augmentor": ["balancing.per_class=14"],
    "metadata=patient": [
        *("dataset=synthetic", "dataset.root=null", "dataset.lesions=20", "training.batch_size=10"),
        "dataset.classes=[melanoma,nevus]",
    ],
}
SMALL = (
    "dataset=folder",
    "dataset.image_size=16",
    "dataset.positive_class=null",
    "training.epochs=2",
    "training.batch_size=7",
)
#: An option of each group that computes what the group's default does, at least so soon.
SAME = {
    "architecture=vgg5",
    "regularisation=none",
    "balancing=none",
    "augmentation=none",
    "loss=cross_entropy",
    "optimizer=adam",
    "schedule=constant",
    "schedule=plateau",
    "finetuning=none",
    "metadata=none",
}


@builder("architecture", "residual")
def residual(options, image_size, n_classes, regulariser):
    """Two residual blocks on an image that is shrunk early."""
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(4, 4, strides=4)(x)
    for block in range(2):
        branch = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        x = keras.layers.Add()([x, regulariser.residual(branch, block, 2)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(n_classes, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, x)


@pytest.fixture
def configured(composed, tree, session_cache):
    """From overrides to the configuration of a small training."""

    def configure(*overrides):
        if not any(override.startswith("architecture") for override in overrides):
            overrides = (*SMALL_VGG5, *overrides)
        config = composed(f"dataset.root={tree}", f"cache={session_cache}", *SMALL, *overrides)
        if any(override.startswith("finetuning=") for override in overrides):
            config = dataclasses.replace(config, architecture=Architecture("on_a_backbone"))
        if "regularisation=stochastic_depth" in overrides:
            config = dataclasses.replace(config, architecture=Architecture("residual"))
        return config

    return configure


@pytest.fixture(scope="module")
def train(session_cache):
    """Train as configured, once; returns the probabilities of every image and the history."""
    done = {}

    def run(config):
        key = repr(config)
        if key not in done:
            data = prepare_data(config, cache=session_cache, threads=2)
            images = balance(
                config.balancing, data.training_split(), seed=0, cache_dir=session_cache
            )
            start_backend(threads=count_available_threads(), seed=0, precision=Precision.float32)
            trained = train_network(
                config,
                data,
                images,
                build_training_setup(config, data, images),
                on_step=lambda step, figures: None,
                on_epoch=lambda number, figures: None,
            )
            done[key] = trained.probabilities, trained.fit
        return done[key]

    return run


#: One option of most groups; the others are tried with the slow tests.
QUICK = {
    *("regularisation=dropout", "balancing=oversample", "augmentation=flip_rotate_zoom"),
    *("loss=focal", "optimizer=sgd", "schedule=cosine", "architecture=vgg5"),
}


@pytest.mark.parametrize(
    "choice",
    [option if option in QUICK else slow(option) for option in OPTIONS],
)
def test_every_option_trains_and_does_something(train, configured, choice):
    config = configured(choice, *NEEDS.get(choice, []))
    probabilities, fit = train(config)
    assert np.isfinite([epoch["train_loss"] for epoch in fit.history]).all()
    assert fit.optimizer_steps == 6
    plain = configured(*(NEEDS[choice] if choice == "metadata=patient" else ()))
    plain = dataclasses.replace(plain, architecture=config.architecture)
    if choice.startswith("architecture="):
        plain = configured()
    same = np.array_equal(probabilities, train(plain)[0])
    assert same == (choice in SAME)


@pytest.mark.slow
def test_a_warm_up_before_a_plateau_does_something(train, configured):
    plain, warm = (
        train(configured("schedule=plateau", f"schedule.warmup_epochs={epochs}"))
        for epochs in (0, 1)
    )
    assert not np.array_equal(plain[0], warm[0])
    rates = [[epoch["learning_rate"] for epoch in fit.history] for _, fit in (plain, warm)]
    # Three steps an epoch: quarters of the rate, and all of it from the fourth step on.
    assert rates == [pytest.approx([1e-3, 1e-3]), pytest.approx([0.75e-3, 1e-3])]


def test_stochastic_depth_without_residual_blocks_is_refused(train, composed, tree):
    config = composed(
        f"dataset.root={tree}", *SMALL, *SMALL_VGG5, "regularisation=stochastic_depth"
    )
    with pytest.raises(UserError, match=r"architecture=vgg5 has no residual blocks"):
        train(config)


def test_an_epoch_keeps_its_steps_however_few_images_are_left(train, configured):
    _, fit = train(configured("balancing=undersample", "balancing.per_class=2"))
    assert fit.optimizer_steps == 6
