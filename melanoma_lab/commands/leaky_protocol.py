"""Write a dataset with the leaky protocol of the course project, to measure what leaks do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melanoma_lab.audit.dataset_audit import audit_images
from melanoma_lab.audit.inspection import inspect_files
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.console import console, show_progress
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.core.formatting import format_percent
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.data.cache import compute_file_digests, load_pixels
from melanoma_lab.data.readers import read_listing
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.input_pipeline.leaky_protocol import write_leaky_protocol
from melanoma_lab.training.hardware import count_available_threads


def run(config: Config, _arm: Arm) -> None:
    """Prepare the dataset that the course project trained on."""
    prepare_leaky_dataset(config)


def prepare_leaky_dataset(config: Config) -> Path:
    """Write a dataset as the course project did, copies first, split afterwards; return its folder.

    Raises:
        UserError: the folder exists, or the dataset is not published with Train and Test splits.
    """
    dataset = config.dataset
    folder = Path(config.output or f"leaky-{dataset.name}")
    if folder.exists():
        raise UserError(f"output={folder}: this folder exists already; choose another one.")
    cache = get_cache_folder(config.cache)
    threads = config.training.threads or count_available_threads()
    with show_progress("copying images") as report:
        listing = read_listing(dataset, cache, report)
        manifest = listing.images
        if not {TRAIN, TEST} <= set(manifest["published"]):
            raise UserError(
                f"dataset={dataset.name}: published without a division into Train and Test; the "
                "course project's protocol copies images of the one and tests on the other."
            )
        manifest["digest"] = compute_file_digests(list(manifest["path"]), threads)
        files = (list(manifest["path"]), list(manifest["digest"]))
        inspection = inspect_files(*files, cache=cache, threads=threads, progress=report)
        _, images = audit_images(listing, inspection, name=dataset.name, classes=dataset.classes)
        pixels = load_pixels(
            *files,
            size=dataset.image_size,
            resize=dataset.resize,
            cache=cache,
            threads=threads,
        )
        written = write_leaky_protocol(
            folder,
            images,
            pixels.images,
            np.array([pixels.row[digest] for digest in images["digest"]], dtype=np.int64),
            seed=config.seed,
            cache=cache,
            threads=threads,
            progress=report,
        )
    # The written images are square already; a model's description must say how they were resized.
    resize = "" if dataset.resize is Resize.squash else f" dataset.resize={dataset.resize}"
    counts = written["split"].value_counts()
    trained = set(written.loc[written["split"] == TRAIN, "lesion"])
    leaking = written.loc[written["split"] == VAL, "lesion"].isin(trained).mean()
    left_out = (images["published"] == TEST).sum() - counts.get(TEST, 0)
    console.print(
        f"[bold]{folder}[/]: {counts[TRAIN]} train, {counts[VAL]} val, {counts.get(TEST, 0)} test "
        "images. Protocol: leaking, on purpose.\n"
        f"{format_percent(leaking, 0)} of the val images have a copy or another photograph of "
        f"their lesion in train; no test image has one ({left_out} published test images were "
        "left out for this reason).\n"
        "Train on it: "
        f"{format_lab_command('+experiment=leaky_protocol', f'dataset.root={folder}{resize}')}"
    )
    return folder
