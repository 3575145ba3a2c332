"""``compare`` as a user runs it: without TensorFlow, and with mistakes told."""

import json

import mlflow
import pytest

from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.tracking.tracker import connect
from tests.support.fake_studies import FakeStudies, tracking_in
from tests.support.processes import run_command, run_python

pytestmark = pytest.mark.integration

SCRIPT = """
import sys
from melanoma_lab.__main__ import main
try:
    main()
finally:
    print("loaded:", sorted({"tensorflow", "keras"} & set(sys.modules)))
    print("slow:", sorted({"mlflow", "pandas", "scipy", "matplotlib"} & set(sys.modules)))
"""


def compare(folder, *arguments):
    return run_python("-c", SCRIPT, "compare", *arguments, folder=folder, COLUMNS="100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a study called ablation has two arms of three runs."""
    folder = tmp_path_factory.mktemp("compared")
    before = mlflow.get_tracking_uri()
    tracked = FakeStudies.in_database(folder)
    connect(tracking_in(folder), "ablation").result()
    for seed in (0, 1, 2):
        tracked.add("ablation", "baseline", seed)
        tracked.add("ablation", "dropout", seed, skill=3.0, reference="baseline")
    mlflow.set_tracking_uri(before)
    return folder


@pytest.mark.slow
def test_a_study_is_compared_without_tensorflow(folder):
    done = compare(folder, "study=ablation", "reference=baseline")
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert "dropout helps, compared with baseline" in done.stdout
    assert "experiments/ablation/report.html" in done.stdout
    written = folder / "experiments" / "ablation"
    assert {path.name for path in written.iterdir()} == {
        "comparison.json",
        "report.md",
        "report.html",
        "figures",
    }
    content = json.loads((written / "comparison.json").read_text())
    assert content["study"] == "ablation"
    assert {row["verdict"] for row in content["comparisons"]} <= {
        "helps",
        "hurts",
        "no evidence",
        "too few runs",
    }


@pytest.mark.slow
def test_a_mistake_is_told_before_what_takes_seconds_is_loaded(folder):
    done = compare(folder, "study=abaltion")
    assert done.returncode == 2
    assert "slow: []" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"study": "abaltion"}, "study=abaltion: no such study. Did you mean ablation?"),
        ({"reference": "baselin"}, "reference=baselin: the study has no such arm. Did you mean"),
        ({"metric": "acuracy"}, "metric=acuracy: .* Did you mean accuracy?"),
        ({"tracked": Tracking(uri="sqlite:///none.db")}, "nothing has been trained"),
        (
            {"tracked": Tracking(uri="http://127.0.0.1:9")},
            r"127.0.0.1:9: cannot be used .Connection refused\W+ Start it, or name another\.$",
        ),
        (
            {"study": "empty"},
            "study=empty: no arm has been trained in it; evaluations and searches",
        ),
    ],
)
def test_mistakes_point_to_what_would_be_right(folder, tmp_path, wrong, message):
    tracked = tracking_in(folder)
    if wrong == {"study": "empty"}:
        connect(tracked, "empty").result()
    asked = {"study": "ablation", "reference": None, "metric": "accuracy", "tracked": tracked}
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        report_study(**(asked | wrong), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_told_with_status_2_and_leaves_nothing(folder):
    done = run_command("compare", "study=abaltion", folder=folder)
    assert done.returncode == 2
    assert "Did you mean ablation?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "experiments" / "abaltion").exists()
