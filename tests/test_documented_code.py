"""Code that the pages of the documentation show works as it stands there."""

from types import SimpleNamespace

import pandas as pd
import pytest

from tests.support.documentation import PAGES, find_blocks, write_files
from tests.support.evaluation_cases import random_case, table_of
from tests.support.processes import run_python

pytestmark = pytest.mark.integration


def find_page(name):
    (page,) = [page for page in PAGES if page.name == name]
    return page


def find_code(page, containing):
    (found,) = [text for text in find_blocks(find_page(page), "python") if containing in text]
    return found


@pytest.fixture
def own(tmp_path):
    """The files of the page on networks and losses of one's own."""
    write_files(find_page("own-network.md"), tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "shown"),
    [
        # 3x3x3x16 + 16 of the convolution, 16x3 + 3 of the outputs.
        ("my_lab.py", ("architecture=tiny", "architecture.width=16"), "499 parameters"),
        ("my_loss.py", ("loss=squared", "architecture.filters=[4,8]"), "loss=squared"),
    ],
)
def test_a_network_and_a_loss_of_ones_own_are_trained(own, tree, script, words, shown):
    done = run_python(
        *(script, "--config-dir", "my_conf", *words),
        *("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16", "training.epochs=1"),
        folder=own,
        XDG_CACHE_HOME=str(own / "cache"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout


@pytest.mark.slow
def test_the_lab_from_python(tree, tmp_path, session_cache, monkeypatch, undrawn):
    """The snippet as it stands, on few images: every call gets overrides that make it small."""
    tiny = ["dataset=folder", f"dataset.root={tree}", "dataset.image_size=16", "training.epochs=1"]
    tiny += ["architecture.filters=[4,8,8]", "tracking.model=false", f"cache={session_cache}"]
    snippet = find_code("from-python.md", "lab.study(")
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
    exec(snippet, made)  # noqa: S102 - the page's own words
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
    exec(find_code("calibration.md", "evaluate_clinically"), names)  # noqa: S102 - the page's
    found = names["found"]
    assert found.point.target == 0.95
    assert found.point.rates["test"].sensitivity.value >= 0.95  # val is test here
