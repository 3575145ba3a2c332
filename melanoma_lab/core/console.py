"""Console output: progress of steps and of training, and notes."""

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

#: Function of (done, total): the number of finished items and of all items.
ProgressCallback = Callable[[int, int], None]


console = Console(highlight=False, soft_wrap=True)


#: Seconds after which a line names the current step, if no terminal shows a spinner.
SLOW_SECONDS = 1.0


@contextmanager
def show_progress(
    what: str, *, line: bool = True, at_once: bool = False
) -> Iterator[ProgressCallback]:
    """Show what is being done while the block runs.

    A terminal shows a spinner, and a bar once the step reports its progress. Elsewhere, such as in
    a pipe or a notebook, a line is printed if the step takes more than ``SLOW_SECONDS`` seconds.

    Args:
        what: name of the step, such as ``"decoding images"``.
        line: print the line if there is no terminal; false if other output shows the progress.
        at_once: print the line immediately; for a step that is always slow and blocks all threads.

    Yields:
        A function of (done, total) that reports the progress of the step.
    """
    if not _on_terminal():
        if line and at_once:
            _print_step(what)
        with _line_if_slow(what if line and not at_once else None):
            yield lambda _done, _total: None
        return
    spinner = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Modules imported in the block keep a reference to these streams.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    spinner.add_task(what)
    bar = _bar()
    task = bar.add_task(what, total=None)

    def report(done: int, total: int) -> None:
        spinner.stop()
        bar.start()
        bar.update(task, completed=done, total=total)

    spinner.start()
    try:
        yield report
    finally:
        spinner.stop()
        bar.stop()


class FitProgress:
    """Progress of a fit: a bar over all steps, and a line for every epoch.

    Args:
        done: number of epochs that an earlier process completed.
        said: prefix of the bar's text, which replaces the lines; None: no prefix, and a line for
            every epoch.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, done: int = 0, said: str | None = None
    ) -> None:
        self._prefix = "" if said is None else f"{said}  "
        self._prints_lines = said is None
        self._epochs, self._steps = epochs, steps_per_epoch
        self._bar = _bar()
        self._line = ExitStack()
        self._epoch = done + 1
        self._task = self._bar.add_task(
            f"{self._prefix}epoch {self._epoch}",
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
        """Print a line with what is being done if it is slow and there is no terminal."""
        self._line.close()
        if self._prints_lines and not _on_terminal():
            self._line.enter_context(_line_if_slow(what))

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the progress of the current epoch.

        Args:
            figures: name -> value; ``train_loss`` is shown if it is there.
        """
        loss = figures.get("train_loss", float("nan"))
        self._bar.update(
            self._task,
            completed=(self._epoch - 1) * self._steps + step,
            description=f"{self._prefix}epoch {self._epoch}  loss {loss:.3f}",
        )

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Advance the bar by an epoch, and print the epoch's line.

        Args:
            number: number of the finished epoch, counted from 1.
        """
        self._line.close()
        self._epoch = number + 1
        self._bar.update(
            self._task,
            completed=number * self._steps,
            description=f"{self._prefix}epoch {number}",
        )
        if not self._prints_lines:
            return
        self._bar.console.print(
            f"epoch {number:>{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {figures['train_loss']:.3f}  accuracy {figures['train_accuracy']:.3f}"
            f"  | val loss {figures['val_loss']:.3f}  accuracy {figures['val_accuracy']:.3f}"
            f"  balanced {figures['val_balanced_accuracy']:.3f}"
            f"  | {figures['images_per_second']:.0f} images/s"
        )

    def begin_evaluation(self) -> None:
        """Show that the fit has ended and the network is being applied to all images."""
        self._bar.update(self._task, description=f"{self._prefix}evaluating")
        self._begin("evaluating")


def _print_step(what: str) -> None:
    console.print(f"{what} ...", style="dim", markup=False)


@contextmanager
def _line_if_slow(what: str | None) -> Iterator[None]:
    """Print a line if the block takes more than ``SLOW_SECONDS`` seconds; None: no line."""
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
    """Return whether bars and spinners can be drawn.

    They cannot if the output is redirected, even if colours are forced.
    """
    return console.is_terminal and console.file.isatty() and not console.quiet


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
    """Print a note that does not stop the command."""
    console.print(message, style="yellow", markup=False)


def show_loading() -> AbstractContextManager[ProgressCallback]:
    """Show that the block imports a command's modules, which may take seconds."""
    return show_progress("loading the command")
