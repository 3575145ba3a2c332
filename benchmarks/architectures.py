"""How fast the architectures train, side by side.

    python benchmarks/architectures.py
    python benchmarks/architectures.py --precision mixed_bfloat16 --image-size 128

In one process, a few training steps of each network in turn, on random pixels; the first fit of
each, which traces the graph, does not count. Prints parameters, images per wall second and per
processor second (the best of the rounds), and their ratios to vgg5. On a busy machine trust the
latter.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np
from hydra import compose, initialize_config_dir

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.config.validation import validate_config
from melanoma_lab.training.hardware import count_available_threads, start_backend

BATCH, STEPS, CLASSES = 32, 8, 9
ARCHITECTURES = ("vgg5", "compact_cnn")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--image-size", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    start_backend(threads=count_available_threads(), seed=0, precision=Precision(options.precision))
    networks = {name: network(name, options.image_size) for name in ARCHITECTURES}
    shape = (BATCH * STEPS, options.image_size, options.image_size, 3)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, len(pixels))]
    best = dict.fromkeys(networks, (0.0, 0.0))
    for round_ in range(options.rounds + 1):
        for name, trained in networks.items():
            wall, processor = time.perf_counter(), time.process_time()
            trained.fit(pixels, labels, batch_size=BATCH, verbose=0)
            seconds = time.perf_counter() - wall, time.process_time() - processor
            if round_:
                rates = tuple(len(pixels) / s for s in seconds)
                best[name] = max(best[name][0], rates[0]), max(best[name][1], rates[1])
    for name, rates in best.items():
        wall_ratio, processor_ratio = (a / b for a, b in zip(rates, best["vgg5"], strict=True))
        print(
            f"{name:12} {networks[name].count_params():11,} parameters  "
            f"{rates[0]:6.1f} images/wall s, ratio {wall_ratio:.2f}  "
            f"{rates[1]:6.1f} images/processor s, ratio {processor_ratio:.2f}"
        )


def network(name: str, image_size: int) -> keras.Model:
    """One of the lab's networks, compiled as the lab trains it."""
    from melanoma_lab.models.architectures import build_network
    from melanoma_lab.models.regularisation import Regulariser

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = validate_config(compose("config", [f"architecture={name}"]))
    built = build_network(
        config.architecture,
        image_size=image_size,
        n_classes=CLASSES,
        regulariser=Regulariser(config.regularisation, seed=0),
    )
    built.compile("adam", "categorical_crossentropy", jit_compile=False)
    return built


if __name__ == "__main__":
    main()
