"""Apply a saved network to images: find both, decode, predict, write and report the results."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Config
from melanoma_lab.core.console import console, show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.evaluation.predictions import PROBABILITY_PREFIX
from melanoma_lab.inference import prediction_messages
from melanoma_lab.inference.image_files import (
    ImageBatch,
    ImageFiles,
    decode_batches,
    find_image_files,
)
from melanoma_lab.inference.known_images import (
    NEW,
    KnownFiles,
    load_run_manifest,
    read_training_run,
)
from melanoma_lab.inference.model_source import find_model
from melanoma_lab.inference.prediction_files import (
    Columns,
    build_map_path,
    check_map_folder,
    check_output_file,
    open_writer,
    write_map,
)
from melanoma_lab.inference.predictor import Predictor, load_predictor
from melanoma_lab.training.hardware import choose_threads

if TYPE_CHECKING:  # slow to load, and needed by predict_table only
    import pandas as pd

#: The prefix of the columns of calibrated probabilities; the class's slug follows.
CALIBRATED_PREFIX = "calibrated/"
#: The value of the column ``warning`` for an image of another kind, such as one without skin.
UNLIKE = "unlike the training images"
#: Called with a batch of images and their most probable classes; int, shape (n,).
DecidedListener = Callable[[ImageBatch, NDArray[np.intp]], None]
#: Column -> a value for each readable image, empty if there is none; then (image_id, reason) of the
#: unreadable files.
PredictedBatch = tuple[Columns, Sequence[tuple[str, str]]]


def predict_to_file(config: Config) -> Path:
    """Predict images with a saved network, write the predictions to a file and return its path.

    The keys ``model``, ``images``, ``output``, ``grad_cam`` and ``training.batch_size`` say what to
    do.

    Raises:
        UserError: the model, the images or the output cannot be used.
        RunError: none of the images can be read.
    """
    output = check_output_file(config.output)
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    unlike = 0
    shown: list[tuple[str, str]] = []
    with _open_job(config) as (model, images, batches), show_progress("predicting") as report:
        source, card = model.source, model.card
        metadata = {
            "model": source.typed,
            "run_id": source.run,
            "dataset": card.dataset,
            "classes": dict(zip(card.slugs, card.names, strict=True)),
            "positive_class": card.positive_class,
            "advice": None if source.advice is None else source.advice.plain(),
        }
        with open_writer(output, metadata) as writer:
            for columns, unreadable in batches:
                if columns:
                    writer.write(columns)
                    counts.update(columns["predicted"])
                    seen.update(columns["seen"])
                    unlike += sum(map(bool, columns.get("warning", ())))
                writer.list_unreadable(unreadable)
                shown += unreadable[: prediction_messages.N_SHOWN - len(shown)]
                done = writer.n_rows + writer.n_unreadable
                report(done, max(done, images.count))  # files may be added meanwhile
    prediction_messages.show_unreadable(shown, writer.n_unreadable, done, output)
    if writer.n_rows == 0:
        raise RunError(f"none of {done} images can be read; nothing was predicted.")
    by_class = ", ".join(f"{n:,} {slug}" for slug, n in counts.most_common())
    console.print(f"{writer.n_rows:,} images: {by_class}", markup=False)
    prediction_messages.warn_unlike(unlike, writer.n_rows)
    prediction_messages.show_seen_images(seen)
    console.print(f"written to {output}", markup=False)
    if config.grad_cam is not None:
        console.print(f"Grad-CAM maps: {config.grad_cam}", markup=False)
    prediction_messages.show_notice()
    return output


def predict_table(config: Config) -> pd.DataFrame:
    """Predict images as ``predict_to_file`` does, and return the predictions as a table.

    No file is written except the maps of ``grad_cam``.

    Returns:
        A row for every image that can be read; ``attrs["unreadable"]`` says why the others cannot.

    Raises:
        UserError: the model or the images cannot be used.
        RunError: none of the images can be read.
    """
    import pandas as pd

    parts: list[pd.DataFrame] = []
    unreadable: dict[str, str] = {}
    done = 0
    with _open_job(config) as (_, images, batches), show_progress("predicting") as report:
        for columns, failed in batches:
            if columns:
                parts.append(pd.DataFrame(dict(columns)))
            unreadable |= dict(failed)
            done += (len(parts[-1]) if columns else 0) + len(failed)
            report(done, max(done, images.count))
    prediction_messages.show_unreadable(
        list(islice(unreadable.items(), prediction_messages.N_SHOWN)), len(unreadable), done, None
    )
    if not parts:
        raise RunError(f"none of {done} images can be read; nothing was predicted.")
    table = pd.concat(parts, ignore_index=True)
    table.attrs["unreadable"] = unreadable
    if "warning" in table:
        prediction_messages.warn_unlike(int((table["warning"] != "").sum()), len(table))
    prediction_messages.show_seen_images(Counter(table["seen"]))
    prediction_messages.show_notice()
    return table


@contextmanager
def _open_job(config: Config) -> Iterator[tuple[Predictor, ImageFiles, Iterator[PredictedBatch]]]:
    """Yield the model, the images, and an iterator that predicts them as it advances.

    The images and the model are found first: mistakes show before TensorFlow is loaded.
    """
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        images = find_image_files(config.images)
        maps = None
        if config.grad_cam is not None:
            maps = check_map_folder(config.grad_cam, str(config.images), images.walk())
        source = find_model(config.model, config.tracking, Path(scratch))
        run = read_training_run(source, config.tracking, Path(scratch))
        known = KnownFiles.of(load_run_manifest(run, config.tracking, Path(scratch)))
        threads = choose_threads(config.training.threads)
        model = load_predictor(source, threads=threads, seed=config.seed)
        prediction_messages.show_source(source, model.card)
        on_decided = None if maps is None else _build_map_writer(model.network, maps)
        batches = decode_batches(
            images.walk(),
            size=model.size,
            resize=model.card.resize,
            batch_size=config.training.batch_size,
            threads=threads,
            with_digests=known is not None,
        )
        yield model, images, (_predict_batch(each, model, known, on_decided) for each in batches)


def _build_map_writer(network: Any, folder: Path) -> DecidedListener:
    """Build a function that writes a heat map of the most probable class over each image."""
    from melanoma_lab.models.grad_cam import GradCam

    explain = GradCam(network)

    def write(batch: ImageBatch, decided: NDArray[np.intp]) -> None:
        heat = explain(batch.pixels, decided)
        for image_id, pixels, heat_map in zip(batch.image_ids, batch.pixels, heat, strict=True):
            write_map(build_map_path(folder, image_id), pixels, heat_map)

    return write


def _predict_batch(
    batch: ImageBatch,
    model: Predictor,
    known: KnownFiles | None,
    on_decided: DecidedListener | None,
) -> PredictedBatch:
    """Predict a batch; the columns include warnings about unlike and already seen images."""
    if not batch.image_ids:
        return {}, batch.unreadable
    answers, slugs = model.look_at(batch.pixels), model.card.slugs
    probabilities, decided = answers.probabilities, answers.decided
    if on_decided is not None:
        on_decided(batch, decided)
    columns: dict[str, Any] = {
        "image_id": batch.image_ids,
        "predicted": [slugs[k] for k in decided],
        "probability": probabilities[np.arange(len(decided)), decided],
        **{f"{PROBABILITY_PREFIX}{slug}": probabilities[:, k] for k, slug in enumerate(slugs)},
    }
    if answers.calibrated is not None:
        columns |= {
            f"{CALIBRATED_PREFIX}{slug}": answers.calibrated[:, k] for k, slug in enumerate(slugs)
        }
    if answers.reached is not None and model.source.advice is not None:
        slug = model.source.advice.slug
        columns["operating_point"] = [slug if each else "" for each in answers.reached]
    if answers.unlike is not None:
        columns["unlike_training"] = answers.unlike
        columns["warning"] = [UNLIKE if distance > 1 else "" for distance in answers.unlike]
    if known is None:
        columns["seen"] = [prediction_messages.NOT_KNOWN] * len(decided)
    else:
        files = zip(batch.image_ids, batch.digests, strict=True)
        roles = [known.role_of(image_id, digest) for image_id, digest in files]
        columns["seen"] = [prediction_messages.UNSEEN if r == NEW else r for r in roles]
    return columns, batch.unreadable
