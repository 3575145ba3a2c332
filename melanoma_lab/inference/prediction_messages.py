"""Console messages of ``predict``: the network, unreadable files, and reasons for doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from melanoma_lab.core.console import console, show_note
from melanoma_lab.data.decoding import DECODING_VERSION
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.prediction_files import build_unreadable_path
from melanoma_lab.tracking.logged_model import NOTICE, ModelInfo

#: The number of unreadable files named in the terminal; a file next to the output lists all.
N_SHOWN = 5
#: The value of the column ``seen`` for a file that is not one of the run's images; for the run's
#: own images it is the split.
UNSEEN = "no"
#: The value of ``seen`` if the run's images are unknown.
NOT_KNOWN = "not known"


def show_source(source: ModelSource, card: ModelInfo) -> None:
    """Print the network's name, input and classes, and remarks about it."""
    trained = f", trained on {card.dataset}" if card.dataset else ""
    size = card.image_size
    sees = f", input {size}x{size} pixels ({card.resize})" if size else ""
    console.print(f"{name_source(source)}: {len(card.slugs)} classes{trained}{sees}", markup=False)
    for note in list_source_notes(source, card):
        show_note(f"  {note}")


def name_source(source: ModelSource) -> str:
    """Return the name of a network: its run's id if the user typed that, else the typed text."""
    by_run = source.run is not None and source.run in source.typed
    return f"run {source.run}" if by_run else source.typed


def list_source_notes(source: ModelSource, card: ModelInfo) -> list[str]:
    """Return sentences that qualify a network's predictions."""
    notes = [source.note] if source.note else []
    if source.card is None:
        notes.append(
            "The names of its classes are unknown, so they are numbered. Name a model's folder "
            "or a run's id to get the names."
        )
    if source.appearance is None:
        notes.append(
            "The model was saved without statistics of its training images, so images of another "
            "kind are not detected."
        )
    if card.decoding != DECODING_VERSION:
        notes.append(
            f"It was trained on images decoded by version {card.decoding} of the lab's decoder; "
            f"this is version {DECODING_VERSION}, which decodes some files differently."
        )
    return notes


def warn_unlike(n_unlike: int, n_images: int) -> None:
    """Warn of images that are unlike the training images."""
    if n_unlike:
        console.print(
            f"{n_unlike:,} of {n_images:,} images look unlike the training images (column "
            "warning): are they photographs of the same kind? Predictions for other images are "
            "meaningless.",
            style="bold yellow",
            markup=False,
        )


def show_seen_images(counts: Mapping[str, int]) -> None:
    """Warn of images from the network's own dataset, and print how they were recognised.

    ``counts`` has the number of images for each value of the column ``seen``.
    """
    total = sum(counts.values())
    known = {split: counts.get(split, 0) for split in (TRAIN, VAL, TEST)}
    if counts.get(NOT_KNOWN):
        show_note(
            "Whether the network was trained on these images is not known (column seen): its "
            "run, or the run's manifest.csv, was not found."
        )
        return
    if known[TRAIN] or known[VAL]:
        console.print(
            f"{known[TRAIN]:,} of {total:,} images were used to train the network, "
            f"{known[VAL]:,} to select it (column seen): its predictions for them are better "
            "than for new images. Leave them out of any metric.",
            style="bold yellow",
            markup=False,
        )
    if known[TEST]:
        console.print(
            f"{known[TEST]:,} of {total:,} images are of its run's own test split.", markup=False
        )
    if counts.get(UNSEEN):
        console.print(
            f"{counts[UNSEEN]:,} of {total:,} images are not of its run, judged by file content "
            "and ISIC ids. Photographs that were renamed and also resized or re-encoded are not "
            "recognised: evaluate compares the image content.",
            style="dim",
            markup=False,
        )


def show_unreadable(
    shown: Sequence[tuple[str, str]], n_unreadable: int, n_files: int, output: Path | None
) -> None:
    """Print the number of unreadable files and (image_id, reason) of the first few.

    ``output`` is the path of the predictions, next to which the full list is written; None if no
    file is written.
    """
    if not n_unreadable:
        return
    lines = [f"{n_unreadable:,} of {n_files:,} images cannot be read:"]
    lines += [f"  {image_id}: {reason}" for image_id, reason in shown]
    if n_unreadable > len(shown):
        lines.append(f"  and {n_unreadable - len(shown):,} more")
    if output is not None:
        lines.append(f"All are listed in {build_unreadable_path(output)}")
    show_note("\n".join(lines))


def show_notice() -> None:
    """Print the notice that predictions are for research use only."""
    console.print(NOTICE, style="dim", markup=False)
