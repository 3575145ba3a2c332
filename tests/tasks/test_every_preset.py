"""Every preset in conf/experiment, found by its file, runs a step on the synthetic dataset."""

from importlib import metadata

import mlflow
import pytest

from melanoma_lab.__main__ import CONF
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema.trivial import Trivial
from melanoma_lab.model.pretrained.sources import PACKAGES
from melanoma_lab.tasks.train import train_arm

PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
#: Whatever the preset says: few and small images, one step. (group, option) -> what makes it small.
SMALL = {
    ("architecture", "vgg5"): ("architecture.filters=[4,8,8]", "architecture.dense_units=8"),
    ("architecture", "compact_cnn"): ("architecture.filters=[4,8]", "architecture.blocks=[1,1]"),
    ("balancing", "augmentor"): ("balancing.per_class=20",),
    ("finetuning", "staged"): ("finetuning.head_epochs=1", "training.epochs=2"),
}
TINY = (
    *("dataset=synthetic", "split=holdout", "dataset.lesions=110", "dataset.image_size=32"),
    *("training.epochs=1", "training.batch_size=512", "tracking.model=false"),
)


def require_weights(architecture):
    """Skip where the package that carries an architecture's weights is not installed."""
    package, _ = PACKAGES.get(architecture.name, (None, None))
    if package is not None:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs are tracked; one database, because a new one takes seconds."""
    return tmp_path_factory.mktemp("presets")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_runs_a_step_on_synthetic(composed, folder, session_cache, monkeypatch, preset):
    monkeypatch.chdir(folder)
    overrides = [f"+experiment={preset}", f"cache={session_cache}", *TINY]
    config = composed(*overrides, "training.epochs=9")
    for (group, option), small in SMALL.items():
        if getattr(config, group).name == option:
            overrides += small
    config = composed(*overrides)
    require_weights(config.architecture)
    run_id = train_arm(config, Arm(preset, preset))
    run = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["experiment"] == preset
    assert 0 <= run.data.metrics["test/balanced_accuracy"] <= 1
    steps = 0 if isinstance(config.architecture, Trivial) else config.training.epochs
    assert run.data.metrics["optimizer_steps"] == steps
