"""Figures of a training: its images, the sizes of classes, and the learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from melanoma_lab.plots import style
from melanoma_lab.training.training_result import MAX_SAMPLES

_COLUMNS = 6


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of images of each class; every attribute is int64, shape (K,).

    Attributes:
        train: of original images of the training split.
        balanced: of images of the training split after balancing, from which batches are drawn.
        val: of images of the validation split.
        test: of images of the test split.
    """

    train: NDArray[np.int64]
    balanced: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainingFigures:
    """Data of a training's figures.

    Attributes:
        counts: numbers of images by class and split.
        history: a list of one value for each epoch by name, as for ``draw_learning_curves``; if it
            is empty, because there were no epochs, no curves are drawn.
        kept_epoch: epoch whose weights were saved, from 1; None if there is none.
        sample_images: training images as the network gets them, uint8 or float in 0 to 255,
            shape (n, height, width, 3); none are drawn if n is 0.
        sample_names: the n names of their classes, as for ``draw_samples``.
    """

    counts: ClassCounts
    history: Mapping[str, Sequence[float]]
    kept_epoch: int | None
    sample_images: NDArray[np.generic]
    sample_names: Sequence[str]


def draw_class_distribution(counts: ClassCounts, slugs: Sequence[str]) -> Figure:
    """Draw the numbers of training images before and after balancing, and list the other splits.

    Raises:
        ValueError: the counts are not of shape (K,).
    """
    k = len(slugs)
    for name, values in vars(counts).items():
        if np.shape(values) != (k,):
            raise ValueError(f"Expected {k} counts of {name}. Received {np.shape(values)}.")
    labels = [style.format_class_name(slug) for slug in slugs]
    left = 0.2 + style.estimate_text_width(labels, style.TICK_SIZE)
    # Space for the numbers of the other splits, in proportion to the width of the axes.
    right = 0.1 + (8.3 - left) * (1 - 1 / 1.19)
    fig, ax = style.new_axes(8.4, 1.9 + 0.46 * k, left=left, right=right, bottom=0.9, top=0.75)
    y = np.arange(k)
    for values, offset, colour, label in (
        (counts.train, -0.2, style.SKY, f"original images ({counts.train.sum():,})"),
        (counts.balanced, 0.2, style.BLUE, f"after balancing ({counts.balanced.sum():,})"),
    ):
        bars = ax.barh(y + offset, values, height=0.38, color=colour, label=label)
        ax.bar_label(bars, [f"{v:,}" for v in values], padding=3, fontsize=style.NOTE_SIZE)
    style.style_axes(ax, x="training images")
    ax.set_yticks(y, labels)
    ax.set_ylim(k - 0.5, -0.5)  # first class on top
    ax.set_xlim(0, max(counts.train.max(), counts.balanced.max(), 1) * 1.12)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.tick_params(axis="y", length=0)
    for x, head, values in ((1.09, "val", counts.val), (1.18, "test", counts.test)):
        column = [f"{head}\n{values.sum():,}", *(f"{value:,}" for value in values)]
        for row, text in enumerate(column, start=-1):
            ax.text(
                x,
                max(row, -0.62),
                text,
                transform=ax.get_yaxis_transform(),
                ha="right",
                va="bottom" if row < 0 else "center",
                fontsize=style.TICK_SIZE,
            )
    style.set_title(fig, "Images per class before and after balancing")
    fig.legend(loc="lower center", ncols=2, frameon=False, fontsize=style.TICK_SIZE)
    return fig


