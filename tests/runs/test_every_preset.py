"""Every preset in conf/experiment, found by its file, takes a step; three are whole runs."""

from importlib import metadata

import mlflow
import numpy as np
import pytest

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.commands.train import train_arm
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema.architecture import TrivialArchitecture
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.batches import make_training_batches
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.models.trivial_classifiers import build_trivial_classifier
from melanoma_lab.models.weight_files import PACKAGES
from melanoma_lab.training.finetuning import make_model_factory
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.trainer import build_training_setup
from melanoma_lab.training.training_result import fit_trivial_classifier

pytestmark = pytest.mark.integration

#: Of a trivial classifier, of a pretrained backbone in two stages, of a network from the start.
WHOLE = ("metadata_only", "transfer_finetune", "mixup")
PRESETS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
#: Whatever the preset says: few and small images, one step. (group, option) -> what makes it small.
SMALL = {
    ("architecture", "vgg5"): ("architecture.filters=[4,8,8]", "architecture.dense_units=8"),
    ("architecture", "compact_cnn"): ("architecture.filters=[4,8]", "architecture.blocks=[1,1]"),
    ("balancing", "augmentor"): ("balancing.per_class=20",),
    ("finetuning", "staged"): (
        *("finetuning.head_epochs=1", "training.epochs=2", "finetuning.cache_features=false"),
    ),
    ("finetuning", "frozen"): ("finetuning.cache_features=false",),
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


def small(composed, preset, cache):
    """A preset's configuration, made small."""
    overrides = [f"+experiment={preset}", f"cache={cache}", *TINY]
    config = composed(*overrides, "training.epochs=9")
    for (group, option), keys in SMALL.items():
        if getattr(config, group).name == option:
            overrides += keys
    config = composed(*overrides)
    require_weights(config.architecture)
    return config


def one_step(config, data, images):
    """The loss of one training step of what a configuration names, not compiled into a graph."""
    parts = build_training_setup(config, data, images)
    phase, optimizer, _ = parts.optimizers[0]
    model = make_model_factory(
        phase, parts.network, parts.augmentation, config.finetuning, precomputed=False
    )()
    model.compile(optimizer, parts.loss, run_eagerly=True)
    batch = next(
        iter(make_training_batches(images, batch_size=16, seed=0, first_step=0, last_step=1))
    )
    loss = model.train_on_batch(*batch)
    assert int(optimizer.iterations) == 1
    return float(loss)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_a_step_on_synthetic(composed, session_cache, preset):
    config = small(composed, preset, session_cache)
    data = prepare_data(config, cache=session_cache, threads=1)
    images = balance(config.balancing, data.training_split(), seed=0, cache_dir=session_cache)
    if isinstance(config.architecture, TrivialArchitecture):
        done = fit_trivial_classifier(
            build_trivial_classifier(config.architecture, data), data, images
        )
        np.testing.assert_allclose(done.probabilities.sum(axis=1), 1, atol=1e-5)
        assert done.fit.optimizer_steps == 0
    else:
        start_backend(threads=count_available_threads(), seed=0, precision=Precision.float32)
        assert np.isfinite(one_step(config, data, images))


@pytest.mark.slow
@pytest.mark.parametrize("preset", WHOLE)
def test_a_preset_runs_on_synthetic(composed, tmp_path, session_cache, monkeypatch, preset):
    monkeypatch.chdir(tmp_path)
    config = small(composed, preset, session_cache)
    run_id = train_arm(config, Arm(preset, preset))
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["experiment"] == preset
    assert 0 <= run.data.metrics["test/balanced_accuracy"] <= 1
    steps = 0 if isinstance(config.architecture, TrivialArchitecture) else config.training.epochs
    assert run.data.metrics["optimizer_steps"] == steps
