"""The report of a sweep: complete, self-contained, safe to open, whatever became of the trials."""

import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.tuning.report import format_trials_csv, write_search_report
from melanoma_lab.tuning.search_space import HyperParameter
from tests.support.tuning_cases import RATE, realistic, sweep_of, trials_of

pytestmark = pytest.mark.unit


class Page(HTMLParser):
    """Collects what a page points to, its tables, and whether its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.alts, self.open, self.text = [], [], [], ""
        self.tables = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.targets += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag == "img":
            self.alts.append(attrs.get("alt"))
        if tag not in {"img", "meta", "wbr"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def sweep():
    return realistic()


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory):
    return write_search_report(sweep, tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


@pytest.mark.slow
def test_everything_is_written(written):
    assert written.name == "report.html"
    assert {path.name for path in written.parent.iterdir()} == {
        *("report.html", "report.md", "trials.csv", "figures"),
    }
    assert {path.name for path in (written.parent / "figures").iterdir()} == {
        *("best_so_far.png", "parallel_coordinates.png", "importance.png"),
        *(f"hyperparameter_{i}.png" for i in range(1, 8)),
    }


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_says_what_people_ask(sweep, written, name):
    text = (written.parent / name).read_text()
    text = " ".join(Page(text).text.split()) if name.endswith("html") else " ".join(text.split())
    for words in (
        f"Trial {sweep.best['number']}, the best of 55 trials with a score",
        "seed 0:",
        "The test split was not used",
        "optimistic",
        sweep.next_command,
        sweep.command,
        "The hyperparameters explain",
        "Breiman 2001",
        "shuffled copies",
        "Not varied among these trials: architecture.dense.",
        "The loss was NaN in epoch 3: a smaller learning rate may help.",
        "interrupted",
        "isic9_verified",
        "not a medical device",
    ):
        assert words in text, words


def test_the_page_begins_with_the_answer(sweep, page):
    text = page.text
    order = ["best on validation", "hyperparameter", "Read this first", "Next", "Best value over"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    head, *rows = page.tables[0]
    assert head == ["hyperparameter", "best trial", "untuned arm", "searched"]
    assert [row[0] for row in rows] == [entry.key for entry in sweep.searched]
    assert [row[2] for row in rows][:2] == ["0.001", "adam"]


def test_importance_names_what_was_planted(page):
    head, *rows = page.tables[1]
    assert head == ["hyperparameter", "matters", "share", "used by the best"]
    assert rows[0][:2] == [RATE.key, "yes"]
    assert {row[0]: row[1] for row in rows}["augmentation.horizontal_flip"] == "no evidence"


def test_cost_is_the_sum_over_trials(sweep, page):
    rows = {row[0]: row[1:] for row in page.tables[3]}
    seconds, steps = sweep.trials["seconds"].sum(), sweep.trials["steps"].sum()
    hours = f"{seconds / 3600:,.1f}"
    assert rows["all trials"] == ["60", f"{seconds:,.0f}", hours, f"{steps:,.0f}"]
    assert rows["failed"][0] == "4"
    assert rows["the best trial"] == ["1", f"{sweep.best['seconds']:,.0f}", "0.0", "900"]


def test_all_trials_are_listed_the_best_first(sweep, page):
    head, *rows = page.tables[4]
    assert head[:3] == ["trial", "score", "each run"]
    assert len(rows) == 60
    assert rows[0][0] == str(sweep.best["number"])
    scores = [float(row[1].removesuffix("\N{NO-BREAK SPACE}%")) for row in rows[:55]]
    assert scores == sorted(scores, reverse=True)
    assert [row[-1] for row in rows[55:]].count("failed") == 4


def test_the_page_is_one_file(page, written):
    text = written.read_text()
    assert page.open == []
    assert len(page.targets) == 10
    assert all(target.startswith("data:image/png;base64,") for target in page.targets)
    assert all(page.alts)
    assert "url(" not in text
    assert "<script" not in text
    assert len(text) < 2_000_000


def test_the_markdown_report_is_whole(written):
    text = (written.parent / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == 10
    assert all((written.parent / link).is_file() for link in links)
    lines = text.splitlines()
    tables = [i for i, each in enumerate(lines) if each.startswith("| ---")]
    assert len(tables) == 5
    for i in tables:
        assert lines[i - 1].count("|") == lines[i].count("|") == lines[i + 1].count("|"), lines[i]
    assert "The best 20 of 60" in text


def test_the_table_of_trials_loses_nothing(sweep):
    table = pd.read_csv(io.StringIO(format_trials_csv(sweep)), dtype={"trial": str})
    assert table["number"].tolist() == list(range(60))
    trials = sweep.trials.sort_values("number")
    assert table["score"].tolist() == pytest.approx(
        trials["score"].tolist(), nan_ok=True, rel=1e-15
    )
    assert [json.loads(cell) for cell in table["scores"]] == [list(s) for s in trials["scores"]]


@pytest.mark.slow
def test_old_figures_go_and_the_same_sweep_makes_the_same_files(tmp_path):
    sweep = realistic(6)
    (tmp_path / "a" / "figures").mkdir(parents=True)
    (tmp_path / "a" / "figures" / "importance.png").write_bytes(b"")
    files = [
        {
            path.name: path.read_bytes()
            for path in write_search_report(sweep, folder).parent.rglob("*.*")
        }
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    assert "importance.png" not in files[0]
    assert "best_so_far.png" in files[0]


def test_what_a_user_typed_cannot_break_the_page(tmp_path):
    evil = "<script>x</script>|größe 日本 $"
    values = {"a<b>": [evil, None, ["<i>", 1]], "size": [None, 2, None]}
    searched = [
        HyperParameter("a<b>", "choice", choices=tuple(map(format_override_value, values["a<b>"]))),
        HyperParameter("size", "int", 1, 3, when={"a<b>": ("null",)}),
    ]
    trials = trials_of(
        [0.1, 0.3, math.nan],
        values,
        status=["completed", "completed", "failed"],
        reason=["", "", f"{evil}\nsecond line"],
    )
    sweep = sweep_of(searched, trials, name="<b>arm", next_command="a && b <c>")
    text = write_search_report(sweep, tmp_path).read_text()
    page = Page(text)
    assert page.open == []
    assert "<script" not in text
    assert "<b>arm" not in text
    assert evil in page.text
    assert "a && b <c>" in page.text
    lines = (tmp_path / "report.md").read_text().splitlines()
    reason = next(each for each in lines if "second line" in each)
    assert reason.startswith("| <script>x</script>\\|größe 日本 $ second line | failed | 1 | 2 |")


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (trials_of([], {RATE.key: []}), "None of 0 trials has a score."),
        (
            trials_of(
                [math.nan] * 3,
                {RATE.key: [0.01] * 3},
                status=["failed"] * 3,
                reason=["no memory"] * 3,
                scores=[[]] * 3,
            ),
            "None of 3 trials has a score.",
        ),
    ],
)
def test_a_sweep_that_found_nothing_has_a_report(trials, words, tmp_path):
    sweep = sweep_of([RATE], trials, next_command="")
    page = Page(write_search_report(sweep, tmp_path).read_text())
    assert words in page.text
    assert page.targets == []
    assert "nothing found" in page.text
    assert "Next" not in page.text
    assert ("no memory" in page.text) == (len(trials) > 0)
    assert list((tmp_path / "figures").iterdir()) == []


def test_a_sweep_of_one_trial_has_a_report(tmp_path):
    page = Page(write_search_report(realistic(1), tmp_path).read_text())
    assert "the only trial with a score" in page.text
    assert "1 trial with a score is too few" in page.text
    assert "A random forest" not in page.text


def test_a_sweep_of_nothing_but_ties_has_a_report(tmp_path):
    sweep = sweep_of(
        [RATE], trials_of([0.5] * 25, {RATE.key: [10 ** -(i / 9 + 1) for i in range(25)]})
    )
    page = Page(write_search_report(sweep, tmp_path).read_text())
    assert "All trials have the same score." in page.text
    assert "25 trials share the best score" in page.text


def test_budgets_of_hyperband_are_kept_apart(tmp_path):
    page = Page(write_search_report(realistic(16, hyperband=True), tmp_path).read_text())
    text = " ".join(page.text.split())
    assert "Trials had unequal budgets" in text
    assert "A line is a trial of 2 epochs" in text
    assert "of 15 epochs" in [row[0] for row in page.tables[-2]]


def test_no_tensorflow_is_loaded():
    code = (
        "import sys, melanoma_lab.tuning.report, melanoma_lab.tuning.figures; "
        "sys.exit(bool({'tensorflow', 'keras', 'keras_tuner', 'mlflow', 'sklearn.ensemble'} "
        "& set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_report_alone_does_not_load_matplotlib():
    code = "import sys, melanoma_lab.tuning.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
