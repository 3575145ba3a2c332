"""What the lab's input pipeline costs a training, per image, on real images.

    python benchmarks/input_pipeline.py --root ../shared/data/isic9

In one process, short fits in turn: the course project's network by a bare ``model.fit`` on arrays
in memory, and by the lab's fit on the memory-mapped decode cache, without and with augmentation.
The first epoch of a fit, which traces the graph, does not count. Prints medians of images per wall
second and per processor second, and their ratios to bare. On a busy machine trust the latter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import keras
from bare_fit import vgg5
from hydra import compose, initialize_config_dir

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.schema.training import Precision, Training
from melanoma_lab.config.schema.training_images import Augmentation, FlipRotateZoom, NoAugmentation
from melanoma_lab.config.validation import validate_config
from melanoma_lab.input_pipeline.balancing import balance
from melanoma_lab.input_pipeline.batches import make_evaluation_batches, make_training_batches
from melanoma_lab.input_pipeline.prepare import prepare_data
from melanoma_lab.models.augmentation import build_augmentation_layers
from melanoma_lab.training.fit import fit_network
from melanoma_lab.training.hardware import count_available_threads, start_backend
from melanoma_lab.training.train_steps import AugmentedNetwork, Stage

BATCH, STEPS, EPOCHS = 32, 10, 4

#: Wall and processor seconds of one epoch.
Seconds = tuple[float, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the nine-class ISIC folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    start_backend(threads=count_available_threads(), seed=0, precision=Precision(options.precision))
    measured: dict[str, list[Seconds]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as cache:
        fits = arms(options.root, Path(cache))
        for _ in range(options.rounds):
            for name, fit in fits.items():
                measured[name] += fit()
    bare = measured["bare"]
    for name, epochs in measured.items():
        line = f"{name:22}"
        for which, unit in enumerate(("wall", "processor")):
            seconds = statistics.median(epoch[which] for epoch in epochs)
            ratio = statistics.median(
                b[which] / e[which] for b, e in zip(bare, epochs, strict=True)
            )
            line += f"  {BATCH * STEPS / seconds:7.1f} images/{unit} s, ratio {ratio:.3f}"
        print(line)


class Clock:
    """Seconds between the ends of epochs."""

    def __init__(self) -> None:
        self.moments: list[Seconds] = []

    def tick(self, *_: object) -> None:
        """Note the end of an epoch."""
        self.moments.append((time.perf_counter(), time.process_time()))

    def epochs(self) -> list[Seconds]:
        """Seconds of every epoch but the first."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [(b[0] - a[0], b[1] - a[1]) for a, b in pairs]


def arms(root: str, cache: Path) -> dict[str, Callable[[], list[Seconds]]]:
    """Return functions that fit EPOCHS epochs of STEPS steps, one for each input pipeline."""
    overrides = ["dataset=isic9", "dataset.conflicts=keep", f"dataset.root={root}"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = validate_config(compose("config", overrides))
    data = prepare_data(config, cache=cache, threads=count_available_threads())
    split = data.training_split()
    images = balance(config.balancing, split, seed=0, cache_dir=cache)
    x, y = split.pixels[split.rows[: BATCH * STEPS]], split.labels[: BATCH * STEPS]
    size, n_classes = config.dataset.image_size, len(data.classes)

    def bare() -> list[Seconds]:
        clock = Clock()
        network = vgg5(size, n_classes)
        network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        network.fit(
            x,
            y,
            validation_data=(x[:1], y[:1]),
            batch_size=BATCH,
            epochs=EPOCHS,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=clock.tick)],
            verbose=0,
        )
        return clock.epochs()

    def lab(augmentation: Augmentation) -> list[Seconds]:
        clock = Clock()
        network = vgg5(size, n_classes)
        stage = Stage(
            range(EPOCHS),
            lambda: AugmentedNetwork(network, build_augmentation_layers(augmentation, seed=0)),
            lambda _first: make_training_batches(
                images, batch_size=BATCH, seed=0, first_step=0, last_step=EPOCHS * STEPS
            ),
            make_evaluation_batches(
                data.pixels, data.rows[:1], data.labels[:1], n_classes=n_classes, batch_size=1
            ),
            keras.optimizers.Adam(),
        )
        fit_network(
            network,
            [stage],
            options=Training(epochs=EPOCHS),
            steps_per_epoch=STEPS,
            loss=keras.losses.CategoricalCrossentropy(),
            on_step=lambda _step, _figures: None,
            on_epoch=clock.tick,
        )
        return clock.epochs()

    return {
        "bare": bare,
        "lab": lambda: lab(NoAugmentation("none")),
        "lab, flip_rotate_zoom": lambda: lab(FlipRotateZoom("flip_rotate_zoom")),
    }


if __name__ == "__main__":
    main()
