"""The steps of a training that take long, each told once; in a process that has TensorFlow."""

from pathlib import Path

import pytest

from melanoma_lab.commands.train import train_arm
from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core import console
from melanoma_lab.core.heavy_imports import load_tensorflow
from tests.support.slow_steps import make_slow

pytestmark = pytest.mark.integration

NETWORK = ("architecture.filters=[4,8,8]", "architecture.dense_units=8", "training.epochs=1")


@pytest.fixture
def train(composed, tree, session_cache, tmp_path, monkeypatch):
    """Train on the tree."""
    monkeypatch.chdir(tmp_path)
    load_tensorflow()
    of_tree = ("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16")
    shared = (f"cache={session_cache}", "dataset.positive_class=null", *of_tree)
    return lambda name, *more: train_arm(composed(*shared, *more), Arm(name, name))


def steps_in(text):
    return [line for line in text.splitlines() if line.endswith(" ...")]


def test_every_slow_step_of_a_run_is_told_once(train, monkeypatch, capsys):
    make_slow(monkeypatch)
    train("baseline", *NETWORK)
    out = capsys.readouterr().out
    assert out.startswith("baseline  seed 0")  # before anything slow
    assert steps_in(out) == [
        "loading the command ...",
        "preparing images ...",
        "balancing ...",
        "building the network ...",
        "connecting to MLflow ...",
        "training epoch 1 of 1 ...",
        "evaluating ...",
        "loading statistics and drawing ...",
        "computing metrics ...",
        "drawing figures ...",
        "saving the network ...",
        "recording in MLflow ...",
    ]
    train("majority", "architecture=majority")
    assert steps_in(capsys.readouterr().out)[3:] == [
        "connecting to MLflow ...",
        "fitting and evaluating ...",
        "loading statistics and drawing ...",
        "computing metrics ...",
        "drawing figures ...",
        "recording in MLflow ...",
    ]
    report_study(
        "ablation",
        reference=None,
        metric="accuracy",
        tracked=Tracking(),
        folder=Path("experiments"),
    )
    assert steps_in(capsys.readouterr().out) == [
        "connecting to MLflow ...",
        "reading runs ...",
        "comparing ...",
        "drawing figures ...",
        "recording in MLflow ...",
    ]


def test_quick_steps_are_not_told(train, monkeypatch, capsys):
    monkeypatch.setattr(console, "SLOW_SECONDS", 3600)
    train("majority", "architecture=majority")
    out = capsys.readouterr().out
    assert "seed 0" in out
    assert not steps_in(out)
