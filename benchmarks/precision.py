"""What lower precision gains: images a second of float32 and of another precision, side by side.

    python benchmarks/precision.py
    python benchmarks/precision.py --precision mixed_float16 --size 96

In one process, short fits in turn: the course project's network by the lab's fit on random pixels.
The first epoch of a fit, which traces the graph, does not count. Prints images per wall second and
per processor second in the median, and of the ratios of neighbouring fits the median, smallest and
largest. On a busy machine trust the processor seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import numpy as np

from melanoma_lab.config.schema.architecture import Vgg5
from melanoma_lab.config.schema.regularisation import NoRegularisation
from melanoma_lab.config.schema.training import Precision, Training
from melanoma_lab.input_pipeline.balanced_set import BalancedSet
from melanoma_lab.input_pipeline.batches import make_evaluation_batches, make_training_batches
from melanoma_lab.training.hardware import (
    count_available_threads,
    detect_hardware,
    resolve_hardware_options,
    start_backend,
)

N_CLASSES, STEPS, EPOCHS = 9, 5, 3

#: Images per wall second and per processor second.
Rates = tuple[float, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="auto", choices=[str(p) for p in Precision])
    parser.add_argument("--size", type=int, default=180)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    wanted = Training(precision=Precision(options.precision))
    other = resolve_hardware_options(wanted, threads=count_available_threads()).precision
    print(f"{other} against float32 on {detect_hardware().describe(1)}")
    measured: dict[Precision, list[Rates]] = defaultdict(list)
    for _ in range(options.rounds):
        for precision in (Precision.float32, other):
            measured[precision].append(rates(precision, options.size, options.batch_size))
    for which, unit in enumerate(("wall", "processor")):
        plain, faster = ([r[which] for r in measured[p]] for p in (Precision.float32, other))
        ratios = [b / a for a, b in zip(plain, faster, strict=True)]
        print(
            f"images per {unit} second: {statistics.median(plain):.1f} and "
            f"{statistics.median(faster):.1f}, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def rates(precision: Precision, size: int, batch_size: int) -> Rates:
    """Images a second of one fit, its first epoch left out."""
    start_backend(threads=count_available_threads(), seed=0, precision=precision)
    import keras

    from melanoma_lab.models.architectures import build_network
    from melanoma_lab.models.regularisation import Regulariser
    from melanoma_lab.training.fit import fit_network
    from melanoma_lab.training.train_steps import AugmentedNetwork, Stage

    n = batch_size * STEPS
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = random.integers(0, N_CLASSES, n)
    moments: list[tuple[float, float]] = []
    network = build_network(
        Vgg5("vgg5"),
        image_size=size,
        n_classes=N_CLASSES,
        regulariser=Regulariser(NoRegularisation("none"), seed=0),
    )
    stage = Stage(
        range(EPOCHS),
        lambda: AugmentedNetwork(network, []),
        lambda _first: make_training_batches(
            BalancedSet((pixels,), np.arange(n), labels, N_CLASSES),
            batch_size=batch_size,
            seed=0,
            first_step=0,
            last_step=EPOCHS * STEPS,
        ),
        make_evaluation_batches(
            pixels, np.arange(1), labels[:1], n_classes=N_CLASSES, batch_size=1
        ),
        keras.optimizers.Adam(),
    )
    fit_network(
        network,
        [stage],
        options=Training(epochs=EPOCHS, batch_size=batch_size),
        steps_per_epoch=STEPS,
        loss=keras.losses.CategoricalCrossentropy(),
        on_step=lambda _step, _figures: None,
        on_epoch=lambda *_: moments.append((time.perf_counter(), time.process_time())),
    )
    images = (EPOCHS - 1) * n
    first, last = moments[0], moments[-1]
    return images / (last[0] - first[0]), images / (last[1] - first[1])


if __name__ == "__main__":
    main()
