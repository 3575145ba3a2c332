"""The reports: complete, self-contained, the same whenever they are made, safe to open."""

import json
import re
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from melanoma_lab.comparison import figures, report
from melanoma_lab.comparison.compare import compare_study
from melanoma_lab.comparison.report import draw_comparison_figures, write_comparison_report
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.core.formatting import (
    format_difference,
    format_difference_interval,
    format_metric_interval,
)

pytestmark = pytest.mark.unit

AGAIN = "python -m melanoma_lab compare study=ablation"


def report_of(tracked, name, folder):
    study = tracked.load(name)
    comparison = compare_study(study)
    page = write_comparison_report(
        folder, study, comparison, find_warnings(study, comparison), again=AGAIN
    )
    return page, comparison


@pytest.fixture(scope="module")
def written(tracked, ablation, tmp_path_factory):
    return report_of(tracked, ablation, tmp_path_factory.mktemp("report"))


def test_everything_is_written(written):
    page, comparison = written
    folder = page.parent
    assert page.name == "report.html"
    assert {path.name for path in folder.iterdir()} == {
        "comparison.json",
        "report.md",
        "report.html",
        "figures",
    }
    pictures = {path.name for path in (folder / "figures").iterdir()}
    assert pictures == {
        "difference_balanced_accuracy.png",
        "difference_melanoma_sensitivity.png",
        "difference_macro_auroc.png",
        "difference_log_loss.png",
        "difference_generalisation_gap.png",
        "sensitivity.png",
        "generalisation_gap.png",
        "learning_curves.png",
        *(f"confusion_{i}.png" for i in range(1, 5)),
    }
    content = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert set(content["arms"]) == set(comparison.arms)


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_says_what_people_ask(written, name):
    page, _ = written
    text = (page.parent / name).read_text()
    for words in (
        "dropout helps, compared with baseline",
        "dropout_sgd hurts, compared with dropout",
        "No evidence that augmented differs from dropout",
        "160 test images of 80 lesions",
        "always nevus",
        "generalisation gap",
        "optimizer steps",
        "1,234",
        "seed=0,1,2,3",
        AGAIN,
        "Research use only",
        "not a medical device",
    ):
        assert words in text.replace("<strong>", "").replace("<wbr>", ""), words


