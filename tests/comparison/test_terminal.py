"""What ``compare`` prints."""

from pathlib import Path

import pytest
from rich.console import Console

from melanoma_lab.comparison import study_report
from melanoma_lab.comparison.compare import compare_study

pytestmark = pytest.mark.unit

LONG = "best,augmentation=none,dataset.image_size=128,regularisation.rates=[0.1,0.2]"


@pytest.fixture(scope="module")
def comparison(tracked):
    arms = {"best": (1.0, ""), LONG: (1.2, "best"), "dropout": (1.1, "best")}
    return compare_study(tracked.load(tracked.fill(arms)))


def table_of(comparison, width, monkeypatch):
    """The printed table: its heading, and the lines of the arms."""
    console = Console(width=width, record=True, highlight=False, soft_wrap=True)
    monkeypatch.setattr(study_report, "console", console)
    study_report.show_comparison(comparison, [], Path("report.html"))
    table = console.export_text().strip().split("\n\n")[1].splitlines()
    rule = next(i for i, line in enumerate(table) if line.startswith("━"))
    return " ".join(table[:rule]), table[rule + 1 :]


def test_a_long_name_has_a_line_for_every_change(comparison, monkeypatch):
    heading, arms = table_of(comparison, 100, monkeypatch)
    assert [line.partition("│")[0].strip() for line in arms] == [
        "best",
        "best,",
        "augmentation=none,",
        "dataset.image_size=128,",
        "regularisation.rates=[0.1,0.2]",
        "dropout",
    ]
    assert "sensitivity" in heading


def test_in_a_narrow_terminal_names_come_before_further_figures(comparison, monkeypatch):
    heading, arms = table_of(comparison, 80, monkeypatch)
    assert "balanced accuracy" in heading
    assert "sensitivity" not in heading
    assert " regularisation.rates=[0.1,0.2] " in "\n".join(arms)
    assert max(map(len, arms)) <= 80
