"""What each augmentation costs a training step, beside a large and a small network.

    python benchmarks/augmentation.py

In one process, step after step in turn: the network alone, then with each augmentation; batches
of 32 random images of 180x180, which take as long as real ones. ``keras, ...`` does the same by
Keras's own layers, one after the other. Prints medians of processor milliseconds: of a step, and
what the augmentation added to it, alone and as a share. Processor time, because a busy machine's
wall clock says little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from melanoma_lab.config.schema import training_images as schema
from melanoma_lab.config.schema.architecture import Vgg5
from melanoma_lab.config.schema.regularisation import NoRegularisation
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.models.architectures import build_network
from melanoma_lab.models.augmentation import build_augmentation_layers
from melanoma_lab.models.regularisation import Regulariser
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.train_steps import AugmentedNetwork

BATCH, SIZE, CLASSES = 32, 180, 9

NETWORKS = {
    "vgg5": Vgg5("vgg5"),
    "a quarter of its width": Vgg5("vgg5", filters=[8, 16, 32, 64, 128], dense_units=256),
}
AUGMENTATIONS = {
    "none": schema.NoAugmentation("none"),
    "flip_rotate_zoom": schema.FlipRotateZoom("flip_rotate_zoom"),
    "dermoscopy": schema.Dermoscopy("dermoscopy"),
    "randaugment": schema.RandAugment("randaugment"),
    "mixup": schema.MixUp("mixup", before=schema.NoAugmentation("none")),
    "cutmix": schema.CutMix("cutmix", before=schema.NoAugmentation("none")),
}


def keras_layers() -> dict[str, list[keras.Layer]]:
    """Build the same augmentations with Keras's own layers."""
    exact = {"seed": 0, "dtype": "float32"}
    return {
        "keras, as dermoscopy": [
            layers.RandomFlip(**exact),
            layers.RandomRotation(0.5, **exact),
            layers.RandomZoom((-0.37, 0), **exact),
            layers.RandomColorJitter((0, 255), 0.2, 0.2, (0.4, 0.6), 0.04, **exact),
            layers.RandomErasing(0.5, (0.02, 0.15), **exact),
        ],
        "keras, RandAugment": [layers.RandAugment(factor=0.3, **exact)],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    start_backend(threads=count_available_threads(), seed=0, precision=Precision(options.precision))
    for name, architecture in NETWORKS.items():
        steps = {arm: step(architecture, change) for arm, change in arms().items()}
        measured: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            for arm, take in steps.items():
                started = time.process_time()
                take()
                measured[arm].append(1000 * (time.process_time() - started))
        alone = statistics.median(measured["none"])
        print(f"{name}: {alone:.0f} ms a step of {BATCH} images")
        for arm, times in measured.items():
            added = statistics.median(
                whole - none for whole, none in zip(times, measured["none"], strict=True)
            )
            print(f"  {arm:22} {added:+8.1f} ms  {100 * added / alone:+6.1f} %")


def arms() -> dict[str, list[keras.Layer]]:
    """Layers by name."""
    ours = {arm: build_augmentation_layers(option, seed=0) for arm, option in AUGMENTATIONS.items()}
    return ours | keras_layers()


def step(architecture: Vgg5, augmentation: list[keras.Layer]) -> Callable[[], object]:
    """One optimizer step; the first two, which trace the graph, are taken."""
    network = build_network(
        architecture,
        image_size=SIZE,
        n_classes=CLASSES,
        regulariser=Regulariser(NoRegularisation("none"), seed=0),
    )
    trained = AugmentedNetwork(network, augmentation)
    trained.compile("adam", "categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]
    weights = np.ones(BATCH, np.float32)

    def take() -> object:
        return trained.train_on_batch(pixels, labels, weights)

    take()
    take()
    return take


if __name__ == "__main__":
    main()
