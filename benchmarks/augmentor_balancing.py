"""Augmentor balancing against ``Pipeline.sample``: the same files, operations and counts.

    python benchmarks/augmentor_balancing.py --root ../shared/data/isic9/Train

Both make the copies that bring every class folder of ROOT to ``--per-class`` images: Augmentor's
``Pipeline.sample`` with its threads (it reads and writes JPEG files; its output goes to a
temporary folder), and the lab's balancing from already decoded pixels, cold and from its cache.
Rounds alternate between the two, so that a busy machine slows both; the figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import Augmentor
import numpy as np
from PIL import Image

from melanoma_lab.config.schema.training_images import AugmentorBalancing
from melanoma_lab.input_pipeline.balanced_set import BalancedSet, TrainingSplit
from melanoma_lab.input_pipeline.balancing import balance

ROTATE = {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}


def class_files(root: Path) -> dict[str, list[Path]]:
    """List the image files of each class folder."""
    return {
        folder.name: sorted(folder.glob("*.jpg"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }


def decode(files: dict[str, list[Path]], path: Path) -> TrainingSplit:
    """Decode every file once into a ``.npy`` file, as the lab's decode cache does."""
    listed = [(file, label) for label, name in enumerate(files) for file in files[name]]
    with Image.open(listed[0][0]) as first:
        width, height = first.size
    pixels = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(listed), height, width, 3)
    )
    digests = []
    for row, (file, _) in enumerate(listed):
        content = file.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        with Image.open(io.BytesIO(content)) as image:
            pixels[row] = np.asarray(image.convert("RGB"))
    pixels.flush()
    return TrainingSplit(
        pixels=np.load(path, mmap_mode="r"),
        rows=np.arange(len(listed)),
        labels=np.array([label for _, label in listed]),
        image_ids=tuple(f"{file.parent.name}/{file.name}" for file, _ in listed),
        digests=tuple(digests),
        class_names=tuple(files),
    )


def pipeline_sample(root: Path, files: dict[str, list[Path]], per_class: int) -> float:
    """Seconds that Augmentor takes, as the course project calls it: one pipeline a class."""
    quiet = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as output,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        started = time.perf_counter()
        for name, originals in files.items():
            if len(originals) < per_class:
                pipeline = Augmentor.Pipeline(str(root / name), str(Path(output) / name))
                pipeline.rotate(**ROTATE)
                pipeline.sample(per_class - len(originals))
        return time.perf_counter() - started


def balanced(
    split: TrainingSplit, per_class: int, cache: Path, workers: int
) -> tuple[float, BalancedSet]:
    """Seconds that the lab takes, and what it made."""
    options = AugmentorBalancing(
        name="augmentor", per_class=per_class, operations=[{"rotate": ROTATE}]
    )
    started = time.perf_counter()
    result = balance(options, split, seed=0, cache_dir=cache, workers=workers)
    return time.perf_counter() - started, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    files = class_files(arguments.root)
    copies = sum(max(0, arguments.per_class - len(originals)) for originals in files.values())
    seconds: dict[str, list[float]] = {"sample": [], "cold": [], "cached": [], "decode": []}
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            split = decode(files, Path(folder) / "decoded.npy")
            seconds["decode"].append(time.perf_counter() - started)
            seconds["sample"].append(pipeline_sample(arguments.root, files, arguments.per_class))
            for kind in ("cold", "cached"):
                elapsed, result = balanced(
                    split, arguments.per_class, Path(folder), arguments.workers
                )
                seconds[kind].append(elapsed)
            if set(result.class_counts()) != {arguments.per_class}:
                raise SystemExit(f"Unbalanced: {result.class_counts()}")
        print(
            f"round {number + 1}:", {key: round(values[-1], 3) for key, values in seconds.items()}
        )
    seconds["cold and decoding"] = [
        cold + decoding for cold, decoding in zip(seconds["cold"], seconds["decode"], strict=True)
    ]
    print(f"\n{copies} copies, {arguments.workers} workers; what counts is `cold` and `cached`,")
    print("which start from pixels that are already decoded, as every run but the first does.")
    print(f"{'':<32}{'seconds':>9}{'images/s':>10}{'x sample':>10}")
    names = {
        "sample": "Pipeline.sample, its threads",
        "cold": "balancing, cold",
        "cached": "balancing, cached",
        "cold and decoding": "balancing, cold, and decoding",
    }
    for key, name in names.items():
        ratio = statistics.median(
            sample / own for sample, own in zip(seconds["sample"], seconds[key], strict=True)
        )
        median = statistics.median(seconds[key])
        print(f"{name:<32}{median:>9.3f}{copies / median:>10.0f}{ratio:>10.1f}")


if __name__ == "__main__":
    main()