class Page(HTMLParser):
    """Collects what a page points to and whether its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.alts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.targets += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag == "img":
            self.alts.append(attrs.get("alt"))
        if tag not in {"img", "meta", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file(written):
    text = written[0].read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.targets) == 12
    assert all(target.startswith("data:image/png;base64,") for target in page.targets)
    assert all(page.alts)
    assert "url(" not in text
    assert "<script" not in text
    assert len(text) < 3_000_000


def test_links_of_the_markdown_report_lead_somewhere(written):
    folder = written[0].parent
    links = re.findall(r"\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert len(links) == 12
    assert all((folder / link).is_file() for link in links)


def test_tables_of_the_markdown_report_are_whole(written):
    lines = (written[0].parent / "report.md").read_text().splitlines()
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("| ---"):
            assert before.count("|") == line.count("|") == after.count("|")


def test_the_same_runs_make_the_same_files_and_old_figures_go(tracked, ablation, written, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "confusion_9.png").write_bytes(b"")
    again, _ = report_of(tracked, ablation, tmp_path)
    first = written[0].parent
    for path in first.rglob("*.*"):
        if path.is_file():
            assert (again.parent / path.relative_to(first)).read_bytes() == path.read_bytes(), path
    assert not (tmp_path / "figures" / "confusion_9.png").exists()


def test_names_cannot_break_the_page(tracked, tmp_path):
    name = tracked.fill({"<b>a": (1.0, ""), "a|b$": (1.5, "<b>a")}, notes="<script>x</script>")
    page, _ = report_of(tracked, name, tmp_path)
    text = page.read_text()
    assert Page(text).open == []
    assert "<b>a" not in text
    assert "<script" not in text
    assert "&lt;b&gt;a" in text
    assert "a\\|b$" in (tmp_path / "report.md").read_text()


def test_a_study_of_one_arm_with_one_run_has_a_report(tracked, tmp_path):
    page, _ = report_of(tracked, tracked.fill({"baseline": (1.0, "")}, seeds=(0,)), tmp_path)
    assert "Nothing was compared." in page.read_text()
    assert "one arm" in page.read_text()
    assert not list((tmp_path / "figures").glob("difference_*"))


def test_a_report_on_val_says_so(tracked, make_table, tmp_path):
    study = tracked.study()
    for arm, skill in (("baseline", 1.0), ("dropout", 2.0)):
        for seed in (0, 1, 2):
            table = make_table(skill, seed=seed)
            table = table[table["split"] != "test"].reset_index(drop=True)
            tracked.add(study, arm, seed, table=table, reference="baseline")
    report, _ = report_of(tracked, study, tmp_path)
    text = report.with_suffix(".md").read_text()
    assert "did not use the test split" in text
    assert "160 validation images of 80 lesions" in text
    assert "Validation lesions; mean over seeds" in text
    assert "test lesions;" not in text


def test_figures_are_narrow_enough_for_a_phone(written):
    for picture in draw_comparison_figures(written[1]):
        with Image.open(BytesIO(picture.png)) as image:
            assert 700 < image.width <= 1000, picture.name


def test_curves_that_stopped_early_are_drawn_as_far_as_they_go(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    comparison = compare_study(tracked.load(name))
    (arm,) = comparison.arms.values()
    short = dict(arm.runs[0].curves)
    object.__setattr__(arm.runs[0], "curves", {key: curve[:1] for key, curve in short.items()})
    axes = figures.draw_mean_learning_curves(comparison).axes
    (line,) = axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.4126, "+41.3"),
        ("accuracy", -0.01, "\N{MINUS SIGN}1.0"),
        ("log_loss", -0.5, "\N{MINUS SIGN}0.500"),
        ("sensitivity/melanoma", float("nan"), "undefined"),
    ],
)
def test_differences_read_as_points_or_numbers(metric, value, text):
    assert format_difference(metric, value) == text


def test_an_interval_is_shown_where_there_is_one():
    assert format_metric_interval("accuracy", 0.5, 0.4, 0.625) == "50.0 % [40.0, 62.5]"
    assert format_difference_interval("brier", 0.5, 0.4, 0.625) == "+0.500 [+0.400, +0.625]"
    nan = float("nan")
    assert format_metric_interval("accuracy", 0.5, nan, nan) == "50.0 %"
    assert format_difference_interval("accuracy", 0.5, nan, nan) == "+50.0"


def test_commands_make_a_study_again(tracked):
    name = tracked.study()
    for arm in ("baseline,e=1", "dropout,e=1", "dropout,e=1,x=[1,2]"):
        for seed in (0, 1):
            tracked.add(name, arm, seed, reference="baseline" if "dropout" in arm else "")
    made = report.build_training_commands(compare_study(tracked.load(name)), "my images")
    end = f"e=1 study={name} 'dataset.root=my images'"
    assert made == [
        f"python -m melanoma_lab -m +experiment=baseline,dropout seed=0,1 {end}",
        f"python -m melanoma_lab -m +experiment=dropout seed=0,1 e=1 'x=[1,2]' {end[4:]}",
    ]


def test_commands_name_references_that_presets_do_not(tracked):
    name = tracked.study()
    tracked.add(name, "baseline", 0, reference="")
    tracked.add(name, "dropout", 0, reference="")
    tracked.add(name, "best", 0, reference="baseline")
    tracked.add(name, "augmented", 0, reference="best,x=1")
    tracked.add(name, "of_my_own", 0, reference="dropout")
    lab = "python -m melanoma_lab +experiment"
    assert sorted(report.build_training_commands(compare_study(tracked.load(name)), None)) == [
        f"{lab}=augmented seed=0 'reference=\"best,x=1\"' study={name}",
        f"{lab}=baseline seed=0 study={name}",
        f"{lab}=best seed=0 reference=baseline study={name}",
        f"{lab}=dropout seed=0 reference=null study={name}",
        f"{lab}=of_my_own seed=0 reference=dropout study={name}",
    ]


def test_what_trained_a_study_is_told_from_its_runs(tracked):
    name = tracked.study()
    commit = {"melanoma_lab": "0.1.0", "git_commit": "0123456789"}
    tracked.add(name, "baseline", 0, **commit)
    tracked.add(name, "baseline", 1, **commit, fingerprint="f")
    told = report.describe_lab_versions(compare_study(tracked.load(name)))
    assert told == "melanoma_lab 0.1.0 at commit 0123456"
    other = {"melanoma_lab": "0.2.0", "git_commit": "abcdefabcdef+changes"}
    tracked.add(name, "dropout", 0, **other)
    told = report.describe_lab_versions(compare_study(tracked.load(name)))
    assert told == "melanoma_lab 0.1.0 and 0.2.0 at commit 0123456 and abcdefa+changes"
    name = tracked.study()
    tracked.add(name, "baseline", 0, git_commit="unknown")
    assert report.describe_lab_versions(compare_study(tracked.load(name))) == "melanoma_lab"


def test_commands_make_folds_that_go_with_seeds_again(tracked):
    name = tracked.study()
    for seed, fold in ((0, 0), (1, 1), (2, 1)):
        tracked.add(name, "baseline", seed, fold=fold)
    end = f"study={name}"
    assert report.build_training_commands(compare_study(tracked.load(name)), None) == [
        f"python -m melanoma_lab +experiment=baseline seed=0 {end}",
        f"python -m melanoma_lab -m +experiment=baseline seed=1,2 split.fold=1 {end}",
    ]


def test_the_comparing_command_has_what_is_not_default():
    found = report.build_compare_command(
        "s", reference="a,b=1", metric="accuracy", uri="http://localhost:5000"
    )
    assert found == (
        "python -m melanoma_lab compare study=s 'reference=\"a,b=1\"' metric=accuracy "
        "tracking.uri=http://localhost:5000"
    )
