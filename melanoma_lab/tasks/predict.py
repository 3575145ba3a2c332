"""Apply a kept network to images: find both, decode, answer, write, tell."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.console import console, progress_of
from melanoma_lab.errors import RunError
from melanoma_lab.evaluation.predictions import PROBABILITY_PREFIX
from melanoma_lab.prediction import telling
from melanoma_lab.prediction.decoded import Batch, decoded_batches
from melanoma_lab.prediction.images import Images, find_images_of
from melanoma_lab.prediction.output import Columns, checked_output, writing
from melanoma_lab.prediction.source import Source, find_model, meaning
from melanoma_lab.tracking.card import ModelCard
from melanoma_lab.training.backend import available_threads, start_backend

if TYPE_CHECKING:  # as slow to load as it is seldom needed
    import pandas as pd

#: What a calibrated probability's column begins with; the class's slug follows.
CALIBRATED = "calibrated/"
#: What the column ``warning`` says of a picture of another kind, such as of no skin at all.
UNLIKE = "unlike the training images"


@dataclass(frozen=True)
class Predicted:
    """What comes of some images that were looked at together.

    Attributes:
        columns: of the images that could be read, a value for each; empty where none could.
        unreadable: (image_id, reason) of those that could not.
    """

    columns: Columns
    unreadable: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Prediction:
    """A prediction that is about to be made.

    Attributes:
        source: the network's.
        images: that are asked for.
        card: what the network's outputs mean.
        batches: what comes out, as it comes.
    """

    source: Source
    images: Images
    card: ModelCard
    batches: Iterator[Predicted]


def predict_to_file(config: Config) -> Path:
    """Write what a network says of images into a file.

    Args:
        config: the checked configuration; ``model``, ``images``, ``output`` and
            ``training.batch_size`` count.

    Returns:
        The file.

    Raises:
        UserError: the model, the images or the output cannot be used.
        RunError: none of the images can be read.
    """
    output = checked_output(config.output)
    counts: Counter[str] = Counter()
    unlike = 0
    shown: list[tuple[str, str]] = []
    with _predicting(config) as work, progress_of("predicting") as tell:
        facts = {
            "model": work.source.typed,
            "run_id": work.source.run,
            "dataset": work.card.dataset,
            "classes": dict(
                zip(work.card.slugs, work.card.classes or work.card.slugs, strict=True)
            ),
            "melanoma": work.card.melanoma,
            "advice": None if work.source.advice is None else work.source.advice.plain(),
        }
        with writing(output, facts) as writer:
            for part in work.batches:
                if part.columns:
                    writer.write(part.columns)
                    counts.update(part.columns["predicted"])
                    unlike += sum(map(bool, part.columns.get("warning", ())))
                writer.list_unreadable(part.unreadable)
                shown += part.unreadable[: telling.N_SHOWN - len(shown)]
                done = writer.n_rows + writer.n_unreadable
                tell(done, max(done, work.images.count))  # files may come while we look
    telling.show_unreadable(shown, writer.n_unreadable, done, output)
    if writer.n_rows == 0:
        raise RunError(f"none of {done} images can be read; nothing was predicted.")
    told = ", ".join(f"{n:,} {slug}" for slug, n in counts.most_common())
    console.print(f"{writer.n_rows:,} images: {told}", markup=False)
    telling.show_unlike(unlike, writer.n_rows)
    console.print(f"written to {output}", markup=False)
    telling.show_notice()
    return output


def predict_table(config: Config) -> pd.DataFrame:
    """What a network says of images, as a table in memory.

    Args:
        config: as for ``predict_to_file``; nothing is written.

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
    with _predicting(config) as work, progress_of("predicting") as tell:
        for part in work.batches:
            if part.columns:
                parts.append(pd.DataFrame(dict(part.columns)))
            unreadable |= dict(part.unreadable)
            done += (len(parts[-1]) if part.columns else 0) + len(part.unreadable)
            tell(done, max(done, work.images.count))
    telling.show_unreadable(
        list(islice(unreadable.items(), telling.N_SHOWN)), len(unreadable), done, None
    )
    if not parts:
        raise RunError(f"none of {done} images can be read; nothing was predicted.")
    table = pd.concat(parts, ignore_index=True)
    table.attrs["unreadable"] = unreadable
    if "warning" in table:
        telling.show_unlike(int((table["warning"] != "").sum()), len(table))
    telling.show_notice()
    return table


@contextmanager
def _predicting(config: Config) -> Iterator[Prediction]:
    """Everything found and loaded; a mistake shows before TensorFlow is."""
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        images = find_images_of(config.images)
        source = find_model(config.model, config.tracking, Path(scratch))
        threads = config.training.threads or available_threads()
        start_backend(threads=threads, seed=config.seed, precision=Precision.float32)
        from melanoma_lab.prediction.network import answering, image_size, load_network, n_classes

        network = load_network(source.network)
        card = meaning(source, n_classes(network))
        telling.show_source(source, card)
        answer = answering(network)
        batches = decoded_batches(
            images.walk(),
            size=image_size(network),
            batch_size=config.training.batch_size,
            threads=threads,
        )
        predicted = (_predicted(batch, answer, card, source) for batch in batches)
        yield Prediction(source, images, card, predicted)


def _predicted(batch: Batch, answer: Any, card: ModelCard, source: Source) -> Predicted:
    """What a network says of a batch, as columns, and whether it should be believed."""
    if not batch.image_ids:
        return Predicted({}, batch.unreadable)
    probabilities: NDArray[np.float32] = answer(batch.pixels)
    decided = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "image_id": batch.image_ids,
        "predicted": [card.slugs[k] for k in decided],
        "probability": probabilities[np.arange(len(decided)), decided],
        **{f"{PROBABILITY_PREFIX}{slug}": probabilities[:, k] for k, slug in enumerate(card.slugs)},
    }
    looks, advice = source.appearance, source.advice
    if advice is not None:
        calibrated = advice.temperature.apply(probabilities.astype(np.float64))
        columns |= {
            f"{CALIBRATED}{slug}": calibrated[:, k].astype(np.float32)
            for k, slug in enumerate(card.slugs)
        }
        if advice.slug in card.slugs and not math.isnan(advice.threshold):
            reached = calibrated[:, card.slugs.index(advice.slug)] >= advice.threshold
            columns["operating_point"] = [advice.slug if each else "" for each in reached]
    if looks is not None:
        columns["unlike_training"] = unlike = looks.unlikeness(batch.pixels)
        columns["warning"] = [UNLIKE if distance > 1 else "" for distance in unlike]
    return Predicted(columns, batch.unreadable)
