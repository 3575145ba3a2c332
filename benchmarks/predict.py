"""``predict`` side by side with a plain loop over the same files, and its memory.

    python benchmarks/predict.py speed --images ../shared/data/ham10000/images
    python benchmarks/predict.py memory --images ../shared/data/ham10000/images

``speed``, in one process and in turn: the course project's network applied to some files, decoded
one after the other and answered in batches, and what ``predict`` does from files to the written
table. Prints images a second and their ratio. ``memory``: the most that a process of ``predict``
has in memory for few files and for many, which are links.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_lab.config.compose import compose_config
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.evaluation.out_of_distribution import (
    FILE,
    extract_colour_and_texture,
    fit_detector,
)
from melanoma_lab.inference.predict import predict_to_file
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.training.hardware import count_available_threads, start_backend

SIZE, BATCH = 180, 32


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory", "one"])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--counts", type=int, nargs=2, default=(1000, 20000))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "one":
        predict_to_file(config_of(options.model, options.images))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{peak:.0f} MB at most", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if options.what == "speed":
            speed(links(options.images, Path("images"), options.count), options.rounds)
            return
        model = save(Path("model"), size=32)
        for count in options.counts:
            images = links(options.images, Path(f"{count}"), count)
            words = ["one", "--images", str(images), "--model", str(model)]
            done = subprocess.run(
                [sys.executable, __file__, *words], check=True, capture_output=True, text=True
            )
            print(f"{count} images: {done.stdout.splitlines()[-1]}", flush=True)


def links(source: Path, folder: Path, count: int) -> Path:
    """Make a folder of ``count`` links to images, which are repeated if there are fewer."""
    paths = sorted(source.resolve().glob("*.jpg"))
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:06}.jpg").symlink_to(paths[i % len(paths)])
    return folder.resolve()


def save(folder: Path, size: int) -> Path:
    """Save a network with random weights in the same way as a run's network."""
    start_backend(threads=count_available_threads(), seed=0, precision=Precision.float32)
    from bare_fit import vgg5

    from melanoma_lab.tracking.logged_model import save_network

    # With a reference, so that pictures are measured as after a training.
    noise = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), np.uint8)
    looks = fit_detector(
        extract_colour_and_texture(noise[:20]), extract_colour_and_texture(noise[20:])
    )
    save_network(vgg5(size, 7), ModelInfo(tuple("abcdefg")), folder, {FILE: looks.text()})
    return folder.resolve()


def config_of(model: Path, images: Path) -> Config:
    """Return the configuration that the command line would compose."""
    config, _ = compose_config(["task=predict", f"training.batch_size={BATCH}"])
    return replace(config, model=str(model), images=str(images), output="out.csv")


def plain(model: Path, images: Path) -> None:
    """Predict as a user would without the lab, as a baseline."""
    import keras

    network = keras.saving.load_model(model / "data" / "model.keras", compile=False)
    paths = sorted(images.iterdir())
    answers = []
    for first in range(0, len(paths), BATCH):
        pixels = []
        for path in paths[first : first + BATCH]:
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                pixels.append(np.asarray(small))
        answers.append(network.predict_on_batch(np.stack(pixels)))
    np.savetxt("plain.csv", np.concatenate(answers), delimiter=",")


def speed(images: Path, rounds: int) -> None:
    """Time both, everything from the saved model to the written table included."""
    model = save(Path("model"), SIZE)
    n = len(list(images.iterdir()))
    config = config_of(model, images)
    predict_to_file(config)  # the first of all starts threads and fills the disk's cache
    ratios = []
    for _ in range(rounds):
        taken = []
        for way in (lambda: plain(model, images), lambda: predict_to_file(config)):
            start = time.perf_counter(), time.process_time()
            way()
            taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        ratios.append([a / b for a, b in zip(*taken, strict=True)])
        told = [
            f"{n / wall:.1f} images/s, {1e3 * cpu / n:.1f} ms of processor" for wall, cpu in taken
        ]
        print(f"plain {told[0]}; predict {told[1]} an image", flush=True)
    wall, cpu = (statistics.median(ratio[which] for ratio in ratios) for which in (0, 1))
    print(f"ratio {wall:.2f} by the clock, {cpu:.2f} by the processor")


if __name__ == "__main__":
    main()
