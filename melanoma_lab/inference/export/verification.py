"""Does a written file answer what the network answers? Asked on images, of its own runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.core.errors import RunError
from melanoma_lab.data.patient_metadata import AGE_COLUMN
from melanoma_lab.data.untrusted_tables import read_manifest
from melanoma_lab.inference.export.formats import Inputs, RuntimePredict
from melanoma_lab.inference.image_batches import decode_batches
from melanoma_lab.inference.image_files import find_image_files
from melanoma_lab.tracking.logged_model import PIXELS
from melanoma_lab.tracking.run_reader import TrackedRun

#: The greatest difference of a probability that a good file may show.
LIMIT: Final = 1e-3
#: Images that are compared, at most, evenly spaced among those that there are.
N_IMAGES: Final = 200
#: Odd, so that the last batch is of another size than the others.
BATCH: Final = 27


@dataclass(frozen=True)
class VerificationSample:
    """Images to compare answers on.

    Attributes:
        told: which they are.
        pixels: uint8, shape (n, s, s, 3).
    """

    told: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class OutputDifference:
    """How a file's answers differ from the network's.

    Attributes:
        greatest: difference of a probability.
        other_class: images for which another class is the likeliest.
    """

    greatest: float
    other_class: int


def choose_sample(
    images: str | None, run: TrackedRun | None, *, size: int, resize: Resize, threads: int
) -> VerificationSample:
    """The images that answers are compared on.

    Args:
        images: as typed; None: those that the run was tested on, where they are still there, else
            some that are drawn.
        run: that trained the network, where it is known.
        size: side in pixels.
        resize: what becomes of an image's proportions.
        threads: decoding threads.

    Raises:
        UserError: ``images`` names none.
        RunError: none of them can be read.
    """
    if images is not None:
        found = find_image_files(images)
        places = _spaced(found.count)
        chosen = [item for i, item in enumerate(found.walk()) if i in places]
        sample = _decoded(chosen, size=size, resize=resize, threads=threads)
        if sample is None:
            raise RunError(f"images={images}: none can be read; nothing was exported.")
        return VerificationSample(
            f"{len(sample)} of {found.count:,} images that were given", sample
        )
    tested = [] if run is None else _tested(run)
    spaced = [tested[i] for i in sorted(_spaced(len(tested)))]
    sample = _decoded(spaced, size=size, resize=resize, threads=threads)
    if sample is not None:
        return VerificationSample(
            f"{len(sample)} of {len(tested):,} images of its own test split", sample
        )
    return VerificationSample(
        "32 drawn images (its own are not here; images=DIR names others)", _drawn(size)
    )


def build_verification_inputs(
    pixels: NDArray[np.uint8], encoding: dict[str, Any] | None, network: Any
) -> dict[str, NDArray[Any]]:
    """What a network takes beside the images: every value in turn, missing ones too.

    Args:
        pixels: uint8, shape (n, s, s, 3).
        encoding: of the columns beside pixels, as the card has it; None where there are none.
        network: which takes them.

    Returns:
        By name; columns have shape (n, 1) and the network's own types.
    """
    inputs: dict[str, NDArray[Any]] = {PIXELS: pixels}
    from melanoma_lab.models.inputs import get_named_inputs

    taken = get_named_inputs(network) or {}
    draw = np.random.default_rng(0)
    for name, tensor in taken.items():
        if name == PIXELS:
            continue
        if name == AGE_COLUMN:
            # Not NaN, of which tf2onnx makes NaN: it has where(missing, 0, x) as a sum of products.
            values = [*range(0, 100, 5), -1]
        else:
            known = (encoding or {}).get(name, {}).get("values", range(2))
            values = [*range(len(known)), -1]
        inputs[name] = draw.choice(values, size=(len(pixels), 1)).astype(tensor.dtype)
    return inputs


def compare_outputs(
    answer: RuntimePredict, inputs: Inputs, expected: NDArray[np.float32]
) -> OutputDifference:
    """Hold a file's answers against the network's.

    Args:
        answer: what the file answers.
        inputs: by name.
        expected: float32, shape (n, n_classes); the network's answers.

    Raises:
        RunError: what it answers has another shape, or is not finite.
    """
    found = np.concatenate([answer(part) for part in split_batches(inputs)])
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise RunError(
            f"expected finite answers of shape {expected.shape}. Received shape {found.shape}."
        )
    return OutputDifference(
        greatest=float(np.abs(found - expected).max()),
        other_class=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    )


def split_batches(inputs: Inputs) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs in parts, of which the last is smaller."""
    n = len(inputs[PIXELS])
    for start in range(0, n, BATCH):
        yield {name: values[start : start + BATCH] for name, values in inputs.items()}


def _spaced(n: int) -> set[int]:
    """Places of images, evenly spaced among n."""
    return {int(i) for i in np.linspace(0, n - 1, min(n, N_IMAGES))}


def _tested(run: TrackedRun) -> list[tuple[str, str]]:
    """(image_id, path) of what a run was tested on, or else validated on, that is still there."""
    path = run.artifact("manifest.csv")
    if path is None:
        return []
    manifest = read_manifest(path)
    if not {"image_id", "path", "split"} <= set(manifest):
        return []
    for split in ("test", "val"):
        rows = manifest[manifest["split"] == split]
        pairs = zip(rows["image_id"], rows["path"], strict=True)
        there = [(name, where) for name, where in pairs if Path(where).is_file()]
        if there:
            return there
    return []


def _decoded(
    images: Sequence[tuple[str, str]], *, size: int, resize: Resize, threads: int
) -> NDArray[np.uint8] | None:
    """The pixels of those that can be read; None where none can."""
    parts = decode_batches(images, size=size, resize=resize, batch_size=N_IMAGES, threads=threads)
    pixels = [part.pixels for part in parts if part.image_ids]
    return np.concatenate(pixels) if pixels else None


def _drawn(size: int) -> NDArray[np.uint8]:
    """Images of every brightness and contrast, some grey as the model's input example is."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 1, (32, size, size, 3)) * np.linspace(0, 80, 32)[:, None, None, None]
    level = draw.uniform(0, 255, (32, 1, 1, 3))
    level[0] = 127
    return np.clip(level + noise, 0, 255).astype(np.uint8)