def draw_samples(images: NDArray[np.generic], names: Sequence[str]) -> Figure:
    """Draw images as the network gets them in training, with their classes.

    Args:
        images: uint8 or float, shape (n, height, width, 3), 0 to 255; values outside that range are
            clipped. At most the first ``MAX_SAMPLES`` are drawn.
        names: n class slugs, or texts of ``format_mixed_label``.

    Raises:
        ValueError: there are no images, or the number of names differs from that of images.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(names) or not len(images):
        raise ValueError(
            "Expected one or more images of shape (n, height, width, 3) and n names. "
            f"Received {images.shape} and {len(names)} names."
        )
    shown = np.clip(np.rint(images[:MAX_SAMPLES]), 0, 255).astype(np.uint8)
    n, height, width = shown.shape[:3]
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    # Positions are computed here, because equal cells need no layout engine. Sizes are in inches.
    titles = [style.format_class_name(name, width=17) for name in names[:n]]
    head = 0.16 + 0.14 * max(title.count("\n") + 1 for title in titles)
    cell, gap, margin, top = 1.45, 0.14, 0.15, 0.35
    cell_height = cell * height / width
    fig_width = max(2 * margin + columns * cell + (columns - 1) * gap, 6.6)
    fig_height = top + rows * (cell_height + head) + margin
    fig, ax = style.new_sheet(fig_width, fig_height)
    left = (fig_width - columns * cell - (columns - 1) * gap) / 2
    for i, (image, title) in enumerate(zip(shown, titles, strict=True)):
        row, column = divmod(i, columns)
        x = left + column * (cell + gap)
        y = fig_height - top - (row + 1) * (cell_height + head)
        style.draw_picture(ax, image, (x, y), (cell, cell_height))
        ax.text(x + cell / 2, y + cell_height + 0.04, title, fontsize=style.NOTE_SIZE, ha="center")
    style.set_title(fig, f"Training images as the network sees them ({width} x {height} pixels)")
    return fig


def format_mixed_label(shares: NDArray[np.floating], slugs: Sequence[str]) -> str:
    """Format the label of a training image, which may be a mixture of several classes.

    ``shares``, float (K,) with the sum 1, are those of each class. The result is the slug alone if
    the other shares are below half a per cent; otherwise slugs and percentages, the largest first.
    """
    order = [k for k in np.argsort(-shares, kind="stable") if shares[k] >= 0.005]
    if len(order) == 1:
        return str(slugs[order[0]])
    # Non-breaking spaces keep a number and its unit in one line.
    return ", ".join(f"{slugs[k]}\xa0{100 * shares[k]:.0f}\xa0%" for k in order)


def draw_learning_curves(history: Mapping[str, Sequence[float]], kept_epoch: int | None) -> Figure:
    """Draw loss and accuracy by epoch.

    Args:
        history: a list of one value for each epoch by name: ``train_loss``, ``val_loss``,
            ``train_accuracy``, ``val_accuracy`` and, optionally, ``val_balanced_accuracy``. Values
            that are not finite leave a gap.
        kept_epoch: epoch to mark, whose weights were saved, from 1; None: no epoch is marked.

    Raises:
        ValueError: the lists differ in length, or kept_epoch is not one of their epochs.
    """
    lengths = {len(values) for values in history.values()}
    epochs = max(lengths, default=0)
    if len(lengths) != 1 or (kept_epoch is not None and not 1 <= kept_epoch <= epochs):
        raise ValueError(
            "Expected lists of one length and kept_epoch to be one of their epochs, from 1. "
            f"Received lengths {sorted(lengths)} and kept_epoch {kept_epoch}."
        )
    fig = style.new_figure(9.2, 4.0, by_hand=True)
    loss_ax, accuracy_ax = fig.subplots(1, 2)
    style.set_margins(fig, left=0.55, right=0.25, bottom=0.95, top=0.7, between=0.6)
    curves = {"train_": ("training", style.BLUE), "val_": ("validation", style.VERMILLION)}
    for ax, quantity in ((loss_ax, "loss"), (accuracy_ax, "accuracy")):
        for prefix, (label, colour) in curves.items():
            _draw_curve(ax, history[prefix + quantity], label, colour, "solid")
        if ax is accuracy_ax and "val_balanced_accuracy" in history:
            values = history["val_balanced_accuracy"]
            _draw_curve(ax, values, "validation, balanced", style.GREEN, style.DASHES[1])
        style.style_axes(ax, quantity.capitalize(), "epoch")
        ax.set_xlim(0.5, epochs + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        ax.grid(axis="y", color=style.LIGHT_GREY, linewidth=0.6)
        if kept_epoch is not None:
            label = f"kept: epoch {kept_epoch}"
            ax.axvline(kept_epoch, color=style.GREY, linewidth=1, linestyle=":", label=label)
    losses = np.concatenate([history["train_loss"], history["val_loss"]])
    highest = np.max(losses, where=np.isfinite(losses), initial=0.0)
    loss_ax.set_ylim(0, 1.05 * highest if highest > 0 else 1)
    accuracy_ax.set_ylim(0, 1.02)
    handles, labels = accuracy_ax.get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=style.TICK_SIZE,
    )
    fig.supxlabel(
        "Training curves are taken in training mode (dropout and augmentation on, weights still "
        "changing);\nvalidation curves are not, and may look better for that reason alone.",
        fontsize=style.NOTE_SIZE,
        color=style.GREY,
    )
    return fig


def _draw_curve(ax: Axes, values: Sequence[float], label: str, colour: str, dashes: object) -> None:
    """Draw a curve of one value for each epoch, with dots if there are few epochs."""
    ax.plot(
        np.arange(1, len(values) + 1),
        np.where(np.isfinite(values), values, np.nan),
        color=colour,
        linestyle=dashes,
        linewidth=1.8,
        marker="o" if len(values) <= 30 else None,
        markersize=3.5,
        label=label,
    )
