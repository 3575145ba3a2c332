"""What commands say while they work: bars and spinners on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from melanoma_lab.core import console
from melanoma_lab.core.console import FitProgress, show_progress
from tests.support.slow_steps import make_slow

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    """Text that is shown on a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """What is shown off a terminal."""
    file = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, soft_wrap=True))
    return file


@pytest.fixture
def on_terminal(monkeypatch):
    """What is shown on a terminal, with its control codes."""
    file = Terminal()
    monkeypatch.setattr(console, "console", Console(file=file, force_terminal=True, width=80))
    return file


@pytest.fixture
def slow(monkeypatch):
    """Every step takes long."""
    make_slow(monkeypatch)


def test_the_bar_of_a_continued_fit_starts_where_it_was():
    progress = FitProgress(epochs=10, steps_per_epoch=5, done=3)
    (task,) = progress._bar.tasks
    assert (task.completed, task.total, task.description) == (15, 50, "epoch 4")
    progress.step(2, {"train_loss": 0.5})
    assert (task.completed, task.description) == (17, "epoch 4  loss 0.500")
    progress.begin_evaluation()
    assert task.description == "evaluating"


def test_a_slow_step_is_a_line_off_the_terminal(shown, slow):
    with show_progress("drawing [figures]") as tell:
        tell(1, 2)
    assert shown.getvalue() == "drawing [figures] ...\n"


def test_the_line_comes_while_the_step_is_under_way(shown, monkeypatch):
    monkeypatch.setattr(console, "SLOW_SECONDS", 0.01)
    came = []
    with show_progress("drawing figures"):
        for _ in range(10**9):
            if shown.getvalue():
                came.append(shown.getvalue())
                break
    assert came[0].startswith("drawing")
    assert shown.getvalue() == "drawing figures ...\n"


def test_a_quick_step_is_no_line(shown, monkeypatch):
    monkeypatch.setattr(console, "SLOW_SECONDS", 3600)
    with pytest.raises(KeyError), show_progress("drawing figures"):
        raise KeyError
    assert shown.getvalue() == ""


def test_what_is_always_slow_is_told_before_it_begins(shown, monkeypatch):
    monkeypatch.setattr(console, "SLOW_SECONDS", 3600)
    with show_progress("starting TensorFlow", at_once=True):
        assert shown.getvalue() == "starting TensorFlow ...\n"
    assert shown.getvalue() == "starting TensorFlow ...\n"


def test_no_line_where_none_is_wanted(shown, slow):
    with show_progress("trials", line=False) as tell:
        tell(1, 2)
    with show_progress("trials", line=False, at_once=True):
        pass
    console.console.quiet = True
    with show_progress("drawing figures"):
        pass
    assert shown.getvalue() == ""


def test_a_step_on_a_terminal_has_a_spinner_and_then_a_bar(on_terminal):
    with show_progress("drawing figures") as tell:
        begun = on_terminal.getvalue()
        tell(3, 7)
    assert "drawing figures" in begun
    assert "3/7" not in begun
    assert "drawing figures" in on_terminal.getvalue().removeprefix(begun)
    assert "3/7" in on_terminal.getvalue()
    assert "drawing figures ..." not in on_terminal.getvalue()


def test_nothing_moves_on_a_terminal_that_is_not_to_be_written_to(on_terminal):
    console.console.quiet = True
    with show_progress("drawing figures") as tell:
        tell(3, 7)
    assert on_terminal.getvalue() == ""


FIGURES = dict.fromkeys(
    (
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy"),
        "images_per_second",
    ),
    0.5,
)


def test_a_fit_says_that_it_began_and_that_it_is_over(shown, slow):
    with FitProgress(epochs=2, steps_per_epoch=5) as progress:
        progress.epoch(1, FIGURES)
        progress.epoch(2, FIGURES)
        progress.begin_evaluation()
    begun, first, second, evaluating = shown.getvalue().splitlines()
    assert begun == "training epoch 1 of 2 ..."
    assert (first[:9], second[:9]) == ("epoch 1/2", "epoch 2/2")
    assert evaluating == "evaluating ..."


def test_a_fit_of_a_search_says_nothing(shown, slow):
    with FitProgress(epochs=2, steps_per_epoch=5, said="trial 1") as progress:
        progress.epoch(1, FIGURES)
        progress.begin_evaluation()
    assert shown.getvalue() == ""
