"""What images are compared with: the images that a model was made with, where they still are."""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.progress import ProgressCallback
from melanoma_lab.demo.answer import Reference
from melanoma_lab.demo.features import kept_features, penultimate
from melanoma_lab.demo.training_images import read_manifest, training_images
from melanoma_lab.external.known import KnownFiles
from melanoma_lab.inference.predictor import Predictor


def prepare(
    model: Predictor,
    *,
    tracked: Tracking,
    root: str | None,
    count: int,
    cache: Path,
    threads: int,
    progress: ProgressCallback | None = None,
) -> Reference:
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
        manifest = read_manifest(model.source, tracked)
    except UserError as error:
        return Reference({}, why_none=str(error).rstrip(".") if count else "")
    files = KnownFiles.of(manifest)
    known = files.digests if files else {}
    if not count:
        return Reference(known)
    try:
        images = training_images(manifest, root)
        of = penultimate(model.network)
        features = kept_features(
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
        return Reference(known, why_none=str(error).rstrip("."))
    return Reference(known, images, features, of, count=count)
