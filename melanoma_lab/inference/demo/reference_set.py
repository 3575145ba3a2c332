"""What images are compared with: the images that a model was made with, where they still are."""

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
    """Find the images that a model was made with, and what it makes of those it learned from.

    Whatever is missing is said and done without.

    Args:
        model: the network.
        tracked: where runs are recorded.
        root: where the dataset lies now; None: where it lay when the network was trained.
        count: training images that are shown beside an image; 0: none.
        cache: the lab's cache folder.
        threads: for reading and decoding.
        progress: called with (done, total) while images are decoded and looked at.

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
        of = build_embedder(model.network)
        features = load_or_compute_embeddings(
            of,
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
    return ReferenceSet(known, images, features, of, count=count)
