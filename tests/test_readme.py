"""What the README shows works as it stands there."""

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.compose import compose_config
from melanoma_lab.tuning.plan import plan_search
from melanoma_lab.tuning.space_validation import TuneCommand
from tests.support.evaluation_cases import random_case, table_of
from tests.support.processes import run_command, run_python

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def block(language, containing):
    (found,) = [text for kind, text in BLOCKS if kind == language and containing in text]
    return found


@pytest.fixture
def own(tmp_path):
    """The README's preset, network and their configuration, in files of their own."""
    for path, text in (
        ("my_conf/experiment/mine.yaml", block("yaml", "flip_rotate_zoom")),
        ("my_conf/architecture/tiny.yaml", block("yaml", "/schema/architecture/tiny@_here_")),
        ("my_lab.py", block("python", '@builder("architecture", "tiny")')),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_a_preset_of_ones_own(own):
    words = ("--config-dir", "my_conf", "+experiment=mine", "--cfg", "job")
    shown = run_command(*words, folder=own)
    assert shown.returncode == 0, shown.stderr
    assert "name: flip_rotate_zoom" in shown.stdout
    assert "learning_rate: 0.0003" in shown.stdout


def test_the_declared_space_can_be_searched(tmp_path):
    preset = tmp_path / "my_conf" / "experiment" / "which_balancing.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(block("yaml", "tuner:"))
    overrides = ["+experiment=which_balancing"]
    config, arm = compose_config(overrides, preset.parent.parent)
    found = plan_search(config, arm, TuneCommand.from_overrides(overrides, preset.parent.parent))
    by_key = {entry.key: entry for entry in found.searched}
    assert by_key.keys() == config.tuner.space.keys()
    assert by_key["balancing.per_class"].when == {"balancing": ("augmentor",)}


def test_the_typed_space_can_be_searched():
    (typed,) = re.findall(r"'tuner\.space=(.*?)'", README)
    overrides = ["+experiment=dropout", "tuner=bayesian", f"tuner.space={typed}"]
    config, arm = compose_config(overrides)
    found = plan_search(config, arm, TuneCommand.from_overrides(overrides))
    assert [entry.key for entry in found.searched if entry.when] == ["optimizer.momentum"]


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained(own, tree):
    done = run_python(
        "my_lab.py",
        *("--config-dir", "my_conf", "architecture=tiny", "architecture.width=16"),
        *("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16", "training.epochs=1"),
        folder=own,
        XDG_CACHE_HOME=str(own / "cache"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # 3x3x3x16 + 16 of the convolution, 16x3 + 3 of the outputs.
    assert "499 parameters" in done.stdout


@pytest.mark.slow
def test_the_lab_from_python(tree, tmp_path, session_cache, monkeypatch, undrawn):
    """The snippet as it stands, on few images: every call gets overrides that make it small."""
    tiny = ["dataset=folder", f"dataset.root={tree}", "dataset.image_size=16", "training.epochs=1"]
    tiny += ["architecture.filters=[4,8,8]", "tracking.model=false", f"cache={session_cache}"]
    snippet = block("python", "lab.study(")
    snippet = snippet.replace("tuner.max_trials=20", "tuner.max_trials=1")
    for call in ("lab.train(", "lab.study(", "lab.tune("):
        assert call in snippet
        snippet = snippet.replace(call, f"{call}*TINY, ")
    snippet = snippet.replace('"dataset=isic9", "dataset.root=isic9"', "*TINY")
    # The first run keeps its model, for lab.predict.
    snippet = snippet.replace("lab.train(*TINY, ", 'lab.train(*TINY, "tracking.model=true", ')
    snippet = snippet.replace('"pictures"', repr(str(tree / "nevus")))
    snippet = snippet.replace('"dataset.root=others"', f'"dataset.root={tree}", {tiny[-1]!r}')
    snippet = snippet.replace('"seed=0,1,2"', '"seed=0,1"')  # one of these runs is there already
    monkeypatch.chdir(tmp_path)
    made = {"TINY": tiny}
    exec(snippet, made)  # noqa: S102 - the README's own words
    assert made["run"].tags["experiment"] == "dropout"
    assert len(made["run"].predictions) == made["findings"].n_images == 27
    (arm,) = made["result"].verdicts
    assert arm.startswith("dropout")
    assert made["result"].comparison.arms[arm].seeds == (0, 1)
    assert made["result"].report.is_file()
    assert len(made["tuned"].sweep.trials) == 1
    assert made["tuned"].preset.is_file()
    assert len(made["table"]) == 9
    own_test = (made["run"].manifest["split"] == "test").sum()
    assert made["elsewhere"].metrics["images"] == own_test  # of the images that it was trained on


def test_another_operating_point_of_a_finished_run():
    y_true, y_score = random_case(200, 3, seed=0)
    slugs = ("benign", "melanoma", "nevus")
    parts = [table_of((y_true, y_score), split, slugs) for split in ("val", "test")]
    names = {"run": SimpleNamespace(predictions=pd.concat(parts, ignore_index=True))}
    exec(block("python", "evaluate_clinically"), names)  # noqa: S102 - it is the README's
    found = names["found"]
    assert found.point.target == 0.95
    assert found.point.rates["test"].sensitivity.value >= 0.95  # val is test here


def test_every_preset_and_dataset_is_listed():
    for group in ("experiment", "dataset"):
        for path in (CONF_DIR / group).glob("*.yaml"):
            assert f"| `{path.stem}` |" in README, path


def test_the_two_commands_use_the_environment_that_they_make():
    """`.ci/run` types them as they are found here."""
    first, second = [line for line in README.splitlines() if line.startswith("python3 install.py")]
    assert first.startswith("python3 install.py && .venv/bin/python -m melanoma_lab ")
    assert second.startswith("python3 install.py --dev && .venv/bin/python -m pytest ")
    assert BLOCKS[0][1].strip() == first
    assert BLOCKS[1][1].strip() == second


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_hashes_and_names_no_address(lock):
    text = (REPOSITORY / lock).read_text()
    pinned = re.findall(r"^[a-z0-9][^ ]*==", text, flags=re.MULTILINE)
    assert len(pinned) > 100
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
