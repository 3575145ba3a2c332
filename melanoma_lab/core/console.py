"""What a command shows: progress while it works, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Timer
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Called with (done, total).
ProgressCallback = Callable[[int, int], None]


console = Console(highlight=False, soft_wrap=True)


#: Seconds that a step may take before a line says what it is, where no terminal shows a spinner.
SLOW_SECONDS = 1.0


@contextmanager
def show_progress(
    what: str, *, line: bool = True, at_once: bool = False
) -> Iterator[ProgressCallback]:
    """Say what is being done while the block does it.

    On a terminal: a spinner, and a bar once the step tells how far it has come. Elsewhere, such as
    in a pipe or a notebook: a line where the step takes more than ``SLOW_SECONDS`` seconds.

    Args:
        what: what is being done, such as ``"decoding images"``.
        line: say it off the terminal too; not where something else tells how far the work is.
        at_once: do not wait with the line; for what is always slow, and lets no other thread run.

    Yields:
        A function of (done, total).
    """
    if not _on_terminal():
        if line and at_once:
            _print_step(what)
        with _line_if_slow(what if line and not at_once else None):
            yield _ignore_progress
        return
    spinner, bar = _spinner(), _bar()
    spinner.add_task(what)
    task = bar.add_task(what, total=None)

    def tell(done: int, total: int) -> None:
        spinner.stop()
        bar.start()
        bar.update(task, completed=done, total=total)

    spinner.start()
    try:
        yield tell
    finally:
        spinner.stop()
        bar.stop()


class FitProgress:
    """A bar over a fit's steps and a line for every epoch.

    Args:
        epochs: at most.
        steps_per_epoch: optimizer steps an epoch.
        done: epochs that an earlier process did.
        said: what the bar begins with; None: nothing, and a line is printed for every epoch.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, done: int = 0, said: str | None = None
    ) -> None:
        self._said = "" if said is None else f"{said}  "
        self._lines = said is None
        self._epochs, self._steps = epochs, steps_per_epoch
        self._bar = _bar()
        self._line = ExitStack()
        self._epoch = done + 1
        self._task = self._bar.add_task(
            f"{self._said}epoch {self._epoch}",
            total=epochs * steps_per_epoch,
            completed=done * steps_per_epoch,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        self._begin(f"training epoch {self._epoch} of {self._epochs}")
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._bar.stop()

    def _begin(self, what: str) -> None:
        """Off a terminal, say what is being done if nothing else is said soon."""
        self._line.close()
        if self._lines and not _on_terminal():
            self._line.enter_context(_line_if_slow(what))

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Show how far the current epoch has come."""
        loss = figures.get("train_loss", float("nan"))
        self._bar.update(
            self._task,
            completed=(self._epoch - 1) * self._steps + step,
            description=f"{self._said}epoch {self._epoch}  loss {loss:.3f}",
        )

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Print an epoch's figures."""
        self._line.close()
        self._epoch = number + 1
        self._bar.update(
            self._task,
            completed=number * self._steps,
            description=f"{self._said}epoch {number}",
        )
        if not self._lines:
            return
        self._bar.console.print(
            f"epoch {number:>{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {figures['train_loss']:.3f}  accuracy {figures['train_accuracy']:.3f}"
            f"  | val loss {figures['val_loss']:.3f}  accuracy {figures['val_accuracy']:.3f}"
            f"  balanced {figures['val_balanced_accuracy']:.3f}"
            f"  | {figures['images_per_second']:.0f} images/s"
        )

    def begin_evaluation(self) -> None:
        """Show that the fit is over, and the network is applied to all images."""
        self._bar.update(self._task, description=f"{self._said}evaluating")
        self._begin("evaluating")


def _ignore_progress(_done: int, _total: int) -> None:
    """Take how far a step has come where nobody is shown it."""


def _print_step(what: str) -> None:
    console.print(f"{what} ...", style="dim", markup=False)


@contextmanager
def _line_if_slow(what: str | None) -> Iterator[None]:
    """Print a line if the block takes more than ``SLOW_SECONDS`` seconds.

    Args:
        what: is being done; None: print nothing.
    """
    if what is None:
        yield
        return
    timer = Timer(SLOW_SECONDS, _print_step, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # its line comes before the next step's


def _on_terminal() -> bool:
    """Whether bars and spinners can be drawn.

    Not on a terminal that is shared with other jobs, even if somebody forces colours.
    """
    return console.is_terminal and console.file.isatty() and not console.quiet


def _spinner() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # What is imported meanwhile keeps these streams for its own messages.
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not _on_terminal(),
    )


def show_note(message: str) -> None:
    """Say what is worth knowing and stops nothing."""
    console.print(message, style="yellow", markup=False)


def show_loading() -> AbstractContextManager[ProgressCallback]:
    """Say that the block imports what a command needs, which may take seconds."""
    return show_progress("loading the command")
