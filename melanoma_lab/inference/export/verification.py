"""Compare an exported file's outputs, from its own runtime, with the network's on a few images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.patient_metadata import AGE_COLUMN
from melanoma_lab.data.tables import read_manifest
from melanoma_lab.inference.export.formats import Inputs, RuntimePredict
from melanoma_lab.inference.image_files import decode_batches, find_image_files
from melanoma_lab.input_pipeline.batches import PIXELS, get_named_inputs
from melanoma_lab.tracking.run_reader import TrackedRun

#: The greatest difference of a probability that is accepted.
LIMIT: Final = 1e-3
#: The maximum number of images to compare, evenly spaced among those available.
N_IMAGES: Final = 200
#: The batch size; odd, so that the last batch usually has another size than the others.
BATCH: Final = 27


@dataclass(frozen=True)
class VerificationSample:
    """The images with which a network and its exported files are compared.

    Attributes:
        told: a description of the images for the user.
        pixels: their pixels; uint8, shape (n, s, s, 3).
    """

    told: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class OutputDifference:
    """The difference between an exported file's outputs and the network's.

    Attributes:
        greatest: the greatest absolute difference of a probability.
        other_class: the number of images whose most probable class differs.
    """

    greatest: float
    other_class: int


def choose_sample(
    images: str | None, run: TrackedRun | None, *, size: int, resize: Resize, threads: int
) -> VerificationSample:
    """Choose the images with which the network and its exported files are compared.

    They are those that ``images`` names; if it is None, the run's test images if their files still
    exist, else random images.

    Raises:
        UserError: ``images`` names no image.
        RunError: none of the images can be read.
    """
    if images is not None:
        found = find_image_files(images)
        places = _space_evenly(found.count)
        chosen = [item for i, item in enumerate(found.walk()) if i in places]
        sample = _decode(chosen, size=size, resize=resize, threads=threads)
        if sample is None:
            raise RunError(f"images={images}: none can be read; nothing was exported.")
        return VerificationSample(
            f"{len(sample)} of {found.count:,} images that were given", sample
        )
    tested = [] if run is None else _list_test_images(run)
    spaced = [tested[i] for i in sorted(_space_evenly(len(tested)))]
    sample = _decode(spaced, size=size, resize=resize, threads=threads)
    if sample is not None:
        return VerificationSample(
            f"{len(sample)} of {len(tested):,} images of its own test split", sample
        )
    return VerificationSample(
        "32 drawn images (its own are not here; images=DIR names others)", _draw_images(size)
    )


def build_verification_inputs(
    pixels: NDArray[np.uint8], encoding: dict[str, Any] | None, network: Any
) -> dict[str, NDArray[Any]]:
    """Build a network's inputs: the pixels, and random metadata that includes missing values.

    ``encoding`` is that of the metadata columns in the model's description; None if there are none.

    Returns:
        Arrays by name of input; columns have shape (n, 1) and the network's own types.
    """
    inputs: dict[str, NDArray[Any]] = {PIXELS: pixels}
    named = get_named_inputs(network) or {}
    draw = np.random.default_rng(0)
    for name, tensor in named.items():
        if name == PIXELS:
            continue
        if name == AGE_COLUMN:
            # A missing age is -1, not NaN: tf2onnx converts where(missing, 0, x) to a sum of
            # products, in which NaN stays NaN.
            values = [*range(0, 100, 5), -1]
        else:
            known = (encoding or {}).get(name, {}).get("values", range(2))
            values = [*range(len(known)), -1]
        inputs[name] = draw.choice(values, size=(len(pixels), 1)).astype(tensor.dtype)
    return inputs


def compare_outputs(
    predict: RuntimePredict, inputs: Inputs, expected: NDArray[np.float32]
) -> OutputDifference:
    """Compare an exported file's outputs with the network's, float32 (n, n_classes).

    Raises:
        RunError: the outputs have another shape, or are not finite.
    """
    found = np.concatenate([predict(part) for part in split_batches(inputs)])
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise RunError(
            f"expected finite outputs of shape {expected.shape}. Received shape {found.shape}."
        )
    return OutputDifference(
        greatest=float(np.abs(found - expected).max()),
        other_class=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    )


def split_batches(inputs: Inputs) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the inputs in batches of ``BATCH``; the last may be smaller."""
    n = len(inputs[PIXELS])
    for start in range(0, n, BATCH):
        yield {name: values[start : start + BATCH] for name, values in inputs.items()}


def _space_evenly(n: int) -> set[int]:
    """Choose at most ``N_IMAGES`` indices, evenly spaced from 0 to n - 1."""
    return {int(i) for i in np.linspace(0, n - 1, min(n, N_IMAGES))}


def _list_test_images(run: TrackedRun) -> list[tuple[str, str]]:
    """List a run's test images, else its val images, whose files exist, as (image_id, path)."""
    path = run.artifact("manifest.csv")
    if path is None:
        return []
    manifest = read_manifest(path)
    if not {"image_id", "path", "split"} <= set(manifest):
        return []
    for split in ("test", "val"):
        rows = manifest[manifest["split"] == split]
        pairs = zip(rows["image_id"], rows["path"], strict=True)
        existing = [(image_id, file) for image_id, file in pairs if Path(file).is_file()]
        if existing:
            return existing
    return []


def _decode(
    images: Sequence[tuple[str, str]], *, size: int, resize: Resize, threads: int
) -> NDArray[np.uint8] | None:
    """Decode the images that can be read; None if there is none."""
    parts = decode_batches(images, size=size, resize=resize, batch_size=N_IMAGES, threads=threads)
    pixels = [part.pixels for part in parts if part.image_ids]
    return np.concatenate(pixels) if pixels else None


def _draw_images(size: int) -> NDArray[np.uint8]:
    """Draw 32 noise images of various brightness and contrast; the first is uniformly grey."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 1, (32, size, size, 3)) * np.linspace(0, 80, 32)[:, None, None, None]
    level = draw.uniform(0, 255, (32, 1, 1, 3))
    level[0] = 127
    return np.clip(level + noise, 0, 255).astype(np.uint8)
