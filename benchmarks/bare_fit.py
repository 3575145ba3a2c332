"""What a user would do without the lab: arrays in memory, ``model.fit``, ``model.predict``.

The same network, optimizer, data, batch size, epochs and threads as the lab's ``baseline``. Prints
one line of JSON with the moments that ``overhead.py`` compares. Not meant to be run by hand.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

STARTED = time.time()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402


def vgg5(size: int, n_classes: int) -> keras.Model:
    """Build the course project's network, written as in a notebook."""
    model = keras.Sequential([keras.Input((size, size, 3)), layers.Rescaling(1 / 255)])
    for filters in (32, 64, 128, 256, 512):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(1024, activation="relu"))
    model.add(layers.Dense(n_classes, activation="softmax", dtype="float32"))
    return model


class FirstStep(keras.callbacks.Callback):
    """When the first epoch begins."""

    at = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Note the time of the first one."""
        self.at = self.at or time.time()


def main() -> None:
    """Fit and predict the arrays in the folder that the first argument names."""
    folder, epochs, batch_size, threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    precision = sys.argv[5]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    train, train_y, val, val_y, everything = (
        np.load(folder / f"{name}.npy")
        for name in ("train", "train_y", "val", "val_y", "everything")
    )
    model = vgg5(train.shape[1], int(train_y.max()) + 1)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    first = FirstStep()
    fit_started = time.time()
    model.fit(
        train,
        train_y,
        validation_data=(val, val_y),
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[first],
        verbose=2,
    )
    fit_seconds = time.time() - fit_started
    predict_started = time.time()
    model.predict(everything, batch_size=batch_size, verbose=0)
    print(
        json.dumps(
            {
                "started": STARTED,
                "first_step": first.at,
                "fit_seconds": fit_seconds,
                "predict_seconds": time.time() - predict_started,
                "images": epochs * len(train),
            }
        )
    )


if __name__ == "__main__":
    main()
