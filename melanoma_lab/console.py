"""What a command shows: progress while it works, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from melanoma_lab.progress import Progress as Listener

console = Console(highlight=False, soft_wrap=True)


@contextmanager
def progress_of(what: str) -> Iterator[Listener]:
    """A bar for a step of unknown length; it shows once the step tells how far it has come.

    Args:
        what: what is being done, such as ``"decoding images"``.

    Yields:
        A function of (done, total).
    """
    with _bar() as bar:
        task = bar.add_task(what, total=None, visible=False)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield tell


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
        self._epoch = done + 1
        self._task = self._bar.add_task(
            f"{self._said}epoch {self._epoch}",
            total=epochs * steps_per_epoch,
            completed=done * steps_per_epoch,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

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


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Not on a terminal that is shared with other jobs, even if somebody forces colours.
        disable=not (console.is_terminal and console.file.isatty()),
    )
