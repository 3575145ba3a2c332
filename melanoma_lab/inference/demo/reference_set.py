"""Load the images that a model was trained with, to compare new images with them."""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.console import ProgressCallback
from melanoma_lab.core.errors import UserError
from melanoma_lab.inference.demo.embeddings import build_embedder, load_or_compute_embeddings
from melanoma_lab.inference.demo.image_answer import ReferenceSet
from melanoma_lab.inference.demo.training_images import (
    find_training_images,
    load_reference_manifest,
)
from melanoma_lab.inference.known_images import KnownFiles
from melanoma_lab.inference.predictor import Predictor


def load_reference_set(
    model: Predictor,
    *,
    tracked: Tracking,
    root: str | None,
    count: int,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> ReferenceSet:
    """Load the images of a model's dataset, and the embeddings of its training images.

    Missing images are no error: the result lacks them, and its ``why_none`` says why.

    Args:
        model: the loaded network.
        tracked: the settings of the tracking server.
        root: the folder of the dataset; None for the folder used in training.
        count: the number of training images to show for an image; 0 for none.
        cache: the cache folder.
        threads: the number of threads for reading and decoding.
        progress: called with (done, total) while images are decoded and embedded.

    Raises:
        RunError: the cache cannot be written.
    """
    try:
        manifest = load_reference_manifest(model.source, tracked)
    except UserError as error:
        return ReferenceSet({}, why_none=str(error).rstrip(".") if count else "")
    files = KnownFiles.of(manifest)
    known = files.digests if files else {}
    if not count:
        return ReferenceSet(known)
    try:
        images = find_training_images(manifest, root)
        embedder = build_embedder(model.network)
        features = load_or_compute_embeddings(
            embedder,
            lambda: images.pixels(
                size=model.size,
                resize=model.card.resize,
                cache=cache,
                threads=threads,
                progress=progress,
            ),
            size=model.size,
            network=model.source.network,
            digests=images.digests,
            cache=cache,
            progress=progress,
        )
    except UserError as error:
        return ReferenceSet(known, why_none=str(error).rstrip("."))
    return ReferenceSet(known, images, features, embedder, count=count)
