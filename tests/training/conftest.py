"""What tests of training share: a small network with a backbone, trained as configured."""

import dataclasses

import pytest

from melanoma_lab.config.schema.architecture import Architecture
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.training.checkpoint import read_checkpoint, write_checkpoint
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.trainer import build_training_setup, train_network
from tests.support.small_backbone import weights_of

SMALL_BACKBONE = (
    "dataset=folder",
    "dataset.image_size=16",
    "dataset.positive_class=null",
    "training.batch_size=7",
    "training.epochs=4",
    "optimizer.learning_rate=0.01",
)


class Kept:
    """Every epoch's checkpoint, by way of the disk."""

    def __init__(self, folder):
        self.folder, self.of_epoch = folder, {}

    def save_if_affordable(self, take, *, last=False):
        del last
        checkpoint = read_checkpoint(write_checkpoint(take(), self.folder))
        self.of_epoch[checkpoint.epoch] = checkpoint


@pytest.fixture
def assemble_backbone(composed, tree, session_cache):
    """All that is needed to train with overrides: configuration, data, images, parts."""

    def run(*overrides, architecture="on_a_backbone", splits=None):
        config = composed(
            f"dataset.root={tree}", f"cache={session_cache}", *SMALL_BACKBONE, *overrides
        )
        config = dataclasses.replace(config, architecture=Architecture(architecture))
        data = prepare_data(config, cache=session_cache, threads=2)
        images = balance(config.balancing, data.training_split(), seed=0, cache_dir=session_cache)
        start_backend(
            threads=count_available_threads(),
            seed=0,
            precision=config.training.precision,
            devices=config.training.devices,
        )
        return config, data, images, build_training_setup(config, data, images, splits=splits)

    yield run
    start_backend(threads=count_available_threads(), seed=0, precision=Precision.float32)


@pytest.fixture
def train_backbone(assemble_backbone, tmp_path):
    """Train with overrides; returns what came out, the weights at first, and the checkpoints."""

    def run(*overrides, start=None, splits=None, checkpoints=None, **more):
        config, data, images, parts = assemble_backbone(*overrides, splits=splits, **more)
        first = weights_of(parts.network)
        kept = Kept(tmp_path)
        done = train_network(
            config,
            data,
            images,
            parts,
            on_step=lambda step, figures: None,
            on_epoch=lambda epoch, figures: None,
            start=start,
            checkpoints=checkpoints or kept,
            splits=splits,
        )
        return done, first, kept.of_epoch

    return run


@pytest.fixture(scope="module")
def _made():
    return {}


@pytest.fixture
def whole_backbone(train_backbone, _made):
    """As ``train_backbone``, but a fit that tests of a module share; it is looked at only."""

    def run(*overrides):
        if overrides not in _made:
            _made[overrides] = train_backbone(*overrides)
        return _made[overrides]

    return run
